"""Histories that went back: they are found, nobody decides by them, and an operator accepts them or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from tests.faults import scenarios
from tests.faults.client import Connection, check_request
from tests.faults.fleet import PROJECT, Fleet
from tests.faults.traffic import Ledger


@pytest.fixture
def pair() -> Iterator[Fleet]:
    with Fleet(replicas=2) as found:
        yield found


def accept(fleet: Fleet, *arguments: str) -> dict[str, object]:
    done = fleet.authz("restored", "--output", "json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def allowed(fleet: Fleet, ledger: Ledger) -> list[bool]:
    """What each replica says of each token whose revoke was acknowledged."""
    found: list[bool] = []
    for replica in fleet.replicas:
        connection = Connection(replica.port)
        found += [
            (await connection.send(check_request(fleet.gateway, secret, PROJECT))).allows for secret in ledger.revoked
        ]
        connection.close()
    return found


def test_a_failover_that_lost_its_tail_is_found_and_the_audit_revokes_again(pair, tmp_path):
    ledger = asyncio.run(scenarios.lost_tail(pair))
    export = tmp_path / "audit.jsonl"
    entries = [{"action": "token.revoke", "subject": one, "details": {"also": []}} for one in ledger.acknowledged]
    export.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert accept(pair, "--audit", str(export))["revoked"] == len(ledger.acknowledged)
    pair.await_ready()
    assert not any(asyncio.run(allowed(pair, ledger)))


@pytest.mark.long
def test_an_older_backup_is_found_and_nothing_comes_alive_before_somebody_says_so(pair):
    ledger = asyncio.run(scenarios.restored_backup(pair))
    refused = pair.authz("restored")
    assert refused.returncode == 2
    assert "--without-audit" in refused.stderr
    assert {code for replica in pair.replicas for code in replica.obstacles()} == {"rewound"}
    accept(pair, "--without-audit")
    pair.await_ready()
    assert all(asyncio.run(allowed(pair, ledger)))  # an operator said so
