"""SIGHUP: settings and the files that they name are read again, for whoever runs one worker or several."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from typing import Final

from fastapi import FastAPI

from authz_service.cli.certificates import Shown
from authz_service.config import Settings, load_settings, read_settings_file
from authz_service.errors import StartError
from authz_service.reloading import Reloading

FROM_FILE: Final = "AUTHZ_WORKER_FROM_FILE"
"""Variables that a worker was given and that stood in the settings' file, which may say something else by now."""

Source = Callable[[], Settings]
"""Reads the settings anew. Raises StartError."""


def names_in_file(environ: Mapping[str, str]) -> str:
    """What FROM_FILE is to say. Raises StartError."""
    return ",".join(sorted(read_settings_file(environ)))


def source_of(environ: Mapping[str, str]) -> Source:
    """Where a process reads its settings again: its environment as it was, without what came from the file."""
    dropped = set(environ.get(FROM_FILE, "").split(","))
    kept = {name: value for name, value in environ.items() if name not in dropped and name != FROM_FILE}
    return lambda: load_settings(kept)


def listen_for_reload(app: FastAPI, source: Source | None, shown: Shown) -> None:
    """Take over what can be on SIGHUP, in the running loop; without a source, SIGHUP does what it always did."""
    if source is None:
        return
    one_at_a_time = asyncio.Lock()
    running: set[asyncio.Task[None]] = set()

    async def work() -> None:
        async with one_at_a_time:
            reloading: Reloading = app.state.reloading
            try:
                commit = await asyncio.to_thread(lambda: reloading.prepare(source()))
                await asyncio.to_thread(shown.reload)
            except StartError as error:
                reloading.refuse(error)
            else:
                commit()

    def begin() -> None:
        task = asyncio.get_running_loop().create_task(work(), name="reload")
        running.add(task)
        task.add_done_callback(running.discard)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, begin)
