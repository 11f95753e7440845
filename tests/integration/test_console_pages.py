"""The console's pages as their readers get them: tokens made, found and ended; nothing of others, nothing unescaped."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from tests.support.console import ORIGIN, Visitor, field_of, fields_of, make, secret_of, signed_in
from tests.support.managing import Stage, scope, staged

from authz_service.admin.drafts import ScopeDraft, TokenDraft
from authz_service.admin.management import Actor
from authz_service.admin.tokens import create_token
from authz_service.tokens.model import ReachKind

PAGES = (
    "/console/tokens",
    "/console/tokens/new",
    "/console/tokens/new?catalog=github",
    "/console/tokens/new?catalog=gitlab&reach=instance&step=what",
    "/console/tokens/new?catalog=gitlab&node=group:acme&step=what",
    "/console/tokens/new?step=finish",
    "/console/catalogs",
    "/console/catalogs/gitlab",
    "/console/catalogs/gitlab?permissions=registry",
    "/console/catalogs/gitlab?search=pipelines",
    "/console/catalogs/github@1",
    "/console/catalogs/gitlab/permissions/job:read",
    "/console/catalogs/gitlab/operations?id=GET+/projects/:id/pipelines",
    "/console/playground",
    "/console/requests",
    "/console/grants",
    "/console/policies",
    "/console/directory",
    "/console/audit",
    "/console/system",
    "/console/account",
)
FOR_ALL = {"/console/system", "/console/audit"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; drop table token; --",
    "{{ 7 * 7 }} ${7*7} #{7*7}",
    "\u05d0\u05d1\u05d2 \u0645\u0631\u062d\u0628\u0627 right to left",
    "=HYPERLINK(1)",
    "W" * 100,
    "&lt;b&gt; already &amp; escaped",
)

FIELDS = (
    *("go", "step", "catalog", "reach", "node", "p", "part", "name", "owner", "reason", "expires", "date"),
    *("networks", "resource_owner", "evaluates", "key", "find", "filter", "calls"),
)
ODD = (
    *("", "what", "finish", "create", "calls", "another", "drop:1", "add:", "remove:", "gitlab", "github", "date"),
    *("selected", "instance", "job:read", "[", "[1,2,3]", "99999", "2027-02-30", "1e9", "-1", "\ud7ff"),
    json.dumps(["selected", [[]], {}]),
    json.dumps(["x", ["project:acme/web"], ["job:read"]]),
)


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with staged(database_url) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def people(make_database: Any) -> AsyncIterator[dict[str, Visitor]]:
    """One service with people who look at it and change nothing: an admin, a group's owner, a member, a stranger."""
    async with staged(make_database()) as stage:
        for number, name in enumerate(HOSTILE):
            await issue_for(stage, "dana" if number % 2 else "olga", name)
        yield {name: await signed_in(stage, name) for name in ("root", "olga", "dana", "eve")}


async def issue_for(stage: Stage, owner: str, name: str, **fields: Any) -> str:
    """A token made by an admin; its id."""
    management = stage.app.state.services.management
    actor = Actor(await stage.app.state.services.point.authenticate(await stage.admin()))
    usual: dict[str, Any] = {
        "catalog": "gitlab",
        "reason": name,
        "scopes": (ScopeDraft(ReachKind.SELECTED, ("job:read", "pipeline:read"), ("project:acme/web",)),),
    }
    issued = await create_token(management, actor, TokenDraft(name, owner, **(usual | fields)))
    return str(issued.token["id"])


# the announcement's walk


async def test_a_token_for_the_registry_of_one_project_is_made_used_found_and_revoked(stage):
    dana = await signed_in(stage, "dana")
    page = await make(
        dana,
        ("add:project:acme/web", {"catalog": "gitlab", "reach": "selected", "find": "web"}),
        ("what", {"catalog": "gitlab", "reach": "selected"}),
        ("finish", {"p": ["container_repository:create", "container_repository:read"], "filter": ""}),
        ("create", {"name": "nightly image build", "expires": "30", "reason": "images"}),
    )
    assert page.status_code == 201, dana.text
    assert page.headers["cache-control"] == "no-store"
    secret = secret_of(page.text)
    token_id = page.text.partition("/console/tokens/tok_")[2].partition('"')[0]

    gateway = (await stage.give("root", scope("authz", "instance", "decision:evaluate"), evaluates=("*",)))[1]

    async def decision(action: str, target: str, resource: str = "container_repository") -> str:
        question = {"token": secret, "catalog": "gitlab", "resource": resource, "action": action, "target": target}
        return str((await stage.call("POST", "/check", gateway, question)).json()["decision"])

    assert [await decision(one, "acme/web") for one in ("read", "create")] == ["allow", "allow"]
    assert [await decision(one, "acme/web") for one in ("delete", "update")] == ["deny", "deny"]
    assert await decision("read", "acme/tools/lint") == "deny"
    assert await decision("read", "acme/web", "code") == "deny"

    await dana.get("/console/tokens?search=nightly")
    assert "nightly image build" in dana.text
    assert "Container repository create, read" in dana.text
    await dana.get(f"/console/tokens/tok_{token_id}/revoke")
    await dana.post(f"/console/tokens/tok_{token_id}/revoke", {"confirmed": "yes", "wait": "yes"})
    assert "revoked" in (await dana.follow()).text
    assert await decision("read", "acme/web") == "deny"


async def test_the_secret_is_on_one_page_and_nowhere_else(stage):
    dana = await signed_in(stage, "dana")
    begin = "?catalog=gitlab&node=project:acme/web&p=job:read&step=finish"
    page = await make(dana, ("create", {"name": "once", "expires": "7"}), begin=begin)
    secret = secret_of(page.text)
    assert secret.startswith("azt_")
    token_id = "tok_" + page.text.partition("/console/tokens/tok_")[2].partition('"')[0]
    for path in (f"/console/tokens/{token_id}", "/console/tokens", "/console/tokens.csv", "/console/account"):
        assert secret not in (await dana.get(path)).text
    async with stage.database.read() as conn:
        for table in ("token", "audit", "idempotency", "session", "event"):
            rows = (await conn.execute(text(f"select t::text from {table} t"))).scalars().all()
            assert not [row for row in rows if secret in row], table


async def test_a_form_that_is_sent_twice_makes_one_token_and_says_so(stage):
    dana = await signed_in(stage, "dana")
    begin = "?catalog=gitlab&node=project:acme/web&p=job:read&step=finish"
    await make(dana, begin=begin)
    fields = [*fields_of(dana.page.text), ("name", "twice"), ("expires", "7"), ("go", "create")]
    token = dana.form_token()
    assert (await dana.post("/console/tokens/new", fields, token=token)).status_code == 201
    await dana.post("/console/tokens/new", fields, token=token)
    assert "sent twice" in dana.text
    assert "azt_" not in dana.page.text
    await dana.get("/console/tokens?search=twice")
    assert dana.page.text.count('href="/console/tokens/tok_') == 1


async def test_all_that_is_wrong_is_said_at_once_and_nothing_is_lost(stage):
    dana = await signed_in(stage, "dana")
    begin = "?catalog=gitlab&node=project:hidden/plan&p=job:read&p=no:such&step=finish"
    page = await make(dana, ("create", {"name": " ", "expires": "date", "date": "2020-01-01"}), begin=begin)
    assert page.status_code == 400
    for said in ("the name is empty", "no permission", "there is no", "would have expired"):
        assert said.lower() in dana.text.lower(), dana.text
    assert field_of(page.text, "node") == "project:hidden/plan"


async def test_several_places_with_their_own_permissions_make_one_token(stage):
    dana = await signed_in(stage, "dana")
    await make(
        dana,
        ("another", {"p": ["job:read"], "filter": ""}),
        ("what", {"catalog": "gitlab", "reach": "personal_projects"}),
        ("finish", {"p": ["pipeline:read"], "filter": ""}),
        ("create", {"name": "two parts", "expires": "30"}),
        begin="?catalog=gitlab&node=project:acme/web&step=what",
    )
    secret = secret_of(dana.page.text)
    scopes = (await stage.call("GET", "/v1/self", secret)).json()["scopes"]
    assert [(one["reach"]["kind"], one["permissions"]) for one in scopes] == [
        ("selected", ["job:read"]),
        ("personal_projects", ["pipeline:read"]),
    ]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_link_fills_the_form_in(people):
    dana = people["dana"]
    await dana.get("/console/tokens/new?catalog=gitlab&node=project:acme/web&p=job:read&name=from+a+link&expires=7")
    assert dict(fields_of(dana.page.text))["name"] == "from a link"
    assert 'value="job:read" aria-label="Job: read" checked' in dana.page.text


@pytest.mark.asyncio(loop_scope="module")
async def test_a_template_fills_the_form_in(people):
    dana = people["dana"]
    await dana.get("/console/tokens/new?catalog=gitlab")
    assert "template=container-registry" in dana.page.text
    await dana.get("/console/tokens/new?catalog=gitlab&template=container-registry&node=project:acme/web")
    assert ("p", "container_repository:create") in fields_of(dana.page.text)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_smallest_set_for_some_calls_is_found(people):
    dana = people["dana"]
    calls = (
        "GET /projects/42/jobs\nGET /api/v4/projects/42/pipelines\nhttps://x.example/api/v4/projects/42/jobs/1/trace"
    )
    page = await make(
        dana,
        ("calls", {"filter": "", "calls": calls.replace("https", "GET https") + "\nGET /no/such/call"}),
        begin="?catalog=gitlab&node=project:acme/web&step=what",
    )
    chosen = set(re.findall(r'value="([a-z_:]+)" aria-label="[^"]*" checked', page.text))
    assert {"job:read", "pipeline:read"} <= chosen
    assert len(chosen) <= 3
    assert "GET /no/such/call" in dana.text


# who sees what


@pytest.mark.asyncio(loop_scope="module")
async def test_every_page_answers_everybody_and_stays_small(people):
    for name, visitor in people.items():
        for path in PAGES:
            response = await visitor.get(path)
            allowed = {200} if name == "root" else {200, 403, 400} if path in FOR_ALL else {200}
            assert response.status_code in allowed, (name, path, visitor.text[:300])
            assert len(response.content) < 100_000, (name, path, len(response.content))


@pytest.mark.asyncio(loop_scope="module")
async def test_without_a_session_every_page_leads_to_the_door(people):
    nobody = Visitor(people["dana"].stage)
    for path in (*PAGES, "/console/", "/console/tokens.csv", "/console/tokens/tok_1234567890123456789012"):
        response = await nobody.get(path)
        assert response.status_code == 303, path
        assert response.headers["location"].startswith("/console/sign-in")


@pytest.mark.asyncio(loop_scope="module")
async def test_nobody_sees_what_is_not_theirs(people):
    dana, eve, root = people["dana"], people["eve"], people["root"]
    await root.get("/console/tokens")
    ids = set(re.findall(r"/console/tokens/(tok_\w+)", root.page.text))
    await dana.get("/console/tokens")
    own = set(re.findall(r"/console/tokens/(tok_\w+)", dana.page.text))
    assert own
    assert own < ids
    for token_id in ids - own:
        unseen = await dana.get(f"/console/tokens/{token_id}")
        unknown = await dana.get("/console/tokens/tok_" + "0" * 22)
        assert unseen.status_code == unknown.status_code == 404
        assert unseen.text == unknown.text.replace("0" * 22, token_id[4:])
        assert (await dana.get(f"/console/tokens/{token_id}/revoke")).status_code == 404
    await eve.get("/console/tokens")
    assert "No tokens yet" in eve.text


@pytest.mark.asyncio(loop_scope="module")
async def test_a_search_for_places_finds_what_the_visitor_sees(people):
    found = {}
    for name, visitor in people.items():
        await make(visitor, ("find", {"find": "n", "reach": "selected"}), begin="?catalog=gitlab")
        found[name] = set(re.findall(r'value="add:([^"]+)"', visitor.page.text))
    assert "project:hidden/plan" in found["root"]
    assert "project:hidden/plan" not in found["dana"] | found["olga"] | found["eve"]
    assert "project:acme/tools/lint" in found["dana"] & found["olga"]
    assert "project:dana/notes" in found["dana"]
    assert "project:dana/notes" not in found["olga"]
    assert "group:open" in found["eve"]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("place", ["project:hidden/plan", "group:hidden", "project:nowhere", "<b>", "'", "x" * 1000])
async def test_a_hidden_place_and_none_at_all_cannot_be_chosen_alike(people, place):
    dana = people["dana"]
    await make(dana, (f"add:{place}", {"reach": "selected", "find": ""}), begin="?catalog=gitlab")
    assert dana.page.status_code == 404
    assert "or you may not see it" in dana.text
    assert "node" not in dict(fields_of(dana.page.text))


@pytest.mark.asyncio(loop_scope="module")
async def test_the_playground_tells_hidden_and_unknown_places_apart_for_nobody_who_may_not(people):
    dana = people["dana"]
    await dana.get("/console/tokens")
    token_id = re.findall(r"/console/tokens/(tok_\w+)", dana.page.text)[0]
    answers = []
    for target in ("project:hidden/plan", "project:hidden/none"):
        await dana.get("/console/playground")
        fields = {"token": token_id, "ask": "permission", "permission": "job:read", "target": target}
        await dana.post("/console/playground", fields)
        answers.append(dana.page.text.partition('aria-live="polite"')[2])
    assert answers[0] == answers[1]
    assert "Deny" in dana.text
    assert "target_unknown" in dana.text


@pytest.mark.asyncio(loop_scope="module")
async def test_the_playground_shows_how_a_decision_came_about(people):
    dana = people["dana"]
    await dana.get("/console/tokens")
    token_id = re.findall(r"/console/tokens/(tok_\w+)", dana.page.text)[0]
    await dana.get("/console/playground")
    usual = {"token": token_id, "ask": "permission", "target": "project:acme/web"}
    await dana.post("/console/playground", usual | {"permission": "job:read"})
    assert "Allow" in dana.text
    await dana.post("/console/playground", usual | {"permission": "job:run"})
    assert "Deny" in dana.text
    assert "job:run on project:acme/web" in dana.text
    fields = {"token": token_id, "ask": "call", "method": "GET", "path": "/api/v4/projects/42/jobs"}
    await dana.post("/console/playground", fields)
    assert "Allow" in dana.text


@pytest.mark.asyncio(loop_scope="module")
async def test_what_a_token_may_do_at_a_place_is_what_check_says(people):
    dana = people["dana"]
    await dana.get("/console/tokens")
    token_id = re.findall(r"/console/tokens/(tok_\w+)", dana.page.text)[0]
    await dana.get(f"/console/tokens/{token_id}?place=project:acme/web")
    assert "It may do 2 things there now" in dana.text
    await dana.get(f"/console/tokens/{token_id}?place=project:acme/tools/lint")
    assert "It may do nothing there now" in dana.text


# hostile words


@pytest.mark.asyncio(loop_scope="module")
async def test_no_name_is_ever_more_than_text(people):
    root = people["root"]
    await root.get("/console/tokens")
    ids = re.findall(r"/console/tokens/(tok_\w+)", root.page.text)
    assert len(ids) >= len(HOSTILE)
    for path in ("/console/tokens", *(f"/console/tokens/{one}{more}" for one in ids for more in ("", "/revoke"))):
        page = (await root.get(path)).text
        assert "<script>alert" not in page
        assert "<img src=x" not in page
    words = await root.get("/console/tokens")
    for name in HOSTILE[:-2]:
        assert name in root.text, name
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in words.text


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("given", [*HOSTILE, "%00", "\u202e", "' or 1=1 --", "%27%22%3E", "\\", "../..", "a" * 2000])
async def test_nothing_typed_into_a_search_breaks_a_page(people, given):
    root = people["root"]
    for path, name in (
        ("/console/tokens", "search"),
        ("/console/tokens", "owner"),
        ("/console/tokens", "node"),
        ("/console/tokens", "cursor"),
        ("/console/tokens", "state"),
        ("/console/catalogs/gitlab", "search"),
        ("/console/catalogs/gitlab", "permissions"),
        ("/console/catalogs/gitlab", "cursor"),
        ("/console/directory", "search"),
        ("/console/directory", "under"),
        ("/console/directory/place", "target"),
        ("/console/audit", "action"),
        ("/console/audit", "subject"),
        ("/console/audit", "actor"),
        ("/console/tokens/new", "find"),
        ("/console/tokens/new", "catalog"),
        ("/console/playground", "token"),
    ):
        response = await root.get(path, params={name: given})
        assert response.status_code in (200, 400, 404), (path, name, root.text[:200])
        assert "<script>alert" not in response.text
        assert "<img src=x" not in response.text


@pytest.mark.asyncio(loop_scope="module")
async def test_no_form_of_nonsense_breaks_the_service(people):
    dana = people["dana"]
    chance = random.Random(7)
    values, names = [*HOSTILE, *ODD], FIELDS
    await dana.get("/console/tokens/new")
    token = dana.form_token()
    for _ in range(150):
        fields = [(chance.choice(names), chance.choice(values)) for _ in range(chance.randrange(12))]
        response = await dana.post("/console/tokens/new", fields, token=token)
        assert response.status_code < 500, (fields, dana.text[:300])


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("body", [b"\xff\xfe", b"a=%ff", b"form_token=x&" + b"a=b&" * 6000, b"name=%00", b"%", b"=&=&"])
async def test_bytes_that_are_no_form_are_refused(people, body):
    dana = people["dana"]
    headers = {"origin": ORIGIN, "content-type": "application/x-www-form-urlencoded"}
    response = await dana._send("POST", "/console/tokens/new", content=body, headers=headers)
    assert response.status_code in (400, 403)


# lists


@pytest.mark.asyncio(loop_scope="module")
async def test_the_export_holds_every_token_and_no_formula(people):
    root = people["root"]
    response = await root.get("/console/tokens.csv")
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert {row["name"] for row in rows} >= {name for name in HOSTILE if not name.startswith("=")}
    assert "'=HYPERLINK(1)" in {row["name"] for row in rows}
    assert {row["permissions"] for row in rows if row["owner"] == "dana"} == {"job:read pipeline:read"}


async def test_pages_of_a_long_list_hold_each_token_once(stage):
    for number in range(60):
        await stage.give("dana", scope("gitlab", "personal_projects", "job:read"))
        del number
    root = await signed_in(stage, "root")
    await root.get("/console/tokens")
    seen: list[str] = []
    while True:
        seen += dict.fromkeys(re.findall(r'<span><a href="/console/tokens/(tok_\w+)"', root.page.text))
        onward = re.search(r'rel="next" href="([^"]+)"', root.page.text)
        if onward is None:
            break
        await root.get(onward[1].replace("&amp;", "&"))
    assert len(seen) == len(set(seen)) == 60


@pytest.mark.asyncio(loop_scope="module")
async def test_sessions_are_left_out_of_the_table_unless_they_are_asked_for(people):
    root = people["root"]
    await root.get("/console/tokens")
    assert "console session" not in root.text
    await root.get("/console/tokens?sessions=1")
    assert "console session" in root.text


async def test_coarse_and_endless_and_broad_tokens_are_marked(stage):
    await stage.give("dana", catalogs={"gitlab": 2}, legacy_scopes=("api",))
    await stage.give("dana", scope("authz", "instance", "token:create", "token:read"))
    root = await signed_in(stage, "root")
    await root.get("/console/tokens")
    for mark in ("coarse", "no end", "broad"):
        assert f">{mark}</span>" in root.page.text


async def test_an_empty_table_says_how_to_begin(stage):
    dana = await signed_in(stage, "dana")
    await dana.get("/console/tokens")
    assert "No tokens yet" in dana.text
    assert 'href="/console/tokens/new"' in dana.page.text
    await dana.get("/console/tokens?search=nothing+like+it")
    assert "No token fits" in dana.text


async def test_times_are_said_in_the_zone_of_the_reader(stage):
    await stage.give("dana", scope("gitlab", "personal_projects", "job:read"))
    dana = await signed_in(stage, "dana")
    await dana.get("/console/account")
    await dana.post("/console/account/zone", {"zone": "Asia/Tokyo"})
    await dana.get("/console/account")
    exact, shown = re.findall(r'<time class="moment" datetime="[^T]+T(\d\d)[^"]*" title="([^"]+)"', dana.page.text)[0]
    assert shown.endswith("JST")
    assert int(shown.split()[1][:2]) == (int(exact) + 9) % 24
    for nonsense in ("../../etc/passwd", "No/Where", "<b>", "x" * 100):
        await dana.post("/console/account/zone", {"zone": nonsense})
        assert (await dana.get("/console/account")).status_code == 200
    dana.cookies["authz-zone"] = "../../../etc/passwd"
    assert (await dana.get("/console/account")).status_code == 200


async def test_revoking_takes_a_confirmation_and_names_what_ends_with_it(stage):
    parent, _ = await stage.give("dana", scope("gitlab", "personal_projects", "job:read"))
    await stage.give("dana", scope("gitlab", "personal_projects", "job:read"), parent=parent)
    dana = await signed_in(stage, "dana")
    await dana.get(f"/console/tokens/{parent}/revoke")
    assert "1 token issued under it will end too" in dana.text
    assert (await dana.post(f"/console/tokens/{parent}/revoke")).status_code == 403
    await dana.get(f"/console/tokens/{parent}")
    assert ">active</span>" in dana.page.text
    await dana.post(f"/console/tokens/{parent}/revoke", {"confirmed": "yes"})
    await dana.follow()
    assert ">revoked</span>" in dana.page.text
