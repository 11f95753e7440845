"""Fleets for the tests of faults; one serves all tests of a module that do not ruin it."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import pytest
from tests.faults.fleet import Fleet


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if platform.system() != "Linux":
        for item in items:
            if "/faults/" in item.nodeid:
                item.add_marker(pytest.mark.skip(reason="freezes and kills processes as Linux does; run it there"))


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet() as found:
        yield found


@pytest.fixture(autouse=True)
def _healed(request: pytest.FixtureRequest) -> Iterator[None]:
    """What one test broke, the next one finds mended."""
    yield
    if "fleet" in request.fixturenames:
        found: Fleet = request.getfixturevalue("fleet")
        found.postgres.thaw()
        for replica in found.replicas:
            replica.thaw()
        found.heal()
