"""A CI job's token becomes one of ours: by a real issuer's signature, a group's rule, and nothing else (M5)."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from joserfc.jwk import RSAKey
from sqlalchemy import text
from tests.support.issuer import Issuer, another_key, issuing, sign_by_public_key
from tests.support.managing import Stage, staged
from tests.support.receiver import status
from tests.support.trusting import GRANT, admin, exchange, keeper, rule, wanted


@pytest.fixture
async def issuer(tmp_path):
    async with issuing(tmp_path) as running:
        yield running


@pytest.fixture
async def stage(database_url, tmp_path, issuer):
    given = {"webhook_private_hosts": "localhost", "webhook_ca_file": tmp_path / "ca.pem"}
    async with staged(database_url, **given) as running:
        yield running


async def faults(stage: Stage, issuer: Issuer, secret: str | None = None, /, **given) -> set[tuple[str, str]]:
    answer = await stage.call("POST", "/v1/trust-rules", secret or await keeper(stage), wanted(issuer, **given))
    assert answer.status_code in (400, 403), answer.text
    return {(fault["where"], fault["code"]) for fault in answer.json().get("faults", [])}


def unsigned(payload: bytes) -> str:
    """A text of three parts that nobody signed."""
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (b'{"alg":"RS256"}', payload, b"x")]
    return ".".join(parts)


async def test_a_job_gets_a_token_of_minutes_that_may_what_the_rule_says(stage, issuer):
    made = await rule(stage, issuer)
    answer = await exchange(stage, issuer.sign(), rule=made["id"])
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    said = answer.json()
    secret = said.pop("access_token")
    assert said == {
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": 600,
        "scope": "job:read",
    }
    assert await stage.allows(secret)
    assert not await stage.allows(secret, "job:run")
    shown = (await stage.call("GET", "/v1/self", secret)).json()
    assert (shown["owner"], shown["name"]) == ("bot", "deploy")
    async with stage.database.read() as conn:
        query = "select subject, details from audit where action = 'token.exchange'"
        [row] = (await conn.execute(text(query))).all()
    assert row.subject == shown["id"]
    assert (row.details["rule"], row.details["issuer"]) == (made["id"], issuer.url)
    await stage.shift(seconds=601)
    assert not await stage.allows(secret)


async def test_a_job_s_token_is_taken_once_also_when_shown_twice_at_the_same_time(stage, issuer):
    made = await rule(stage, issuer)
    shown = issuer.sign()
    answers = await asyncio.gather(*(exchange(stage, shown, rule=made["id"]) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]
    assert (await exchange(stage, shown, rule=made["id"])).status_code == 400
    assert (await exchange(stage, issuer.sign(), rule=made["id"])).status_code == 200


async def test_whatever_is_wrong_with_a_token_it_is_not_taken_and_the_answer_is_the_same(stage, issuer):
    made = await rule(stage, issuer)
    stranger = RSAKey.generate_key(2048, {"kid": "one"}, auto_kid=False)
    head, body, signature = issuer.sign().split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    other = base64.urlsafe_b64encode(
        json.dumps(json.loads(base64.urlsafe_b64decode(body + "==")) | {"ref": "mainly"}).encode()
    ).rstrip(b"=")
    bad = {
        "another key": issuer.sign(stranger),
        "another kind of key": issuer.sign(another_key(), "ES256"),
        "its public key as a shared secret": sign_by_public_key(issuer),
        "no signature": f"{none}.{body}.",
        "a changed body": f"{head}.{other.decode()}.{signature}",
        "over": issuer.sign(exp=1_700_000_000),
        "for ever": issuer.sign(exp=99_999_999_999),
        "no end": issuer.sign(exp=None),
        "an end that is no time": issuer.sign(exp=True),
        "not yet": issuer.sign(nbf=4_000_000_000),
        "issued tomorrow": issuer.sign(iat=4_000_000_000),
        "no id": issuer.sign(jti=None),
        "another audience": issuer.sign(aud="https://elsewhere.test"),
        "another issuer": issuer.sign(iss="https://elsewhere.test"),
        "another project": issuer.sign(project_path="acme/we"),
        "a project that begins alike": issuer.sign(project_path="acme/web2"),
        "a claim that is no text": issuer.sign(project_path=["acme/web"]),
        "no such claim": issuer.sign(ref=None),
        "a pattern stays in its part": issuer.sign(ref="main/x"),
        "half a letter as its issuer": unsigned(b'{"iss": "\\ud800", "aud": "x"}'),
        "nothing as its audience": unsigned(b'{"iss": "https://x.test", "aud": ["\\u0000"]}'),
        "no token": "x",
        "not even near": "a.b.c",
        "a list": "W10.W10.W10",
        "too long": "a" * 20_000,
        "no text": "\x00.é.\x00",
    }
    answers = {name: await exchange(stage, token, rule=made["id"]) for name, token in bad.items()}
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(bad, 400)
    assert len({answer.text for answer in answers.values()}) == 1
    assert answers["over"].json()["error"] == "invalid_request"
    assert (await exchange(stage, issuer.sign(), rule=made["id"])).status_code == 200


async def test_a_form_that_is_none_is_told_what_to_send(stage):
    for fields in ({"grant_type": "password"}, {"subject_token": ""}, {"subject_token_type": "x"}):
        answer = await exchange(stage, "a.b.c", **fields)
        assert answer.status_code == 400
        assert answer.json()["error"] in ("invalid_request", "unsupported_grant_type")
    answer = await stage.call("POST", "/v1/token-exchange", None, {"grant_type": GRANT})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_an_issuer_without_a_rule_is_never_asked_for_anything(stage, issuer):
    assert (await exchange(stage, issuer.sign())).status_code == 400
    assert issuer.receiver.requests == []


async def test_keys_are_kept_and_a_crowd_of_unknown_ones_does_not_ask_again_and_again(stage, issuer):
    made = await rule(stage, issuer)
    for _ in range(3):
        assert (await exchange(stage, issuer.sign(), rule=made["id"])).status_code == 200
    for number in range(5):
        assert (
            await exchange(stage, issuer.sign(another_key(), "ES256", {"kid": f"k{number}"}), rule=made["id"])
        ).status_code == 400
    assert [request.path for request in issuer.receiver.requests] == ["/.well-known/openid-configuration", "/keys"]


@pytest.mark.parametrize("keys_at", ["https://127.0.0.1:1/keys", "http://localhost/keys", "https://10.0.0.1/keys", 7])
async def test_keys_at_another_place_than_the_issuer_s_are_not_taken(stage, issuer, keys_at):
    made = await rule(stage, issuer)
    issuer.discovery = {"jwks_uri": keys_at}
    assert (await exchange(stage, issuer.sign(), rule=made["id"])).status_code == 400


async def test_an_issuer_that_answers_strangely_gives_no_token(stage, issuer):
    made = await rule(stage, issuer)
    usual = issuer.receiver.answer
    issuer.receiver.answer = lambda request: status(302, b"", f"Location: {issuer.url}/elsewhere")
    assert (await exchange(stage, issuer.sign(), rule=made["id"])).status_code == 400
    assert [request.path for request in issuer.receiver.requests] == ["/.well-known/openid-configuration"]
    # And it is left alone for a while, also once it is well again.
    issuer.receiver.answer = usual
    assert (await exchange(stage, issuer.sign(), rule=made["id"])).status_code == 400
    assert len(issuer.receiver.requests) == 1


async def test_pinned_keys_need_no_issuer_that_answers(stage, issuer):
    made = await rule(stage, issuer, keys={"keys": [issuer.public() | {"x5t": "more"}], "more": "more"})
    assert made["keys"] == {"keys": [issuer.public()]}
    assert (await exchange(stage, issuer.sign(), rule=made["id"])).status_code == 200
    assert issuer.receiver.requests == []


async def test_of_several_rules_that_fit_one_has_to_be_named(stage, issuer):
    root = await admin(stage)
    one, two = await rule(stage, issuer, root), await rule(stage, issuer, root, name="other", lifetime_seconds=60)
    shown = issuer.sign()
    assert (await exchange(stage, shown)).status_code == 400
    answer = await exchange(stage, shown, rule=two["id"])
    assert answer.json()["expires_in"] == 60
    assert (await exchange(stage, shown, rule=one["id"])).status_code == 400, "taken by another rule already"


async def of_eve(stage: Stage) -> dict:
    """A group of eve's with a service account: what she says in a rule, and the secret she makes it with."""
    await stage.apply(
        {"type": "membership", "user": "eve", "node": "open", "role": "owner"},
        {"type": "user", "username": "ebot", "external_id": "29", "service_account": True, "home": "open"},
        {"type": "membership", "user": "ebot", "node": "open", "role": "maintainer"},
        {"type": "project", "path": "open/site", "external_id": "28", "visibility": "public"},
    )
    authz = await stage.scope_at("authz", ["group:open"], "token:create", "token:read")
    secret = (await stage.give("eve", authz, await stage.scope_at("gitlab", ["project:open/site"], "job:read")))[1]
    scopes = [{"reach": {"kind": "selected", "nodes": ["project:open/site"]}, "permissions": ["job:read"]}]
    return {"secret": secret, "said": {"node": "group:open", "owner": "ebot", "scopes": scopes}}


async def test_a_stranger_s_rule_for_the_same_jobs_does_not_stop_them(stage, issuer):
    made = await rule(stage, issuer, await admin(stage))
    assert (await exchange(stage, issuer.sign())).status_code == 200
    eve = await of_eve(stage)
    hers = await rule(stage, issuer, eve["secret"], **eve["said"])
    assert (made["requires_name"], hers["requires_name"]) == (False, True)
    given = await exchange(stage, issuer.sign())
    assert given.status_code == 200, given.text
    assert (await stage.call("GET", "/v1/self", given.json()["access_token"])).json()["owner"] == "bot"
    named = await exchange(stage, issuer.sign(), rule=hers["id"])
    assert (await stage.call("GET", "/v1/self", named.json()["access_token"])).json()["owner"] == "ebot"


async def test_a_rule_of_somebody_else_than_an_admin_has_to_be_named(stage, issuer):
    made = await rule(stage, issuer)
    assert made["requires_name"]
    unnamed = await exchange(stage, issuer.sign())
    assert (unnamed.status_code, unnamed.text) == (400, (await exchange(stage, "a.b.c")).text)
    assert (await exchange(stage, issuer.sign(), rule=made["id"])).status_code == 200
    async with stage.database.read() as conn:
        query = "select subject, details ->> 'why' as why from audit where action = 'token.exchange_refused'"
        [row] = (await conn.execute(text(query))).all()
    assert tuple(row) == (made["id"], "the job has to name this rule")


async def test_an_old_rule_need_not_be_named_until_it_trusts_others(stage, issuer):
    eve = await of_eve(stage)
    hers = await rule(stage, issuer, eve["secret"], **eve["said"], claims={"project_path": "open/site"})
    async with stage.database.transaction() as conn:
        await conn.execute(text("update trust_rule set requires_name = false"))
    own = {"project_path": "open/site"}
    assert (await exchange(stage, issuer.sign(**own))).status_code == 200
    path = f"/v1/trust-rules/{hers['id']}"
    renamed = await stage.call("PATCH", path, eve["secret"], {"name": "mine"}, headers={"If-Match": "*"})
    assert (renamed.status_code, renamed.json()["requires_name"]) == (200, False)
    assert (await exchange(stage, issuer.sign(**own))).status_code == 200
    await rule(stage, issuer, await admin(stage))
    theirs = await stage.call(
        "PATCH", path, eve["secret"], {"claims": {"project_path": "acme/web"}}, headers={"If-Match": "*"}
    )
    assert (theirs.status_code, theirs.json()["requires_name"]) == (200, True)
    assert (await exchange(stage, issuer.sign())).status_code == 200
    # Nothing takes it back.
    back = await stage.call("PATCH", path, eve["secret"], {"claims": own}, headers={"If-Match": "*"})
    assert (back.status_code, back.json()["requires_name"]) == (200, True)
    assert (await exchange(stage, issuer.sign(**own))).status_code == 400


# the rule


async def test_a_rule_gives_at_most_what_its_author_holds(stage, issuer):
    scopes = [
        {"reach": {"kind": "selected", "nodes": ["project:acme/web"]}, "permissions": ["job:read", "pipeline:read"]}
    ]
    assert ("/scopes/0/permissions/1", "beyond_issuer") in await faults(stage, issuer, scopes=scopes)


async def test_a_rule_is_the_group_s_owner_s_alone(stage, issuer):
    secret = (await stage.give("dana", await stage.scope_at("authz", ["group:acme"], "token:create")))[1]
    answer = await stage.call("POST", "/v1/trust-rules", secret, wanted(issuer))
    assert answer.status_code == 403
    made = await rule(stage, issuer)
    for method in ("GET", "DELETE"):
        unseen = await stage.call(method, f"/v1/trust-rules/{made['id']}", secret)
        missing = await stage.call(method, "/v1/trust-rules/tru_none", secret)
        strange = await stage.call(method, "/v1/trust-rules/%00", secret)
        assert unseen.status_code == missing.status_code == strange.status_code
        assert unseen.status_code in (403, 404)


async def test_a_hidden_group_reads_as_one_that_does_not_exist(stage, issuer):
    hidden = await faults(stage, issuer, node="group:hidden")
    assert hidden == await faults(stage, issuer, node="group:none") == {("/node", "target_unknown")}


async def test_all_faults_of_a_rule_are_told_at_once(stage, issuer):
    found = await faults(
        stage,
        issuer,
        issuer="http://x",
        audience="",
        lifetime_seconds=3601,
        owner="dana",
        claims={"project_path": {"like": "acme/*"}, "ref": "ma*", "x": {"like": "*"}, "y": ""},
        keys={"keys": [issuer.key.as_dict(private=True)]},
    )
    assert found == {
        ("/issuer", "bad_url"),
        ("/audience", "invalid_value"),
        ("/lifetime_seconds", "out_of_range"),
        ("/claims/ref", "unmarked_wildcard"),
        ("/claims/x", "too_wide"),
        ("/claims/y", "invalid_value"),
        ("/claims", "claims_too_wide"),
        ("/keys", "private_key"),
        ("/owner", "no_service_account"),
    }
    assert ("/scopes/0/reach/nodes/0", "target_unknown") in await faults(
        stage,
        issuer,
        audience="",
        scopes=[{"reach": {"kind": "selected", "nodes": ["project:hidden/plan"]}, "permissions": ["job:read"]}],
    )


async def test_small_keys_are_no_keys(stage, issuer):
    short = issuer.public() | {"n": issuer.public()["n"][:171]}
    found = await faults(stage, issuer, keys={"keys": [short]})
    assert found == {("/keys", "invalid_keys")}


async def test_an_author_who_lost_the_right_gives_nothing_any_more(stage, issuer):
    made = await rule(stage, issuer)
    await stage.apply({"type": "membership", "user": "olga", "node": "acme", "role": "developer"})
    assert (await exchange(stage, issuer.sign(), rule=made["id"])).status_code == 400
    await stage.apply({"type": "membership", "user": "olga", "node": "acme", "role": "owner"})
    assert (await exchange(stage, issuer.sign(), rule=made["id"])).status_code == 200


async def test_a_rule_ends_with_its_author_s_token(stage, issuer):
    secret = await keeper(stage)
    made = await rule(stage, issuer, secret)
    assert (await stage.call("DELETE", "/v1/self", secret)).status_code == 200
    assert (await exchange(stage, issuer.sign(), rule=made["id"])).status_code == 400


async def test_a_rule_goes_on_with_what_replaced_its_author_s_token(stage, issuer):
    authz = await stage.scope_at("authz", ["group:acme"], "token:create", "token:read")
    held = await stage.scope_at("gitlab", ["group:acme"], "job:read")
    token_id, secret = await stage.give("olga", authz, held, may_rotate_self=True)
    made = await rule(stage, issuer, secret)
    rotated = await stage.call("POST", "/v1/self/rotate", secret, {"overlap_seconds": 0})
    assert rotated.status_code == 201, rotated.text
    assert (await exchange(stage, issuer.sign(), rule=made["id"])).status_code == 200
    shown = await stage.call("GET", f"/v1/trust-rules/{made['id']}", rotated.json()["secret"])
    assert shown.json()["made_by_token"] not in (token_id, None)


async def test_a_blocked_service_account_gets_nothing(stage, issuer):
    made = await rule(stage, issuer)
    bot = {"type": "user", "username": "bot", "external_id": "11", "service_account": True, "home": "acme"}
    await stage.apply(bot | {"state": "blocked"})
    assert (await exchange(stage, issuer.sign(), rule=made["id"])).status_code == 400


async def test_a_removed_rule_takes_its_tokens_along(stage, issuer):
    secret = await keeper(stage)
    made = await rule(stage, issuer, secret)
    given = (await exchange(stage, issuer.sign(), rule=made["id"])).json()["access_token"]
    assert await stage.allows(given)
    listed = await stage.call("GET", "/v1/trust-rules", secret, params={"node": "group:acme"})
    assert [one["id"] for one in listed.json()["items"]] == [made["id"]]
    assert (await stage.call("DELETE", f"/v1/trust-rules/{made['id']}", secret)).status_code == 204
    assert not await stage.allows(given)
    assert (await exchange(stage, issuer.sign(), rule=made["id"])).status_code == 400
    again = await stage.call("GET", f"/v1/trust-rules/{made['id']}", secret)
    assert again.status_code == 404


async def test_a_token_that_is_bound_to_networks_makes_no_rules(stage, issuer):
    authz = await stage.scope_at("authz", ["group:acme"], "token:create")
    held = await stage.scope_at("gitlab", ["group:acme"], "job:read")
    secret = (await stage.give("olga", authz, held, networks=("127.0.0.0/8",)))[1]
    assert ("/", "bound_to_networks") in await faults(stage, issuer, secret)


async def test_an_admin_s_rule_may_give_what_the_admin_does_not_hold(stage, issuer):
    made = await rule(stage, issuer, await admin(stage))
    assert not made["requires_name"]
    assert (await exchange(stage, issuer.sign())).status_code == 200
