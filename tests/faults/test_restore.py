"""The restore drill of docs/operations/backup.md: what was revoked since the backup stays so, from step to step."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.faults.client import Connection, check_request, now
from tests.faults.fleet import ORGANISATION, PROJECT, Fleet, Issued, wait_until
from tests.faults.postgres import Postgres
from tests.faults.service import Service
from tests.faults.traffic import Ledger, Traffic

Backup = Callable[[Postgres, Path], Callable[[], Postgres]]
"""Takes a backup of a server; what it gives restores it, as a server that runs."""


def logical(server: Postgres, folder: Path) -> Callable[[], Postgres]:
    file = folder / "authz.dump"
    server.dump(file)
    return lambda: server.load(file)


def physical(server: Postgres, folder: Path) -> Callable[[], Postgres]:
    del folder
    copy = server.copy(standby=False)
    return copy.start


@pytest.fixture(scope="module")
def pair() -> Iterator[Fleet]:
    with Fleet(replicas=2) as found:
        yield found


@pytest.mark.parametrize("backup", [pytest.param(physical, marks=pytest.mark.long), logical])
def test_what_was_revoked_since_the_backup_is_never_allowed_again(pair: Fleet, tmp_path: Path, backup: Backup):
    asyncio.run(drill(pair, tmp_path, backup))


async def drill(fleet: Fleet, folder: Path, backup: Backup) -> None:
    ledger = Traffic(fleet).ledger
    kept, *gone = await fleet.issue(7)
    rotated = gone.pop()
    for number in range(len(fleet.replicas)):
        for token in (kept, rotated, *gone):
            await check(fleet, number, token, ledger)
    await revoke(fleet, gone[0], ledger)
    restore = await asyncio.to_thread(backup, fleet.postgres, folder)

    # Life goes on after the backup, and the audit is exported now and then.
    for token in gone[1:]:
        await revoke(fleet, token, ledger)
    await rotate(fleet, rotated, ledger)
    [late] = await fleet.issue(1)
    await revoke(fleet, late, ledger)
    lines = b"\n".join(json.dumps(line).encode() for line in ORGANISATION)
    await fleet.manage("POST", "/v1/directory/import", lines, kind="application/x-ndjson", expected=200)
    export = folder / "audit.jsonl"
    exported = await asyncio.to_thread(fleet.authz, "audit", "export", "--url", url(fleet), secret=fleet.admin)
    assert exported.returncode == 0, exported.stderr
    export.write_text(exported.stdout)
    assert "token.revoke" in exported.stdout

    # The server is lost, the backup takes its place, and nobody is told.
    async with asking(fleet, [*gone, rotated, late], ledger):
        await asyncio.to_thread(fleet.postgres.stop)
        restored = await asyncio.to_thread(restore)
        lives = "select id from token where id = any ($1) and revoked_at is null and successor_id is null"
        alive = {row["id"] for row in await restored.fetch(lives, [token.id for token in (kept, rotated, *gone)])}
        assert alive == {token.id for token in (kept, rotated, *gone[1:])}, "the backup knows of no later revoke"
        fleet.move_to(restored)
        for replica in fleet.replicas:
            await asyncio.to_thread(await_obstacle, replica, "rewound")
        told = fleet.authz("restored", "--output", "json", "--audit", str(export))
        assert told.returncode == 0, told.stderr
        done = json.loads(told.stdout)
        assert done["revoked"] == len(gone)  # those since the backup, and the one that was rotated out
        assert done["already_revoked"] >= 1
        assert done["unknown"] == 1  # what was issued since
        assert [one["action"] for one in done["review"]] == ["directory.import"]
        await asyncio.to_thread(fleet.await_ready)
        fresh = fleet.replicas[-1]
        fresh.stop()
        await asyncio.to_thread(fresh.relaunch().await_answering)  # one without a memory
        await asyncio.to_thread(fleet.await_ready)
        await asyncio.sleep(fleet.staleness)
    assert not ledger.broken, ledger.broken[:5]
    for number in range(len(fleet.replicas)):
        assert await check(fleet, number, kept, ledger)
        for token in (*gone, rotated, late):
            assert not await check(fleet, number, token, ledger), token.id
    again = fleet.authz("restored", "--output", "json", "--audit", str(export))
    assert json.loads(again.stdout)["revoked"] == 0, "done twice, it is done once"
    await asyncio.to_thread(fleet.await_ready)


def url(fleet: Fleet) -> str:
    return f"http://127.0.0.1:{fleet.replicas[0].port}"


async def check(fleet: Fleet, number: int, token: Issued, ledger: Ledger) -> bool:
    """Whether a replica allows; again while it can decide nothing."""
    connection = Connection(fleet.replicas[number].port)
    try:
        for _ in range(300):
            sent_at = now()
            answer = await connection.send(check_request(fleet.gateway, token.secret, PROJECT))
            ledger.note(number, token.secret, sent_at, answer)
            if answer.status == 200:
                return answer.allows
            await asyncio.sleep(0.1)
    finally:
        connection.close()
    raise AssertionError(f"replica {number} decides nothing: {answer.body!r}")


async def revoke(fleet: Fleet, token: Issued, ledger: Ledger) -> None:
    await fleet.manage("DELETE", f"/v1/tokens/{token.id}?wait=true", expected=200)
    ledger.revoked[token.secret] = now()


async def rotate(fleet: Fleet, token: Issued, ledger: Ledger) -> None:
    await fleet.manage("POST", f"/v1/tokens/{token.id}/rotate?wait=true", b"{}", expected=201)
    ledger.revoked[token.secret] = now()


@asynccontextmanager
async def asking(fleet: Fleet, tokens: list[Issued], ledger: Ledger) -> AsyncIterator[None]:
    """Every replica is asked about these all the time, whatever happens to it meanwhile."""

    async def one(number: int) -> None:
        connection = Connection(fleet.replicas[number].port)
        while True:
            for token in tokens:
                sent_at = now()
                try:
                    answer = await connection.send(check_request(fleet.gateway, token.secret, PROJECT))
                    ledger.note(number, token.secret, sent_at, answer)
                except (OSError, EOFError):
                    ledger.counts["lost"] += 1
                await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(one(number)) for number in range(len(fleet.replicas))]
    try:
        yield
        assert ledger.counts["of revoked tokens"]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def await_obstacle(replica: Service, code: str, seconds: float = 60.0) -> None:
    wait_until(lambda: code in replica.obstacles(), seconds, f"`{code}`")
