"""`sweep` and `pepper status`: what time does to tokens, and which key holds how many; from the database's side."""

from __future__ import annotations

import asyncio
from datetime import UTC
from typing import Annotated, Any, Final

import typer

from authz_service.cli.looking import looking
from authz_service.cli.options import OutputKind
from authz_service.cli.printing import Output, UsageFault, print_json, print_note, print_table

peppers: Final = typer.Typer(help="The keys of the digests under which secrets are stored.", no_args_is_help=True)
_PAUSE: Final = 2.0


def sweep(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="notices, unused, purge or keys; all by default")
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="only show how far each came")] = False,
    output: OutputKind = Output.TABLE,
) -> None:
    """Do now what is due: notices before expiry, tokens nobody uses, tokens that ended long ago, old request keys.

    The service does it by itself every AUTHZ_SWEEP_INTERVAL. One process at a time does each; one that was killed is
    gone on with.
    """
    from authz_service.admin.inactivity import AsPoliciesSay
    from authz_service.admin.sweeps import Sweep, Sweeper
    from authz_service.config import load_settings, read_sweep_rules
    from authz_service.store.database import Database, check_schema
    from authz_service.store.sweeps import LEASE, SweepRow, Turn

    known = [one.value for one in Sweep]
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise UsageFault(f"there is no sweep `{unknown[0]}`; write {', '.join(f'`{name}`' for name in known)}")
    settings = load_settings(without_peppers=True)
    rules = read_sweep_rules(settings)

    def progress(row: SweepRow) -> None:
        if row.finished_at is None:
            print_note(f"{row.name}: {row.done} done")

    async def one(sweeper: Sweeper, name: Sweep) -> None:
        waits = LEASE.total_seconds() + _PAUSE
        while True:
            swept = await sweeper.run(name, at_once=True)
            if swept.turn is not Turn.OTHERS or waits <= 0:
                break
            print_note(f"{name.value}: another process is at it")
            await asyncio.sleep(_PAUSE)
            waits -= _PAUSE

    async def work() -> list[dict[str, Any]]:
        database = Database(settings.dsn, direct_url=settings.direct_dsn, pool_size=2, bell=settings.bell)
        try:
            async with database.read() as conn:
                await check_schema(conn)
            sweeper = Sweeper(database, rules, AsPoliciesSay(rules.inactive_days), progress)
            for name in [] if status else [Sweep(name) for name in names or known]:
                await one(sweeper, name)
            return [
                {
                    "sweep": row.name,
                    "done": row.done,
                    "started_at": _text(row.started_at),
                    "finished_at": _text(row.finished_at),
                }
                for row in await sweeper.status()
            ]
        finally:
            await database.close()

    found = asyncio.run(work())
    if output is Output.JSON:
        print_json(found)
        return
    columns = ("sweep", "done", "started_at", "finished_at")
    print_table([name.replace("_", " ") for name in columns], [[row[name] for name in columns] for row in found])


@peppers.command("status")
def pepper_status(output: OutputKind = Output.TABLE) -> None:
    """How many tokens each pepper holds: one whose living tokens are none may be taken out of the settings.

    Exit status: 0 counted, 2 something it needs is not set, 3 the database does not answer.
    """
    from authz_service.config import load_settings, read_foreign, read_peppers
    from authz_service.store.database import Database, check_schema
    from authz_service.store.token_sweeps import count_by_kid

    with looking():
        settings = load_settings()
        known, current = read_peppers(settings)
        foreign = read_foreign(settings, current)

    async def work() -> list[dict[str, Any]]:
        database = Database(settings.dsn, direct_url=settings.direct_dsn, pool_size=1, bell=settings.bell)
        try:
            async with database.read() as conn:
                await check_schema(conn)
                return [dict(row) for row in await count_by_kid(conn)]
        finally:
            await database.close()

    with looking():
        counted = asyncio.run(work())
    seen = {row["kid"] for row in counted}
    counted += [{"kid": kid, "prefix": None, "living": 0, "ended": 0} for kid in known if kid not in seen]
    found = [
        {
            "kid": row["kid"],
            "for": row["prefix"] or f"{settings.token_prefix}_",
            "living": row["living"],
            "ended": row["ended"],
            "known": row["kid"] in known and (row["prefix"] is None or foreign.get(row["prefix"]) == row["kid"]),
            "current": row["kid"] == current,
        }
        for row in counted
    ]
    if output is Output.JSON:
        print_json(found)
        return
    rows = [
        (
            row["kid"],
            row["for"],
            row["living"],
            row["ended"],
            "for new secrets" if row["current"] else "",
            "" if row["known"] else "not in the settings: these tokens do not work",
        )
        for row in found
    ]
    print_table(("kid", "secrets", "living", "ended", "", ""), rows)


def _text(moment: Any) -> str | None:
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
