"""What goes wrong, as steps on a fleet with traffic. The tests run them on the service, and on each mutant of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.faults.client import Connection, check_request, now, request
from tests.faults.fleet import PROJECT, Fleet, Issued
from tests.faults.postgres import Postgres
from tests.faults.proxy import DEAD, DEAF, HOLE, REFUSE
from tests.faults.traffic import Ledger, Traffic

from authz_service.store.changes import ChangeKind, ChangeSet, append
from authz_service.store.database import Database


async def black_hole(fleet: Fleet) -> Ledger:
    """One replica's link swallows everything for longer than S, and the others go on revoking."""
    traffic = Traffic(fleet)
    cut_off = fleet.replicas[1]
    known = await _known_everywhere(fleet, 3, traffic.ledger)
    async with traffic.running(writers=[0]) as ledger:
        await asyncio.sleep(0.5)
        fleet.proxies.set("1", HOLE)
        await _revoke_and_ask_late(fleet, known, ledger)
        assert cut_off.obstacles() == ["stale"]
        assert cut_off.get("/livez")[0] == 200
        fleet.proxies.heal("1")
        await asyncio.sleep(fleet.staleness)
    await traffic.settle()
    return ledger


async def _known_everywhere(fleet: Fleet, count: int, ledger: Ledger) -> list[Issued]:
    """Tokens that every replica has in memory."""
    tokens = await fleet.issue(count)
    for number in range(len(fleet.replicas)):
        for token in tokens:
            await ask(fleet, number, token, ledger)
    return tokens


async def _revoke_and_ask_late(fleet: Fleet, tokens: list[Issued], ledger: Ledger) -> None:
    """Whatever a replica still remembers of them, S later it may not allow them."""
    for token in tokens:
        await revoke(fleet, 0, token, ledger)
    await asyncio.sleep(fleet.staleness + 0.1)
    for number in range(len(fleet.replicas)):
        for token in tokens:
            await ask(fleet, number, token, ledger)
    assert not ledger.broken, ledger.broken[:5]


async def broken_links(fleet: Fleet) -> Ledger:
    """Resets, refusals and delays on every link, one after the other and together."""
    traffic = Traffic(fleet)
    async with traffic.running() as ledger:
        for turn in range(6):
            fleet.proxies.cut(fleet.names[turn % len(fleet.names)])
            await asyncio.sleep(0.15)
        fleet.proxies.set(fleet.names[0], REFUSE)
        fleet.proxies.delay(fleet.names[-1], 0.1)
        await asyncio.sleep(fleet.staleness * 1.5)
        fleet.heal()
        fleet.proxies.set(fleet.names[-1], DEAD)
        await asyncio.sleep(fleet.staleness)
    await traffic.settle()  # with what is dead still open
    fleet.proxies.cut(fleet.names[-1])
    return ledger


async def deaf_bell(fleet: Fleet) -> Ledger:
    """The connection of the bell swallows everything on all replicas but one; nothing closes."""
    traffic = Traffic(fleet)
    known = await _known_everywhere(fleet, 3, traffic.ledger)
    async with traffic.running(writers=[0]) as ledger:
        for name in fleet.names[1:]:
            fleet.proxies.set(name, DEAF)
        await _revoke_and_ask_late(fleet, known, ledger)
        await asyncio.sleep(fleet.staleness)
        fleet.heal()
    await traffic.settle()
    return ledger


async def slow_writers(fleet: Fleet) -> Ledger:
    """Some writers are far from the database: they hold a revision for long before it is visible, and others pass."""
    ledger = Traffic(fleet).ledger
    far, near = await _known_everywhere(fleet, 4, ledger), await fleet.issue(60)
    half = len(fleet.names) // 2
    for name in fleet.names[half:]:
        fleet.proxies.delay(name, 0.05)

    async def far_away(number: int, tokens: list[Issued]) -> None:
        for token in tokens:
            await revoke(fleet, number, token, ledger)

    async def close_by(number: int) -> None:
        while near:
            await revoke(fleet, number, near.pop(), ledger)
            await asyncio.sleep(0.02)

    passing = [asyncio.create_task(close_by(number)) for number in range(half)]
    await asyncio.gather(far_away(half, far[:2]), far_away(len(fleet.names) - 1, far[2:]))
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
    try:
        for _ in range(200):
            answer = await connection.send(request("DELETE", path, fleet.writers[number]))
            if answer.status != 503:
                break
            await asyncio.sleep(0.1)
    finally:
        connection.close()
    assert answer.status == 200, answer.body
    ledger.revoked[token.secret] = now()
    ledger.acknowledged.append(token.id)


async def waits(fleet: Fleet) -> Ledger:
    """`?wait=true` under faults: once it is answered, no replica allows, not even within S."""
    ledger = Ledger(0.0)
    faults: list[tuple[Callable[[], None], Callable[[], None]]] = [
        (lambda: None, lambda: None),
        (lambda: fleet.proxies.set("1", HOLE), lambda: None),
        (fleet.replicas[-1].freeze, fleet.replicas[-1].thaw),
        (lambda: fleet.proxies.delay("1", 0.1), lambda: None),
        (lambda: [fleet.proxies.cut(name) for name in fleet.names[1:]], lambda: None),
    ]
    for begin, end in faults:
        await asyncio.to_thread(fleet.await_ready)
        tokens = await _known_everywhere(fleet, 3, ledger)
        begin()
        try:
            for token in tokens:
                await revoke(fleet, 0, token, ledger, wait=True)
        finally:
            end()
        for number in range(len(fleet.replicas)):
            for token in tokens:
                await ask(fleet, number, token, ledger)
        fleet.heal()
        assert not ledger.broken, ledger.broken[:5]
    return ledger


async def frozen_database(fleet: Fleet) -> Ledger:
    """The server stops in the middle of everything, answers nobody, and goes on much later."""
    traffic = Traffic(fleet)
    async with traffic.running() as ledger:
        await asyncio.sleep(0.3)
        fleet.postgres.freeze()
        await asyncio.sleep(fleet.staleness * 2)
        for replica in fleet.replicas:
            assert replica.obstacles() == ["stale"]
            assert replica.get("/livez")[0] == 200
        fleet.postgres.thaw()
        await asyncio.sleep(fleet.staleness)
    await traffic.settle()
    return ledger


async def killed_database(fleet: Fleet) -> Ledger:
    """The server dies with all its processes, and comes back; what was acknowledged is there."""
    traffic = Traffic(fleet)
    async with traffic.running() as ledger:
        for _ in range(2):
            await asyncio.sleep(0.4)
            fleet.postgres.kill()
            await asyncio.to_thread(fleet.postgres.restart)
        await asyncio.sleep(fleet.staleness)
    await traffic.settle()
    return ledger


async def frozen_replica(fleet: Fleet) -> Ledger:
    """A replica stands still while the others revoke. What it was asked meanwhile it answers when it wakes."""
    traffic = Traffic(fleet)
    async with traffic.running(writers=[0]) as ledger:
        await asyncio.sleep(0.3)
        fleet.replicas[-1].freeze()
        await asyncio.sleep(fleet.staleness * 2)
        fleet.replicas[-1].thaw()
        await asyncio.sleep(fleet.staleness)
    await traffic.settle()
    return ledger


async def killed_replica(fleet: Fleet) -> Ledger:
    """A replica dies, and another process takes its place."""
    traffic = Traffic(fleet)
    async with traffic.running() as ledger:
        await asyncio.sleep(0.3)
        fleet.replicas[-1].kill()
        fleet.replicas[-1].relaunch()
        await asyncio.to_thread(fleet.replicas[-1].await_answering)
        await asyncio.sleep(fleet.staleness)
    await traffic.settle()
    return ledger


async def failover(fleet: Fleet) -> Ledger:
    """The primary dies; the standby that had everything takes over. Nobody needs to be told."""
    standby = fleet.postgres.copy(standby=True).start()
    await fleet.postgres.require_standbys("*")
    await _until_synchronous(fleet)
    traffic = Traffic(fleet)
    async with traffic.running() as ledger:
        await asyncio.sleep(0.5)
        fleet.postgres.kill()
        await standby.promote()
        fleet.move_to(standby)
        await asyncio.sleep(fleet.staleness)
    await traffic.settle()
    for replica in fleet.replicas:
        assert replica.figure("authz_cache_resets_total") == 0
    return ledger


async def lost_tail(fleet: Fleet) -> Ledger:
    """The standby that takes over lacks the last revokes, which were acknowledged and in force everywhere."""
    standby = fleet.postgres.copy(standby=True).start()
    ledger = Traffic(fleet).ledger
    tokens = await _known_everywhere(fleet, 6, ledger)
    await _until_replayed(fleet, standby)
    await standby.part()
    for token in tokens[:3]:
        await revoke(fleet, 0, token, ledger, wait=True)
    fleet.postgres.kill()
    await standby.promote()
    await _write_revisions(standby, 5)  # the new primary goes on, over the numbers that were lost
    fleet.move_to(standby)
    await _ask_for(fleet, tokens, ledger, fleet.staleness * 2)
    for replica in fleet.replicas:
        assert replica.obstacles() == ["rewound"], replica.obstacles()
        assert replica.get("/livez")[0] == 200
    return ledger


async def restored_backup(fleet: Fleet) -> Ledger:
    """An older backup takes the database's place, and goes on being written to."""
    ledger = Traffic(fleet).ledger
    tokens = await _known_everywhere(fleet, 6, ledger)
    backup = fleet.postgres.copy(standby=False)
    for token in tokens[:3]:
        await revoke(fleet, 0, token, ledger, wait=True)
    fleet.postgres.stop()
    backup.start()
    # As many revisions as were lost, and more: the head alone would tell nothing.
    await backup.fetch("update token set revoked_at = now() where id = $1", tokens[5].id)
    await _write_revisions(backup, 5)
    fleet.move_to(backup)
    await _ask_for(fleet, tokens[:5], ledger, fleet.staleness * 2)
    for replica in fleet.replicas:
        assert replica.obstacles() == ["rewound"], replica.obstacles()
    return ledger


async def _ask_for(fleet: Fleet, tokens: list[Issued], ledger: Ledger, seconds: float) -> None:
    end = now() + seconds
    while now() < end:
        for number in range(len(fleet.replicas)):
            for token in tokens:
                await ask(fleet, number, token, ledger)
    assert not ledger.broken, ledger.broken[:5]


async def _write_revisions(postgres: Postgres, count: int) -> None:
    database = Database(postgres.server.dsn)
    for number in range(count):
        async with database.transaction() as conn:
            changes = ChangeSet()
            changes.touch(ChangeKind.TOKEN, f"tok_{number}")
            await append(conn, changes)
    await database.close()


async def _until_synchronous(fleet: Fleet) -> None:
    for _ in range(500):
        rows = await fleet.postgres.fetch("select sync_state from pg_stat_replication")
        if [row["sync_state"] for row in rows] == ["sync"]:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the standby does not follow")


async def _until_replayed(fleet: Fleet, standby: Postgres) -> None:
    [head] = await fleet.postgres.fetch("select pg_current_wal_lsn()::text as at")
    for _ in range(500):
        rows = await standby.fetch("select pg_last_wal_replay_lsn() >= $1::text::pg_lsn as there", head["at"])
        if rows[0]["there"]:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the standby does not follow")
