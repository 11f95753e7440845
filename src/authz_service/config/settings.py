"""Every setting of the service: read once, from the environment, and refused as a whole when anything is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from authz_service.api.check.gateway_listener import ListenAt
from authz_service.config.console import ConsoleSettings, console_contradictions
from authz_service.config.gateways import GatewaySettings, gateway_contradictions
from authz_service.config.limits import LimitSettings, limit_contradictions
from authz_service.config.listeners import ListenerSettings, listener_contradictions
from authz_service.config.peppers import SecretSettings, read_peppers, secret_contradictions
from authz_service.config.rates import RateSettings, rate_contradictions
from authz_service.config.records import RecordSettings, record_contradictions
from authz_service.config.reloading import read_settings_file
from authz_service.config.standards import StandardsSettings, standards_contradictions
from authz_service.config.tracing import TraceSettings, trace_contradictions
from authz_service.config.usage import UsageSettings
from authz_service.errors import Fault, StartError

PREFIX: Final = "AUTHZ_"
OF_CLIENTS: Final = frozenset({"AUTHZ_URL", "AUTHZ_TOKEN", "AUTHZ_PG_BIN", "AUTHZ_OWN_DATABASE"})
"""Variables of the command line and the embedded database; they are no settings of the service."""


class Environment(StrEnum):
    DEV = "dev"
    PRODUCTION = "production"


class LogFormat(StrEnum):
    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Settings(
    BaseSettings,
    ConsoleSettings,
    GatewaySettings,
    LimitSettings,
    ListenerSettings,
    RateSettings,
    RecordSettings,
    SecretSettings,
    StandardsSettings,
    TraceSettings,
    UsageSettings,
):
    """What the service runs with. Make it with `load_settings`, which names every fault at once; it never changes."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",  # other programs' variables; `unknown_settings` names what looks like a slip of the pen
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    environment: Environment = Field(
        Environment.PRODUCTION, description="`dev` shows the API's documentation at `/docs`; `production` does not"
    )

    settings_file: Path | None = Field(
        None,
        description="a file of further settings, `AUTHZ_NAME=value` a line; the environment wins. It is read again on"
        " SIGHUP, with the files that settings name",
    )

    # the database
    database_url: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("AUTHZ_DATABASE_URL", "DATABASE_URL"),
        description="`postgresql://user:password@host:5432/database`; `DATABASE_URL` serves where this is not set",
    )
    database_direct_url: SecretStr | None = Field(
        None,
        description="the primary itself, where `AUTHZ_DATABASE_URL` goes through a pooler: polls and the bell need a"
        " connection of their own. Setting it also says that there is a pooler",
    )
    pool_size: int = Field(10, ge=2, le=500, description="connections of each worker's pool; two more follow changes")
    bell: bool = Field(
        default=True,
        description="listen for changes (LISTEN/NOTIFY). Off for engines without it: polls alone carry the promise",
    )

    schema_patience: float = Field(
        60.0,
        ge=0.0,
        le=3600.0,
        description="seconds that a start waits, unready, for a migration that is due; 0 ends it at once",
    )

    # freshness
    max_staleness: float = Field(
        5.0,
        ge=1.0,
        le=300.0,
        description="S, in seconds: how long after its acknowledgement a revoke may still be unseen, and how long"
        " a worker goes on deciding without an answer from the database. A longer outage is answered 503",
    )
    poll_interval: float = Field(1.0, ge=0.1, le=60.0, description="seconds between looks at the change log")
    poll_timeout: float = Field(1.0, ge=0.1, le=60.0, description="seconds until a look counts as failed")

    # listening
    host: str = Field("127.0.0.1", min_length=1, description="the address to listen at; `0.0.0.0` is every IPv4 one")
    port: int = Field(8080, ge=0, le=65535, description="the port to listen at; 0 takes any free one")
    uds: Path | None = Field(None, description="a Unix socket to listen at, in place of host and port")
    workers: int = Field(1, ge=1, le=256, description="processes that answer; each has a pool and a cache of its own")
    drain: float = Field(
        1.0,
        ge=0.0,
        le=300.0,
        description="seconds that a worker goes on answering after a stop was asked for, while `/readyz` says 503 and"
        " each answer closes its connection: longer than whatever stands in front takes to notice",
    )
    shutdown_timeout: float = Field(
        15.0, ge=0.0, le=600.0, description="seconds that requests under way get to end after a stop was asked for"
    )

    # bounds
    check_body_limit: int = Field(64 * 1024, ge=1024, le=64 << 20, description="bytes of the body of a `/check`")
    batch_body_limit: int = Field(4 << 20, ge=1024, le=256 << 20, description="bytes of the body of a `/check/batch`")
    import_body_limit: int = Field(64 << 20, ge=1024, le=4 << 30, description="bytes of a directory import's body")
    loads_running: int = Field(8, ge=1, le=500, description="loads of facts that a worker runs at once")
    loads_waiting: int = Field(
        1000, ge=1, le=100_000, description="loads that may wait; beyond, requests are shed (503)"
    )
    # No bound may be below what one question can need: a line of 32 tokens and their owners, 16 chains of nodes.
    cache_tokens: int = Field(200_000, ge=100, description="tokens that a worker keeps in memory")
    cache_unknown_tokens: int = Field(50_000, ge=1, description="secrets of nobody that a worker remembers for 2 s")
    cache_users: int = Field(200_000, ge=100, description="owners and their memberships that a worker keeps")
    cache_nodes: int = Field(500_000, ge=1000, description="groups, projects and users' namespaces that a worker keeps")
    cache_questions: int = Field(
        20_000, ge=100, description="answers about what lies below a group that a worker keeps"
    )

    # telling
    log_format: LogFormat = Field(LogFormat.JSON, description="`json` for programs, `console` for people")
    log_level: LogLevel = Field(LogLevel.INFO, description="the least level that is logged")
    metrics_dir: Path | None = Field(
        None,
        description="a folder where several workers sum their metrics; emptied at the start. A temporary one if unset",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments alone: `load_settings` reads the environment, so that a Settings in a test is what it says."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @field_validator("port", mode="before")
    @classmethod
    def _no_service_link(cls, value: object) -> object:
        if isinstance(value, str) and value.startswith("tcp://"):
            raise ValueError(
                "this comes from a Kubernetes service named `authz`; set `enableServiceLinks: false` in the pod, or"
                " set the port"
            )
        return value

    @property
    def dsn(self) -> str:
        """The database URL. Raises StartError where there is none: never log what this gives."""
        if self.database_url is None:
            raise StartError(_NO_DATABASE)
        return self.database_url.get_secret_value()

    @property
    def connections(self) -> int:
        """Connections that each worker may open to the database itself: its pool, one that polls, one for the bell.

        A pool behind a pooler is the pooler's to count.
        """
        return (2 if self.bell else 1) + (self.pool_size if self.database_direct_url is None else 0)

    @property
    def direct_dsn(self) -> str | None:
        return None if self.database_direct_url is None else self.database_direct_url.get_secret_value()


_NO_DATABASE: Final = (
    "set AUTHZ_DATABASE_URL (or DATABASE_URL) to `postgresql://user:password@host:5432/database`;"
    " `authz dev` needs neither"
)


def load_settings(
    environ: Mapping[str, str] | None = None,
    *,
    without_peppers: bool = False,
    without_file: bool = False,
    **given: object,
) -> Settings:
    """Settings from `given`, else from the environment, else from the file that it names.

    Raises StartError with a fault for everything that is wrong. `without_peppers` is for commands that touch no token,
    `without_file` for who was given what the file said.
    """
    found = dict(os.environ if environ is None else environ)
    in_file = {} if without_file else read_settings_file(found)
    unknown = unknown_settings(in_file) if in_file else []
    if unknown:
        told = [Fault("AUTHZ_SETTINGS_FILE", "unknown", f"`{name}` is no setting of this version") for name in unknown]
        raise StartError("; ".join(f"{one.where}: {one.message}" for one in told), faults=told)
    values = {**_from_environment(in_file | found), **given}
    faults: list[Fault] = []
    try:
        settings = Settings(**values)
    except ValidationError as error:
        faults = list(_faults_of(error))
        # Once more without what is wrong, so that contradictions among the rest are told in the same breath.
        wrong = {str(one["loc"][0]) for one in error.errors() if one["loc"]}
        settings = Settings(**{name: value for name, value in values.items() if name not in wrong})
    faults += _contradictions(settings, without_peppers=without_peppers)
    if faults:
        listed = "; ".join(f"{fault.where}: {fault.message}" for fault in faults)
        raise StartError(f"the service cannot start as configured: {listed}", faults=faults)
    return settings


def unknown_settings(environ: Mapping[str, str] | None = None) -> list[str]:
    """Variables that begin with AUTHZ_ and are no settings: a slip of the pen, or another program's."""
    known = {variable for name in Settings.model_fields for variable in _variables(name)} | OF_CLIENTS
    return sorted(name for name in (environ or os.environ) if name.startswith(PREFIX) and name not in known)


def to_environment(settings: Settings) -> dict[str, str]:
    """The variables that make `load_settings` give these settings again: how a worker gets them."""
    found: dict[str, str] = {}
    for name in sorted(settings.model_fields_set):
        value = getattr(settings, name)
        if value is None:
            continue
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        found[_variables(name)[0]] = text
    return found


def _variables(name: str) -> list[str]:
    alias = Settings.model_fields[name].validation_alias
    if isinstance(alias, AliasChoices):
        return [str(choice) for choice in alias.choices]
    return [PREFIX + name.upper()]


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in Settings.model_fields:
        value = next((environ[variable] for variable in _variables(name) if environ.get(variable)), None)
        if value is not None:
            found[name] = value
    return found


def _faults_of(error: ValidationError) -> Iterator[Fault]:
    for one in error.errors():
        name = str(one["loc"][0]) if one["loc"] else ""
        variable = _variables(name)[0] if name in Settings.model_fields else name
        message = one["msg"].removeprefix("Value error, ").rstrip(".")
        yield Fault(variable, "invalid", message[:1].lower() + message[1:])


def _contradictions(settings: Settings, *, without_peppers: bool) -> Iterable[Fault]:
    """What each setting alone cannot show."""
    if settings.database_url is None:
        yield Fault("AUTHZ_DATABASE_URL", "missing", _NO_DATABASE)
    if settings.database_direct_url is not None and settings.database_url is None:
        yield Fault(
            "AUTHZ_DATABASE_DIRECT_URL", "contradiction", "this alone is not enough: set AUTHZ_DATABASE_URL too"
        )
    for variable, url in (
        ("AUTHZ_DATABASE_URL", settings.database_url),
        ("AUTHZ_DATABASE_DIRECT_URL", settings.database_direct_url),
    ):
        scheme = "" if url is None else url.get_secret_value().partition("://")[0]
        if url is not None and scheme not in ("postgresql", "postgres", "postgresql+asyncpg"):
            yield Fault(variable, "invalid", "write `postgresql://user:password@host:5432/database`")
    if settings.poll_interval * 1.1 + settings.poll_timeout >= settings.max_staleness:
        yield Fault(
            "AUTHZ_MAX_STALENESS",
            "contradiction",
            f"{settings.max_staleness:g} s is not more than a poll's interval ({settings.poll_interval:g} s, and a"
            f" tenth) and timeout ({settings.poll_timeout:g} s) together, so a healthy service would deny; raise it",
        )
    yield from console_contradictions(settings, settings.public_url)
    yield from record_contradictions(settings)
    yield from standards_contradictions(settings)
    yield from trace_contradictions(settings)
    yield from gateway_contradictions(settings, dev=settings.environment is Environment.DEV)
    yield from listener_contradictions(
        settings,
        main=ListenAt(uds=settings.uds) if settings.uds is not None else ListenAt(settings.host, settings.port),
        others={"AUTHZ_GATEWAY_LISTEN": settings.gateway_listen, "AUTHZ_GRPC_LISTEN": settings.grpc_listen},
    )
    yield from rate_contradictions(settings)
    if settings.uds is not None and {"host", "port"} & settings.model_fields_set:
        yield Fault(
            "AUTHZ_UDS", "contradiction", "a Unix socket stands in place of host and port; set one or the other"
        )
    if settings.loads_running > settings.pool_size:
        yield Fault(
            "AUTHZ_LOADS_RUNNING",
            "contradiction",
            f"{settings.loads_running} loads at once need as many connections, and AUTHZ_POOL_SIZE is"
            f" {settings.pool_size}",
        )
    if settings.batch_body_limit < settings.check_body_limit:
        yield Fault("AUTHZ_BATCH_BODY_LIMIT", "contradiction", "a batch may not be smaller than AUTHZ_CHECK_BODY_LIMIT")
    yield from limit_contradictions(settings, token_prefix=settings.token_prefix, kids=_kids(settings))
    yield from secret_contradictions(settings, without_peppers=without_peppers)


def _kids(settings: Settings) -> Mapping[str, bytes] | None:
    try:
        return read_peppers(settings)[0]
    except StartError:
        return None
