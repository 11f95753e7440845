"""SIGHUP to real processes: what a file says is taken over by every worker, and a bad file by none."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

from tests.faults.fleet import Fleet, token_body, wait_until
from tests.faults.service import Service


def hang_up(replica: Service) -> None:
    os.kill(replica.pid, signal.SIGHUP)


def told(replica: Service, event: str) -> int:
    return sum(one.get("event") == event for one in replica.events())


def creates(fleet: Fleet, status: int, *, replica: int = 0) -> None:
    """What every worker says to a long name: asked often, for any of them may answer."""
    for number in range(6):
        body = token_body(number, name="n" * 50)
        asyncio.run(fleet.manage("POST", "/v1/tokens", body, replica=replica, expected=status))


def test_every_worker_takes_over_a_good_file_and_keeps_the_last_good_one_before_a_bad_one(tmp_path: Path):
    file = tmp_path / "settings"
    file.write_text("AUTHZ_MAX_NAME_LENGTH=100\n")
    env = {"AUTHZ_SETTINGS_FILE": str(file), "AUTHZ_MAX_STALENESS": "5"}
    with Fleet(replicas=2, writers=1, env=env, env_of={"0": {"AUTHZ_WORKERS": "2"}}) as fleet:
        replica, alone = fleet.replicas
        creates(fleet, 201)

        file.write_text("AUTHZ_MAX_NAME_LENGTH=20\n")
        hang_up(replica)
        wait_until(lambda: told(replica, "settings were read again") == 2, 60, "the reload of both workers")
        creates(fleet, 400)
        creates(fleet, 201, replica=1)  # which nobody told
        hang_up(alone)
        wait_until(lambda: told(alone, "settings were read again") == 1, 60, "the reload of a process without workers")
        creates(fleet, 400, replica=1)

        file.write_text("AUTHZ_MAX_NAME_LENGTH=100\nAUTHZ_LOADS_WAITING=many\n")
        hang_up(replica)
        refused = "settings were not taken over; the last good ones stay"
        wait_until(lambda: told(replica, refused) == 3, 60, "the refusal by the supervisor and both workers")
        creates(fleet, 400)
        assert replica.figure("authz_settings_reload_refused") == 1
        status, body = replica.get("/readyz")
        assert (status, [one["code"] for one in json.loads(body)["notes"]]) == (200, ["settings_refused"])

        # A worker that takes a dead one's place begins with the last good ones, not with the file as it is.
        dead = replica.workers()[0]
        os.kill(dead, signal.SIGKILL)
        wait_until(lambda: len(set(replica.workers()) - {dead}) == 2, 60, "a new worker")
        replica.await_ready(seconds=60)
        creates(fleet, 400)

        # What the file says no more is as if it had never said it.
        file.write_text("")
        hang_up(replica)
        wait_until(lambda: told(replica, "settings were read again") == 4, 60, "the reload of both workers")
        creates(fleet, 201)
        wait_until(lambda: replica.figure("authz_settings_reload_refused") == 0, 30, "the end of the refusal")
