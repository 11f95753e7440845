"""Several workers: started, replaced when they die, stopped in order; nothing of them outlives this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from prometheus_client import multiprocess

from authz_service.cli.listening import Listening
from authz_service.cli.reloader import FROM_FILE, names_in_file, source_of
from authz_service.cli.worker import CANNOT_START, GATEWAY_FD, LIFELINE_FD, READY_FD, SOCKET_FD, SURFACE_FDS
from authz_service.config import PREFIX, Settings, require_reloadable, to_environment
from authz_service.errors import StartError
from authz_service.telemetry import MULTIPROCESS_DIR, logger

_SHORTEST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0
_BEYOND_SHUTDOWN: Final = 10.0
"""How long after its own time for a shutdown a worker is waited for, before it is killed."""


@dataclass(slots=True)
class Supervisor:
    """Run it once. `on_answering` is called when every worker answers for the first time."""

    settings: Settings
    listening: Listening
    metrics_dir: Path
    on_answering: Callable[[], None]
    environ: Mapping[str, str] | None = None
    """What the settings came from: with it SIGHUP has them read again, here for workers to come, and by each worker."""
    from_file: str = ""
    """The variables among them that stood in a file (`cli.reloader.FROM_FILE`)."""
    _reading: set[asyncio.Task[None]] = field(init=False, default_factory=set)
    _answering: set[asyncio.subprocess.Process] = field(init=False, default_factory=set)
    _stopping: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _lifeline: tuple[int, int] = field(init=False, default=(-1, -1))
    _running: set[asyncio.subprocess.Process] = field(init=False, default_factory=set)

    async def run(self) -> None:
        """Returns after SIGINT or SIGTERM, when all workers are gone. Raises StartError when they cannot start.

        Asked to stop once more, it does not wait for requests under way.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        if self.environ is not None:
            loop.add_signal_handler(signal.SIGHUP, self._read_again)
        self._lifeline = os.pipe()
        try:
            await self._supervise()
        finally:
            for end in self._lifeline:
                os.close(end)

    def _stop(self) -> None:
        if self._stopping.is_set():
            for process in self._running:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
        self._stopping.set()

    def _note_answering(self, process: asyncio.subprocess.Process, said: asyncio.Task[bool]) -> None:
        if not said.cancelled() and said.exception() is None and said.result() and process.returncode is None:
            self._answering.add(process)

    def _read_again(self) -> None:
        task = asyncio.get_running_loop().create_task(self._reload(self.environ or {}), name="reload")
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _reload(self, environ: Mapping[str, str]) -> None:
        try:
            fresh = await asyncio.to_thread(source_of(environ))
            from_file = await asyncio.to_thread(names_in_file, environ)
            require_reloadable(self.settings, fresh)
        except StartError as error:
            logger().error("settings were not taken over; the last good ones stay", why=error.message)
        else:
            self.settings, self.from_file = fresh, from_file
        for process in self._answering:  # each looks for itself, and says so
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGHUP)

    async def _supervise(self) -> None:
        ready = [asyncio.Event() for _ in self.listening.sockets]
        keepers = [asyncio.create_task(self._keep(slot, event)) for slot, event in enumerate(ready)]
        answering = asyncio.create_task(self._announce(ready))
        stopping = asyncio.create_task(self._stopping.wait())
        watched: set[asyncio.Task[Any]] = {*keepers, answering, stopping}
        try:
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if done == {answering} and answering.exception() is None:
                done, _ = await asyncio.wait(watched - {answering}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stopping.set()
            for helper in (answering, stopping):
                helper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
        for task in done:
            task.result()

    async def _announce(self, ready: list[asyncio.Event]) -> None:
        for event in ready:
            await event.wait()
        # In a thread: whoever listens may ask the service itself, and workers must be waited for meanwhile.
        await asyncio.to_thread(self.on_answering)

    async def _keep(self, slot: int, ready: asyncio.Event) -> None:
        """One place for a worker: while nobody asked to stop, somebody works there."""
        pause = _SHORTEST_PAUSE
        while not self._stopping.is_set():
            process, answers = await self._start(slot)
            self._running.add(process)
            answering = asyncio.create_task(_set_when_said(answers, ready))
            answering.add_done_callback(partial(self._note_answering, process))
            ended = asyncio.create_task(process.wait())
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not ended.done():
                await self._end(process, ended)
            self._running.discard(process)
            self._answering.discard(process)
            if answering.done() and answering.result():
                pause = _SHORTEST_PAUSE
            answering.cancel()
            multiprocess.mark_process_dead(process.pid, str(self.metrics_dir))  # type: ignore[no-untyped-call]
            if self._stopping.is_set():
                return
            status = ended.result()
            if not ready.is_set():
                why = "it said why above" if status == CANNOT_START else f"it ended with status {status}"
                raise StartError(f"a worker cannot start: {why}")
            logger().error("worker died", slot=slot, pid=process.pid, status=status, restarts_in=pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _start(self, slot: int) -> tuple[asyncio.subprocess.Process, int]:
        """The process, and the file at which it says that it answers."""
        answers, says = os.pipe()
        bound = self.listening.sockets[slot].fileno()
        passed: tuple[int, ...] = (bound, says, self._lifeline[0])
        numbers = dict(zip((SOCKET_FD, READY_FD, LIFELINE_FD), map(str, passed), strict=True))
        if self.listening.gateways:
            gateway = self.listening.gateways[slot].fileno()
            passed, numbers[GATEWAY_FD] = (*passed, gateway), str(gateway)
        if self.listening.surfaces:
            apart = {surface: sockets[slot].fileno() for surface, sockets in self.listening.surfaces.items()}
            passed = (*passed, *apart.values())
            numbers[SURFACE_FDS] = " ".join(f"{surface}={number}" for surface, number in apart.items())
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "authz_service.cli.worker",
                env={**self._environment(), **numbers},
                pass_fds=passed,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the supervisor, which stops its workers first
            )
        except BaseException:
            os.close(answers)
            raise
        finally:
            os.close(says)
        return process, answers

    def _environment(self) -> Mapping[str, str]:
        others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        others.pop("DATABASE_URL", None)  # what counts is in the settings
        own = {MULTIPROCESS_DIR: str(self.metrics_dir), FROM_FILE: self.from_file}
        return {**others, **to_environment(self.settings), **own}

    async def _end(self, process: asyncio.subprocess.Process, ended: asyncio.Task[int]) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        patience = self.settings.drain + self.settings.shutdown_timeout + _BEYOND_SHUTDOWN
        await asyncio.wait({ended}, timeout=patience)
        if not ended.done():
            logger().error("worker killed", pid=process.pid, after=patience)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await ended


async def _set_when_said(answers: int, ready: asyncio.Event) -> bool:
    """Whether the worker said that it answers; False when it closed the pipe without a word. Closes the file."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(answers, readable.set)
    try:
        await readable.wait()
        said = os.read(answers, 1) == b"1"
        if said:
            ready.set()
        return said
    finally:
        loop.remove_reader(answers)
        os.close(answers)
