"""A real browser: Debian's chromium, driven by Playwright; where there is none, its tests are skipped and say so."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDE = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 780}
SHOTS = Path(os.environ.get("AUTHZ_SCREENSHOTS") or "build/screenshots")
"""Where screenshots are left; CI keeps the folder."""


@contextmanager
def browser() -> Iterator[Any]:
    """A headless browser. Skips where there is none, unless CI is set: then it has to be there."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("there is no chromium; `python3 tools/debian_packages.py` installs it")
        pytest.skip("there is no chromium here; `python3 tools/debian_packages.py` installs it, on Debian")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        # As root there is no sandbox to be had; the pages are our own.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"] if os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield started
        finally:
            started.close()


def shoot(page: Any, name: str) -> None:
    """Keep what the page looks like. A browser that cannot paint just now, on a busy machine, fails no test."""
    from playwright.sync_api import Error

    SHOTS.mkdir(parents=True, exist_ok=True)
    for _ in range(3):
        with contextlib.suppress(Error):
            page.screenshot(path=str(SHOTS / f"{name}.png"))
            return


def faults_of(page: Any) -> list[str]:
    """What axe finds that is serious or worse, each with the first element that has it."""
    from axe_playwright_python.sync_playwright import Axe

    # The policy of the pages lets no script in but their own, so axe is asked past it, as by a developer's tools.
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']} at {one['nodes'][0]['target']}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def complaints_of(page: Any) -> list[str]:
    """Collects what the browser itself complains of from here on: broken policies, scripts that fail."""
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found
