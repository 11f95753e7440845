"""One sync, from the first page to the last line: fetch, confirm what is gone, compare, import."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import msgspec

from authz_service.sync.compare import Change, Comparison, compare, find_missing
from authz_service.sync.errors import StrangeAnswerError, SyncError
from authz_service.sync.here import Here
from authz_service.sync.journal import Journal
from authz_service.sync.reading import Reader
from authz_service.sync.records import USER, Stream, Upstream

MOST_LINES: Final = 200_000
_MOST_PIECE: Final = 32 * 1024 * 1024


class Observer(Protocol):
    """Who shows how far it is."""

    def step(self, what: str, done: int, total: int) -> None:
        """`done` of `total` lists are read; `what` is the kind that is being read."""

    def note(self, text: str) -> None: ...


async def fetch(
    reader: Reader,
    upstream: Upstream,
    journal: Journal,
    observer: Observer,
    *,
    workers: int,
    also: Sequence[Stream] = (),
) -> None:
    """Everything that is not in the journal yet, and `also`. Raises SyncError; the journal keeps what came before."""
    while True:
        streams = {stream.key: stream for stream in [*upstream.plan(journal.pages), *also]}
        todo = deque(stream for key, stream in streams.items() if not _is_done(journal, key))
        if not todo:
            return
        progress = _Progress(streams.values(), observer)
        for stream in streams.values():
            if _is_done(journal, stream.key):
                progress.count(stream)

        async def work(todo: deque[Stream] = todo, progress: _Progress = progress) -> None:
            while todo:
                stream = todo.popleft()
                await _read_stream(reader, journal, stream)
                progress.count(stream)
                progress.show(stream)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(workers, len(todo))):
                    group.create_task(work())
        except BaseExceptionGroup as several:
            ours, others = several.split(SyncError)
            if ours is None or others is not None:
                raise
            # Those that failed beside the first did so for the same reason, or because it ended them.
            raise ours.exceptions[0] from None


class _Progress:
    def __init__(self, streams: Any, observer: Observer) -> None:
        self._observer = observer
        self._total = Counter(stream.what for stream in streams)
        self._done: Counter[str] = Counter()

    def count(self, stream: Stream) -> None:
        self._done[stream.what] += 1

    def show(self, stream: Stream) -> None:
        self._observer.step(stream.what, self._done[stream.what], self._total[stream.what])


def is_whole(upstream: Upstream, journal: Journal) -> bool:
    """Whether everything is fetched."""
    return all(_is_done(journal, stream.key) for stream in upstream.plan(journal.pages))


def _is_done(journal: Journal, key: str) -> bool:
    pages = journal.pages.get(key)
    return pages is not None and pages.done


async def _read_stream(reader: Reader, journal: Journal, stream: Stream) -> None:
    pages = journal.pages.get(stream.key)
    query = stream.query if pages is None or pages.next is None else pages.next
    seen = set()
    while True:
        seen.add(query)
        page = await reader.get(stream.path, query, stream.shape, may_be_absent=stream.may_be_absent)
        if page.document is None:
            journal.add(stream.key, (), None, absent=True, keep=not stream.anew)
            return
        if page.next in seen:
            raise StrangeAnswerError(f"the pages of `{stream.path}` go round in a circle")
        journal.add(stream.key, list(stream.read(page.document)), page.next, keep=not stream.anew)
        if page.next is None:
            return
        query = page.next


async def find_changes(
    reader: Reader, upstream: Upstream, journal: Journal, here: Here, observer: Observer, *, workers: int
) -> tuple[Comparison, Sequence[str]]:
    """What differs, and what to warn of. Nothing is gone for having been in no list: it is asked for by its id."""
    picture = upstream.compose(journal.pages)
    tops = upstream.tops(journal.pages)
    missing = find_missing(picture, here, tops)
    if missing:
        also = [upstream.confirm(key) for key in missing]
        await fetch(reader, upstream, journal, observer, workers=workers, also=also)
        picture = upstream.compose(journal.pages)
    gone = [one for kind, one in missing if kind == USER and journal.pages[f"confirm/{kind}/{one}"].absent]
    return compare(picture, here, tops, gone), picture.warnings


def pieces(changes: Sequence[Change], most_lines: int = MOST_LINES) -> Iterator[tuple[Sequence[Change], bytes]]:
    """The changes as bodies of imports, in their order; a usual sync is one, and so whole or nothing."""
    lines: list[bytes] = []
    taken: list[Change] = []
    size = 0
    for change in changes:
        line = msgspec.json.encode(change.line)
        if lines and (len(lines) == most_lines or size + len(line) > _MOST_PIECE):
            yield taken, b"\n".join(lines)
            lines, taken, size = [], [], 0
        lines.append(line)
        taken.append(change)
        size += len(line) + 1
    if lines:
        yield taken, b"\n".join(lines)
