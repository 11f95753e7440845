"""What a command that looks at something says when it could not look: never what it says of what it looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from authz_service.cli import exits
from authz_service.cli.printing import complain_of
from authz_service.errors import AuthzError, DatabaseUnavailableError


@contextmanager
def looking() -> Iterator[None]:
    """Within it an error ends the command: 3 where the database gives no answer, 2 where something has to be mended."""
    try:
        yield
    except AuthzError as error:
        complain_of(error)
        absent = isinstance(error, DatabaseUnavailableError)
        raise typer.Exit(exits.UNREACHABLE if absent else exits.USAGE) from error
