"""Signing in to the console: who gets a session, what it may, how it ends, and what other sites can do with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from tests.support.console import ORIGIN, PASSWORD, Visitor, give_password, signed_in
from tests.support.managing import Stage, scope, staged

from authz_service.admin.passwords import Passwords
from authz_service.admin.signing import make_link
from authz_service.console.guarding import COOKIE

WRONG = "The username or the password is not right."


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with staged(database_url) as found:
        yield found


async def count(stage: Stage, query: str, **given: Any) -> int:
    async with stage.database.read() as conn:
        return int((await conn.execute(text(query), given)).scalar_one())


async def shift(stage: Stage, **by: int) -> None:
    async with stage.database.transaction() as conn:
        await conn.execute(text("update clock_shift set shift = :by"), {"by": timedelta(**by)})


def at_sign_in(visitor: Visitor) -> bool:
    assert visitor.page is not None
    return visitor.page.is_redirect and visitor.page.headers["location"].startswith("/console/sign-in")


# in


async def test_the_right_password_opens_a_session_and_leads_on(stage):
    await give_password(stage, "dana")
    visitor = Visitor(stage)
    await visitor.sign_in("dana", next="/console/catalogs")
    assert (await visitor.follow()).url.path == "/console/catalogs"
    assert "dana" in visitor.text


async def test_whatever_is_wrong_is_told_in_the_same_words(stage):
    await give_password(stage, "dana", "bob")
    pages = []
    for name, password in (("dana", "another password"), ("nobody", PASSWORD), ("bob", PASSWORD), ("bot", PASSWORD)):
        visitor = Visitor(stage)
        response = await visitor.sign_in(name, password)
        assert response.status_code == 401
        assert not visitor.signed_in
        pages.append(visitor.text.replace(name, "…"))
        assert WRONG in visitor.text
    assert len(set(pages)) == 1


async def test_a_name_that_nobody_has_costs_as_much_as_one_that_somebody_has():
    passwords = Passwords()
    real = await passwords.hash(PASSWORD)
    assert real.rpartition("$")[0].rpartition("$")[0] == passwords._of_nobody.rpartition("$")[0].rpartition("$")[0]
    assert real.startswith("$argon2id$v=19$m=65536,t=3,p=1$")
    assert not await passwords.verify("nobody's", None)


async def test_after_too_many_failures_even_the_right_password_has_to_wait(stage):
    await give_password(stage, "dana")
    visitor = Visitor(stage)
    for _ in range(5):
        assert (await visitor.sign_in("dana", "another password")).status_code == 401
    assert (await visitor.sign_in("dana")).status_code == 429
    assert not visitor.signed_in
    assert (await visitor.sign_in("olga", "whatever")).status_code == 401


async def test_the_cookie_is_for_this_host_alone_and_out_of_the_reach_of_scripts(stage):
    await give_password(stage, "dana")
    response = await Visitor(stage).sign_in("dana")
    [cookie] = [one for one in response.headers.get_list("set-cookie") if one.startswith(COOKIE)]
    parts = [part.strip().lower() for part in cookie.split(";")[1:]]
    assert sorted(parts) == ["httponly", "path=/", "samesite=strict", "secure"]
    assert COOKIE.startswith("__Host-")


async def test_what_the_cookie_holds_is_nowhere_in_the_database(stage):
    visitor = await signed_in(stage, "dana")
    async with stage.database.read() as conn:
        rows = (
            await conn.execute(text("select session::text, token::text from session join token on id = token_id"))
        ).all()
    assert rows
    assert visitor.cookies[COOKIE] not in str(rows)


async def test_a_link_signs_in_once(stage):
    code = await make_link(stage.app.state.services.management, "dana", timedelta(minutes=5))
    visitor = Visitor(stage)
    await visitor.get(f"/console/sign-in/link?code={code}")
    assert (await visitor.follow()).url.path == "/console/tokens"
    again = Visitor(stage)
    assert (await again.get(f"/console/sign-in/link?code={code}")).status_code == 401
    assert not again.signed_in
    assert "used already" in again.text


async def test_a_link_that_waited_too_long_signs_nobody_in(stage):
    code = await make_link(stage.app.state.services.management, "dana", timedelta(minutes=5))
    await shift(stage, minutes=6)
    visitor = Visitor(stage)
    assert (await visitor.get(f"/console/sign-in/link?code={code}")).status_code == 401
    assert not visitor.signed_in


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/console/",
        "//evil.example/console/",
        "/console//evil.example",
        "/console/\\evil.example",
        "/v1/tokens",
        "javascript:alert(1)",
    ],
)
async def test_signing_in_never_leads_to_another_site(stage, elsewhere):
    await give_password(stage, "dana")
    visitor = Visitor(stage)
    await visitor.sign_in("dana", next=elsewhere)
    while visitor.page is not None and visitor.page.is_redirect:
        location = visitor.page.headers["location"]
        assert location.startswith("/console/")
        assert not location.startswith(("//", "/console//", "/console/\\"))
        await visitor.get(location)
    assert visitor.page.url.path == "/console/tokens"


async def test_a_token_is_a_way_in_for_what_it_may_do(stage):
    _, secret = await stage.give("dana", scope("authz", "user", "token:read"))
    visitor = Visitor(stage)
    await visitor.sign_in_by_token(secret)
    assert (await visitor.follow()).status_code == 200
    await visitor.get("/console/tokens/new?catalog=gitlab&reach=personal_projects&p=job:read&step=finish&name=x")
    assert visitor.page.status_code == 403
    assert "catalog:read" in visitor.text


async def test_a_token_of_another_api_is_no_way_in(stage):
    _, secret = await stage.give("dana", scope("gitlab", "personal_projects", "job:read"))
    visitor = Visitor(stage)
    assert (await visitor.sign_in_by_token(secret)).status_code == 403
    assert not visitor.signed_in
    assert (await visitor.sign_in_by_token("azt_k1_nothing")).status_code == 401


# out


async def test_signing_out_ends_the_session_and_its_token(stage):
    visitor = await signed_in(stage, "dana")
    stolen = Visitor(stage, dict(visitor.cookies))
    await visitor.post("/console/sign-out")
    assert not visitor.signed_in
    await stolen.get("/console/tokens")
    assert at_sign_in(stolen)
    assert await count(stage, "select count(*) from session") == 0
    query = "select count(*) from token where name = 'console session' and revoked_at is null"
    assert await count(stage, query) == 0


async def test_a_pasted_token_outlives_its_session(stage):
    token_id, secret = await stage.give("dana", scope("authz", "user", "token:read"))
    visitor = Visitor(stage)
    await visitor.sign_in_by_token(secret)
    await visitor.follow()
    await visitor.post("/console/sign-out")
    assert (await stage.call("GET", "/v1/self", secret)).json()["id"] == token_id


async def test_signing_out_everywhere_ends_all_sessions_of_the_user_and_nobody_elses(stage):
    first, second = await signed_in(stage, "dana"), Visitor(stage)
    await second.sign_in("dana")
    olga = await signed_in(stage, "olga")
    await first.get("/console/account")
    await first.post("/console/sign-out", {"everywhere": "yes"})
    await second.get("/console/tokens")
    assert at_sign_in(second)
    assert (await olga.get("/console/tokens")).status_code == 200


async def test_one_of_several_sessions_can_be_ended_by_its_user_alone(stage):
    first, second = await signed_in(stage, "dana"), Visitor(stage, agent="a browser left behind")
    await second.sign_in("dana")
    await first.get("/console/account")
    assert "a browser left behind" in first.text
    key = first.page.text.partition('name="key" value="')[2].partition('"')[0]
    olga = await signed_in(stage, "olga")
    await olga.post("/console/account/sessions/end", {"key": key})
    assert (await second.get("/console/tokens")).status_code == 200
    await first.post("/console/account/sessions/end", {"key": key})
    await second.get("/console/tokens")
    assert at_sign_in(second)


async def test_a_session_that_nobody_uses_ends(stage):
    visitor = await signed_in(stage, "dana")
    await shift(stage, minutes=31)
    await visitor.get("/console/tokens")
    assert at_sign_in(visitor)
    assert not visitor.signed_in


async def test_use_keeps_a_session_open_but_not_for_ever(stage):
    visitor = await signed_in(stage, "dana")
    for minutes in range(25, 12 * 60, 25):
        await shift(stage, minutes=minutes)
        assert (await visitor.get("/console/account")).status_code == 200, minutes
    await shift(stage, minutes=12 * 60 + 1)
    await visitor.get("/console/account")
    assert at_sign_in(visitor)


async def test_blocking_the_user_ends_what_they_may_do_at_once(stage):
    visitor = await signed_in(stage, "dana")
    await stage.apply({"type": "user", "username": "dana", "external_id": "7", "state": "blocked"})
    await visitor.get("/console/tokens")
    assert at_sign_in(visitor)


async def test_an_admin_who_is_none_any_more_sees_no_more_than_others(stage):
    visitor = await signed_in(stage, "root")
    assert (await visitor.get("/console/system")).status_code == 200
    await stage.apply({"type": "user", "username": "root", "external_id": "1", "admin": False})
    assert (await visitor.get("/console/system")).status_code == 403


async def test_revoking_the_pasted_token_ends_its_session(stage):
    token_id, secret = await stage.give("dana", scope("authz", "user", "token:read"))
    visitor = Visitor(stage)
    await visitor.sign_in_by_token(secret)
    admin = await stage.admin()
    assert (await stage.call("DELETE", f"/v1/tokens/{token_id}", admin)).status_code == 200
    await visitor.get("/console/tokens")
    assert at_sign_in(visitor)


async def test_a_new_password_ends_all_sessions(stage):
    visitor = await signed_in(stage, "dana")
    await give_password(stage, "dana", password="five other plain words")
    await visitor.get("/console/tokens")
    assert at_sign_in(visitor)
    assert (await visitor.sign_in("dana")).status_code == 401
    assert (await visitor.sign_in("dana", "five other plain words")).status_code == 303


async def test_what_happens_at_the_door_is_audited(stage):
    visitor = await signed_in(stage, "dana")
    await visitor.post("/console/sign-out")
    async with stage.database.read() as conn:
        actions = set((await conn.execute(text("select action from audit"))).scalars())
    assert {"password.set", "session.open", "session.end"} <= actions


# what other sites can do


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(make_database: Any) -> AsyncIterator[tuple[Stage, Visitor]]:
    """One service and one session for all that must not change it."""
    async with staged(make_database()) as stage:
        yield stage, await signed_in(stage, "dana")


FORMS = (
    "/console/sign-in",
    "/console/sign-out",
    "/console/account/zone",
    "/console/account/sessions/end",
    "/console/tokens/new",
    "/console/tokens/tok_1234567890123456789012/revoke",
    "/console/playground",
    "/console/tokens/tok_1234567890123456789012/edit",
    "/console/tokens/tok_1234567890123456789012/rotate",
    "/console/tokens/tok_1234567890123456789012/clone",
    "/console/tokens/tok_1234567890123456789012/shrink",
    "/console/tokens/revoke",
    "/console/requests",
    "/console/grants",
    "/console/policies",
    "/console/leaks",
)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize(
    ("headers", "without"),
    [
        ({"origin": "https://evil.example"}, ()),
        ({"origin": "null"}, ()),
        ({"origin": f"{ORIGIN}:8080"}, ()),
        ({"origin": f"{ORIGIN}.evil.example"}, ()),
        ({}, ("origin",)),
        ({"sec-fetch-site": "cross-site"}, ()),
        ({"sec-fetch-site": "same-site"}, ()),
        ({"host": "evil.example", "origin": "http://evil.example"}, ()),
    ],
)
async def test_forms_of_other_sites_change_nothing(shared, path, headers, without):
    stage, visitor = shared
    before = await count(stage, "select count(*) from audit")
    response = await visitor.post(path, {"name": "dana", "password": PASSWORD}, headers=headers, without=without)
    assert response.status_code == 403
    assert await count(stage, "select count(*) from audit") == before
    assert (await visitor.get("/console/account")).status_code == 200


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize("token", ["", "x" * 43, "é", "another's"])
async def test_a_form_needs_the_token_of_its_own_session(shared, path, token):
    stage, visitor = shared
    if token == "another's":
        stranger = Visitor(stage)
        await stranger.get("/console/sign-in")
        token = stranger.form_token()
    response = await visitor.post(path, token=token)
    assert response.status_code == 403
    assert (await visitor.get("/console/account")).status_code == 200


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data; boundary=x", ""])
async def test_only_a_plain_form_is_a_form(shared, kind):
    _, visitor = shared
    response = await visitor.post("/console/sign-out", headers={"content-type": kind})
    assert response.status_code == 400
    assert (await visitor.get("/console/account")).status_code == 200


@pytest.mark.asyncio(loop_scope="module")
async def test_a_form_of_megabytes_is_refused(shared):
    _, visitor = shared
    response = await visitor.post("/console/playground", {"token": "x" * 600_000})
    assert response.status_code == 413
    await visitor.get("/console/account")


@pytest.mark.asyncio(loop_scope="module")
async def test_two_cookies_of_the_name_are_no_session(shared):
    _, visitor = shared
    mine = visitor.cookies[COOKIE]
    for cookie in (f"{COOKIE}={mine}; {COOKIE}=other", f"{COOKIE}=other; {COOKIE}={mine}", f"{COOKIE}={mine}x"):
        kept = dict(visitor.cookies)
        response = await visitor.get("/console/tokens", headers={"cookie": cookie})
        visitor.cookies = kept
        assert response.status_code == 303
        assert response.headers["location"].startswith("/console/sign-in")
    await visitor.get("/console/account")


@pytest.mark.asyncio(loop_scope="module")
async def test_no_page_can_be_framed_or_run_a_script_of_others(shared):
    _, visitor = shared
    pages = (
        "/console/sign-in",
        "/console/tokens",
        "/console/nope",
        "/console/static/console.js",
        "/console/tokens.csv",
    )
    for path in pages:
        response = await visitor.get(path)
        policy = response.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "same-origin"
        if "static" not in path:
            assert response.headers["cache-control"] == "no-store"
    await visitor.get("/console/account")


async def test_no_template_has_a_script_or_a_style_of_its_own():
    from importlib import resources

    for file in (resources.files("authz_service.console") / "templates").iterdir():
        source = file.read_text("utf-8").lower()
        assert " style=" not in source, file.name
        assert "<style" not in source, file.name
        assert source.count("<script") == source.count("<script src="), file.name
        assert "|safe" not in source, file.name
        assert not [word for word in (" onclick", " onload", " onsubmit", " onchange", "javascript:") if word in source]


async def test_in_production_there_is_no_console_without_an_address(database_url):
    import base64

    import httpx

    from authz_service.app import create_app
    from authz_service.config import load_settings

    pepper = base64.b64encode(bytes(range(32))).decode()
    for address, expected in ((None, 404), ("https://authz.example.com", 200)):
        app = create_app(load_settings({}, database_url=database_url, peppers=f"k1:{pepper}", public_url=address))
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://somewhere") as client:
                assert (await client.get("/console/sign-in")).status_code == expected


# what a signed-in user may issue (M2)


async def issue(visitor: Visitor, **fields: Any) -> Any:
    usual = {"go": "create", "step": "finish", "catalog": "gitlab", "name": "from the console", "expires": "30"}
    await visitor.get("/console/tokens/new")
    return await visitor.post("/console/tokens/new", usual | fields)


async def test_a_signed_in_user_issues_for_themselves_what_no_scope_of_theirs_holds(stage):
    visitor = await signed_in(stage, "dana")
    response = await issue(visitor, reach="selected", node="project:acme/web", p="job:read")
    assert response.status_code == 201, visitor.text


async def test_a_signed_in_user_issues_nothing_of_management_beyond_their_role(stage):
    visitor = await signed_in(stage, "dana")
    response = await issue(visitor, catalog="authz", reach="instance", p="decision:evaluate", evaluates="*")
    assert response.status_code == 403
    # What they hold may be issued: their role decides at each use.
    assert (await issue(visitor, catalog="authz", reach="user", p="token:read")).status_code == 201


@pytest.mark.parametrize("owner", ["olga", "bot", "root"])
async def test_a_signed_in_user_issues_for_nobody_else(stage, owner):
    visitor = await signed_in(stage, "dana")
    response = await issue(visitor, reach="selected", node="project:acme/web", p="job:read", owner=owner)
    assert response.status_code == 403


async def test_a_token_called_like_a_session_is_none(stage):
    from dataclasses import replace as with_changes

    from authz_service.store import tokens
    from authz_service.store.changes import ChangeSet

    given = scope("authz", "user", "token:create"), scope("authz", "instance", "catalog:read")
    token_id, secret = await stage.give("dana", *given)
    async with stage.database.transaction() as conn:
        record = await tokens.get(conn, token_id)
        named = with_changes(record, token=with_changes(record.token, name="console session"))
        await tokens.replace(conn, ChangeSet(), named)
    body = {
        "name": "wider",
        "catalog": "gitlab",
        "expires_at": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
        "scopes": [{"reach": {"kind": "selected", "nodes": ["project:acme/web"]}, "permissions": ["job:read"]}],
    }
    assert (await stage.call("POST", "/v1/tokens", secret, body)).status_code == 403
    visitor = Visitor(stage)
    await visitor.sign_in_by_token(secret)
    response = await issue(visitor, reach="selected", node="project:acme/web", p="job:read")
    assert response.status_code == 403


async def test_a_token_issued_in_a_session_outlives_it(stage):
    visitor = await signed_in(stage, "dana")
    response = await issue(visitor, reach="selected", node="project:acme/web", p="job:read")
    secret = response.text.partition('aria-label="The secret">')[2].partition("<")[0]
    await visitor.get("/console/account")
    await visitor.post("/console/sign-out")
    assert (await stage.call("GET", "/v1/self", secret)).json()["owner"] == "dana"
