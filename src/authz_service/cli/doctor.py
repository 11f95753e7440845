"""`doctor`: the commonest mistakes of running the service, found before they are felt, each with its mend."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Annotated

import typer

from authz_service.cli import exits
from authz_service.cli.options import OutputKind
from authz_service.cli.printing import Output, print_json, print_note, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from authz_service.cli.findings import Finding


def doctor(
    strict: Annotated[bool, typer.Option("--strict", help="exit with 1 for advice too")] = False,
    everything: Annotated[bool, typer.Option("--all", help="show what is fine as well")] = False,
    output: OutputKind = Output.TABLE,
) -> None:
    """Look at settings, database and what the service left there; say what is wrong, and what to do. Reads only.

    Run it with the settings of a replica. Exit status: 0 nothing is wrong, 1 something is.
    """
    from authz_service.cli.examining import examine
    from authz_service.cli.findings import Level

    found = asyncio.run(examine(dict(os.environ)))
    bad = [one for one in found if one.level is Level.WRONG]
    if output is Output.JSON:
        print_json(_document(found, healthy=not bad))
    else:
        _print(found, everything=everything)
    if bad or (strict and any(one.level is Level.ADVICE for one in found)):
        raise typer.Exit(exits.DENIED)


def _document(found: Sequence[Finding], *, healthy: bool) -> dict[str, object]:
    fields = ("check", "level", "message", "mend")
    return {"healthy": healthy, "findings": [{name: getattr(one, name) for name in fields} for one in found]}


def _print(found: Sequence[Finding], *, everything: bool) -> None:
    shown = [one for one in found if everything or one.mend]
    if shown:
        print_table(("", "check", "what", "mend"), [(one.level, one.check, one.message, one.mend) for one in shown])
    counts = [f"{sum(one.level == level for one in found)} {level}" for level in ("wrong", "advice", "fine")]
    print_note(", ".join(counts))
