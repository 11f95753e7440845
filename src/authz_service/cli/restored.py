"""`restored`: after a backup was restored, or a failover lost its tail, and somebody has looked at it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from authz_service.cli.options import OutputKind
from authz_service.cli.printing import Output, UsageFault, print_json, print_note


def restored(
    audit: Annotated[
        Path | None,
        typer.Option(
            "--audit",
            metavar="FILE",
            help="audit entries exported before, JSON lines, `-` is stdin: what they revoked is revoked again",
        ),
    ] = None,
    without_audit: Annotated[
        bool,
        typer.Option("--without-audit", help="there is no export: tokens revoked since the backup work again"),
    ] = False,
    output: OutputKind = Output.TABLE,
) -> None:
    """Accept the database as it is now: replicas that answer `rewound` decide again. Run it before replicas start."""
    from authz_service.admin.restoration import accept_history, read_revoked
    from authz_service.config import load_settings
    from authz_service.store.changes import format_revision
    from authz_service.store.database import Database, check_schema

    if (audit is None) is not without_audit:
        raise UsageFault(
            "what was revoked since the backup would work again: give the exported audit, `--audit FILE`, or say"
            " `--without-audit`"
        )
    revoked = [] if audit is None else read_revoked(_lines(audit))
    settings = load_settings(without_peppers=True)

    async def work() -> dict[str, object]:
        database = Database(settings.dsn, direct_url=settings.direct_dsn, pool_size=1, bell=settings.bell)
        try:
            async with database.read() as conn:
                await check_schema(conn)
            done = await accept_history(database, revoked)
        finally:
            await database.close()
        return {
            "revision": format_revision(done.stamp),
            "revoked": len(done.revoked),
            "already_revoked": done.already,
            "unknown": done.unknown,
        }

    done = asyncio.run(work())
    if output is Output.JSON:
        print_json(done)
        return
    print_note(
        f"this history is accepted, at {done['revision']}: {done['revoked']} tokens were revoked again,"
        f" {done['already_revoked']} were so already, {done['unknown']} are not in this database"
    )


def _lines(file: Path) -> list[bytes]:
    try:
        return (sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()).splitlines()
    except OSError as error:
        raise UsageFault(f"`{file}` cannot be read: {(error.strerror or 'no reason given').lower()}") from error
