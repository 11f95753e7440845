"""`authz doctor` before servers that are not what they seem: poolers, standbys, clocks."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from tests.faults import pooler
from tests.faults.pooler import Pooler
from tests.faults.postgres import Postgres

from authz_service.cli.examining import examine, look_at_clock
from authz_service.cli.findings import Finding, Level
from authz_service.store.fitness import Server
from authz_service.store.schema import migrate

PEPPERS = "k1:" + base64.b64encode(os.urandom(32)).decode()


@pytest.fixture(scope="module")
def primary() -> Iterator[Postgres]:
    with Postgres(settings={"fsync": "on", "full_page_writes": "on"}) as found:
        asyncio.run(migrate(found.server.dsn))
        yield found


def said(check: str, **env: str) -> list[Finding]:
    found = asyncio.run(examine({"AUTHZ_PEPPERS": PEPPERS, **env}))
    return [one for one in found if one.check == check and one.mend]


@pytest.mark.skipif(pooler.find() is None, reason=pooler.MISSING)
def test_a_pooler_without_a_way_around_it_is_seen(primary):
    one = Pooler(primary).await_answering()
    try:
        pooled, direct = primary.url(one.port), primary.server.dsn
        [found] = said("pooler", AUTHZ_DATABASE_URL=pooled)
        assert (found.level, "set AUTHZ_DATABASE_DIRECT_URL" in found.mend) == (Level.WRONG, True)
        [found] = said("pooler", AUTHZ_DATABASE_URL=pooled, AUTHZ_DATABASE_DIRECT_URL=pooled)
        assert (found.level, "too" in found.message) == (Level.WRONG, True)
        assert said("pooler", AUTHZ_DATABASE_URL=pooled, AUTHZ_DATABASE_DIRECT_URL=direct) == []
        assert said("bell", AUTHZ_DATABASE_URL=pooled, AUTHZ_DATABASE_DIRECT_URL=direct) == []
        # Another database of the same server hears no ring either, and nothing there is ours.
        elsewhere = direct.replace("/authz?", "/postgres?")
        [found] = said("pooler", AUTHZ_DATABASE_URL=direct, AUTHZ_DATABASE_DIRECT_URL=elsewhere)
        assert "different databases" in found.message
    finally:
        one.close()


def test_a_standby_that_nobody_waits_for_and_one_in_the_place_of_the_primary(primary):
    assert said("server", AUTHZ_DATABASE_URL=primary.server.dsn) == []
    with primary.copy(standby=True) as standby:
        [found] = said("server", AUTHZ_DATABASE_URL=primary.server.dsn)
        assert (found.level, "synchronous_standby_names" in found.mend) == (Level.ADVICE, True)
        [found] = said("server", AUTHZ_DATABASE_URL=standby.server.dsn)
        assert (found.level, "is a standby" in found.message) == (Level.WRONG, True)
        asyncio.run(primary.require_standbys("*"))
        try:
            assert said("server", AUTHZ_DATABASE_URL=primary.server.dsn) == []
        finally:
            asyncio.run(primary.require_standbys(""))


@pytest.mark.parametrize(
    ("seconds", "level"), [(0, Level.FINE), (10, Level.ADVICE), (-10, Level.ADVICE), (90, "wrong")]
)
def test_clocks_that_part(seconds, level):
    now = datetime(2026, 11, 22, tzinfo=UTC)
    server = Server(now + timedelta(seconds=seconds), False, True, True, "", 0)
    [found] = look_at_clock(server, now - timedelta(seconds=0.2), now + timedelta(seconds=0.2))
    assert found.level == level
