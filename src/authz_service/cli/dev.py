"""`authz dev`: from an empty folder to a service that answers, with something to ask it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import json
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx

from authz_service.admin.signing import make_link
from authz_service.api.surfaces import Surface
from authz_service.cli import welcome
from authz_service.cli.demo.seed import ADMIN, DemoTokens, seed, write_private
from authz_service.cli.listening import Listening, listen
from authz_service.cli.printing import print_note
from authz_service.cli.serving import serve
from authz_service.cli.users import link_of
from authz_service.config import Environment, LogFormat, LogLevel, Settings, load_settings
from authz_service.embedded import EmbeddedPostgres
from authz_service.errors import StartError
from authz_service.running import open_management
from authz_service.store.schema import migrate
from authz_service.telemetry import configure_logging

_DEFAULT_PORT: Final = 8080
_ANSWER_SECONDS: Final = 10.0
_LINK: Final = timedelta(hours=12)
"""How long the link to the console waits for somebody to follow it."""
_GATEWAY_TOKEN: Final = "gateway-token"
_EXPORTS: Final = "env"
"""What a shell reads to ask and manage; the pages of docs/ take its variables for granted."""
_NOT_IN_DEV: Final = dict.fromkeys(
    (
        "AUTHZ_PORT",
        "AUTHZ_UDS",
        "AUTHZ_GATEWAY_LISTEN",
        *(f"AUTHZ_{surface.upper()}_LISTEN" for surface in Surface),
        *(f"AUTHZ_TLS_{name}_FILE" for name in ("CERT", "KEY", "CLIENT_CA")),
    ),
    "",
)
"""It answers all there is at one plain address of this machine."""
_PEPPERS: Final = ("AUTHZ_PEPPERS", "AUTHZ_PEPPERS_FILE")


class Dev:
    """One run. Everything it keeps lies in `data`; what the environment says of other settings holds here too."""

    def __init__(
        self, data: Path, *, port: int | None, ready_file: Path | None, workers: int, database_url: str | None
    ) -> None:
        self._data = data
        self._port = port
        self._ready_file = ready_file
        self._workers = workers
        self._database_url = database_url
        self._tokens: DemoTokens | None = None
        self._codes: dict[str, str] = {}
        self._owns_database = False

    def run(self) -> None:
        """Returns after SIGINT or SIGTERM, with nothing left running. Raises what the parts raise as they start."""
        if os.environ.get("AUTHZ_ENVIRONMENT", "dev") != Environment.DEV:
            raise StartError(
                "`authz dev` is for trying things, and AUTHZ_ENVIRONMENT says production; run `authz serve`"
            )
        # The port before the database: one that is taken should cost nobody a minute.
        with (
            _stopped_by_signals(),
            self._folder() as data,
            self._listen() as listening,
            self._database(data) as url,
        ):
            settings = self._settings(data, url)
            configure_logging(json=False, level=settings.log_level)
            if self._ready_file is not None:
                self._ready_file.unlink(missing_ok=True)  # a former run's says nothing of this one
            self._tokens = asyncio.run(self._prepare(settings, data))
            serve(settings, listening, lambda: self._welcome(settings, listening))
        print_note("stopped")

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """The data folder, claimed until this process ends."""
        try:
            # As root the database server is another user, who has to pass through to its own folder.
            self._data.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
            data = self._data.resolve()
            claim = os.open(data / "dev.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(
                f"`{self._data}` cannot be used ({error.strerror}); name another folder, `--data`"
            ) from error
        with os.fdopen(claim, "r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = file.read(20).strip()
                who = f"process {holder}" if holder.isdigit() else "another process"
                raise StartError(
                    f"`authz dev` runs on `{self._data}` already ({who}): stop that one, or name another folder,"
                    " `--data`"
                ) from error
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield data

    @contextmanager
    def _listen(self) -> Iterator[Listening]:
        host = os.environ.get("AUTHZ_HOST") or "127.0.0.1"
        port = self._port
        if port is None:
            given = os.environ.get("AUTHZ_PORT", "")
            port = int(given) if given.isascii() and given.isdigit() else _DEFAULT_PORT
        with listen(host=host, port=port, uds=None, workers=self._workers) as listening:
            yield listening

    @contextmanager
    def _database(self, data: Path) -> Iterator[str]:
        """What the option names, else what the environment names, else one of our own. Never another than was named."""
        named = self._database_url or os.environ.get("AUTHZ_DATABASE_URL") or os.environ.get("DATABASE_URL")
        # A shell that read the file of a run names that run's own server: this one starts its own, as before.
        if named and (self._database_url is not None or named != os.environ.get(welcome.OWN_DATABASE)):
            yield named
            return
        binaries = os.environ.get("AUTHZ_PG_BIN")
        server = EmbeddedPostgres(
            data / "database",
            bin_dir=Path(binaries) if binaries else None,
            say=lambda text: print_note(f"note: {text}"),
        )
        with server:
            self._owns_database = True
            yield server.dsn

    def _settings(self, data: Path, url: str) -> Settings:
        given: dict[str, Any] = {
            "environment": Environment.DEV,
            "database_url": url,
            "workers": self._workers,
            "log_format": LogFormat.CONSOLE,
        }
        if not os.environ.get("AUTHZ_DRAIN"):
            given["drain"] = 0.0  # nothing stands in front of it
        if not os.environ.get("AUTHZ_LOG_LEVEL"):
            given["log_level"] = LogLevel.WARNING
        if not os.environ.get("AUTHZ_GATEWAY_TOKEN_FILE"):
            given["gateway_token_file"] = data / _GATEWAY_TOKEN
        if not any(os.environ.get(name) for name in _PEPPERS) or _is_of_another_run(data):
            given["peppers_file"] = _own_peppers(data / "peppers")
        return load_settings({**os.environ, **_NOT_IN_DEV}, **given)

    async def _prepare(self, settings: Settings, data: Path) -> DemoTokens:
        await migrate(settings.direct_dsn or settings.dsn)
        async with open_management(settings) as management:
            tokens = await seed(management, data / "tokens.json")
            for username in (ADMIN, *welcome.OTHERS):
                self._codes[username] = await make_link(management, username, _LINK)
        # A gateway on this machine needs no token of its own to be tried.
        write_private(data / _GATEWAY_TOKEN, tokens.gateway + "\n")
        return tokens

    def _welcome(self, settings: Settings, listening: Listening) -> None:
        """Once it answers: the ready file first, for whoever waits for it, and then words."""
        tokens = self._tokens
        if tokens is None:
            raise AssertionError("nobody answers before the demo is there")
        _make_sure(listening.url)
        links = {username: link_of(listening.url, code) for username, code in self._codes.items()}
        database = welcome.Exported(settings.dsn, settings.peppers_file, own=self._owns_database)
        write_private(self._data / _EXPORTS, welcome.exports(listening.url, tokens, database))
        if self._ready_file is not None:
            ready = {
                "url": listening.url,
                "admin_token": tokens.admin,
                "gateway_token": tokens.gateway,
                "sample_token": tokens.sample,
                "database_url": settings.dsn,
                "sign_in_url": links[ADMIN],
            }
            write_private(self._ready_file, json.dumps(ready, indent=2) + "\n")
        print(welcome.text(listening.url, tokens, self._data, links), flush=True)


def _make_sure(url: str) -> None:
    """The very thing that the welcome promises. Raises StartError when it does not answer."""
    try:
        answer = httpx.get(f"{url}/readyz", timeout=_ANSWER_SECONDS, trust_env=False)
    except httpx.HTTPError as error:
        raise StartError(f"the service started, and does not answer at `{url}`") from error
    if not answer.is_success:
        raise StartError(f"the service started, and is not ready: {answer.text}")


def _is_of_another_run(data: Path) -> bool:
    """Whether the shell has the pepper file of a run in another folder: this one has its own, and its own database."""
    named = os.environ.get("AUTHZ_PEPPERS_FILE", "")
    if not named or not os.environ.get(welcome.OWN_DATABASE) or os.environ.get("AUTHZ_PEPPERS"):
        return False
    path = Path(named).resolve()
    return path.name == "peppers" and path.parent != data and (path.parent / "dev.lock").exists()


def _own_peppers(path: Path) -> Path:
    if not path.exists():
        write_private(path, f"dev:{base64.b64encode(secrets.token_bytes(32)).decode()}\n")
    return path


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM ends like Ctrl-C, also before the service is there to hear it."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, stop)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, former)
