"""Rotation: a new secret in the place of an old one, and what becomes of the old one and of who tries it again (T5)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from tests.support.managing import PEPPER, UPSTREAM, Stage, body_of, scope, staged

from authz_service.pdp.secrets import Peppers
from authz_service.store import audit

DAY = 86400
NOWHERE = "tok_0000000000000000000000"


@pytest.fixture
async def stage(database_url):
    async with staged(database_url) as running:
        yield running


async def rotate(stage: Stage, secret: str, token: str, body: Any = None, **more: Any) -> httpx.Response:
    return await stage.call("POST", f"/v1/tokens/{token}/rotate", secret, {} if body is None else body, **more)


async def rotate_self(stage: Stage, secret: str, body: Any = None, **more: Any) -> httpx.Response:
    return await stage.call("POST", "/v1/self/rotate", secret, {} if body is None else body, **more)


async def web(stage: Stage, **more: Any) -> tuple[str, str]:
    """A token of dana's that reads the jobs of a project."""
    return await stage.give("dana", await stage.scope_at("gitlab", ["acme/web"], "job:read"), **more)


async def shown(stage: Stage, token: str) -> dict[str, Any]:
    answer = await stage.call("GET", f"/v1/tokens/{token}", await stage.admin())
    assert answer.status_code == 200
    return answer.json()


async def everything(stage: Stage) -> list[tuple[Any, ...]]:
    """All tokens and the count of audit rows: equal when nothing was changed."""
    async with stage.database.read() as conn:
        rows = (await conn.execute(text("select t::text, (select count(*) from audit) from token t order by id"))).all()
    return [tuple(row) for row in rows]


async def test_a_new_secret_takes_the_place_of_the_old_one_at_once(stage):
    admin = await stage.admin()
    old, secret = await web(stage)
    assert await stage.allows(secret)
    answer = await rotate(stage, admin, old)
    assert answer.status_code == 201, answer.text
    new = answer.json()
    assert answer.headers["location"] == f"/v1/tokens/{new['id']}"
    assert answer.headers["cache-control"] == "no-store"
    assert new["id"] != old
    assert await stage.allows(new["secret"])
    assert not await stage.allows(secret)
    before, after = await shown(stage, old), await shown(stage, new["id"])
    assert (before["state"], before["revoked_reason"], before["replaced_by"]) == ("revoked", "rotated", new["id"])
    kept = ("name", "owner", "kind", "catalogs", "scopes", "conditions", "expires_at", "reason", "may_rotate_self")
    assert [after[name] for name in kept] == [before[name] for name in kept]


async def test_the_old_secret_works_until_the_overlap_ends_and_not_a_moment_longer(stage):
    admin = await stage.admin()
    old, secret = await web(stage)
    new = (await rotate(stage, admin, old, {"overlap_seconds": DAY})).json()
    assert await stage.allows(secret)
    assert await stage.allows(new["secret"])
    await stage.shift(seconds=DAY - 60)
    assert await stage.allows(secret)
    await stage.shift(seconds=DAY + 60)
    assert not await stage.allows(secret)
    assert await stage.allows(new["secret"])


async def test_an_overlap_never_gives_the_old_secret_more_time_than_it_had(stage):
    end = datetime.now(UTC) + timedelta(hours=1)
    old, secret = await web(stage, expires_at=end)
    assert (await rotate(stage, await stage.admin(), old, {"overlap_seconds": 7 * DAY})).status_code == 201
    assert (await shown(stage, old))["expires_at"] == end.isoformat().replace("+00:00", "Z")
    await stage.shift(hours=2)
    assert not await stage.allows(secret)


async def test_rotation_never_moves_the_end_to_a_later_date(stage):
    admin = await stage.admin()
    end = datetime.now(UTC) + timedelta(days=10)
    old, _ = await web(stage, expires_at=end)
    later = await rotate(stage, admin, old, {"expires_at": (end + timedelta(seconds=1)).isoformat()})
    assert (later.status_code, later.json()["faults"][0]["code"]) == (400, "later")
    sooner = end - timedelta(days=1)
    new = await rotate(stage, admin, old, {"expires_at": sooner.isoformat()})
    assert new.json()["expires_at"] == sooner.isoformat().replace("+00:00", "Z")
    assert (await rotate(stage, admin, new.json()["id"], {})).json()["expires_at"] == new.json()["expires_at"]


ODD: tuple[Any, ...] = (
    {"overlap_seconds": 7 * DAY + 1},
    {"overlap_seconds": -1},
    {"overlap_seconds": 1.5},
    {"overlap_seconds": "60"},
    {"overlap_seconds": None},
    {"overlap_seconds": 2**63},
    {"expires_at": "2020-01-01T00:00:00Z"},
    {"expires_at": "tomorrow"},
    {"scopes": []},
    [],
)


async def test_a_rotation_that_asks_for_something_odd_is_refused_and_changes_nothing(stage):
    admin = await stage.admin()
    old, secret = await web(stage, may_rotate_self=True)
    before = await everything(stage)
    for body in ODD:
        assert (await rotate(stage, admin, old, body)).status_code == 400, body
        assert (await rotate_self(stage, secret, body)).status_code == 400, body
    assert await everything(stage) == before


async def test_children_go_on_under_the_new_member_and_end_with_it(stage):
    admin = await stage.admin()
    old, _ = await web(stage)
    child, secret = await web(stage, parent=old)
    new = (await rotate(stage, admin, old)).json()["id"]
    assert await stage.allows(secret)
    assert (await shown(stage, child))["parent"] == new
    await stage.call("DELETE", f"/v1/tokens/{new}", admin)
    assert not await stage.allows(secret)


async def test_what_is_issued_by_an_overlapping_secret_hangs_under_the_new_member(stage):
    admin = await stage.admin()
    held = (await stage.scope_at("gitlab", ["acme/web"], "job:read"), scope("authz", "user", "token:create"))
    old, secret = await stage.give("dana", *held)
    new = (await rotate(stage, admin, old, {"overlap_seconds": DAY})).json()["id"]
    wanted = {"reach": {"kind": "selected", "nodes": ["acme/web"]}, "permissions": ["job:read"]}
    body = body_of(owner=..., catalog="gitlab@1", scopes=[wanted], parent="self")
    child = await stage.call("POST", "/v1/tokens", secret, body)
    assert (child.status_code, child.json()["parent"], child.json()["expires_at"]) == (201, new, None)
    await stage.shift(days=2)
    assert not await stage.allows(secret)
    assert await stage.allows(child.json()["secret"])


async def test_revoking_the_new_member_ends_the_overlap_too(stage):
    admin = await stage.admin()
    old, secret = await web(stage)
    new = (await rotate(stage, admin, old, {"overlap_seconds": DAY})).json()
    answer = await stage.call("DELETE", f"/v1/tokens/{new['id']}?wait=true", admin)
    assert answer.status_code == 200
    assert not await stage.allows(secret)
    assert (await shown(stage, old))["state"] == "revoked"


async def test_a_second_rotation_during_the_overlap_is_refused_and_harms_nobody(stage):
    admin = await stage.admin()
    old, secret = await web(stage, may_rotate_self=True)
    new = (await rotate_self(stage, secret, {"overlap_seconds": DAY})).json()
    before = await everything(stage)
    for again in (await rotate(stage, admin, old), await rotate_self(stage, secret)):
        assert (again.status_code, again.json()["code"]) == (409, "conflict")
        assert new["id"] in again.json()["detail"]
    assert len(await everything(stage)) == len(before)
    assert await stage.allows(secret)
    assert await stage.allows(new["secret"])


async def test_a_chain_of_rotations_is_one_family(stage):
    admin = await stage.admin()
    current, secret = await web(stage)
    secrets = [secret]
    for _ in range(3):
        made = (await rotate(stage, admin, current, {"overlap_seconds": DAY})).json()
        current = made["id"]
        secrets.append(made["secret"])
    assert [await stage.allows(one) for one in secrets] == [True] * 4
    async with stage.database.read() as conn:
        families = (await conn.execute(text("select count(*) from token group by family_id order by 1 desc"))).scalars()
    assert next(iter(families)) == 4


# by itself


async def test_a_token_replaces_its_own_secret_where_it_is_flagged_for_that(stage):
    _, secret = await web(stage, may_rotate_self=True)
    answer = await rotate_self(stage, secret, {"overlap_seconds": 60})
    assert answer.status_code == 201, answer.text
    assert await stage.allows(answer.json()["secret"])
    assert answer.json()["may_rotate_self"] is True


async def test_no_token_rotates_itself_without_the_flag_and_no_child_with_it(stage):
    parent, unflagged = await web(stage)
    child, _ = await web(stage, parent=parent)
    refused = await rotate_self(stage, unflagged)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    async with stage.database.transaction() as conn:
        await conn.execute(text("update token set may_rotate_self = true where id = :id"), {"id": child})
    _, of_child = await web(stage, parent=parent, may_rotate_self=True)
    assert (await rotate_self(stage, of_child)).status_code == 403
    _, manages = await stage.give("dana", scope("authz", "user", "token:rotate"), parent=parent)
    own = (await stage.call("GET", "/v1/self", manages)).json()["id"]
    assert (await rotate(stage, manages, own)).status_code == 403


async def test_a_token_revokes_itself(stage):
    _, secret = await web(stage)
    assert (await stage.call("DELETE", "/v1/self", secret)).status_code == 200
    assert (await stage.call("GET", "/v1/self", secret)).status_code == 401


# by whom


async def test_whoever_rotates_needs_the_permission_and_the_right_to_create_that_token(stage):
    target, _ = await stage.give("bot", await stage.scope_at("gitlab", ["acme/web"], "job:read"))
    at_acme = await stage.scope_at("authz", ["group:acme"], "token:rotate", "token:read")
    job = await stage.scope_at("gitlab", ["acme/web"], "job:read")
    _, without = await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "token:read"), job)
    _, narrower = await stage.give("olga", at_acme)
    _, enough = await stage.give("olga", at_acme, job)
    before = await everything(stage)
    assert (await rotate(stage, without, target)).status_code == 403
    beyond = await rotate(stage, narrower, target)
    assert (beyond.status_code, beyond.json()["faults"][0]["code"]) == (403, "beyond_issuer")
    assert await everything(stage) == before
    assert (await rotate(stage, enough, target)).status_code == 201


async def test_nobody_rotates_a_token_of_somebody_else(stage):
    """Nor learns whether there is one."""
    theirs, _ = await stage.give("eve", await stage.scope_at("gitlab", ["acme/web"], "job:read"))
    job = await stage.scope_at("gitlab", ["acme/web"], "job:read")
    _, dana = await stage.give("dana", scope("authz", "user", "token:rotate", "token:create", "token:read"), job)
    unseen, unknown = await rotate(stage, dana, theirs), await rotate(stage, dana, NOWHERE)
    assert unseen.status_code == 404
    assert unseen.json() == unknown.json()


async def test_a_child_gets_no_secret_that_outlives_its_line(stage):
    sibling, _ = await web(stage)
    job = await stage.scope_at("gitlab", ["acme/web"], "job:read")
    manages = scope("authz", "user", "token:rotate", "token:create", "token:read", "token:edit")
    parent, _ = await stage.give("dana", manages, job)
    middle, secret = await stage.give("dana", manages, job, parent=parent)
    below, _ = await web(stage, parent=middle)
    assert (await rotate(stage, secret, sibling)).status_code == 403
    cloned = await stage.call("POST", f"/v1/tokens/{sibling}/clone", secret, {})
    assert cloned.status_code == 403
    assert (await rotate(stage, secret, below)).status_code == 201


async def test_only_an_admin_rotates_a_token_that_asks_for_decisions(stage):
    asks = scope("authz", "instance", "decision:evaluate")
    target, _ = await stage.give("olga", asks, evaluates=("gitlab",))
    manages = scope("authz", "user", "token:rotate", "token:create", "token:read")
    _, own = await stage.give("olga", manages, asks, evaluates=("gitlab",))
    assert (await rotate(stage, own, target)).status_code == 403
    assert (await rotate(stage, await stage.admin(), target)).status_code == 201


async def test_a_token_of_an_api_without_a_directory_is_rotated(stage):
    await stage.install(UPSTREAM, "orders")
    admin = await stage.admin()
    wanted = {"reach": {"kind": "selected", "nodes": ["project:acme/till"]}, "permissions": ["order:read"]}
    made = await stage.call("POST", "/v1/tokens", admin, body_of(owner="till-1", catalog="orders", scopes=[wanted]))
    new = await rotate(stage, admin, made.json()["id"])
    assert new.status_code == 201, new.text
    assert await stage.allows(new.json()["secret"], "order:read", "project:acme/till")


# what is dead


async def test_a_dead_token_is_not_rotated_and_nothing_changes(stage):
    admin = await stage.admin()
    revoked, revoked_secret = await web(stage, may_rotate_self=True)
    await stage.call("DELETE", f"/v1/tokens/{revoked}", admin)
    expired, expired_secret = await web(stage, may_rotate_self=True, expires_at=datetime.now(UTC) - timedelta(days=1))
    blocked, _ = await stage.give("bob", await stage.scope_at("gitlab", ["acme/web"], "job:read"))
    before = await everything(stage)
    for token in (revoked, expired, blocked):
        answer = await rotate(stage, admin, token)
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    refused = [await rotate_self(stage, secret) for secret in (revoked_secret, expired_secret, "azt_k1_x", "")]
    assert [answer.status_code for answer in refused] == [401] * 4
    assert await everything(stage) == before


async def test_rotating_with_a_secret_that_is_out_ends_the_whole_family(stage):
    """Whoever still has it may have stolen it, or may have been robbed of it: nobody can tell."""
    admin = await stage.admin()
    old, secret = await web(stage, may_rotate_self=True)
    new = (await rotate_self(stage, secret)).json()
    child, of_child = await web(stage, parent=new["id"])
    assert await stage.allows(of_child)
    attempt, unknown = await rotate_self(stage, secret), await rotate_self(stage, "azt_k1_x")
    assert (attempt.status_code, attempt.json()) == (401, unknown.json())
    assert not await stage.allows(new["secret"])
    assert not await stage.allows(of_child)
    async with stage.database.read() as conn:
        rows, _ = await audit.list_page(conn, audit.AuditFilter(action="token.reuse"))
        events = (await conn.execute(text("select kind from event order by id"))).scalars().all()
    assert [(row.entry.subject, set(row.entry.details["revoked"])) for row in rows] == [(old, {new["id"], child})]
    assert events.count("token.reused") == 1
    assert (await rotate_self(stage, secret)).status_code == 401  # nothing is left to revoke, and nothing to tell
    assert (await rotate(stage, admin, old)).status_code == 409
    async with stage.database.read() as conn:
        assert len((await audit.list_page(conn, audit.AuditFilter(action="token.reuse")))[0]) == 1


async def test_so_does_rotating_it_by_its_id(stage):
    admin = await stage.admin()
    old, _ = await web(stage)
    new = (await rotate(stage, admin, old)).json()
    assert (await rotate(stage, admin, old)).status_code == 409
    assert not await stage.allows(new["secret"])


async def test_a_secret_past_its_overlap_is_out_too(stage):
    _, secret = await web(stage, may_rotate_self=True)
    new = (await rotate_self(stage, secret, {"overlap_seconds": 60})).json()
    await stage.shift(minutes=2)
    assert (await rotate_self(stage, secret)).status_code == 401
    assert not await stage.allows(new["secret"])


async def test_another_use_of_a_secret_that_is_out_revokes_nothing(stage):
    _, secret = await web(stage, may_rotate_self=True)
    new = (await rotate_self(stage, secret)).json()
    assert (await stage.call("GET", "/v1/self", secret)).status_code == 401
    assert not await stage.allows(secret)
    assert await stage.allows(new["secret"])


async def test_a_family_is_ended_by_nobody_who_may_not_rotate_it(stage):
    old, _ = await web(stage)
    new = (await rotate(stage, await stage.admin(), old)).json()
    _, eve = await stage.give("eve", scope("authz", "user", "token:rotate", "token:create"))
    assert (await rotate(stage, eve, old)).status_code == 404
    assert await stage.allows(new["secret"])


# at once, and again


async def test_of_two_that_rotate_at_once_one_wins(stage):
    admin = await stage.admin()
    old, _ = await web(stage)
    answers = await asyncio.gather(*(rotate(stage, admin, old, {"overlap_seconds": DAY}) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    async with stage.database.read() as conn:
        alive = "select count(*) from token where successor_id is null and revoked_at is null and family_id = :id"
        assert (await conn.execute(text(alive), {"id": old})).scalar_one() == 1


async def test_a_repeated_rotation_with_a_key_rotates_once_and_shows_no_secret_again(stage):
    admin = await stage.admin()
    old, _ = await web(stage)
    headers = {"Idempotency-Key": "rotate-1"}
    first = await rotate(stage, admin, old, {"overlap_seconds": 0}, headers=headers)
    again = await rotate(stage, admin, old, {"overlap_seconds": 0}, headers=headers)
    assert (again.status_code, again.json()["id"], again.json()["secret"]) == (201, first.json()["id"], None)
    assert again.headers["idempotent-replayed"] == "true"
    assert await stage.allows(first.json()["secret"])
    other = await rotate(stage, admin, old, {"overlap_seconds": 60}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")


async def test_the_secret_of_a_rotation_is_nowhere_in_the_database(stage):
    old, _ = await web(stage)
    made = (await rotate(stage, await stage.admin(), old, headers={"Idempotency-Key": "k"})).json()
    async with stage.database.read() as conn:
        tables = (await conn.execute(text("select tablename from pg_tables where schemaname = 'public'"))).scalars()
        for table in tables.all():
            rows = (await conn.execute(text(f'select t::text from "{table}" t'))).scalars().all()
            assert not [row for row in rows if made["secret"][8:] in row], table


# two peppers


async def test_secrets_under_an_older_pepper_work_on_and_new_ones_come_under_the_newer(stage):
    _, secret = await web(stage, may_rotate_self=True)
    assert secret.startswith("azt_k1_")
    both = Peppers({"k1": PEPPER, "k2": bytes(range(140, 172))}, "k2")
    stage.app.state.services.point.peppers = both
    stage.peppers._peppers, stage.peppers.current = both._peppers, both.current
    asking = [asyncio.create_task(stage.allows(secret)) for _ in range(20)]
    new = (await rotate_self(stage, secret, {"overlap_seconds": 60})).json()
    assert new["secret"].startswith("azt_k2_")
    assert all(await asyncio.gather(*asking))
    assert await stage.allows(new["secret"])
    assert await stage.allows(secret)
