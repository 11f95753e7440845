"""Signing in by a provider: who is believed, what is proven, and what another site or provider can make of it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from sqlalchemy import text
from tests.support.console import ORIGIN, Visitor, words_of
from tests.support.managing import COMPANY, Stage, staged
from tests.support.provider import CLIENT_ID, CLIENT_SECRET, Provider, providing
from tests.support.receiver import status

from authz_service.admin.passwords import Attempts
from authz_service.admin.signing import link_account, unlink_accounts
from authz_service.config import load_settings
from authz_service.console.guarding import COOKIE, FLOW_COOKIE
from authz_service.errors import ConflictError, InvalidInputError, NotFoundError, StartError

CALLBACK = "/console/sign-in/openid/callback"
BEGIN = "/console/sign-in/openid"


@dataclass
class Scene:
    stage: Stage
    provider: Provider


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(make_database: Any, tmp_path_factory: Any) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("provider")
    async with providing(folder) as provider:
        settings = {
            "public_url": ORIGIN,
            "openid_issuer": provider.url,
            "openid_client_id": CLIENT_ID,
            "openid_client_secret_file": folder / "secret.txt",
            "openid_name": "Acme <b>",
            "webhook_private_hosts": "localhost",
            "webhook_ca_file": folder / "ca.pem",
        }
        async with staged(make_database(), *COMPANY, **settings) as stage:
            yield Scene(stage, provider)


@pytest_asyncio.fixture(loop_scope="module")
async def scene(shared: Scene) -> Scene:
    """As new: nothing is kept of the provider, nobody failed before."""
    console = shared.stage.app.state.console
    console.openid._provider = console.openid._keys = None
    console.attempts.__dict__.update(Attempts().__dict__)
    provider = shared.provider
    provider.discovery, provider.answer_of_token, provider.forgetful = {}, None, False
    provider.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"}, auto_kid=False)
    provider.published = [provider.public()]
    provider.codes.clear()
    provider.redeemed.clear()
    return shared


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def begin(visitor: Visitor, more: str = "") -> str:
    response = await visitor.get(BEGIN + more)
    assert response.status_code == 303, visitor.text
    return str(response.headers["location"])


async def come_back(visitor: Visitor, returned: dict[str, str], **more: Any) -> httpx.Response:
    return await visitor.get(CALLBACK, params=returned, **more)


async def sign_in(scene: Scene, more: str = "", *, signed: Any = None, **claims: Any) -> Visitor:
    """The whole way, with what the provider says differing as given."""
    visitor = Visitor(scene.stage)
    where = await begin(visitor, more)
    await come_back(visitor, scene.provider.allow(where, signed, **claims))
    return visitor


def refused(visitor: Visitor) -> bool:
    assert visitor.page is not None
    return visitor.page.status_code == 401 and not visitor.signed_in and FLOW_COOKIE not in visitor.cookies


async def count(stage: Stage, query: str, **given: Any) -> int:
    async with stage.database.read() as conn:
        return int((await conn.execute(text(query), given)).scalar_one())


# the way there and back


async def test_the_account_with_a_users_external_id_signs_that_user_in(scene):
    visitor = await sign_in(scene)
    assert visitor.page.status_code == 200
    assert visitor.signed_in
    assert 'http-equiv="refresh" content="0; url=/console/welcome?next=/console/tokens"' in visitor.page.text
    await visitor.get("/console/welcome?next=/console/tokens")
    await visitor.follow()
    assert "dana" in visitor.text
    query = "select count(*) from session where opened_by = 'openid' and user_id = :dana"
    assert await count(scene.stage, query, dana=await scene.stage.node("user:dana")) >= 1


async def test_the_browser_is_sent_away_with_a_proof_of_its_own_and_a_cookie_for_this_host(scene):
    visitor = Visitor(scene.stage)
    where = await begin(visitor)
    asked = dict(parse_qsl(urlsplit(where).query))
    assert asked["response_type"] == "code"
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == ORIGIN + CALLBACK
    assert asked["scope"] == "openid"
    assert len(asked["state"]) >= 40
    assert len(asked["nonce"]) >= 40
    cookies = visitor.page.headers.get_list("set-cookie")
    [cookie] = [one for one in cookies if one.startswith(FLOW_COOKIE)]
    parts = sorted(part.strip().lower() for part in cookie.split(";")[1:])
    assert [one for one in parts if not one.startswith("expires")] == [
        *("httponly", "max-age=600", "path=/", "samesite=lax", "secure"),
    ]
    other = Visitor(scene.stage)
    again = dict(parse_qsl(urlsplit(await begin(other)).query))
    assert {asked["state"], asked["nonce"], asked["code_challenge"]}.isdisjoint(again.values())


async def test_the_code_goes_to_the_provider_with_the_clients_secret_and_nothing_of_it_to_a_page(scene):
    visitor = await sign_in(scene)
    [form] = scene.provider.redeemed
    assert form["redirect_uri"] == ORIGIN + CALLBACK
    assert CLIENT_SECRET not in visitor.page.text
    assert "of-no-use" not in visitor.page.text
    assert visitor.page.headers["cache-control"] == "no-store"
    assert visitor.page.headers["referrer-policy"] == "same-origin"


async def test_a_session_by_a_provider_is_like_any_other_and_ends_by_signing_out(scene):
    visitor = await sign_in(scene)
    await visitor.get("/console/account")
    stolen = Visitor(scene.stage, dict(visitor.cookies))
    begun = "?catalog=gitlab&node=project:acme/web&p=job:read&step=finish"
    await visitor.get(f"/console/tokens/new{begun}")
    assert visitor.page.status_code == 200
    await visitor.post("/console/sign-out")
    assert not visitor.signed_in
    await stolen.get("/console/tokens")
    assert stolen.page.headers["location"].startswith("/console/sign-in")


async def test_the_page_that_was_asked_for_is_gone_on_to(scene):
    visitor = await sign_in(scene, "?next=/console/catalogs%3Fx=1")
    assert "next=/console/catalogs%3Fx%3D1" in visitor.page.text
    await visitor.get("/console/welcome?next=/console/catalogs%3Fx%3D1")
    assert visitor.page.headers["location"] == "/console/catalogs?x=1"


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/",
        "//evil.example",
        "/console//evil.example",
        "/console/\\evil",
        "javascript:x",
        "/v1/self",
    ],
)
async def test_no_link_to_the_door_leads_to_another_site(scene, elsewhere):
    visitor = Visitor(scene.stage)
    await visitor.get(BEGIN, params={"next": elsewhere})
    await come_back(visitor, scene.provider.allow(visitor.page.headers["location"]))
    assert "url=/console/welcome?next=/console/tokens" in visitor.page.text
    assert "evil" not in visitor.page.text


async def test_the_door_offers_the_provider_and_its_name_is_only_text(scene):
    visitor = Visitor(scene.stage)
    await visitor.get("/console/sign-in?next=/console/catalogs")
    assert "Sign in with Acme <b>" in visitor.text
    assert 'href="/console/sign-in/openid?next=/console/catalogs"' in visitor.page.text


async def test_without_a_provider_there_is_no_such_door(database_url):
    async with staged(database_url) as stage:
        visitor = Visitor(stage)
        for path in (BEGIN, CALLBACK):
            assert (await visitor.get(path)).status_code == 404
        await visitor.get("/console/sign-in")
        assert "openid" not in visitor.page.text


# who somebody is


@pytest.mark.parametrize("subject", ["no such", "10", "11", "", " 7", "7 ", "07", "x" * 300])
async def test_an_account_that_nobody_active_has_is_told_so_in_the_same_words(scene, subject):
    visitor = await sign_in(scene, sub=subject)
    assert refused(visitor)
    if 0 < len(subject) < 200 and subject == subject.strip():
        assert "Nobody here has the account" in visitor.text
        assert subject in visitor.text


async def test_no_name_and_no_address_leads_to_a_user(scene):
    claims = {"email": "dana@example.com", "email_verified": True, "preferred_username": "dana", "name": "dana"}
    assert refused(await sign_in(scene, sub="dana", **claims))


async def test_a_linked_account_is_that_user_whatever_else_it_says(scene):
    management = scene.stage.app.state.services.management
    await link_account(management, "olga", scene.provider.url, "opaque-1")
    visitor = await sign_in(scene, sub="opaque-1")
    await visitor.get("/console/account")
    assert "olga" in visitor.text
    with pytest.raises(ConflictError):
        await link_account(management, "dana", scene.provider.url, "opaque-1")
    with pytest.raises(ConflictError):
        await link_account(management, "bot", scene.provider.url, "opaque-2")
    with pytest.raises(NotFoundError):
        await link_account(management, "nobody", scene.provider.url, "opaque-2")
    for wrong in ("", " ", "x" * 256, "a\nb"):
        with pytest.raises(InvalidInputError):
            await link_account(management, "dana", scene.provider.url, wrong)
    assert await unlink_accounts(management, "olga", scene.provider.url) == 1
    await visitor.get("/console/account")
    assert visitor.page.headers["location"].startswith("/console/sign-in")
    assert refused(await sign_in(scene, sub="opaque-1"))
    actions = "select count(*) from audit where action in ('identity.link', 'identity.unlink')"
    assert await count(scene.stage, actions) == 2


async def test_an_account_of_the_same_name_at_another_provider_is_another(scene):
    management = scene.stage.app.state.services.management
    await link_account(management, "olga", "https://other.example", "opaque-9")
    assert refused(await sign_in(scene, sub="opaque-9"))


async def test_another_claim_may_name_the_user(scene):
    openid = scene.stage.app.state.console.openid
    before = openid.client
    from dataclasses import replace

    openid.client = replace(before, claim="oid")
    try:
        assert (await sign_in(scene, sub="whatever", oid=7)).signed_in
        assert (await sign_in(scene, sub="whatever", oid="7")).signed_in
        for wrong in (True, ["7"], {"7": 7}, None, 7.5, ""):
            assert refused(await sign_in(scene, sub="7", oid=wrong)), wrong
    finally:
        openid.client = before


# what has to be right


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"nonce": 7},
        {"aud": "another client"},
        {"aud": None},
        {"aud": []},
        {"aud": [CLIENT_ID, "another client"]},
        {"aud": [CLIENT_ID, "another client"], "azp": "another client"},
        {"aud": {CLIENT_ID: 1}},
        {"azp": "another client"},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"exp": int(time.time()) - 120},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": True},
        {"iat": int(time.time()) + 3600},
        {"iat": int(time.time()) - 7200},
        {"iat": None},
        {"nbf": int(time.time()) + 3600},
        {"sub": None},
        {"sub": 7},
        {"sub": ["7"]},
        {"at_hash": "bm90IGl0cyBoYXNo"},
    ],
    ids=range(24),
)
async def test_a_claim_that_is_not_right_signs_nobody_in(scene, claims):
    assert refused(await sign_in(scene, **claims))


async def test_an_audience_beside_us_is_fine_where_we_are_who_it_was_issued_to(scene):
    assert (await sign_in(scene, aud=[CLIENT_ID, "another client"], azp=CLIENT_ID)).signed_in
    assert (await sign_in(scene, aud=[CLIENT_ID])).signed_in


def _encoded(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


async def test_no_signature_but_one_by_the_providers_own_key_counts(scene):
    provider = scene.provider
    stranger = RSAKey.generate_key(2048, {"kid": "one"}, auto_kid=False)
    pem = provider.key.as_pem(private=False)

    def by_public_key(said: dict[str, Any]) -> str:
        signed = f"{_encoded({'alg': 'HS256', 'kid': 'one'})}.{_encoded(said)}"
        code = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
        return f"{signed}.{base64.urlsafe_b64encode(code).decode().rstrip('=')}"

    def by_secret(said: dict[str, Any]) -> str:
        signed = f"{_encoded({'alg': 'HS256'})}.{_encoded(said)}"
        code = hmac.new(CLIENT_SECRET.encode(), signed.encode(), hashlib.sha256).digest()
        return f"{signed}.{base64.urlsafe_b64encode(code).decode().rstrip('=')}"

    def with_own_key(said: dict[str, Any]) -> str:
        header = {"alg": "RS256", "kid": "one", "jwk": stranger.as_dict(private=False)}
        return jwt.encode(header, said, stranger, algorithms=["RS256"])

    forgeries = {
        "none": lambda said: f"{_encoded({'alg': 'none'})}.{_encoded(said)}.",
        "None": lambda said: f"{_encoded({'alg': 'None', 'kid': 'one'})}.{_encoded(said)}.AAAA",
        "the public key as a secret": by_public_key,
        "the client's secret": by_secret,
        "another's key": lambda said: jwt.encode({"alg": "RS256", "kid": "one"}, said, stranger, algorithms=["RS256"]),
        "a key that it brings itself": with_own_key,
        "no signature": lambda said: f"{_encoded({'alg': 'RS256', 'kid': 'one'})}.{_encoded(said)}.",
        "no token": lambda said: "x.y.z",
        "too long": lambda said: f"{'a' * 20_000}.b.c",
        "five parts": lambda said: "a.b.c.d.e",
        "a changed claim": lambda said: _changed(provider, said),
    }
    for name, forge in forgeries.items():
        assert refused(await sign_in(scene, signed=forge)), name
    assert (await sign_in(scene)).signed_in


def _changed(provider: Provider, said: dict[str, Any]) -> str:
    header, _, signature = jwt.encode(
        {"alg": "RS256", "kid": "one"}, said | {"sub": "9"}, provider.key, algorithms=["RS256"]
    ).split(".")
    return f"{header}.{_encoded(said)}.{signature}"


async def test_a_new_key_is_taken_at_once_and_the_old_one_no_longer(scene):
    provider = scene.provider
    assert (await sign_in(scene)).signed_in
    old, provider.key = provider.key, ECKey.generate_key("P-256", {"kid": "two"}, auto_kid=False)

    def by_new(said: dict[str, Any]) -> str:
        return jwt.encode({"alg": "ES256", "kid": "two"}, said, provider.key, algorithms=["ES256"])

    provider.published = [provider.public()]
    assert (await sign_in(scene, signed=by_new)).signed_in

    def by_old(said: dict[str, Any]) -> str:
        return jwt.encode({"alg": "RS256", "kid": "one"}, said, old, algorithms=["RS256"])

    assert refused(await sign_in(scene, signed=by_old))


# whose sign-in it is


async def test_a_sign_in_belongs_to_the_browser_that_began_it(scene):
    attacker, victim = Visitor(scene.stage), Visitor(scene.stage)
    returned = scene.provider.allow(await begin(attacker))
    await come_back(victim, returned)
    assert refused(victim)
    await begin(victim)
    await come_back(victim, returned)
    assert refused(victim)
    assert scene.provider.redeemed == []
    await come_back(attacker, returned)
    assert attacker.signed_in


@pytest.mark.parametrize("state", ["", "x", "é" * 10, "x" * 5000])
async def test_a_state_of_another_sign_in_is_none(scene, state):
    visitor = Visitor(scene.stage)
    returned = scene.provider.allow(await begin(visitor))
    await come_back(visitor, returned | {"state": state})
    assert refused(visitor)
    assert scene.provider.redeemed == []


async def test_nothing_that_was_used_works_again(scene):
    visitor = Visitor(scene.stage)
    returned = scene.provider.allow(await begin(visitor))
    kept = dict(visitor.cookies)
    await come_back(visitor, returned)
    assert visitor.signed_in
    for forgetful in (False, True):
        scene.provider.forgetful = forgetful
        if forgetful:
            where = await begin(visitor)
            returned, kept = scene.provider.allow(where), dict(visitor.cookies)
            await come_back(visitor, returned)
            assert visitor.signed_in
        thief = Visitor(scene.stage, {FLOW_COOKIE: kept[FLOW_COOKIE]})
        await come_back(thief, returned)
        assert refused(thief), forgetful
    assert "finished already" in thief.text


async def test_an_answer_of_another_provider_is_none(scene):
    for other in ({"iss": "https://evil.example"}, {"iss": ""}, {"iss": scene.provider.url + "/"}):
        visitor = Visitor(scene.stage)
        returned = scene.provider.allow(await begin(visitor))
        await come_back(visitor, returned | other)
        assert refused(visitor), other
    visitor = Visitor(scene.stage)
    returned = scene.provider.allow(await begin(visitor))
    del returned["iss"]
    await come_back(visitor, returned)
    assert refused(visitor)
    assert scene.provider.redeemed == []


async def test_a_provider_that_never_says_who_it_is_need_not_in_its_answer(scene):
    scene.provider.discovery = {"authorization_response_iss_parameter_supported": False}
    visitor = Visitor(scene.stage)
    returned = scene.provider.allow(await begin(visitor))
    del returned["iss"]
    await come_back(visitor, returned)
    assert visitor.signed_in


async def test_a_parameter_that_comes_twice_is_refused(scene):
    for name in ("code", "state", "iss"):
        visitor = Visitor(scene.stage)
        returned = scene.provider.allow(await begin(visitor))
        await visitor.get(CALLBACK, params=[*returned.items(), (name, returned[name])])
        assert refused(visitor), name


@pytest.mark.parametrize("cookie", ["", "x", "k1.e30.AAAA", "k1..", "...", "é", "k9.e30.AAAA", "a" * 3000])
async def test_a_cookie_that_was_not_made_here_is_none(scene, cookie):
    visitor = Visitor(scene.stage)
    returned = scene.provider.allow(await begin(visitor))
    headers = {"cookie": f"{FLOW_COOKIE}={cookie}".encode()}
    await come_back(visitor, returned, headers=headers)
    assert visitor.page.status_code == 401
    assert COOKIE not in visitor.cookies


async def test_two_cookies_of_the_name_and_a_changed_one_are_none(scene):
    visitor = Visitor(scene.stage)
    returned = scene.provider.allow(await begin(visitor))
    mine = visitor.cookies[FLOW_COOKIE]
    kid, body, mac = mine.split(".")
    changed = json.loads(base64.urlsafe_b64decode(body + "=="))
    changed[3] = "https://evil.example/"
    for cookie in (
        f"{FLOW_COOKIE}={mine}; {FLOW_COOKIE}={mine}",
        f"{FLOW_COOKIE}={kid}.{_encoded(changed)}.{mac}",
        f"{FLOW_COOKIE}={kid}.{body}.{mac[:-4]}AAAA",
    ):
        await come_back(visitor, returned, headers={"cookie": cookie})
        assert visitor.page.status_code == 401
        assert COOKIE not in visitor.cookies


async def test_who_takes_too_long_begins_anew(scene):
    openid = scene.stage.app.state.console.openid
    visitor = Visitor(scene.stage)
    returned = scene.provider.allow(await begin(visitor))
    real = openid._now
    openid._now = lambda: real() + 700
    try:
        await come_back(visitor, returned)
    finally:
        openid._now = real
    assert refused(visitor)
    assert "begin it here once more" in visitor.text


async def test_whoever_guesses_is_slowed_down(scene):
    visitor = Visitor(scene.stage)
    statuses = []
    for _ in range(32):
        await come_back(visitor, {"code": "x", "state": "y"})
        statuses.append(visitor.page.status_code)
    assert statuses[0] == 401
    assert statuses[-1] == 429


# a provider that is not well


@pytest.mark.parametrize("error", ["access_denied", "<script>alert(1)</script>", "x" * 3000])
async def test_who_declines_there_is_told_so_in_our_own_words(scene, error):
    visitor = Visitor(scene.stage)
    where = await begin(visitor)
    state = dict(parse_qsl(urlsplit(where).query))["state"]
    returned = {"error": error, "error_description": "<b>call 555</b>", "state": state, "iss": scene.provider.url}
    await come_back(visitor, returned)
    assert refused(visitor)
    assert "The provider signed nobody in" in visitor.text
    assert error not in words_of(visitor.page.text)
    assert "555" not in visitor.page.text


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": None},
        {"token_endpoint": "http://localhost/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": 7},
        {"jwks_uri": "file:///etc/passwd"},
        {"token_endpoint_auth_methods_supported": ["private_key_jwt"]},
        {"token_endpoint_auth_methods_supported": "none"},
    ],
    ids=json.dumps,
)
async def test_a_provider_that_describes_itself_wrongly_gets_nobody(scene, discovery):
    scene.provider.discovery = discovery
    visitor = Visitor(scene.stage)
    response = await visitor.get(BEGIN)
    assert response.status_code == 503
    assert "does not answer as one" in visitor.text
    assert FLOW_COOKIE not in visitor.cookies


async def test_keys_and_tokens_are_not_fetched_from_private_addresses(scene):
    for name in ("jwks_uri", "token_endpoint"):
        scene.stage.app.state.console.openid._provider = scene.stage.app.state.console.openid._keys = None
        scene.provider.discovery = {name: f"https://127.0.0.1:{scene.provider.receiver.port}/keys"}
        asked = len(scene.provider.receiver.requests)
        visitor = await sign_in(scene)
        assert visitor.page.status_code == 503, name
        assert not visitor.signed_in
        paths = [one.path for one in scene.provider.receiver.requests[asked:]]
        assert ("/keys" if name == "jwks_uri" else "/token") not in paths


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (status(500), 503),
        (status(302, b"", "Location: https://evil.example/"), 401),
        (status(200, b"<html>"), 401),
        (status(200, b"[]"), 401),
        (status(200, b'{"id_token": 7}'), 401),
        (status(200, b"{}"), 401),
        (status(200, b"x" * 200_000), 503),
        (status(400, b'{"error": "invalid_grant"}'), 401),
        (b"no http at all", 503),
    ],
    ids=range(9),
)
async def test_an_odd_answer_signs_nobody_in(scene, answer, expected):
    scene.provider.answer_of_token = answer
    visitor = await sign_in(scene)
    assert visitor.page.status_code == expected
    assert not visitor.signed_in


async def test_what_is_known_of_the_provider_is_not_asked_for_again(scene):
    for _ in range(3):
        assert (await sign_in(scene)).signed_in
    asked = [one.path for one in scene.provider.receiver.requests]
    del asked[: -3 * 3]
    before = len(scene.provider.receiver.requests)
    assert (await sign_in(scene)).signed_in
    paths = [one.path for one in scene.provider.receiver.requests[before:]]
    assert paths == ["/token"]


async def test_a_client_that_authenticates_in_the_body_does(scene):
    scene.provider.discovery = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    await sign_in(scene)
    [form] = scene.provider.redeemed
    assert (form["client_id"], form["client_secret"]) == (CLIENT_ID, CLIENT_SECRET)


# settings


@pytest.mark.parametrize("missing", ["openid_issuer", "openid_client_id", "openid_client_secret_file", "public_url"])
async def test_half_a_provider_is_refused_at_the_start(tmp_path, missing):
    with pytest.raises(StartError) as refusal:
        load_settings({}, **{name: value for name, value in _whole(tmp_path).items() if name != missing})
    assert [fault.where for fault in refusal.value.faults] == [f"AUTHZ_{missing.upper()}"]


def _whole(folder: Any) -> dict[str, Any]:
    (folder / "secret").write_text(CLIENT_SECRET)
    pepper = base64.b64encode(bytes(range(32))).decode()
    return {
        "database_url": "postgresql://localhost/authz",
        "peppers": f"k1:{pepper}",
        "public_url": "https://authz.example.com",
        "openid_issuer": "https://id.example",
        "openid_client_id": "authz",
        "openid_client_secret_file": folder / "secret",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("openid_issuer", "http://id.example"),
        ("openid_issuer", "https://id.example/?x=1"),
        ("openid_issuer", "https://user@id.example"),
        ("openid_issuer", "id.example"),
        ("openid_claim", "email"),
        ("openid_claim", "preferred_username"),
        ("openid_claim", "Email"),
        ("openid_claim", "a b"),
        ("openid_claim", ""),
        ("openid_scopes", "profile"),
        ("openid_scopes", "openid  profile"),
        ("console", False),
    ],
)
async def test_a_setting_that_would_not_do_is_refused_at_the_start(tmp_path, name, value):
    assert load_settings({}, **_whole(tmp_path)).openid_issuer == "https://id.example"
    with pytest.raises(StartError) as refusal:
        load_settings({}, **_whole(tmp_path), **{name: value}) if name not in _whole(tmp_path) else load_settings(
            {}, **(_whole(tmp_path) | {name: value})
        )
    assert f"AUTHZ_{name.upper()}" in {fault.where for fault in refusal.value.faults}


@pytest.mark.parametrize(
    "content", [b"", b"short", b"two lines of\nsecrets that is", "sécret sécret sécret".encode(), b"\xff" * 20]
)
async def test_a_file_without_a_secret_is_refused_and_not_shown(tmp_path, content):
    given = _whole(tmp_path)
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(StartError) as refusal:
        load_settings({}, **given)
    [fault] = refusal.value.faults
    assert fault.where == "AUTHZ_OPENID_CLIENT_SECRET_FILE"
    assert "secrets that" not in fault.message
    (tmp_path / "secret").unlink()
    with pytest.raises(StartError, match="cannot be read"):
        load_settings({}, **given)
