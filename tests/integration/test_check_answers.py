from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from tests.support.serving import Served, bearer, scope, serving

from authz_service.admin.directory import import_directory
from authz_service.directory.model import DEFAULT_SOURCE
from authz_service.tokens.model import ReachKind

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served(make_database: Callable[..., str]) -> AsyncIterator[Served]:
    async with serving(make_database()) as found:
        yield found


async def test_an_allow_names_the_token_and_the_revision_and_no_more(served):
    answer = await served.check()
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["decision", "reason", "token_id", "revision"]
    assert (body["decision"], body["reason"]) == ("allow", "granted")
    assert body["token_id"].startswith("tok_")
    assert body["revision"].startswith("r1.")


async def test_a_deny_names_all_that_is_missing_and_where(served):
    body = (await served.check(action="run")).json()
    assert (body["decision"], body["reason"], body["hide"]) == ("deny", "permission_missing", False)
    assert body["missing"] == [
        {"permission": "job:run", "boundary": "project", "target": "project:bakery/shop/checkout"}
    ]
    assert "`job:run` on `project:bakery/shop/checkout`" in body["message"]


async def test_what_does_not_apply_is_left_out_of_a_deny(served):
    body = (await served.check(resource="nothing")).json()
    assert list(body) == ["decision", "reason", "message", "hide", "token_id", "revision"]
    assert body["reason"] == "permission_unknown"


@pytest.mark.parametrize("action", ["read", "run"])
async def test_the_same_request_gets_the_same_bytes(served, action):
    first = await served.check(action=action)
    assert [(await served.check(action=action)).content for _ in range(3)] == [first.content] * 3


async def test_a_text_that_is_no_token_is_denied_without_a_token_id(served):
    body = (await served.check(token="azt_t1_not-a-token")).json()
    assert (body["decision"], body["reason"], body["hide"]) == ("deny", "malformed_token", False)
    assert "token_id" not in body


async def test_a_secret_of_nobody_is_unknown(served):
    body = (await served.check(token=served.tokens.sample.replace("t1", "t2"))).json()
    assert body["reason"] in ("malformed_token", "unknown_token")


async def test_a_place_that_the_owner_may_not_see_is_to_be_hidden(served):
    secret = await served.issue(owner="kit", scopes=(scope("job:read", nodes=("project:recipes/sourdough",)),))
    unseen = (await served.check(token=secret, target="bakery/shop/checkout")).json()
    unknown = (await served.check(token=secret, target="bakery/shop/nothing")).json()
    seen = (await served.check(token=secret, target="recipes/bread")).json()
    assert (unseen["decision"], unseen["hide"]) == ("deny", True)
    assert (unknown["reason"], unknown["hide"]) == ("target_unknown", True)
    assert (seen["reason"], seen["hide"]) == ("outside_reach", False)


async def test_a_target_may_be_a_path_a_kind_with_a_path_or_an_external_id(served):
    for target in ("bakery/shop/checkout", "project:bakery/shop/checkout", "project:110", "BAKERY/shop/Checkout"):
        assert (await served.check(target=target)).json()["decision"] == "allow", target
    for target in ("110", "group:110", "bakery//shop", "bakery/shop/../shop", "user:nobody", ""):
        assert (await served.check(target=target)).json()["reason"] == "target_unknown", target
    assert (await served.check(target=None)).json()["reason"] == "target_required"


async def test_blocking_an_owner_ends_their_tokens_and_unblocking_revives_them(served):
    secret = await served.issue(owner="leo", scopes=(scope("job:read", nodes=("group:bakery/shop/payments",)),))
    question = {"token": secret, "target": "bakery/shop/payments/ledger", "fully_consistent": True}
    for state, reason in (("active", "granted"), ("blocked", "owner_inactive"), ("active", "granted")):
        line = {"type": "user", "username": "leo", "external_id": "5", "state": state}
        await import_directory(served.management, served.admin, json.dumps(line).encode(), source=DEFAULT_SOURCE)
        assert (await served.check(**question)).json()["reason"] == reason


async def test_a_revoked_token_is_denied_by_facts_as_fresh_as_its_revoke(served):
    secret = await served.issue()
    allowed = (await served.check(token=secret)).json()
    assert allowed["decision"] == "allow"
    revision = await served.revoke(allowed["token_id"])
    body = (await served.check(token=secret, at_least=revision)).json()
    assert (body["decision"], body["reason"]) == ("deny", "token_revoked")


async def test_a_fully_consistent_answer_sees_what_was_revoked_just_now(served):
    secret = await served.issue()
    allowed = (await served.check(token=secret)).json()
    await served.revoke(allowed["token_id"])
    assert (await served.check(token=secret, fully_consistent=True)).json()["reason"] == "token_revoked"


@pytest.mark.parametrize(("at_least", "status"), [("r1.00000000.1", 409), ("r1.x", 400), ("", 400)])
async def test_a_revision_that_is_none_or_of_another_history_is_refused(served, at_least, status):
    answer = await served.check(at_least=at_least)
    assert answer.status_code == status
    assert "decision" not in answer.json()


async def test_a_token_bound_to_a_network_needs_an_address_within_it(served):
    secret = await served.issue(networks=("10.0.0.0/8",))
    assert (await served.check(token=secret, client_address="10.1.2.3")).json()["decision"] == "allow"
    for address in ("192.0.2.1", None):
        assert (await served.check(token=secret, client_address=address)).json()["reason"] == "condition_failed"


async def test_a_token_of_one_api_is_worth_nothing_to_another(served):
    orders = {"catalog": "orders", "resource": "order", "action": "create", "target": "project:corner-shop"}
    assert (await served.check(token=served.tokens.orders, **orders)).json()["decision"] == "allow"
    assert (await served.check(token=served.tokens.orders)).json()["reason"] == "catalog_mismatch"
    assert (await served.check(**orders)).json()["reason"] == "catalog_mismatch"
    assert (await served.check(catalog="gitlab@1")).json()["reason"] == "catalog_mismatch"


async def test_a_batch_answers_as_its_questions_one_by_one(served):
    items = [
        {"resource": "job", "action": "read", "target": "bakery/shop/checkout"},
        {"resource": "job", "action": "run", "target": "bakery/shop/checkout"},
        {"resource": "no", "action": "such", "target": "bakery/shop/checkout"},
        {"resource": "job", "action": "read", "target": "bakery/website"},
        {"resource": "job", "action": "read"},
    ]
    together = (await served.batch(items)).json()
    singles = [(await served.check(**{"target": None} | item)).json() for item in items]
    assert {one.pop("revision") for one in singles} == {together["revision"]}
    assert together["decisions"] == singles
    assert [one["decision"] for one in singles] == ["allow", "deny", "deny", "deny", "deny"]


async def test_a_batch_takes_ten_thousand_questions_and_not_one_more(served):
    item = {"resource": "job", "action": "read", "target": "bakery/shop/checkout"}
    whole = await served.batch([item] * 10_000)
    assert [one["decision"] for one in whole.json()["decisions"]] == ["allow"] * 10_000
    beyond = await served.batch([item] * 10_001)
    assert (beyond.status_code, beyond.json()["faults"][0]["where"]) == (400, "/items")


async def test_one_malformed_item_refuses_the_whole_batch_and_is_named(served):
    answer = await served.batch([{"resource": "job", "action": "read"}, {"resource": "job"}, 7])
    assert answer.status_code == 400
    assert [fault["where"] for fault in answer.json()["faults"]] == ["/items/1/action", "/items/2"]


async def test_a_caller_of_one_catalog_need_not_name_it(served):
    gateway = await served.gateway("gitlab")
    assert (await served.check(gateway, catalog=None)).json()["decision"] == "allow"
    unnamed = await served.check(catalog=None)
    assert (unnamed.status_code, unnamed.json()["faults"][0]["where"]) == (400, "/catalog")


async def test_a_caller_may_ask_about_its_own_catalogs_alone(served):
    gateway = await served.gateway("orders")
    answer = await served.check(gateway)
    assert answer.status_code == 403
    assert "decision" not in answer.json()


async def test_a_caller_of_one_group_may_ask_about_that_group_alone(served):
    # The bot is a member there: a group's permission is worth nothing without that (A4).
    inside = scope("decision:evaluate", nodes=("group:bakery/shop",))
    gateway = await served.gateway("gitlab", owner="deploy-bot", scopes=(inside,))
    assert (await served.check(gateway)).json()["decision"] == "allow"
    for target in ("bakery/website", "bakery", "instance", "nothing/here", None):
        assert (await served.check(gateway, target=target)).status_code == 403, target


async def test_the_answer_of_a_check_is_kept_by_no_cache(served):
    assert (await served.check()).headers["cache-control"] == "no-store"


async def test_the_reach_of_all_memberships_follows_them(served):
    scopes = (scope("job:read", reach=ReachKind.ALL_MEMBERSHIPS),)
    secret = await served.issue(owner="sam", scopes=scopes)
    for target, decision in (("bakery/ovens", "allow"), ("bakery/shop/checkout", "allow"), ("recipes/bread", "deny")):
        assert (await served.check(token=secret, target=target)).json()["decision"] == decision, target


async def test_a_request_id_comes_back_and_a_new_one_otherwise(served):
    given = await served.http.post("/check", headers=bearer(served.tokens.gateway) | {"X-Request-ID": "my-1"})
    assert given.headers["x-request-id"] == "my-1"
    assert (await served.check()).headers["x-request-id"]
