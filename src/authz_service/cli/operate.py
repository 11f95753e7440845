"""`serve`, `migrate`, `bootstrap`, `dev`: for whoever runs the service."""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from authz_service.cli.options import OutputKind
from authz_service.cli.printing import Output, UsageFault, print_json, print_note


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(dev)
    app.command()(serve)
    app.command()(migrate)
    app.command()(bootstrap)
    app.command()(health)


def dev(
    port: Annotated[int | None, typer.Option(help="where to listen; 8080 by default, 0 for any free port")] = None,
    data: Annotated[Path, typer.Option(metavar="DIR", help="where database and secrets are kept")] = Path(".authz"),
    ready_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="written when the service answers: URL and tokens, as JSON")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="processes that answer")] = 1,
    database_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="a PostgreSQL to use; else DATABASE_URL, else one of its own is started"),
    ] = None,
) -> None:
    """Try it: a service with a database of its own, demo data, tokens, and a question to paste."""
    from authz_service.cli.dev import Dev

    Dev(data, port=port, ready_file=ready_file, workers=workers, database_url=database_url).run()


def serve() -> None:
    """Serve, by settings from the environment (AUTHZ_DATABASE_URL, AUTHZ_PEPPERS, …)."""
    from authz_service.cli.preflight import check_database
    from authz_service.cli.serving import listen_as
    from authz_service.cli.serving import serve as serve_on
    from authz_service.config import LogFormat, load_settings, unknown_settings
    from authz_service.telemetry import configure_logging, logger

    settings = load_settings()
    configure_logging(json=settings.log_format is LogFormat.JSON, level=settings.log_level)
    logging.captureWarnings(capture=True)  # those of libraries are lines like all others
    log = logger()
    for name in unknown_settings():
        log.warning("this setting is not known", name=name)
    with listen_as(settings) as listening:
        budget = asyncio.run(check_database(settings))
        log.info("connections", **budget.fields())
        environ = dict(os.environ)
        serve_on(
            settings, listening, lambda: log.info("answering", url=listening.url, workers=settings.workers), environ
        )
    log.info("stopped")


def migrate(
    patience: Annotated[
        float, typer.Option(min=0, max=86_400, metavar="SECONDS", help="for how long to try again for a lock")
    ] = 60.0,
    lock_timeout: Annotated[
        float,
        typer.Option(min=0.05, max=60, metavar="SECONDS", help="how long one try waits for a lock; well below S"),
    ] = 1.0,
    service_role: Annotated[
        str | None,
        typer.Option(metavar="ROLE", help="the role that replicas sign in as: it gets what serving takes, no more"),
    ] = None,
) -> None:
    """Bring the database's tables to what this version needs, while replicas go on. Safe to repeat, and at once."""
    from authz_service.config import load_settings
    from authz_service.store.schema import migrate as bring_up

    settings = load_settings(without_peppers=True)
    url = settings.direct_dsn or settings.dsn

    def retry() -> None:
        print_note("something else holds a lock that is needed: let go of it, to let replicas go on; trying again")

    work = bring_up(url, lock_timeout=f"{round(lock_timeout * 1000)}ms", patience=patience, on_retry=retry)
    revision = asyncio.run(work)
    if service_role is not None:
        asyncio.run(_grant(url, service_role))
    print_note(f"the database has schema {revision}")


async def _grant(url: str, role: str) -> None:
    from authz_service.store.database import Database
    from authz_service.store.roles import grant_service_role

    database = Database(url, pool_size=1, bell=False)
    try:
        async with database.transaction() as conn:
            await grant_service_role(conn, role)
    finally:
        await database.close()


def bootstrap(
    username: Annotated[str, typer.Option(help="the admin's username; made when there is no such user")] = "admin",
    days: Annotated[int, typer.Option(min=1, max=365, help="for how long the token works")] = 30,
    break_glass: Annotated[
        bool, typer.Option("--break-glass", help="although there is an admin: for when all are locked out")
    ] = False,
    output: OutputKind = Output.TABLE,
) -> None:
    """Make the first admin and a token for them, with access to the database alone."""
    from authz_service.cli.first import make_admin
    from authz_service.config import load_settings
    from authz_service.directory.model import SEGMENT
    from authz_service.running import open_management

    if not SEGMENT.fullmatch(username):
        raise UsageFault(f"`{username}` is no username; take ASCII letters, digits, `_`, `-` and `.`")
    settings = load_settings()

    async def work() -> tuple[str, str]:
        async with open_management(settings) as management:
            return await make_admin(management, username, lifetime=timedelta(days=days), break_glass=break_glass)

    token_id, secret = asyncio.run(work())
    if output is Output.JSON:
        print_json({"id": token_id, "secret": secret, "owner": username})
        return
    print_note(f"`{username}` is an admin; {token_id} works for {days} days, and its secret is shown this one time:")
    print(secret)


def health(
    ready: Annotated[
        bool, typer.Option("--ready", help="ask whether it may be asked, not only whether it answers")
    ] = False,
) -> None:
    """Ask the service of this machine, as a container's health check. Exit status: 0 yes, 1 no, 3 no answer."""
    from authz_service.cli.health import health as ask

    raise typer.Exit(ask(ready=ready))
