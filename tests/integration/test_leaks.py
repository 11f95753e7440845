"""Leaks: a report ends the very token and tells nothing, whoever sends it and whatever it holds."""

from __future__ import annotations

import asyncio
import base64
import json
import re

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import text
from tests.support.managing import Stage, scope, staged
from tests.support.receiver import receiving, status

from authz_service.admin.outbound import Outbound
from authz_service.admin.partners import PartnerKeys, parse_keys
from authz_service.errors import StartError, UnauthenticatedError
from authz_service.tokens.secret import new_secret

KEY = ec.generate_private_key(ec.SECP256R1())
KEY_ID = "f9525bf080f75b3506ca1ead061add62b8633a346606dc5fe544e29231c6ee0d"


def published(key: ec.EllipticCurvePrivateKey = KEY, key_id: str = KEY_ID) -> bytes:
    """Keys in the form that partners publish."""
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return json.dumps({"public_keys": [{"key_identifier": key_id, "key": pem, "is_current": True}]}).encode()


def signed(body: bytes, key: ec.EllipticCurvePrivateKey = KEY) -> dict[str, str]:
    signature = base64.b64encode(key.sign(body, ec.ECDSA(SHA256()))).decode()
    return {"Github-Public-Key-Identifier": KEY_ID, "Github-Public-Key-Signature": signature}


@pytest.fixture
async def stage(database_url, tmp_path):
    (tmp_path / "keys.json").write_bytes(published())
    async with staged(database_url, leak_keys_file=tmp_path / "keys.json", leak_reports_per_minute=6) as running:
        yield running


async def report(stage: Stage, *secrets: str, token: str | None = None, **more):
    return await stage.call("POST", "/v1/leaks/report", token, {"secrets": list(secrets)} | more)


async def settled(stage: Stage) -> None:
    """Every report was looked up."""
    for _ in range(200):
        async with stage.database.read() as conn:
            if not (await conn.execute(text("select count(*) from leak_report"))).scalar_one():
                return
        await asyncio.sleep(0.02)
    raise AssertionError("the reports wait")


async def state(stage: Stage, token_id: str) -> tuple[str, str | None]:
    found = (await stage.call("GET", f"/v1/tokens/{token_id}", await stage.admin())).json()
    return found["state"], found["revoked_reason"]


async def given(stage: Stage, owner: str = "dana", **more) -> tuple[str, str]:
    return await stage.give(owner, await stage.scope_at("gitlab", ["acme/web"], "job:read"), **more)


async def test_a_reported_token_is_revoked_and_no_other(stage):
    leaked, secret = await given(stage)
    child, _ = await given(stage, parent=leaked)
    other, _ = await given(stage)
    answer = await report(stage, secret, found_in="https://paste.example/x1")
    assert (answer.status_code, answer.json()) == (202, {"accepted": True})
    await settled(stage)
    assert await state(stage, leaked) == ("revoked", "its secret was reported as leaked")
    assert await state(stage, other) == ("active", None)
    assert await state(stage, child) == ("active", None)  # it is denied all the same, for its parent is revoked (T4)
    assert not await stage.allows(secret)
    rows = (await stage.call("GET", "/v1/audit", await stage.admin(), params={"action": "token.leak"})).json()["items"]
    assert [(row["subject"], row["details"]["found_in"]) for row in rows] == [(leaked, "https://paste.example/x1")]
    assert rows[0]["details"]["revoked"] == [leaked]
    assert rows[0]["actor"] == {"token": None, "user": None, "user_id": None}
    async with stage.database.read() as conn:
        events = (await conn.execute(text("select kind, token_id from event"))).all()
    assert [tuple(event) for event in events] == [("token.leaked", leaked)]


async def test_what_a_rotation_made_lives_on(stage):
    admin = await stage.admin()
    old, secret = await given(stage)
    new = (await stage.call("POST", f"/v1/tokens/{old}/rotate", admin, {"overlap_seconds": 3600})).json()
    await report(stage, secret)
    await settled(stage)
    assert (await state(stage, old))[0] == "revoked"
    assert (await state(stage, new["id"]))[0] == "active"
    assert await stage.allows(new["secret"])


async def test_known_unknown_ended_and_nonsense_get_the_same_bytes_and_leave_the_same_rows(stage):
    _, known = await given(stage)
    ended, gone = await given(stage)
    await stage.call("DELETE", f"/v1/tokens/{ended}", await stage.admin())
    unknown = new_secret("azt", "k1").reveal()
    reporter = (await stage.give("root", scope("authz", "instance", "leak:report")))[1]
    answers = [await report(stage, one, token=reporter) for one in (known, unknown, gone, "hunter2", known)]
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    names = [{name for name in answer.headers if name != "x-request-id"} for answer in answers]
    assert names == [names[0]] * len(names)
    await settled(stage)
    rows = (await stage.call("GET", "/v1/audit", await stage.admin(), params={"action": "token.leak"})).json()["items"]
    assert len(rows) == 1
    assert rows[0]["actor"]["token"] is not None


async def test_a_report_that_was_taken_is_looked_up_whatever_dies(stage):
    leaked, secret = await given(stage)
    digest = stage.peppers.digest(secret)
    # As a process leaves it that is killed right after its answer.
    async with stage.database.transaction() as conn:
        await conn.execute(
            text("insert into leak_report (digest, origin) values (:digest, 'report')"), {"digest": digest}
        )
    await settled(stage)
    assert (await state(stage, leaked))[0] == "revoked"


async def test_guesses_are_few_a_minute_and_a_whole_list_is_one_report(stage):
    guesses = [new_secret("azt", "k1").reveal() for _ in range(1000)]
    assert (await report(stage, *guesses)).status_code == 202
    for _ in range(5):
        assert (await report(stage, "x")).status_code == 202
    refused = await report(stage, "x")
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert refused.headers["content-type"] == "application/problem+json"
    leaked, secret = await given(stage)
    assert (await report(stage, secret)).status_code == 429
    await settled(stage)
    assert (await state(stage, leaked))[0] == "active"
    reporter = (await stage.give("root", scope("authz", "instance", "leak:report")))[1]
    assert (await report(stage, secret, token=reporter)).status_code == 202
    await settled(stage)
    assert (await state(stage, leaked))[0] == "revoked"


async def test_a_token_without_the_permission_does_not_report_with_it(stage):
    _, dana = await stage.give("dana", scope("authz", "user", "token:read"))
    assert (await report(stage, "x", token=dana)).status_code == 403
    assert (await report(stage, "x", token=new_secret("azt", "k1").reveal())).status_code == 401


GARBAGE = [
    b"",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"secrets": []}',
    b'{"secrets": "azt_x"}',
    b'{"secrets": [7]}',
    b'{"secrets": [""]}',
    b'{"secrets": ["x\\u0000"]}',
    b'{"secrets": ["x"], "more": 1}',
    b'{"secrets": ["x"], "secrets": ["y"]}',
    json.dumps({"secrets": ["x"] * 1001}).encode(),
    json.dumps({"secrets": ["x" * 1025]}).encode(),
    json.dumps({"secrets": ["x"], "found_in": "y" * 501}).encode(),
    b"[" * 5000,
]


async def test_garbage_is_a_problem_that_repeats_nothing(stage):
    reporter = (await stage.give("root", scope("authz", "instance", "leak:report")))[1]
    for body in GARBAGE:
        answer = await stage.call("POST", "/v1/leaks/report", reporter, body)
        assert answer.status_code == 400, body[:80]
        assert answer.json()["code"] in {"invalid_body", "invalid_input"}


async def test_a_secret_in_the_place_where_it_was_found_is_cut_out(stage):
    leaked, secret = await given(stage)
    await report(stage, secret, found_in=f"https://paste.example/?q={secret}")
    await settled(stage)
    admin = await stage.admin()
    shown = await stage.call("GET", "/v1/audit", admin, params={"subject": leaked})
    assert secret not in shown.text
    assert shown.json()["items"][0]["details"]["found_in"] == "https://paste.example/?q=…"
    async with stage.database.read() as conn:
        everything = str((await conn.execute(text("select * from event"))).all())
    assert secret.rpartition("_")[2] not in everything


# partners


async def as_partner(stage: Stage, body: bytes, headers: dict[str, str] | None = None):
    return await stage.call("POST", "/v1/leaks", None, body, headers=signed(body) if headers is None else headers)


async def test_a_partner_reports_by_its_signature_over_the_raw_body(stage):
    leaked, secret = await given(stage)
    matches = [
        {"token": secret, "type": "authz_token", "url": "https://github.com/acme/web/blob/x/y", "source": "content"}
    ]
    body = json.dumps(matches, indent=1).encode()
    answer = await as_partner(stage, body)
    assert (answer.status_code, answer.json()) == (202, {"accepted": True})
    await settled(stage)
    assert (await state(stage, leaked))[0] == "revoked"
    again = await as_partner(stage, body)  # a replay
    assert again.content == answer.content
    await settled(stage)
    rows = (await stage.call("GET", "/v1/audit", await stage.admin(), params={"action": "token.leak"})).json()["items"]
    assert [row["details"]["origin"] for row in rows] == ["partner"]


async def test_a_report_that_nobody_signed_changes_nothing(stage):
    leaked, secret = await given(stage)
    body = json.dumps([{"token": secret, "type": "x", "url": "y"}]).encode()
    good = signed(body)
    wrong = [
        {},
        {"Github-Public-Key-Identifier": KEY_ID},
        {"Github-Public-Key-Signature": good["Github-Public-Key-Signature"]},
        good | {"Github-Public-Key-Identifier": "another"},
    ]
    answers = [await as_partner(stage, body, headers) for headers in wrong]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    await settled(stage)
    assert (await state(stage, leaked))[0] == "active"


SPOILT = [
    lambda body, headers: (body + b" ", headers),
    lambda body, headers: (body, signed(body, ec.generate_private_key(ec.SECP256R1()))),
    lambda body, headers: (body, headers | {"Github-Public-Key-Signature": "AAAA"}),
    lambda body, headers: (body, headers | {"Github-Public-Key-Signature": "no base64"}),
    lambda body, headers: (body, signed(b"[]")),
    lambda body, headers: (body, headers | {"Github-Public-Key-Identifier": "x" * 1000}),
]


async def test_a_wrong_signature_is_refused(stage):
    leaked, secret = await given(stage)
    body = json.dumps([{"token": secret, "type": "x", "url": "y"}]).encode()
    for spoil in SPOILT:
        answer = await as_partner(stage, *spoil(body, signed(body)))
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    await settled(stage)
    assert (await state(stage, leaked))[0] == "active"


async def test_a_signed_report_that_makes_no_sense_is_a_problem(stage):
    for body in (b"{}", b"null", b"[1]", b'[{"type": "x"}]', b'[{"token": 7}]', b"[", b"\xff"):
        answer = await as_partner(stage, body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body"), body


async def test_bad_signatures_are_counted_and_good_ones_are_not(stage):
    body = b"[]"
    for _ in range(8):
        assert (await as_partner(stage, body)).status_code == 202
    for _ in range(6):
        assert (await as_partner(stage, body, {})).status_code == 401
    assert (await as_partner(stage, body, {})).status_code == 429


async def test_without_keys_there_is_no_such_route(database_url):
    async with staged(database_url) as stage:
        answer = await as_partner(stage, b"[]")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_keys_are_fetched_when_they_are_needed_and_not_more_often(tmp_path):
    now = [1000.0]
    body = b"[]"
    async with receiving(tmp_path) as receiver:
        receiver.answer = lambda request: status(200, published())
        out = Outbound(frozenset({"localhost"}), ca_file=tmp_path / "ca.pem")
        keys = PartnerKeys(out, url=receiver.url("/keys"), clock=lambda: now[0])
        headers = signed(body)
        given = (headers["Github-Public-Key-Identifier"], headers["Github-Public-Key-Signature"], body)
        await keys.require_signed(*given)
        await keys.require_signed(*given)
        assert len(receiver.requests) == 1
        for _ in range(20):  # an unknown key does not make us a tool against whoever publishes the keys
            with pytest.raises(UnauthenticatedError):
                await keys.require_signed("unknown", given[1], body)
        assert len(receiver.requests) == 1
        now[0] += 61
        with pytest.raises(UnauthenticatedError):
            await keys.require_signed("unknown", given[1], body)
        assert len(receiver.requests) == 2
        # A key that is taken back stops within the hour.
        receiver.answer = lambda request: status(200, published(key_id="next"))
        now[0] += 3601
        with pytest.raises(UnauthenticatedError):
            await keys.require_signed(*given)
        # What is no list of keys, or far too long, changes nothing; keys of a day ago are used no more.
        receiver.answer = lambda request: status(200, b"x" * 70_000)
        now[0] += 3601
        with pytest.raises(UnauthenticatedError):
            await keys.require_signed(*given)
        now[0] += 24 * 3600
        with pytest.raises(UnauthenticatedError):
            await keys.require_signed("next", given[1], body)


def test_what_is_no_p256_key_is_no_key(tmp_path):
    other = ec.generate_private_key(ec.SECP384R1())
    pem = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for text_of in (b"", b"[]", b"{}", json.dumps({"public_keys": [{"key_identifier": "x", "key": pem}]}).encode()):
        assert parse_keys(text_of) == {}
    (tmp_path / "keys.json").write_text("{}")
    with pytest.raises(StartError, match="AUTHZ_LEAK_KEYS_FILE"):
        PartnerKeys(Outbound(), file=tmp_path / "keys.json")
    assert re.fullmatch(r"[0-9a-f]{64}", KEY_ID)


# how far it reached


async def test_the_blast_radius_of_an_ended_token_says_what_it_could_reach_and_what_it_did(stage):
    admin = await stage.admin()
    leaked, secret = await given(stage)
    child, _ = await given(stage, parent=leaked)
    assert await stage.allows(secret)
    before = await blast(stage, admin, leaked)
    assert [(one["target"], [held["permission"] for held in one["permissions"]]) for one in before["items"]] == [
        ("project:acme/web", ["job:read"])
    ]
    assert (before["state"], before["related"], before["events"]) == ("active", [child], [])
    await report(stage, secret)
    await settled(stage)
    after = await blast(stage, admin, leaked)
    assert after["items"] == before["items"]
    assert (after["state"], [one["kind"] for one in after["events"]]) == ("revoked", ["token.leaked"])
    effective = (await stage.call("GET", f"/v1/tokens/{leaked}/effective", admin)).json()
    assert effective["items"] == []


async def test_the_blast_radius_shows_a_group_owner_their_group_alone(stage):
    both = await stage.scope_at("gitlab", ["acme/web", "hidden"], "job:read")
    leaked, _ = await stage.give("root", both)
    _, olga = await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "token:read"))
    answer = await stage.call("GET", f"/v1/tokens/{leaked}/blast-radius", olga)
    assert [one["target"] for one in answer.json()["items"]] == ["project:acme/web"]
    assert answer.json()["partial"]
    assert "hidden" not in answer.text
    _, eve = await stage.give("eve", scope("authz", "user", "token:read"))
    unseen = await stage.call("GET", f"/v1/tokens/{leaked}/blast-radius", eve)
    absent = await stage.call("GET", "/v1/tokens/tok_0000000000000000000000/blast-radius", eve)
    assert unseen.status_code == absent.status_code == 404
    assert unseen.content == absent.content


async def blast(stage: Stage, secret: str, token_id: str) -> dict:
    items, cursor, page = [], None, {}
    while True:
        params = {"cursor": cursor} if cursor else {}
        page = (await stage.call("GET", f"/v1/tokens/{token_id}/blast-radius", secret, params=params)).json()
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return page | {"items": items}
