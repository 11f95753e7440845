"""Settings taken over while a worker runs: all that can be, at once, or nothing and the last good ones stay."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fastapi import FastAPI

from authz_service.admin.leaks import LeakIntake
from authz_service.admin.partners import PartnerKeys
from authz_service.api.check.encoding import encode_decision
from authz_service.api.state import Services
from authz_service.config import (
    Environment,
    LogFormat,
    RecordedDecisions,
    RecordSink,
    Settings,
    read_foreign,
    read_gateway_trust,
    read_limits,
    read_peppers,
    require_reloadable,
)
from authz_service.errors import Fault, StartError
from authz_service.pdp.check import DecisionPoint
from authz_service.pdp.quick import QuickAnswers
from authz_service.pdp.records import OFF, Recorder, write_file, write_otlp, write_stdout
from authz_service.pdp.secrets import Peppers
from authz_service.redaction import know_foreign
from authz_service.telemetry import Metrics, configure_logging, logger

Commit = Callable[[], None]
"""Takes over what was prepared; raises nothing."""


class Recording:
    """The recorder in use and the task that writes; one may take the other's place."""

    def __init__(self, point: DecisionPoint, recorder: Recorder) -> None:
        self._point = point
        self._running: dict[asyncio.Task[None], Recorder] = {}
        """The one in use, and former ones that write what they have left."""
        self._current: asyncio.Task[None] | None = None
        self._ended: Counter[str] = Counter()
        self.use(recorder)

    def use(self, recorder: Recorder) -> None:
        """From the next decision on; what the former one still has is written."""
        self._end()
        self._point.records = recorder
        if recorder.on:
            task = asyncio.create_task(recorder.run(), name="decision records")
            self._running[task] = recorder
            self._current = task
            task.add_done_callback(self._forget)

    def _end(self) -> None:
        # Once each: a second time would break off the writing of what is left.
        if self._current is not None:
            self._current.cancel()
            self._current = None

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._ended.update(_counts(self._running.pop(task)))

    def sums(self) -> dict[str, int]:
        """Since the start, over all recorders."""
        found = Counter({"written": 0, "dropped": 0})
        for one in (self._ended, *map(_counts, self._running.values())):
            found.update(one)
        return dict(found)

    async def close(self) -> None:
        """Write what is left."""
        self._end()
        await asyncio.gather(*self._running, return_exceptions=True)


def _counts(recorder: Recorder) -> dict[str, int]:
    return {"written": recorder.written, "dropped": recorder.dropped}


def open_recorder(settings: Settings) -> Recorder:
    """Raises StartError for a sink that cannot be used."""
    if settings.decision_records is RecordedDecisions.OFF:
        return OFF
    write = write_stdout()
    if settings.decision_records_sink is RecordSink.FILE and settings.decision_records_file is not None:
        write = write_file(settings.decision_records_file)
    elif settings.decision_records_sink is RecordSink.OTLP and settings.decision_records_endpoint is not None:
        write = write_otlp(settings.decision_records_endpoint)
    sampled = settings.decision_records is RecordedDecisions.SAMPLED
    return Recorder(
        write,
        allows=settings.decision_records is not RecordedDecisions.DENIES,
        share=settings.decision_records_sample if sampled else 1.0,
        queue=settings.decision_records_queue,
    )


class Reloading:
    """Stored at `app.state.reloading` while the service runs."""

    def __init__(self, app: FastAPI, settings: Settings, recording: Recording, metrics: Metrics) -> None:
        self.settings = settings
        self.fault: str | None = None
        """Why the last try was refused; None when it was not, or when there was none."""
        self._app = app
        self._recording = recording
        self._metrics = metrics
        self._signs = read_peppers(settings)[1]

    def prepare(self, fresh: Settings) -> Commit:
        """Make whatever the new settings need, and change nothing yet. Raises StartError.

        Reads files, so call it in a thread.
        """
        old = self.settings
        require_reloadable(old, fresh)
        found, kid = read_peppers(fresh)
        if self._signs not in found and fresh.audit_key_file is None:
            message = f"`{self._signs}` signs the audit's checkpoints until a restart; leave it in until then"
            fault = Fault("AUTHZ_PEPPERS", "needs_restart", message)
            raise StartError(f"{fault.where}: {message}", faults=[fault])
        foreign = read_foreign(fresh, kid)
        peppers = Peppers(found, kid, fresh.token_prefix, foreign)
        limits = read_limits(fresh, import_bytes=fresh.import_body_limit)
        trust = read_gateway_trust(fresh, dev=fresh.environment is Environment.DEV)
        services: Services = self._app.state.services
        partners = PartnerKeys(services.management.outbound, file=fresh.leak_keys_file, url=fresh.leak_keys_url)
        records = [name for name in Settings.model_fields if name.startswith("decision_records")]
        recorder = open_recorder(fresh) if any(getattr(old, one) != getattr(fresh, one) for one in records) else None

        def commit() -> None:
            state: Any = self._app.state
            services.management.peppers.adopt(peppers)
            know_foreign(foreign)
            if recorder is not None:
                self._recording.use(recorder)
            leaks = services.leaks
            if fresh.leak_keys_file is not None:
                leaks = LeakIntake(leaks.reports, partners, leaks.desk)
            management = replace(services.management, limits=limits)
            state.services = replace(services, management=management, leaks=leaks)
            if state.console is not None:
                state.console = replace(state.console, management=management, leaks=leaks)
            state.gateways = trust
            state.sample()  # what was counted so far, before the counts go
            state.quick = state.hot.quick = state.served.quick = QuickAnswers(services.point, encode_decision)
            configure_logging(json=fresh.log_format is LogFormat.JSON, level=fresh.log_level)
            self.settings = fresh
            self._end(None)
            changed = [name for name in Settings.model_fields if getattr(old, name) != getattr(fresh, name)]
            logger().warning("settings were read again", changed=changed)

        return commit

    def refuse(self, error: StartError) -> None:
        """Go on with the last good settings, and say so: in the log, the metrics, and a note of `/readyz`."""
        self._end(error.message)
        logger().error("settings were not taken over; the last good ones stay", why=error.message)

    def _end(self, fault: str | None) -> None:
        self.fault = fault
        self._metrics.reloads.labels("taken" if fault is None else "refused").inc()
        self._metrics.reload_refused.set(fault is not None)
