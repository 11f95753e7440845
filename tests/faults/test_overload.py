"""More than a replica can do: it answers what it knows, sheds the rest as 503, and grows no further."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
from collections import Counter

import pytest
from tests.faults.client import Connection, check_request, request
from tests.faults.fleet import PROJECT, Fleet

from authz_service.tokens.secret import new_secret

WAITING = 20
FEW_FILES = 400
MANY = 10_000


@pytest.fixture(scope="module")
def one():
    env = {"AUTHZ_LOADS_WAITING": str(WAITING), "AUTHZ_CACHE_UNKNOWN_TOKENS": "500"}
    with Fleet(replicas=1, split=True, staleness=5.0, env=env) as fleet:
        yield fleet


@pytest.fixture(autouse=True)
def _mended(one):
    yield
    one.heal()


def unknown_secret():
    """Of the right shape and checksum: only the database knows that it is nobody's."""
    return new_secret("azt", "k1").reveal()


async def known_token(fleet):
    """A request that the replica answers from memory."""
    [token] = await fleet.issue(1)
    raw = check_request(fleet.gateway, token.secret, PROJECT)
    connection = Connection(fleet.replicas[0].port)
    for _ in range(3):
        assert (await connection.send(raw)).allows
    connection.close()
    return raw


async def keep_asking(fleet, raw, answers):
    connection = Connection(fleet.replicas[0].port)
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            answers.append((await connection.send(raw)).status)
            await asyncio.sleep(0.005)
    connection.close()


async def meanwhile(fleet, work):
    """Run `work` while a known token is asked about; its statuses."""
    answers: list[int] = []
    asking = asyncio.create_task(keep_asking(fleet, await known_token(fleet), answers))
    await work
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return answers


def test_a_flood_of_unknown_tokens_is_shed_and_known_ones_are_answered(one):
    said: list[object] = []
    waiting: list[float] = []

    async def flood_one():
        connection = Connection(one.replicas[0].port)
        for _ in range(12):
            answer = await connection.send(check_request(one.gateway, unknown_secret(), PROJECT))
            said.append((answer.status, answer.document["decision"], answer.document["reason"]))
            if answer.status == 503:
                assert answer.header("retry-after")
        connection.close()

    async def flood():
        one.proxies.delay("pool-0", 0.03)
        floods = asyncio.gather(*(flood_one() for _ in range(120)))
        while not floods.done():
            waiting.append(await asyncio.to_thread(one.replicas[0].figure, "authz_loads_waiting"))
            await asyncio.sleep(0.1)
        await floods

    before = one.replicas[0].memory()
    known = asyncio.run(meanwhile(one, flood()))
    counts = Counter(said)
    assert {(200, "deny", "unknown_token"), (503, "deny", "overloaded")} <= set(counts), counts
    assert {decision for _, decision, _ in counts} == {"deny"}, counts
    assert set(known) == {200}
    assert max(waiting) <= WAITING
    assert one.replicas[0].figure('authz_cache_entries{kind="unknown_tokens"}') <= 500
    assert one.replicas[0].memory() < before + (40 << 20)


def test_malformed_tokens_never_reach_the_database(one):
    async def run():
        loads = one.replicas[0].figure("authz_loads_total")
        connection = Connection(one.replicas[0].port)
        for number in range(200):
            answer = await connection.send(check_request(one.gateway, f"azt_k1_{number:049d}", PROJECT))
            assert answer.document["reason"] == "malformed_token"
        connection.close()
        return one.replicas[0].figure("authz_loads_total") - loads

    assert asyncio.run(run()) == 0


async def hang(port, raw):
    """A client that begins a request and does not go on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    return reader, writer


async def hang_many(fleet, count):
    head = b"POST /check HTTP/1.1\r\nHost: t\r\nContent-Le"
    body = request("POST", "/check", fleet.gateway, b"x" * 1000)[:-500]
    port = fleet.replicas[0].port
    return [await hang(port, raw) for raw in (head, body) for _ in range(count)]


def test_slow_clients_hold_up_nobody_else(one):
    async def run():
        hanging = []

        async def slow():
            hanging.extend(await hang_many(one, 200))
            await asyncio.sleep(0.5)

        known = await meanwhile(one, slow())
        for _, writer in hanging:
            writer.transport.abort()
        return known

    assert set(asyncio.run(run())) == {200}


@pytest.mark.long
def test_slow_clients_are_given_up(one):
    async def run():
        hanging = await hang_many(one, 5)
        async with asyncio.timeout(40):
            for reader, writer in hanging:
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()

    asyncio.run(run())


def test_idle_connections_cost_nobody_an_answer(one):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wanted = min(MANY, hard - 600)

    async def run():
        idle = []

        async def connect():
            for _ in range(wanted // 200):
                some = (asyncio.open_connection("127.0.0.1", one.replicas[0].port) for _ in range(200))
                idle.extend(await asyncio.gather(*some))

        known = await meanwhile(one, connect())
        known += await meanwhile(one, asyncio.sleep(1.0))
        alive = one.replicas[0].files()
        for _, writer in idle:
            writer.transport.abort()
        return known, alive

    try:
        known, alive = asyncio.run(run())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert set(known) == {200}
    assert alive > wanted // 200 * 200
    assert one.replicas[0].memory() < 400 << 20


def test_more_connections_than_files_are_shed_and_come_back(one):
    """Beyond the limit the answer is 503, and a client that was there first is served on."""
    small = one.service("small", files=FEW_FILES).launch().await_answering()
    try:
        asyncio.run(fill_up(one, small))
    finally:
        small.stop()


async def fill_up(fleet, small):
    raw = check_request(fleet.gateway, (await fleet.issue(1))[0].secret, PROJECT)
    first = Connection(small.port)
    assert (await first.send(raw)).allows
    idle = [await asyncio.open_connection("127.0.0.1", small.port) for _ in range(FEW_FILES - 256 + 20)]
    late = Connection(small.port)
    answer = await late.send(raw)
    assert (answer.status, answer.document["reason"]) == (503, "overloaded")
    assert answer.header("retry-after")
    assert (await first.send(raw)).allows
    for _, writer in idle:
        writer.transport.abort()
    async with asyncio.timeout(10):
        while (await late.send(raw)).status == 503:
            await asyncio.sleep(0.05)
    first.close()
    late.close()


def test_more_connections_than_the_database_takes_refuse_the_start(one):
    greedy = one.service("greedy", env={"AUTHZ_POOL_SIZE": "300", "AUTHZ_DATABASE_DIRECT_URL": ""}).launch()
    assert greedy.wait() == 1
    said = greedy.log.read_text()
    assert "1 workers with 302 connections each" in said
    assert "AUTHZ_POOL_SIZE" in said


def test_the_budget_is_printed_at_the_start(one):
    [budget] = [event for event in one.replicas[0].events() if event.get("event") == "connections"]
    assert budget["workers"] == 1
    assert budget["each"] == 2
    assert json.dumps(budget["server_takes"])
