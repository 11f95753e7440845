"""What goes wrong, as steps on a fleet with traffic. The tests run them on the service, and on each mutant of it."""

from __future__ import annotations

import asyncio

from tests.faults.client import Connection, check_request, now, request
from tests.faults.fleet import PROJECT, Fleet, Issued
from tests.faults.proxy import DEAD, DEAF, HOLE, REFUSE
from tests.faults.traffic import Ledger, Traffic


async def black_hole(fleet: Fleet) -> Ledger:
    """One replica's link swallows everything for longer than S, and the others go on revoking."""
    traffic = Traffic(fleet)
    cut_off = fleet.replicas[1]
    async with traffic.running(writers=[0, 2]) as ledger:
        await asyncio.sleep(0.5)
        fleet.proxies.set("1", HOLE)
        await asyncio.sleep(fleet.staleness * 2.2)
        assert not ledger.broken, ledger.broken[:5]
        assert cut_off.obstacles() == ["stale"]
        assert cut_off.get("/livez")[0] == 200
        fleet.proxies.heal("1")
        await asyncio.sleep(fleet.staleness)
    await traffic.settle()
    return ledger


async def broken_links(fleet: Fleet) -> Ledger:
    """Resets, refusals and delays on every link, one after the other and together."""
    traffic = Traffic(fleet)
    async with traffic.running() as ledger:
        for turn in range(6):
            fleet.proxies.cut(fleet.names[turn % len(fleet.names)])
            await asyncio.sleep(0.15)
        fleet.proxies.set("0", REFUSE)
        fleet.proxies.set("2", REFUSE)
        fleet.proxies.delay("3", 0.1)
        await asyncio.sleep(fleet.staleness * 1.5)
        fleet.heal()
        fleet.proxies.set("3", DEAD)
        await asyncio.sleep(fleet.staleness)
        for name in fleet.names:
            fleet.proxies.cut(name)
        await asyncio.sleep(0.5)
    await traffic.settle()
    return ledger


async def deaf_bell(fleet: Fleet) -> Ledger:
    """The connection of the bell swallows everything on two replicas; nothing closes."""
    traffic = Traffic(fleet)
    async with traffic.running(writers=[0]) as ledger:
        for name in ("1", "2"):
            fleet.proxies.set(name, DEAF)
        await asyncio.sleep(fleet.staleness * 2)
        fleet.heal()
    await traffic.settle()
    return ledger


async def slow_writers(fleet: Fleet) -> Ledger:
    """Some writers are far from the database: they hold a revision for long before it is visible, and others pass."""
    ledger = Traffic(fleet).ledger
    far, near = await fleet.issue(6), await fleet.issue(60)
    for number in range(len(fleet.replicas)):
        for token in far:
            await ask(fleet, number, token, ledger)
    for name in ("1", "2"):
        fleet.proxies.delay(name, 0.05)

    async def far_away(number: int, tokens: list[Issued]) -> None:
        for token in tokens:
            await revoke(fleet, number, token, ledger)

    async def close_by(number: int) -> None:
        while near:
            await revoke(fleet, number, near.pop(), ledger)
            await asyncio.sleep(0.02)

    passing = [asyncio.create_task(close_by(number)) for number in (0, 3)]
    await asyncio.gather(far_away(1, far[:3]), far_away(2, far[3:]))
    near.clear()
    await asyncio.gather(*passing)
    fleet.heal()
    await asyncio.sleep(fleet.staleness + 0.1)
    for number in range(len(fleet.replicas)):
        for token in far:
            await ask(fleet, number, token, ledger)
    assert not ledger.broken, ledger.broken[:5]
    return ledger


async def slow_fills(fleet: Fleet) -> Ledger:
    """The pool of one replica is slow and its polls are not: loads arrive after the change that they missed."""
    ledger = Traffic(fleet).ledger
    tokens = await fleet.issue(12)
    await ask(fleet, 1, (await fleet.issue(1))[0], ledger)  # the caller and the place are known from here on
    fleet.proxies.delay("pool-1", 0.15)

    async def one(token: Issued, after: float) -> None:
        asking = asyncio.create_task(ask(fleet, 1, token, ledger))
        await asyncio.sleep(after)
        await revoke(fleet, 0, token, ledger)
        await asking

    for first in range(0, len(tokens), 4):  # as many as are loaded at once
        await asyncio.gather(*(one(tokens[at], 0.1 + 0.06 * at) for at in range(first, first + 4)))
    fleet.heal()
    await asyncio.sleep(fleet.staleness + 0.2)
    for token in tokens:
        await ask(fleet, 1, token, ledger)
    assert not ledger.broken, ledger.broken[:5]
    return ledger


async def ask(fleet: Fleet, number: int, token: Issued, ledger: Ledger) -> None:
    """One check on one replica, written down."""
    connection = Connection(fleet.replicas[number].port)
    sent_at = now()
    try:
        answer = await connection.send(check_request(fleet.gateway, token.secret, PROJECT))
        ledger.note(number, token.secret, sent_at, answer)
    finally:
        connection.close()


async def revoke(fleet: Fleet, number: int, token: Issued, ledger: Ledger, *, wait: bool = False) -> None:
    """Revoke one token by one replica, and write down that it was acknowledged."""
    connection = Connection(fleet.replicas[number].port)
    path = f"/v1/tokens/{token.id}" + ("?wait=true" if wait else "")
    answer = await connection.send(request("DELETE", path, fleet.writers[number]))
    connection.close()
    assert answer.status == 200, answer.body
    ledger.revoked[token.secret] = now()
    ledger.acknowledged.append(token.id)
