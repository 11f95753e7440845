"""The audit while processes and the database are killed: every acknowledged change is in it, and it is whole."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.faults.fleet import Fleet, wait_until
from tests.faults.traffic import Traffic

from authz_service.admin.sealing import format_checkpoint
from authz_service.store.audit_chain import Checkpoint

TAMPERING = {
    "a flipped byte": (
        "update audit set action = overlay(action placing chr(ascii(action) # 1) from 1 for 1) where seal = 7",
        {("seal 7", "row_changed")},
    ),
    "a deleted row": ("delete from audit where seal = 8", {("seal 9", "rows_missing")}),
    "a cut tail": ("delete from audit where seal > 20; delete from audit_checkpoint", {("checkpoint", "tail_cut")}),
}


@pytest.fixture(scope="module")
def killed():
    """A fleet that was written to while its parts died, and what it acknowledged."""
    with Fleet(replicas=2, env={"AUTHZ_AUDIT_CHECKPOINT_INTERVAL": "1"}) as fleet:
        yield fleet, asyncio.run(kill_all_in_turn(fleet))


async def kill_all_in_turn(fleet):
    traffic = Traffic(fleet)
    async with traffic.running(pause=0.01) as ledger:
        for replica in fleet.replicas:
            await asyncio.sleep(0.5)
            replica.kill()
            replica.relaunch()
            await asyncio.to_thread(replica.await_answering)
            await asyncio.to_thread(replica.await_ready)
        await asyncio.sleep(0.5)
        fleet.postgres.kill()
        await asyncio.to_thread(fleet.postgres.restart)
        await asyncio.sleep(fleet.staleness)
    await traffic.settle()
    return ledger


def fetch(fleet, statement):
    return asyncio.run(fleet.postgres.fetch(statement))


def await_sealed(fleet):
    wait_until(lambda: fetch(fleet, "select count(*) from audit where seal is null")[0][0] == 0, 20, "the last seal")


def verify(fleet, *arguments):
    done = fleet.authz("audit", "verify", "--output", "json", *arguments)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def test_every_acknowledged_change_is_in_the_audit(killed):
    fleet, ledger = killed
    rows = fetch(fleet, "select action, subject, details from audit")
    told = {
        action: {row["subject"] for row in rows if row["action"] == action}
        for action in ("token.create", "token.revoke")
    }
    assert len(ledger.created) > 20
    assert len(ledger.acknowledged) > 20
    assert not set(ledger.created) - told["token.create"]
    assert not set(ledger.acknowledged) - told["token.revoke"]


def test_nothing_is_in_the_audit_that_did_not_happen(killed):
    fleet, _ = killed
    strange = fetch(
        fleet,
        "select a.id from audit a left join token t on t.id = a.subject "
        "where a.action like 'token.%' and (t.id is null or (a.action = 'token.revoke' and t.revoked_at is null))",
    )
    assert strange == []


def test_the_chain_is_whole_with_each_row_in_it_once(killed):
    fleet, _ = killed
    await_sealed(fleet)
    found = verify(fleet)
    assert found["whole"], found["faults"]
    assert found["rows"] == fetch(fleet, "select count(*) from audit")[0][0]
    assert found["checkpoints"] > 1


@pytest.fixture(scope="module")
def stopped(killed):
    """The same with nobody at work, and the checkpoints that somebody kept elsewhere."""
    fleet, _ = killed
    await_sealed(fleet)
    for replica in fleet.replicas:
        replica.terminate()
    for replica in fleet.replicas:
        assert replica.wait() == 0
    rows = fetch(fleet, "select seal, hash, at, algorithm, key_id, signature from audit_checkpoint order by seal")
    return fleet, [format_checkpoint(Checkpoint(*row)) for row in rows]


@pytest.mark.parametrize("what", TAMPERING)
def test_what_whoever_owns_the_database_does_to_it_is_found(stopped, what, tmp_path):
    fleet, checkpoints = stopped
    kept = tmp_path / "checkpoints.jsonl"
    kept.write_text("".join(json.dumps(one) + "\n" for one in checkpoints))
    statement, expected = TAMPERING[what]
    execute(fleet, "create table kept as table audit; create table kept_checkpoint as table audit_checkpoint")
    execute(fleet, f"alter table audit disable trigger user; {statement}")
    found = verify(fleet, "--checkpoints", str(kept))
    execute(
        fleet,
        "truncate audit; insert into audit overriding system value select * from kept; drop table kept; "
        "truncate audit_checkpoint; insert into audit_checkpoint select * from kept_checkpoint; "
        "drop table kept_checkpoint; alter table audit enable trigger user",
    )
    assert not found["whole"]
    seen = {(fault["where"], fault["code"]) for fault in found["faults"]}
    for where, code in expected:
        assert any(code == one and place.startswith(where) for place, one in seen), seen


def execute(fleet, statements):
    async def run():
        connection = await fleet.postgres.connect()
        try:
            await connection.execute(statements)
        finally:
            await connection.close()

    asyncio.run(run())
