"""What time alone does to tokens, over a simulated year: notices, tokens nobody uses, tokens that are forgotten."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from tests.support.locks import waits_for_a_lock
from tests.support.managing import Stage, staged

from authz_service.admin import sweeps
from authz_service.admin.sweeps import SameForAll, Sweep, Sweeper, SweepRules, Swept
from authz_service.store import audit
from authz_service.store.sweeps import SweepRow, Turn, note_batch, take_turn

AT_ONCE = SweepRules(interval=timedelta())


@pytest.fixture
async def stage(database_url):
    async with staged(database_url, sweep_interval=0) as running:
        yield running


def sweeper(stage: Stage, days: int | None = None, **rules: Any) -> Sweeper:
    return Sweeper(stage.database, SweepRules(**({"interval": timedelta()} | rules)), SameForAll(days))


async def run(stage: Stage, name: Sweep, days: int | None = None, **rules: Any) -> Swept:
    return await sweeper(stage, days, **rules).run(name)


async def later(stage: Stage, days: float) -> None:
    await stage.shift(days=days)


async def give(stage: Stage, ends_in: float | None = None, **more: Any) -> str:
    end = None if ends_in is None else datetime.now(UTC) + timedelta(days=ends_in)
    held = await stage.scope_at("gitlab", ["acme/web"], "job:read")
    return (await stage.give("dana", held, expires_at=end, **more))[0]


async def told(stage: Stage) -> list[tuple[str, str, int]]:
    """Kind, token and days of each notice, in their order."""
    query = text("select kind, token_id, data->>'days' from event where kind like 'token.expir%' order by id")
    async with stage.database.read() as conn:
        return [(row[0], row[1], int(row[2])) for row in await conn.execute(query)]


async def ids(stage: Stage, where: str = "true") -> set[str]:
    async with stage.database.read() as conn:
        return set((await conn.execute(text(f"select id from token where {where}"))).scalars())


# notices


async def test_an_owner_is_told_once_each_at_30_14_7_and_1_days_and_at_the_end(stage):
    token = await give(stage, 40)
    forever = await give(stage)
    heard: list[tuple[int, int]] = []
    for day in range(45):
        await later(stage, day)
        for _ in range(2):
            before = len(await told(stage))
            await run(stage, Sweep.NOTICES)
            heard += [(day, days) for _, _, days in (await told(stage))[before:]]
    assert heard == [(10, 30), (26, 14), (33, 7), (39, 1), (40, 0)]
    assert {one for _, one, _ in await told(stage)} == {token}
    assert [kind for kind, _, _ in await told(stage)] == ["token.expiring"] * 4 + ["token.expired"]
    assert forever not in {one for _, one, _ in await told(stage)}


async def test_a_token_that_lives_shorter_than_the_days_is_not_told_of_them(stage):
    await give(stage, 8)
    await run(stage, Sweep.NOTICES)
    assert await told(stage) == []
    await later(stage, 2)
    await run(stage, Sweep.NOTICES)
    assert [days for _, _, days in await told(stage)] == [7]


async def test_whoever_was_not_told_in_time_is_told_the_latest_alone(stage):
    token = await give(stage, 40)
    await later(stage, 36)
    await run(stage, Sweep.NOTICES)
    assert await told(stage) == [("token.expiring", token, 7)]


async def test_who_moves_the_end_is_told_again(stage):
    token = await give(stage, 40)
    await later(stage, 15)
    await run(stage, Sweep.NOTICES)
    body = {"expires_at": (datetime.now(UTC) + timedelta(days=60)).isoformat()}
    admin = await stage.admin()
    assert (await stage.call("PATCH", f"/v1/tokens/{token}", admin, body, headers={"If-Match": "*"})).status_code == 200
    await run(stage, Sweep.NOTICES)
    await later(stage, 31)
    await run(stage, Sweep.NOTICES)
    assert [days for _, _, days in await told(stage)] == [30, 30]


async def test_revoked_and_replaced_tokens_are_told_nothing(stage):
    admin = await stage.admin()
    revoked, replaced = await give(stage, 20), await give(stage, 20)
    await stage.call("DELETE", f"/v1/tokens/{revoked}", admin)
    new = await stage.call("POST", f"/v1/tokens/{replaced}/rotate", admin, {"overlap_seconds": 604800})
    await later(stage, 6.5)
    await run(stage, Sweep.NOTICES)
    assert {one for _, one, _ in await told(stage)} <= {new.json()["id"]}


async def test_notices_come_in_batches_and_leave_none_out(stage):
    tokens = [await give(stage, 20) for _ in range(7)]
    await later(stage, 7)
    rows: list[SweepRow] = []
    one = sweeper(stage, batch=3)
    one.progress = rows.append
    swept = await one.run(Sweep.NOTICES)
    assert [row.done for row in rows] == [3, 6, 7]
    assert [row.finished_at is None for row in rows] == [True, True, False]
    assert swept.here == 7
    assert sorted(token for _, token, _ in await told(stage)) == sorted(tokens)


# unused


async def test_a_token_that_nobody_uses_is_revoked_and_one_that_is_used_is_not(stage):
    idle, used = await give(stage), await give(stage)
    await later(stage, 20)
    async with stage.database.transaction() as conn:
        await conn.execute(text("update token set last_used_at = authz_now() where id = :id"), {"id": used})
    await later(stage, 29)
    assert (await run(stage, Sweep.UNUSED, days=30)).here == 0
    await later(stage, 31)
    assert (await run(stage, Sweep.UNUSED, days=None)).here == 0
    assert (await run(stage, Sweep.UNUSED, days=30)).here == 1
    assert await ids(stage, "revoked_at is not null") == {idle}
    async with stage.database.read() as conn:
        [row], _ = await audit.list_page(conn, audit.AuditFilter(action="token.revoke"))
        events = (await conn.execute(text("select kind, token_id from event where kind like '%inactive'"))).all()
    assert (row.entry.subject, row.entry.actor_token, row.entry.details["days"]) == (idle, None, 30)
    assert [tuple(event) for event in events] == [("token.inactive", idle)]
    assert (await run(stage, Sweep.UNUSED, days=30)).here == 0


async def test_a_token_counts_as_used_with_what_hangs_under_it(stage):
    top = await give(stage)
    middle = await give(stage, parent=top)
    leaf = await give(stage, parent=middle)
    other = await give(stage)
    under_other = await give(stage, parent=other)
    await later(stage, 40)
    async with stage.database.transaction() as conn:
        await conn.execute(text("update token set last_used_at = authz_now() where id = :id"), {"id": leaf})
    await later(stage, 41)
    assert (await run(stage, Sweep.UNUSED, days=30)).here == 2
    assert await ids(stage, "revoked_at is not null") == {other, under_other}


async def test_a_revoke_by_inactivity_reaches_every_check(stage):
    held = await stage.scope_at("gitlab", ["acme/web"], "job:read")
    _, secret = await stage.give("dana", held)
    assert await stage.allows(secret)
    await later(stage, 91)
    await run(stage, Sweep.UNUSED, days=90)
    assert not await stage.allows(secret)


async def test_days_without_use_count_from_when_a_token_starts(stage):
    token = await give(stage)
    async with stage.database.transaction() as conn:
        query = text("update token set not_before = authz_now() + interval '60 days' where id = :id")
        await conn.execute(query, {"id": token})
    await later(stage, 80)
    assert (await run(stage, Sweep.UNUSED, days=30)).here == 0
    await later(stage, 91)
    assert (await run(stage, Sweep.UNUSED, days=30)).here == 1


async def test_a_batch_of_unused_tokens_is_one_revision_and_nobody_waits_for_it_before(stage, monkeypatch):
    idle, other, admin = {await give(stage) for _ in range(3)}, await give(stage), await stage.admin()
    await later(stage, 31)
    async with stage.database.transaction() as conn:
        await conn.execute(text("update token set last_used_at = authz_now() where id <> all(:ids)"), {"ids": [*idle]})
    ended, second, opened = sweeps.revoke_line, asyncio.Event(), asyncio.Event()
    before: list[str] = []

    async def stopped(conn: Any, touched: Any, token: Any, **more: Any) -> Any:
        before.append(token)
        if len(before) == 2:
            second.set()
            await opened.wait()
        return await ended(conn, touched, token, **more)

    monkeypatch.setattr(sweeps, "revoke_line", stopped)
    sweeping = asyncio.create_task(run(stage, Sweep.UNUSED, days=30))
    await second.wait()
    revoking = asyncio.create_task(stage.call("DELETE", f"/v1/tokens/{other}", admin))
    waited = await waits_for_a_lock(stage.database, revoking)
    opened.set()
    assert (await sweeping).here == 3
    assert (await revoking).status_code == 200
    assert not waited
    async with stage.database.read() as conn:
        rows, _ = await audit.list_page(conn, audit.AuditFilter(action="token.revoke"))
        log = (await conn.execute(text("select rev from change_log where key = any(:ids)"), {"ids": [*idle]})).scalars()
        revisions = set(log)
    assert {row.entry.subject for row in rows} == {*idle, other}
    assert {row.revision for row in rows if row.entry.subject in idle} == revisions
    assert len(revisions) == 1


# forgotten


async def test_what_ended_is_kept_as_long_as_the_settings_say_and_then_forgotten(stage):
    admin = await stage.admin()
    expired, alive, revoked = await give(stage, 10), await give(stage), await give(stage)
    await stage.call("DELETE", f"/v1/tokens/{revoked}", admin)
    keep = timedelta(days=100)
    gone = {expired, revoked}
    for day, left in ((99, gone), (101, {expired}), (109, {expired}), (111, set())):
        await later(stage, day)
        await run(stage, Sweep.PURGE, keep_ended=keep)
        assert await ids(stage) & gone == left, day
    assert alive in await ids(stage)
    async with stage.database.read() as conn:
        rows, _ = await audit.list_page(conn, audit.AuditFilter(action="token.purge"))
        kept, _ = await audit.list_page(conn, audit.AuditFilter(subject=revoked))
    assert [row.entry.details["tokens"] for row in rows] == [[expired], [revoked]]
    assert {row.entry.action for row in kept} >= {"token.revoke"}


async def test_a_secret_of_a_forgotten_token_is_nobodys(stage):
    held = await stage.scope_at("gitlab", ["acme/web"], "job:read")
    token, secret = await stage.give("dana", held)
    admin = await stage.admin()
    body = {"token": secret, "catalog": "gitlab", "resource": "job", "action": "read", "target": "acme/web"}
    await stage.call("DELETE", f"/v1/tokens/{token}", admin)
    await later(stage, 400)
    assert (await stage.call("POST", "/check", admin, body)).json()["reason"] == "token_revoked"
    await run(stage, Sweep.PURGE)
    answer = await stage.call("POST", "/check", admin, body | {"fully_consistent": True})
    assert answer.json()["reason"] == "unknown_token"
    assert (await stage.call("GET", f"/v1/tokens/{token}", admin)).status_code == 404


async def test_children_go_before_what_they_hang_under(stage):
    parent = await give(stage)
    child = await give(stage, parent=parent)
    await stage.call("DELETE", f"/v1/tokens/{parent}", await stage.admin())
    await later(stage, 400)
    await run(stage, Sweep.PURGE)
    assert await ids(stage) & {parent, child} == {parent}
    await run(stage, Sweep.PURGE)
    assert not await ids(stage) & {parent, child}


async def test_a_family_forgets_old_members_and_never_how_to_tell_a_thief(stage):
    admin = await stage.admin()
    held = await stage.scope_at("gitlab", ["acme/web"], "job:read")
    first, secret = await stage.give("dana", held, may_rotate_self=True)
    members = [first]
    for _ in range(4):
        members.append((await stage.call("POST", f"/v1/tokens/{members[-1]}/rotate", admin, {})).json()["id"])
    await later(stage, 400)
    while (await run(stage, Sweep.PURGE, batch=2)).here:
        pass
    assert await ids(stage) & set(members) == {first, members[-1]}
    shown = (await stage.call("GET", f"/v1/tokens/{first}", admin)).json()
    assert shown["replaced_by"] == members[-1]
    assert (await stage.call("POST", "/v1/self/rotate", secret, {})).status_code == 401
    assert await ids(stage, "revoked_at is null") & set(members) == set()


async def test_nothing_that_lives_can_be_forgotten_whatever_is_asked(stage):
    alive, just_ended = await give(stage), await give(stage)
    await stage.call("DELETE", f"/v1/tokens/{just_ended}", await stage.admin())
    async with stage.database.transaction() as conn:
        query = text("select purge_tokens(array[:one, :other], authz_now() + interval '10 years')")
        assert (await conn.execute(query, {"one": alive, "other": just_ended})).all() == []


async def test_keys_of_requests_are_forgotten_after_a_day(stage):
    admin = await stage.admin()
    token = await give(stage)
    headers = {"Idempotency-Key": "once"}
    assert (await stage.call("POST", f"/v1/tokens/{token}/clone", admin, {}, headers=headers)).status_code == 201
    await later(stage, 0.9)
    assert (await run(stage, Sweep.KEYS)).here == 0
    await later(stage, 1.1)
    assert (await run(stage, Sweep.KEYS)).here == 1


async def test_a_year_of_a_small_company(stage):
    """Each token is told of its end, revoked when nobody used it, forgotten in the end; and whoever is used stays."""
    ends = {await give(stage, days): days for days in (5, 20, 45, 200, 300)}
    idle, used = await give(stage), await give(stage)
    counts: Counter[str] = Counter()
    rules = {"keep_ended": timedelta(days=60)}
    for day in range(0, 366, 3):
        await later(stage, day)
        async with stage.database.transaction() as conn:
            busy = [used, *(token for token, end in ends.items() if end > day)]
            query = text("update token set last_used_at = authz_now() where id = any(:ids)")
            await conn.execute(query, {"ids": busy})
        for name in Sweep:
            counts[name.value] += (await run(stage, name, days=90, **rules)).here
    notices = Counter(days for _, _, days in await told(stage))
    assert notices[0] == len(ends)
    # Sweeps come every third day, so that a notice of the last day may be overtaken by the end.
    assert (notices[30], notices[14], notices[7]) == (3, 4, 4)
    assert await ids(stage) & {*ends, idle, used} == {used, *(token for token, end in ends.items() if end + 60 > 363)}
    assert counts["unused"] == 1
    async with stage.database.read() as conn:
        revoked, _ = await audit.list_page(conn, audit.AuditFilter(action="token.revoke"))
    assert [row.entry.subject for row in revoked] == [idle]


# one at a time, and on from where it was


async def test_one_process_sweeps_at_a_time_and_no_more_often_than_it_is_due(stage):
    for _ in range(6):
        await give(stage, 20)
    await later(stage, 7)
    hourly = {"interval": timedelta(hours=1), "batch": 1}
    swept = await asyncio.gather(*(sweeper(stage, **hourly).run(Sweep.NOTICES) for _ in range(4)))
    assert sum(one.here for one in swept) == 6
    assert [one.turn for one in swept].count(Turn.MINE) == 1
    assert (await sweeper(stage, **hourly).run(Sweep.NOTICES)).turn is Turn.NOT_DUE
    assert (await sweeper(stage, **hourly).run(Sweep.NOTICES, at_once=True)).turn is Turn.MINE
    await stage.shift(days=7, hours=2)
    assert (await sweeper(stage, **hourly).run(Sweep.NOTICES)).turn is Turn.MINE


async def test_a_run_that_was_broken_off_is_gone_on_with_after_a_while(stage):
    dead, other = sweeper(stage), sweeper(stage)
    async with stage.database.transaction() as conn:
        assert await take_turn(conn, "notices", dead.holder, interval=timedelta(), begin=True) is Turn.MINE
        await note_batch(conn, "notices", 5, finished=False)
    assert (await other.run(Sweep.NOTICES)).turn is Turn.OTHERS
    await stage.shift(seconds=40)
    swept = await other.run(Sweep.NOTICES)
    assert swept.row is not None
    assert (swept.turn, swept.row.done, swept.here) == (Turn.MINE, 5, 0)
    async with stage.database.transaction() as conn:  # whoever was only slow finds that it is not its turn any more
        assert await take_turn(conn, "notices", dead.holder, interval=timedelta(), begin=False) is Turn.OTHERS


async def test_a_killed_sweep_loses_nothing_and_does_nothing_twice(stage, database_url):
    tokens = [await give(stage, 20) for _ in range(60)]
    await later(stage, 7)
    script = (
        "import asyncio, sys\n"
        "from datetime import timedelta\n"
        "from authz_service.admin.sweeps import *\n"
        "from authz_service.store.database import Database\n"
        "async def main():\n"
        "    rules = SweepRules(interval=timedelta(), batch=1)\n"
        "    one = Sweeper(Database(sys.argv[1]), rules, SameForAll(None), lambda row: print(row.done, flush=True))\n"
        "    await one.run(Sweep.NOTICES)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, database_url.replace("+asyncpg", ""), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    for _ in range(10):
        assert await process.stdout.readline()
    process.kill()
    await process.wait()
    done = len(await told(stage))
    assert 10 <= done < 60
    await stage.shift(days=7, seconds=40)
    swept = await run(stage, Sweep.NOTICES)
    assert swept.row is not None
    assert swept.row.done == 60
    assert sorted(token for _, token, _ in await told(stage)) == sorted(tokens)


# the command line, the service


def authz(url: str, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    pepper = "k1:" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    given = {"AUTHZ_DATABASE_URL": url, "AUTHZ_PEPPERS": pepper} | environ
    return subprocess.run(
        [sys.executable, "-m", "authz_service", *words],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_an_operator_sweeps_and_sees_how_far_it_came(stage, database_url):
    await give(stage, 20)
    await later(stage, 7)
    url = database_url.replace("+asyncpg", "")
    done = await asyncio.to_thread(authz, url, "sweep", "--output", "json")
    assert done.returncode == 0, done.stderr
    found = {row["sweep"]: row for row in json.loads(done.stdout)}
    assert {name: row["done"] for name, row in found.items()} == {"notices": 1, "unused": 0, "purge": 0, "keys": 0}
    assert all(row["finished_at"] for row in found.values())
    odd = await asyncio.to_thread(authz, url, "sweep", "everything")
    assert (odd.returncode, "there is no sweep `everything`" in odd.stderr) == (2, True)


async def test_an_operator_sees_which_pepper_holds_how_many_tokens(stage, database_url):
    admin = await stage.admin()
    revoked = await give(stage)
    await stage.call("DELETE", f"/v1/tokens/{revoked}", admin)
    two = {
        "AUTHZ_PEPPERS": "k1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=,"
        "k2:QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU=",
        "AUTHZ_PEPPER_KID": "k2",
    }
    url = database_url.replace("+asyncpg", "")
    done = await asyncio.to_thread(lambda: authz(url, "pepper", "status", "--output", "json", **two))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        {"kid": "k1", "for": "azt_", "living": 1, "ended": 1, "known": True, "current": False},
        {"kid": "k2", "for": "azt_", "living": 0, "ended": 0, "known": True, "current": True},
    ]
    lost = {"AUTHZ_PEPPERS": two["AUTHZ_PEPPERS"].partition(",")[2]}
    told = await asyncio.to_thread(lambda: authz(url, "pepper", "status", **lost))
    assert "not in the settings" in told.stdout


async def test_the_service_sweeps_by_itself_and_counts_what_it_did(database_url):
    async with staged(database_url, sweep_interval=0.2) as stage:
        await give(stage, 20)
        await stage.shift(days=7)
        end = time.monotonic() + 60
        while not await told(stage) and time.monotonic() < end:
            await asyncio.sleep(0.1)
        assert [days for _, _, days in await told(stage)] == [14]
        awaited = ('authz_swept_total{sweep="notices"} 1.0', 'authz_sweep_finished_timestamp_seconds{sweep="purge"}')
        while True:  # the sweeps run one after the other, and each is counted when it ends
            metrics = (await stage.call("GET", "/metrics")).text
            if all(line in metrics for line in awaited) or time.monotonic() > end:
                break
            await asyncio.sleep(0.1)
        assert [line for line in awaited if line not in metrics] == []
