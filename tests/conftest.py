"""What all tests share: folders as markers, budgets in the summary, and databases that cost next to nothing.

Nothing here imports the service before a test asks for it, so unit tests run where no database driver is.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import inspect
import itertools
import os
import shutil
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import hypothesis
import pytest

if TYPE_CHECKING:
    from authz_service.embedded import EmbeddedPostgres

# Seconds of tests, summed over the workers. Going over is said, and fails nothing: a machine may be busy.
BUDGETS = {
    "unit": 20,
    "property": 60,
    "integration": 180,
    "conformance": 90,
    "faults": 240,
    "e2e": 240,
    "bench": 60,
}
# Their tests start servers and wait for them: one that fails is tried once more, and named at the end.
SECOND_TRY = {"database", "integration", "faults", "e2e", "bench"}
DATABASE_FIXTURES = {"postgres", "database_url", "empty_database_url", "make_database"}
LEFTOVER_SECONDS = 3600
ENOUGH_MEMORY = 2 << 30

# A slow machine is no fault of the code under test, and a failure must come again when it is run again.
hypothesis.settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "long",
    deadline=None,
    max_examples=2000,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("steady")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked `long` too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out: list[pytest.Item] = []
    kept: list[pytest.Item] = []
    for item in items:
        folder = _folder(item.nodeid)
        if folder is None:
            raise pytest.UsageError(f"`{item.nodeid}` lies in no folder of {', '.join(BUDGETS)}: move it to one")
        item.add_marker(folder)
        if DATABASE_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("database")
        if SECOND_TRY & {mark.name for mark in item.iter_markers()} and not config.getoption("--long"):
            item.add_marker(pytest.mark.flaky(reruns=1))
        skip = item.get_closest_marker("long") and not config.getoption("--long")
        (left_out if skip else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # under xdist, the process that hears of all tests
        config.pluginmanager.register(Budgets(), "budgets")


class Budgets:
    """Adds up what each folder took, and says so at the end."""

    def __init__(self) -> None:
        self._tests: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._files: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        folder = _folder(report.nodeid)
        self._files.add(report.nodeid.partition("::")[0])
        if folder is not None:
            self._tests[folder] += report.when == "setup"
            self._seconds[folder] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._tests:
            return
        terminalreporter.section("time budgets")
        for folder, budget in BUDGETS.items():
            if folder in self._tests:
                spent = self._seconds[folder]
                line = f"{folder}: {self._tests[folder]} tests, {spent:.1f} s of {budget} s"
                over = spent > budget
                terminalreporter.line(f"{line}: over its budget" if over else line, yellow=over)
        again = terminalreporter.getreports("rerun")
        if again:
            terminalreporter.section("tried a second time")
            for report in again:
                terminalreporter.line(f"{report.nodeid}: {_why(report)}", yellow=True)
        if any("/test_docs" in name for name in self._files):
            _tell_what_pages_leave_out(terminalreporter)


def _why(report: pytest.TestReport) -> str:
    """The error that ended the first try, in a line."""
    lines = [line.strip() for line in report.longreprtext.splitlines() if any(map(str.isalnum, line))]
    told = next((line.removeprefix("E ") for line in lines if line.startswith("E ")), None)
    return (told or next(reversed(lines), "it says nothing")).strip()


def _tell_what_pages_leave_out(terminalreporter: pytest.TerminalReporter) -> None:
    """Blocks of the documentation that are not run: each has its reason beside it (CONTRIBUTING.md)."""
    from tests.support.docs_pages import blocks, pages

    found = [block for page in pages() for block in blocks(page) if block.language != "service"]
    left = [block for block in found if block.why_not_run is not None]
    terminalreporter.section("blocks of the documentation")
    terminalreporter.line(f"{len(found) - len(left)} are run or checked, {len(left)} are not:")
    for block in left:
        terminalreporter.line(f"{block.where}: {block.why_not_run}")


def _folder(nodeid: str) -> str | None:
    parts = nodeid.partition("::")[0].split("/")
    return next((part for part in parts[:-1] if part in BUDGETS), None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A database server for this process's tests, and under xdist for this worker's; it forgets on a crash."""
    from authz_service.embedded import EmbeddedPostgres

    _sweep()
    server = EmbeddedPostgres(
        _roomy() / f"authz-tests-{uuid.uuid4().hex[:12]}",
        settings={"fsync": "off", "full_page_writes": "off", "max_connections": "200", "shared_buffers": "128MB"},
    )
    with server:
        yield server
    shutil.rmtree(server.folder)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may pass through, as a database server's user must; pytest's own are closed."""
    folder = Path(tempfile.mkdtemp(prefix="authz-open-", dir=_roomy()))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def make_database(postgres: EmbeddedPostgres) -> Callable[..., str]:
    """Makes a fresh database and returns its URL: migrated, or with `empty=True` without any table."""
    numbers = itertools.count(1)

    @functools.cache
    def template() -> str:
        from authz_service.store import database

        # The migrations run once; every other database is a copy of what they made.
        outcome = database.migrate(postgres.create_database("migrated"))
        if inspect.isawaitable(outcome):
            with ThreadPoolExecutor(1) as pool:  # the test that asks first may run in an event loop
                pool.submit(asyncio.run, _finish(outcome)).result()
        return "migrated"

    def make(*, empty: bool = False) -> str:
        return postgres.create_database(f"test_{next(numbers)}", template=None if empty else template())

    return make


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, make_database: Callable[..., str]) -> Iterator[str]:
    """The URL of a database of this test's own, migrated and empty."""
    url = make_database()
    yield url
    postgres.drop_database(_name(url))


@pytest.fixture
def empty_database_url(postgres: EmbeddedPostgres, make_database: Callable[..., str]) -> Iterator[str]:
    """The URL of a database of this test's own, for migrations to run on."""
    url = make_database(empty=True)
    yield url
    postgres.drop_database(_name(url))


async def _finish(work: Awaitable[object]) -> None:
    await work


def _name(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


def _roomy() -> Path:
    """Where files come and go by the thousand: memory, where there is enough, else the temporary folder.

    Every fresh database is 300 files, which some disks take ten times as long to make soon after a removal.
    """
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ENOUGH_MEMORY:
        return memory
    return Path(tempfile.gettempdir())


def _sweep() -> None:
    """Remove the data of runs that were killed: their servers ended with them, their files did not."""
    for folder in _roomy().glob("authz-tests-*"):
        with suppress(OSError), (folder / "lock").open("rb") as lock:
            if time.time() - folder.stat().st_mtime > LEFTOVER_SECONDS:  # a younger one may be about to be locked
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
