"""`restored`: after a backup was restored, or a failover lost its tail, and somebody has looked at it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from authz_service.cli.options import OutputKind
from authz_service.cli.printing import Output, UsageFault, print_json, print_note, print_table


def restored(
    audit: Annotated[
        list[Path] | None,
        typer.Option(
            "--audit",
            "--from-audit",
            metavar="FILE",
            help="audit entries exported before, JSON lines, `-` is stdin: what they revoked is revoked again; may come"
            " several times",
        ),
    ] = None,
    without_audit: Annotated[
        bool,
        typer.Option("--without-audit", help="there is no export: tokens revoked since the backup work again"),
    ] = False,
    output: OutputKind = Output.TABLE,
) -> None:
    """Accept the database as it is now: replicas that answer `rewound` decide again. Run it before replicas start."""
    from authz_service.admin.restoration import Export, accept_history, read_export
    from authz_service.config import load_settings
    from authz_service.store.changes import format_revision
    from authz_service.store.database import Database, check_schema

    if (not audit) is not without_audit:
        raise UsageFault(
            "what was revoked since the backup would work again: give the exported audit, `--audit FILE`, or say"
            " `--without-audit`"
        )
    export = read_export(line for file in audit for line in _lines(file)) if audit else Export()
    settings = load_settings(without_peppers=True)

    async def work() -> dict[str, Any]:
        database = Database(settings.dsn, direct_url=settings.direct_dsn, pool_size=1, bell=settings.bell)
        try:
            async with database.read() as conn:
                await check_schema(conn)
            done = await accept_history(database, export)
        finally:
            await database.close()
        return {
            "revision": format_revision(done.stamp),
            "revoked": len(done.revoked),
            "already_revoked": done.already,
            "unknown": done.unknown,
            "sessions": done.sessions,
            "review": [
                {"action": one.action, "subject": one.subject, "at": None if one.at is None else one.at.isoformat()}
                for one in done.review
            ],
        }

    done = asyncio.run(work())
    if output is Output.JSON:
        print_json(done)
        return
    print_note(
        f"this history is accepted, at {done['revision']}: {done['revoked']} tokens were revoked again,"
        f" {done['already_revoked']} were so already, {done['unknown']} are not in this database, and"
        f" {done['sessions']} sessions ended"
    )
    if done["review"]:
        print_note("these changes are lost too, and were not made again: see whether they took something from somebody")
        columns = ("at", "action", "subject")
        print_table(columns, [[one[name] or "" for name in columns] for one in done["review"]])


def _lines(file: Path) -> list[bytes]:
    try:
        return (sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()).splitlines()
    except OSError as error:
        raise UsageFault(f"`{file}` cannot be read: {(error.strerror or 'no reason given').lower()}") from error
