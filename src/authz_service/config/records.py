"""Settings of what is recorded and who is told: the audit's checkpoints, decision records, leaks, webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, Field

from authz_service.errors import Fault


class RecordedDecisions(StrEnum):
    """Which decisions leave a record."""

    OFF = "off"
    DENIES = "denies"
    SAMPLED = "sampled"
    ALL = "all"


class RecordSink(StrEnum):
    """Where decision records go."""

    STDOUT = "stdout"
    FILE = "file"
    OTLP = "otlp"


class RecordSettings(BaseModel):
    # the audit
    audit_key_file: Path | None = Field(
        None,
        description="an Ed25519 private key in PEM that signs the audit's checkpoints, as `openssl genpkey -algorithm"
        " ed25519` prints it. Without it they are signed by a key of the current pepper, which only this service"
        " can verify",
    )
    audit_checkpoint_interval: float = Field(
        300.0, ge=1.0, le=86_400.0, description="seconds between signed checkpoints, while there is anything new"
    )
    audit_checkpoint_file: Path | None = Field(
        None, description="a file that each checkpoint is added to as a line: put it where this service cannot rewrite"
    )

    # decisions
    decision_records: RecordedDecisions = Field(
        RecordedDecisions.OFF, description="which decisions leave a record: `off`, `denies`, `sampled` or `all`"
    )
    decision_records_sample: float = Field(
        0.01, gt=0.0, le=1.0, description="the share of decisions that `sampled` records, denies and allows alike"
    )
    decision_records_sink: RecordSink = Field(
        RecordSink.STDOUT, description="where they go: `stdout`, `file`, or `otlp` (needs `authz-service[otel]`)"
    )
    decision_records_file: Path | None = Field(None, description="the file of `file`: one JSON document a line")
    decision_records_endpoint: str | None = Field(
        None, description="where `otlp` sends them, `https://collector.example.com/v1/logs`"
    )
    decision_records_queue: int = Field(
        10_000,
        ge=100,
        le=1_000_000,
        description="records that may wait to be written; beyond, they are counted as lost",
    )

    # leaks
    leak_keys_file: Path | None = Field(
        None,
        description="the public keys of secret-scanning partners as a file, in the JSON form that GitHub publishes:"
        " reports they signed are taken at `/v1/leaks`",
    )
    leak_keys_url: str | None = Field(
        None, description="the same from an `https://` address, fetched when a report names a key that is not known"
    )
    leak_reports_per_minute: int = Field(
        30, ge=1, le=100_000, description="reports of leaks that each worker takes a minute from one address"
    )
    leak_reports_in_all: int = Field(
        300, ge=1, le=1_000_000, description="reports of leaks that each worker takes a minute from everybody"
    )

    # webhooks
    webhook_private_hosts: str = Field(
        "",
        description="hosts with private addresses that webhooks may go to all the same, as they stand in the URL:"
        " `hooks.internal,10.0.0.7`. Everything else private, loopback or link-local is refused",
    )
    webhook_ca_file: Path | None = Field(
        None, description="authorities that webhooks' receivers are trusted by, PEM, besides those of the system"
    )
    webhook_timeout: float = Field(10.0, ge=0.5, le=60.0, description="seconds that a receiver gets for one delivery")

    @property
    def private_hosts(self) -> frozenset[str]:
        return frozenset(part.strip().lower() for part in self.webhook_private_hosts.split(",") if part.strip())


def record_contradictions(settings: RecordSettings) -> Iterator[Fault]:
    """What each setting alone cannot show."""
    on = settings.decision_records is not RecordedDecisions.OFF
    if on and settings.decision_records_sink is RecordSink.FILE and settings.decision_records_file is None:
        yield Fault("AUTHZ_DECISION_RECORDS_FILE", "missing", "the sink is `file`: say which one")
    if on and settings.decision_records_sink is RecordSink.OTLP and settings.decision_records_endpoint is None:
        yield Fault("AUTHZ_DECISION_RECORDS_ENDPOINT", "missing", "the sink is `otlp`: say where the collector listens")
    if settings.leak_keys_url is not None and not settings.leak_keys_url.startswith("https://"):
        yield Fault("AUTHZ_LEAK_KEYS_URL", "invalid", "write an `https://` address")
    if settings.leak_keys_url is not None and settings.leak_keys_file is not None:
        yield Fault("AUTHZ_LEAK_KEYS_FILE", "contradiction", "AUTHZ_LEAK_KEYS_URL is set too; set one of them")
    for variable, path in (
        ("AUTHZ_AUDIT_KEY_FILE", settings.audit_key_file),
        ("AUTHZ_LEAK_KEYS_FILE", settings.leak_keys_file),
        ("AUTHZ_WEBHOOK_CA_FILE", settings.webhook_ca_file),
    ):
        if path is not None and not path.is_file():
            yield Fault(variable, "unreadable", f"`{path}` is no file that can be read")
