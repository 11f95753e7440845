"""The end of a recorder: what it still has is written beside the event loop, and no longer than is said."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from authz_service.pdp import records
from authz_service.pdp.records import OFF, Recorder
from authz_service.reloading import Recording
from authz_service.store.changes import Revision, Stamp

STAMP = Stamp(Revision(7), UUID(int=1))
MANY = 2500


class Sink:
    """Writes once it is let, for a few seconds at most."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.came = threading.Event()
        self.written = 0
        self.threads: set[int] = set()

    def __call__(self, some: Any) -> None:
        self.threads.add(threading.get_ident())
        self.came.set()
        assert self.open.wait(5)
        self.written += len(some)


async def begun(sink: Sink) -> Recording:
    """A recording whose first batch hangs, and with more behind it."""
    recorder = Recorder(sink, allows=True)
    recording = Recording(SimpleNamespace(records=OFF), recorder)  # type: ignore[arg-type]
    for _ in range(MANY):
        recorder.note(None, "gitlab", "job:read", "project:1", allowed=False, reason="x", stamp=STAMP)
    while not sink.came.is_set():
        await asyncio.sleep(0)
    return recording


async def test_a_recorder_that_is_replaced_writes_what_it_has_and_the_loop_goes_on():
    sink = Sink()
    recording = await begun(sink)
    recording.use(OFF)
    recording.use(OFF)  # a second reload while the first one's recorder still writes
    for _ in range(100):
        await asyncio.sleep(0)
    assert sink.written == 0
    sink.open.set()
    await recording.close()
    assert sink.written == MANY
    assert threading.get_ident() not in sink.threads
    assert recording.sums() == {"written": MANY, "dropped": 0}


async def test_a_sink_that_takes_nothing_is_given_up_after_a_while(monkeypatch):
    monkeypatch.setattr(records, "_LAST_SECONDS", 0.0)
    sink = Sink()
    recording = await begun(sink)
    await recording.close()
    assert threading.get_ident() not in sink.threads
    assert recording.sums() == {"written": 0, "dropped": MANY - 1000}
    sink.open.set()


@pytest.mark.parametrize("changes", [1, 3])
async def test_what_former_recorders_wrote_is_counted_once(changes):
    sink = Sink()
    sink.open.set()
    recording = await begun(sink)
    for _ in range(changes):
        following = Recorder(sink, allows=True)
        recording.use(following)
        await asyncio.sleep(0)  # its task begins
        following.note(None, "gitlab", "job:read", "project:1", allowed=False, reason="x", stamp=STAMP)
    await recording.close()
    assert recording.sums() == {"written": MANY + changes, "dropped": 0} == recording.sums()
    assert sink.written == MANY + changes
