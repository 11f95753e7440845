"""Work that several callers wait for at once is done once, and goes on when one of them leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

_Found = TypeVar("_Found")


class Joined(Generic[_Found]):
    """Tasks by their key, while they run; what has ended is handed to nobody who came later."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[_Found]] = {}

    def runs(self, key: str) -> bool:
        """Whether `do` would join what another caller began."""
        task = self._running.get(key)
        return task is not None and not task.done()

    async def do(self, key: str, work: Callable[[], Coroutine[Any, Any, _Found]]) -> _Found:
        """What `work` answers or raises, or what another caller's does that runs under this key."""
        task = self._running.get(key)
        if task is None or task.done():
            task = self._running[key] = asyncio.create_task(work())
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    def _forget(self, key: str, done: asyncio.Task[_Found]) -> None:
        if self._running.get(key) is done:
            del self._running[key]
        if not done.cancelled():
            done.exception()  # every waiter gets it; where all of them left it must not stay unseen
