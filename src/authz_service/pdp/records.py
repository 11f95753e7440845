"""Decision records: a line for each decision that is to leave one, written behind the answers, never before them."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from authz_service.engine.model import PermissionRequest
from authz_service.errors import StartError
from authz_service.pdp.question import Answer, HttpCall, Question
from authz_service.redaction import redact
from authz_service.store.changes import Stamp, format_revision
from authz_service.tokens.model import Token

CURRENT_REQUEST: Final[ContextVar[str | None]] = ContextVar("authz_request", default=None)
"""The id of the request that is being answered; the outermost layer sets it."""

Write: TypeAlias = Callable[[Sequence[dict[str, Any]]], None]
"""Puts some records where they belong, in a thread; raises OSError when it cannot."""

_SECONDS: Final = 0.2
_LAST_SECONDS: Final = 10.0
"""For what is left at the end: as long as a collector may take for one batch."""
_AT_ONCE: Final = 1000
_LONGEST: Final = 512
_PIPE: Final = 4096
"""What a pipe takes in one piece, so that the lines of several workers never mix."""
_log = logging.getLogger("authz_service.records")


class Noted(NamedTuple):
    """What is kept of a decision until it is written: no more than references and a clock."""

    at: float
    token: Token | None
    catalog: str
    asked: str
    target: str | None
    allowed: bool
    reason: str
    stamp: Stamp
    request_id: str | None
    permission: bool


class Recorder:
    """Notes decisions in a bounded queue that one task empties; what finds no room is counted and gone.

    `note` is for the hot path: it appends to a list, or draws a number, or does nothing. Records never hold a secret:
    tokens go by their id, and what looks like a secret in a name or target is cut out before it is written.
    """

    def __init__(self, write: Write | None, *, allows: bool, share: float = 1.0, queue: int = 10_000) -> None:
        """`write` None is a recorder that is off. `share` is the part of decisions that is noted."""
        self.on = write is not None
        """Look at this first: where it is False nothing else costs anything."""
        self.dropped = 0
        """Records lost for want of room, or because they could not be written."""
        self.written = 0
        self._write = write
        self._allows = allows
        self._share = share
        self._room = queue
        self._queue: deque[Noted] = deque()
        self._told = False
        self._writing: asyncio.Future[None] | None = None

    def note(  # noqa: PLR0913 - a record has as many fields, and no object is made for one that is not kept
        self,
        token: Token | None,
        catalog: str,
        asked: str,
        target: str | None,
        *,
        allowed: bool,
        reason: str,
        stamp: Stamp,
        request_id: str | None = None,
        permission: bool = True,
    ) -> None:
        """Note one decision. `asked` is a permission, or an operation where `permission` is False."""
        if not self.on or (allowed and not self._allows):
            return
        if self._share < 1.0 and random.random() >= self._share:  # noqa: S311 - a sample
            return
        if len(self._queue) >= self._room:
            self.dropped += 1
            return
        self._queue.append(
            Noted(time.time(), token, catalog, asked, target, allowed, str(reason), stamp, request_id, permission)
        )

    def note_answers(self, question: Question, answers: Sequence[Answer]) -> None:
        """Note what the decision point answered, each item by itself."""
        if not self.on:
            return
        request_id = CURRENT_REQUEST.get()
        for ask, answer in zip(question.items, answers, strict=False):
            about, target = ask.about, getattr(ask.about, "target", None)
            permission = isinstance(about, PermissionRequest)
            if isinstance(about, PermissionRequest):
                asked = about.permission
            elif isinstance(about, HttpCall):
                asked = f"{about.method} {about.path.partition('?')[0]}"
            else:
                asked = str(getattr(about, "operation", "graphql"))
            self.note(
                answer.token,
                question.catalog,
                asked,
                target,
                allowed=answer.decision.allowed,
                reason=answer.decision.reason,
                stamp=answer.stamp,
                request_id=request_id,
                permission=permission,
            )

    async def run(self) -> None:
        """Write until it is cancelled, and then what is left, for some seconds; the rest is dropped."""
        try:
            while True:
                if not await self._write_some():
                    await asyncio.sleep(_SECONDS)
        finally:
            # In threads as before: whoever cancels goes on at once, and a sink that hangs holds up no answer.
            last = asyncio.ensure_future(self.flush())
            await asyncio.wait({last}, timeout=_LAST_SECONDS)
            last.cancel()
            if self._queue:
                self.dropped += len(self._queue)
                self._queue.clear()
                _log.warning("decision records were dropped: nobody took them for %s s", _LAST_SECONDS)

    async def flush(self) -> None:
        """Write all that was noted before."""
        while await self._write_some():
            pass

    async def _write_some(self) -> bool:
        # One batch at a time, also where a former one goes on after whoever waited for it was cancelled.
        while self._writing is not None and not self._writing.done():
            await asyncio.wait({self._writing})
        some = [self._queue.popleft() for _ in range(min(_AT_ONCE, len(self._queue)))]
        if some:
            self._writing = asyncio.ensure_future(asyncio.to_thread(self._put, some))
            await asyncio.shield(self._writing)
        return bool(some)

    def _put(self, some: Sequence[Noted]) -> None:
        if self._write is None:
            return
        try:
            self._write([describe(one) for one in some])
        except OSError as error:
            self.dropped += len(some)
            if not self._told:
                self._told = True
                _log.warning("decision records cannot be written: %s", error.strerror or "the collector refused them")
        else:
            self.written += len(some)
            self._told = False


OFF: Final = Recorder(None, allows=False)
"""For whoever was given no other."""


def describe(noted: Noted) -> dict[str, Any]:
    """JSON of a record: ids and names as they were asked for, with whatever looks like a secret cut out."""
    token = noted.token
    return {
        "at": datetime.fromtimestamp(noted.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "token_id": None if token is None else token.id,
        "owner_id": None if token is None else token.owner,
        "catalog": _clean(noted.catalog),
        "permission" if noted.permission else "operation": _clean(noted.asked),
        "target": None if noted.target is None else _clean(noted.target),
        "decision": "allow" if noted.allowed else "deny",
        "reason": noted.reason,
        "revision": format_revision(noted.stamp),
        "request_id": noted.request_id,
    }


def _clean(text: str) -> str:
    return redact(text[:_LONGEST])


# where they go


def write_lines(number: int, *, piece: int | None = None) -> Write:
    """To a file descriptor, one JSON document a line, in pieces of whole lines of at most `piece` bytes."""

    def write(records: Sequence[dict[str, Any]]) -> None:
        pending = b""
        for record in records:
            line = msgspec.json.encode(record) + b"\n"
            if piece is not None and pending and len(pending) + len(line) > piece:
                _write_all(number, pending)
                pending = b""
            pending += line
        _write_all(number, pending)

    return write


def _write_all(number: int, text: bytes) -> None:
    while text:
        text = text[os.write(number, text) :]


def write_stdout() -> Write:
    """To standard output, whole lines even with several workers on one pipe."""
    return write_lines(sys.__stdout__.fileno() if sys.__stdout__ is not None else 1, piece=_PIPE)


def write_file(file: Path) -> Write:
    """Added to a file, which is opened anew for each batch: so a rotated file is left alone. Raises StartError."""

    def write(records: Sequence[dict[str, Any]]) -> None:
        number = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            write_lines(number)(records)
        finally:
            os.close(number)

    try:
        write([])
    except OSError as error:
        why = (error.strerror or "no reason given").lower()
        raise StartError(f"AUTHZ_DECISION_RECORDS_FILE: `{file}` cannot be written: {why}") from error
    return write


def write_otlp(endpoint: str) -> Write:
    """To an OpenTelemetry collector, as log records over HTTP. Raises StartError without `authz-service[otel]`."""
    try:
        from opentelemetry._logs import LogRecord, SeverityNumber  # noqa: PLC0415 - an extra
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter  # noqa: PLC0415
        from opentelemetry.sdk._logs import ReadableLogRecord  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise StartError("AUTHZ_DECISION_RECORDS_SINK: `otlp` needs `pip install authz-service[otel]`") from error
    exporter = OTLPLogExporter(endpoint=endpoint, timeout=10)
    resource = Resource.create({"service.name": "authz-service"})
    scope = InstrumentationScope("authz_service.decisions")

    def write(records: Sequence[dict[str, Any]]) -> None:
        batch = [
            ReadableLogRecord(
                log_record=LogRecord(
                    timestamp=int(datetime.fromisoformat(record["at"]).timestamp() * 1e9),
                    observed_timestamp=time.time_ns(),
                    severity_number=SeverityNumber.INFO,
                    body=msgspec.json.encode(record).decode(),
                    attributes={f"authz.{name}": value for name, value in record.items() if value is not None},
                ),
                resource=resource,
                instrumentation_scope=scope,
            )
            for record in records
        ]
        if exporter.export(batch).name != "SUCCESS":
            raise OSError("the collector refused the records")

    return write
