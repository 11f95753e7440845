"""Options that several commands have, worded once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authz_service.cli.printing import Output

Url = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="where the service answers; AUTHZ_URL by default")
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="a file with your token, `-` is stdin; AUTHZ_TOKEN by default"),
]
OutputKind = Annotated[Output, typer.Option("--output", help="a table for people, or JSON for programs")]
CatalogName = Annotated[
    str | None, typer.Option("--catalog", metavar="NAME", help="the API's catalog, where there is a choice")
]
