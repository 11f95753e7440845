"""Tokens changed in the console: edited, rotated, cloned, narrowed; drafts tried out; all of it shown before."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from tests.support.console import Visitor, fields_of, make, secret_of, signed_in, token_of
from tests.support.managing import Stage, scope, staged

WEB = "?catalog=gitlab&node=project:acme/web&p=job:read&step=finish"
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; drop table token; --",
    "\u05d0\u05d1\u05d2 \u0645\u0631\u062d\u0628\u0627 right to left",
    "W" * 100,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(make_database: Any) -> AsyncIterator[Stage]:
    """One service for all: each test makes tokens of its own."""
    async with staged(make_database()) as found:
        yield found


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def made(visitor: Visitor, name: str = "as it was", begin: str = WEB, **fields: str) -> tuple[str, str]:
    """A token made by hand: its id and its secret."""
    page = await make(visitor, ("create", {"name": name, "expires": "30"} | fields), begin=begin)
    assert page.status_code == 201, visitor.text
    return token_of(page.text), secret_of(page.text)


async def edit(visitor: Visitor, token_id: str, *steps: tuple[str, dict[str, Any]], begin: str = "") -> Any:
    usual = {"name": "as it was", "reason": "", "expires": "keep", "networks": ""}
    steps = tuple((go, (usual | filled) if go in ("save", "finish", "another") else filled) for go, filled in steps)
    return await make(visitor, *steps, begin=begin, path=f"/console/tokens/{token_id}/edit")


async def scopes_of(stage: Stage, secret: str) -> list[tuple[list[str], list[str]]]:
    found = (await stage.call("GET", "/v1/self", secret)).json()["scopes"]
    return [(one["reach"].get("nodes", [one["reach"]["kind"]]), one["permissions"]) for one in found]


# editing


async def test_an_edit_is_shown_before_it_is_saved_and_saved_as_it_was_shown(stage):
    dana = await signed_in(stage, "dana")
    token_id, secret = await made(dana)
    await edit(dana, token_id, ("open:0", {}), ("finish", {"p": ["job:run", "pipeline:read"], "filter": ""}))
    assert "It gains in project:acme/web : job:run pipeline:read wider" in dana.text
    assert "It loses in project:acme/web : job:read" in dana.text
    assert await scopes_of(stage, secret) == [(["project:acme/web"], ["job:read"])]
    kept = fields_of(dana.page.text)
    filled = [("name", "as it was"), ("reason", ""), ("expires", "keep"), ("networks", ""), ("go", "save")]
    await dana.post(f"/console/tokens/{token_id}/edit", [*kept, *filled])
    assert dana.page.status_code == 303, dana.text
    assert "It is changed" in (await dana.follow()).text
    assert await scopes_of(stage, secret) == [(["project:acme/web"], ["job:run", "pipeline:read"])]


async def test_what_was_not_shown_is_not_saved(stage):
    dana = await signed_in(stage, "dana")
    token_id, secret = await made(dana)
    await edit(dana, token_id, ("save", {"name": "another name", "expires": "365"}))
    assert "Nothing is saved yet" in dana.text
    assert "It is called “another name”" in dana.text
    assert "It ends later" in dana.text
    assert (await stage.call("GET", "/v1/self", secret)).json()["name"] == "as it was"
    filled = [("name", "another name"), ("reason", ""), ("expires", "365"), ("networks", ""), ("go", "save")]
    await dana.post(f"/console/tokens/{token_id}/edit", [*fields_of(dana.page.text), *filled])
    assert dana.page.status_code == 303
    shown = (await stage.call("GET", "/v1/self", secret)).json()
    assert shown["name"] == "another name"


async def test_nothing_changed_is_saved_as_nothing(stage):
    dana = await signed_in(stage, "dana")
    token_id, _ = await made(dana, reason="two\r\nlines")
    before = (await dana.get(f"/console/tokens/{token_id}/edit")).text
    assert "Nothing yet." in before
    await edit(dana, token_id, ("save", {"reason": "two\r\nlines"}))
    assert dana.page.status_code == 303, dana.text
    assert "changed" not in dana.page.headers["location"]
    async with stage.database.read() as conn:
        query = text("select 1 from audit where action = 'token.edit' and subject = :token")
        assert not (await conn.execute(query, {"token": token_id})).first()


async def test_another_place_is_added_with_permissions_of_its_own(stage):
    dana = await signed_in(stage, "dana")
    token_id, secret = await made(dana)
    await edit(
        dana,
        token_id,
        ("another", {}),
        ("add:project:acme/tools/lint", {"reach": "selected", "find": "lint"}),
        ("what", {"reach": "selected"}),
        ("finish", {"p": ["pipeline:read"], "filter": ""}),
        ("save", {}),
    )
    assert dana.page.status_code == 303, dana.text
    assert await scopes_of(stage, secret) == [
        (["project:acme/web"], ["job:read"]),
        (["project:acme/tools/lint"], ["pipeline:read"]),
    ]


async def test_an_edit_that_would_be_refused_says_so_and_loses_nothing(stage):
    dana = await signed_in(stage, "dana")
    token_id, secret = await made(dana)
    await edit(dana, token_id, ("finish", {"networks": "not a network"}))
    assert "It would be refused." in dana.text
    assert 'value="not a network"' in dana.page.text
    filled = [("name", "as it was"), ("reason", ""), ("expires", "keep"), ("networks", "not a network"), ("go", "save")]
    await dana.post(f"/console/tokens/{token_id}/edit", [*fields_of(dana.page.text), *filled])
    assert dana.page.status_code == 400
    assert "no network" in dana.text
    assert (await stage.call("GET", "/v1/self", secret)).json()["conditions"]["networks"] == []


async def test_of_two_who_edit_the_second_is_told_and_overwrites_nothing(stage):
    dana = await signed_in(stage, "dana")
    token_id, secret = await made(dana)
    await dana.get(f"/console/tokens/{token_id}/edit")
    late = fields_of(dana.page.text)
    await edit(dana, token_id, ("finish", {"name": "first"}), ("save", {"name": "first"}))
    assert dana.page.status_code == 303
    await dana.get("/console/account")
    filled = [("name", "second"), ("reason", ""), ("expires", "keep"), ("networks", "")]
    await dana.post(f"/console/tokens/{token_id}/edit", [*late, *filled, ("go", "finish")])
    assert "was changed since you read it" in dana.text
    await dana.post(f"/console/tokens/{token_id}/edit", [*fields_of(dana.page.text), *filled, ("go", "save")])
    assert dana.page.status_code == 412
    assert (await stage.call("GET", "/v1/self", secret)).json()["name"] == "first"


@pytest.mark.parametrize("way", ["edit", "rotate", "clone", "shrink", "radius", "revoke"])
async def test_nobody_changes_what_is_not_theirs_or_learns_that_it_is_there(stage, way):
    dana, eve = await signed_in(stage, "dana"), await signed_in(stage, "eve")
    token_id, secret = await made(dana)
    unseen = await eve.get(f"/console/tokens/{token_id}/{way}")
    unknown = await eve.get(f"/console/tokens/tok_{'0' * 22}/{way}")
    assert unseen.status_code == unknown.status_code == 404
    assert unseen.text == unknown.text.replace(f"tok_{'0' * 22}", token_id)
    await eve.get("/console/account")
    await eve.post(f"/console/tokens/{token_id}/{way}", {"confirmed": "yes", "go": "save", "name": "mine now"})
    assert eve.page.status_code in (404, 405)
    assert (await stage.call("GET", "/v1/self", secret)).json()["name"] == "as it was"


async def test_a_groups_owner_sees_a_part_and_edits_none_of_it(stage):
    dana, olga = await signed_in(stage, "dana"), await signed_in(stage, "olga")
    token_id, _ = await made(dana)
    assert (await olga.get(f"/console/tokens/{token_id}")).status_code == 200
    for way in ("edit", "clone"):
        assert (await olga.get(f"/console/tokens/{token_id}/{way}")).status_code == 403
        assert f'/{way}"' not in (await olga.get(f"/console/tokens/{token_id}")).text


@pytest.mark.parametrize("go", ["open:9", "drop:9", "place:x", "drop:-1", "open:", "nothing", "create", "fixed"])
async def test_a_button_of_nonsense_changes_nothing(stage, go):
    dana = await signed_in(stage, "dana")
    token_id, secret = await made(dana)
    await edit(dana, token_id, (go, {}))
    assert dana.page.status_code == 200, dana.text
    assert await scopes_of(stage, secret) == [(["project:acme/web"], ["job:read"])]


async def test_a_token_of_two_apis_is_edited_in_each_of_them(stage):
    root = await signed_in(stage, "root")
    web = await stage.scope_at("gitlab", ["project:acme/web"], "job:read")
    token_id, secret = await stage.give(
        "root", web, scope("authz", "user", "token:read"), catalogs={"gitlab": 2, "authz": 1}
    )
    await edit(
        root,
        token_id,
        ("open:1", {}),
        ("finish", {"p": ["token:read", "token:revoke"], "filter": ""}),
        ("save", {"name": "given"}),
    )
    if root.page.status_code == 200:  # the first look showed another name
        filled = [("name", "given"), ("reason", ""), ("expires", "keep"), ("networks", ""), ("go", "save")]
        await root.post(f"/console/tokens/{token_id}/edit", [*fields_of(root.page.text), *filled])
    assert root.page.status_code == 303, root.text
    scopes = (await stage.call("GET", "/v1/self", secret)).json()["scopes"]
    assert [(one["catalog"], one["permissions"]) for one in scopes] == [
        ("gitlab", ["job:read"]),
        ("authz", ["token:read", "token:revoke"]),
    ]


async def test_a_legacy_token_loses_scopes(stage):
    root = await signed_in(stage, "root")
    token_id, secret = await stage.give("root", catalogs={"gitlab": 2}, legacy_scopes=("api", "read_user"))
    await edit(root, token_id, ("finish", {"name": "given", "legacy": "read_user"}))
    assert "It loses legacy scopes : api" in root.text
    filled = [("name", "given"), ("reason", ""), ("expires", "keep"), ("networks", ""), ("legacy", "read_user")]
    await root.post(f"/console/tokens/{token_id}/edit", [*fields_of(root.page.text), *filled, ("go", "save")])
    assert root.page.status_code == 303, root.text
    assert (await stage.call("GET", "/v1/self", secret)).json()["legacy_scopes"] == ["read_user"]


# rotating and cloning


async def test_a_rotation_shows_the_new_secret_once_and_ends_the_old_one(stage):
    dana = await signed_in(stage, "dana")
    token_id, old = await made(dana)
    await dana.get(f"/console/tokens/{token_id}/rotate")
    assert "A new secret for “ as it was ”" in dana.text
    assert (await stage.call("GET", "/v1/self", old)).status_code == 200
    key = re.search(r'name="key" value="([^"]+)"', dana.page.text)[1]
    fields, token = {"confirmed": "yes", "overlap": "0", "key": key}, dana.form_token()
    await dana.post(f"/console/tokens/{token_id}/rotate", fields, token=token)
    assert dana.page.status_code == 201, dana.text
    new, new_id = secret_of(dana.page.text), token_of(dana.page.text)
    assert new_id != token_id
    assert await stage.allows(new)
    assert not await stage.allows(old)
    await dana.post(f"/console/tokens/{token_id}/rotate", fields, token=token)
    assert "azt_" not in dana.page.text
    assert "sent twice" in dana.text
    assert await stage.allows(new)
    await dana.get(f"/console/tokens/{token_id}")
    assert new_id in dana.page.text
    assert f"/console/tokens/{token_id}/rotate" not in dana.page.text


async def test_an_overlap_lets_the_old_secret_work_on(stage):
    dana = await signed_in(stage, "dana")
    token_id, old = await made(dana)
    await dana.get(f"/console/tokens/{token_id}/rotate")
    await dana.post(f"/console/tokens/{token_id}/rotate", {"confirmed": "yes", "overlap": "3600"})
    assert await stage.allows(old)
    assert await stage.allows(secret_of(dana.page.text))


async def test_looking_at_the_form_of_a_token_that_is_out_revokes_nobody(stage):
    dana = await signed_in(stage, "dana")
    token_id, _ = await made(dana)
    await dana.get(f"/console/tokens/{token_id}/rotate")
    await dana.post(f"/console/tokens/{token_id}/rotate", {"confirmed": "yes", "overlap": "0"})
    new = secret_of(dana.page.text)
    for _ in range(2):
        await dana.get(f"/console/tokens/{token_id}/rotate")
        assert "It cannot be rotated." in dana.text
        assert await stage.allows(new)
    await dana.post(f"/console/tokens/{token_id}/rotate", {"overlap": "0"}, token=(await _token(dana)))
    assert dana.page.status_code == 403
    assert await stage.allows(new)


async def _token(visitor: Visitor) -> str:
    await visitor.get("/console/account")
    return visitor.form_token()


async def test_a_clone_is_another_token_like_the_first(stage):
    dana = await signed_in(stage, "dana")
    token_id, old = await made(dana)
    await dana.get(f"/console/tokens/{token_id}/clone")
    assert "Nobody has to approve it" in dana.text
    fields = {"name": "like it", "expires": "7", "reason": "second bot", "go": "clone"}
    await dana.post(f"/console/tokens/{token_id}/clone", fields)
    assert dana.page.status_code == 201, dana.text
    new = secret_of(dana.page.text)
    assert await scopes_of(stage, new) == await scopes_of(stage, old)
    await dana.get(f"/console/tokens/{token_id}/revoke")
    await dana.post(f"/console/tokens/{token_id}/revoke", {"confirmed": "yes"})
    assert await stage.allows(new)
    assert not await stage.allows(old)
    # One that has ended is cloned with an end of its own.
    await dana.get(f"/console/tokens/{token_id}/clone")
    assert "like the other:" not in dana.text


async def test_a_clone_for_somebody_else_is_refused_beforehand(stage):
    dana = await signed_in(stage, "dana")
    token_id, _ = await made(dana)
    await dana.get(f"/console/tokens/{token_id}/clone")
    fields = {"name": "for olga", "owner": "olga", "expires": "keep", "reason": ""}
    await dana.post(f"/console/tokens/{token_id}/clone", fields | {"go": "look"})
    assert "It would be refused." in dana.text
    assert 'value="olga"' in dana.page.text
    await dana.post(f"/console/tokens/{token_id}/clone", fields | {"go": "clone"})
    assert dana.page.status_code == 403
    await dana.post(f"/console/tokens/{token_id}/clone", fields | {"expires": "date", "date": "never", "go": "clone"})
    assert dana.page.status_code == 400
    await dana.get("/console/tokens")
    assert "for olga" not in dana.text


# narrowed by use


async def test_a_token_is_narrowed_to_what_it_was_used_for(stage):
    dana = await signed_in(stage, "dana")
    token_id, secret = await made(dana, begin=f"{WEB}&p=job:run&p=pipeline:read")
    await dana.get(f"/console/tokens/{token_id}/shrink")
    assert "Nothing is known of its use" in dana.text
    async with stage.database.transaction() as conn:
        web = await stage.node("project:acme/web")
        await conn.execute(
            text(
                "insert into token_usage (token_id, day, catalog, permission, place, calls, last_at)"
                " values (:token, current_date, 'gitlab', 'job:read', :place, 12, now())"
            ),
            {"token": token_id, "place": str(web)},
        )
    await dana.get(f"/console/tokens/{token_id}/shrink?days=30")
    assert "It made 12 calls" in dana.text
    assert "It loses in project:acme/web : job:run pipeline:read" in dana.text
    etag = html.unescape(re.search(r'name="etag" value="([^"]+)"', dana.page.text)[1])
    await dana.post(f"/console/tokens/{token_id}/shrink", {"days": "30", "etag": etag})
    assert dana.page.status_code == 403
    await dana.post(f"/console/tokens/{token_id}/shrink", {"days": "30", "etag": '"old"', "confirmed": "yes"})
    assert dana.page.status_code == 412
    await dana.post(f"/console/tokens/{token_id}/shrink", {"days": "30", "etag": etag, "confirmed": "yes"})
    assert dana.page.status_code == 303, dana.text
    assert await scopes_of(stage, secret) == [(["project:acme/web"], ["job:read"])]
    await dana.get(f"/console/tokens/{token_id}/shrink?days=nonsense")
    assert "It holds no more than it uses" in dana.text
    await dana.get(f"/console/tokens/{token_id}")
    assert "job:read project:acme/web 12" in dana.text


# the playground


async def test_the_fix_of_a_denial_fills_the_edit_form_in(stage):
    dana = await signed_in(stage, "dana")
    token_id, secret = await made(dana)
    await dana.get("/console/playground")
    asked = {"token": token_id, "ask": "permission", "permission": "job:run", "target": "project:acme/web"}
    await dana.post("/console/playground", asked)
    assert "Add job:run to the scope on project:acme/web ." in dana.text
    link = html.unescape(re.search(r'href="(/console/tokens/tok_\w+/edit\?fix=[^"]+)"', dana.page.text)[1])
    await dana.get(link)
    assert "It gains in project:acme/web : job:run wider" in dana.text
    filled = [("name", "as it was"), ("reason", ""), ("expires", "keep"), ("networks", ""), ("go", "save")]
    await dana.post(f"/console/tokens/{token_id}/edit", [*fields_of(dana.page.text), *filled])
    assert dana.page.status_code == 303, dana.text
    assert await stage.allows(secret, "job:run")


@pytest.mark.parametrize(
    "fix",
    ["", "[", "{}", "[1]", '[{"kind":"add_scope"}]', '[{"kind":"add_permissions","scope":99,"permissions":["x:y"]}]',
     '[{"kind":"add_permissions","scope":0,"permissions":"job:run"}]', '[{"kind":"add_nodes","scope":true}]',
     '[{"kind":"add_scope","reach":"nowhere","permissions":["<b>"],"nodes":["<script>"]}]', "[" * 5000],
)  # fmt: skip
async def test_a_fix_of_nonsense_breaks_no_form(stage, fix):
    dana = await signed_in(stage, "dana")
    token_id, _ = await made(dana)
    response = await dana.get(f"/console/tokens/{token_id}/edit", params={"fix": fix})
    assert response.status_code == 200
    assert "<script>" not in response.text


async def test_a_draft_is_tried_out_fixed_and_made(stage):
    dana = await signed_in(stage, "dana")
    await dana.get(f"/console/tokens/new{WEB}")
    filled = [("name", "tried first"), ("reason", ""), ("expires", "30"), ("networks", ""), ("go", "draft")]
    await dana.post("/console/playground", [*fields_of(dana.page.text), *filled])
    assert "A draft: “ tried first ”" in dana.text
    drafted = [(name, value) for name, value in hidden_of(dana.page.text) if name != "go"]
    question = [("ask", "permission"), ("permission", "job:run"), ("target", "project:acme/web")]
    await dana.post("/console/playground", [*drafted, *question])
    assert "Deny" in dana.text
    assert "Add job:run to the scope on project:acme/web ." in dana.text
    assert "The draft" in dana.text
    fix = html.unescape(re.search(r'name="fix" value="([^"]+)"', dana.page.text)[1])
    await dana.post("/console/tokens/new", [*drafted, ("fix", fix)])
    assert "job:run" in dana.page.text
    kept = fields_of(dana.page.text)
    filled = [("name", "tried first"), ("reason", ""), ("expires", "30"), ("networks", ""), ("go", "create")]
    await dana.post("/console/tokens/new", [*kept, *filled])
    assert dana.page.status_code == 201, dana.text
    assert await stage.allows(secret_of(dana.page.text), "job:run")
    async with stage.database.read() as conn:
        count = "select count(*) from token where name in ('tried first', 'x')"
        assert (await conn.execute(text(count))).scalar_one() == 1


def hidden_of(page: str) -> list[tuple[str, str]]:
    """Fields of the form that asks about a draft."""
    form = page.partition('name="draft" value="yes"')[0].rpartition("<form")[2] + 'name="draft" value="yes">'
    found = re.findall(r'name="([^"]*)" value="([^"]*)"', form)
    return [(name, html.unescape(value)) for name, value in found if name != "form_token"]


async def test_a_draft_tells_nothing_of_hidden_places_and_of_wrong_ones_all(stage):
    dana = await signed_in(stage, "dana")
    usual = [("draft", "yes"), ("catalog", "gitlab"), ("reach", "personal_projects"), ("p", "job:read")]
    answers = []
    for target in ("project:hidden/plan", "project:hidden/none"):
        await dana.get("/console/playground")
        await dana.post("/console/playground", [*usual, ("permission", "job:read"), ("target", target)])
        assert dana.page.status_code == 200, dana.text
        answers.append(dana.page.text.partition('aria-live="polite"')[2])
    assert answers[0] == answers[1]
    for wrong, said in (
        ([("owner", "olga")], "may not"),
        ([("p", "no:such")], "no permission"),
        ([("expires", "date"), ("date", "x")], "Write the day"),
    ):
        await dana.get("/console/playground")
        await dana.post("/console/playground", [*usual, *wrong, ("permission", "job:read")])
        assert dana.page.status_code in (400, 403)
        assert said in dana.text
    await dana.get("/console/playground")
    await dana.post(
        "/console/playground", [*usual, ("ask", "call"), ("method", "GET"), ("path", "/api/v4/projects/46/jobs")]
    )
    assert "Allow" in dana.text


# hostile words


async def test_no_name_is_more_than_text_on_the_pages_of_changes(stage):
    dana = await signed_in(stage, "dana")
    for name in HOSTILE:
        token_id, _ = await made(dana, name)
        for way in ("", "/edit", "/rotate", "/clone", "/shrink", "/radius", "/revoke"):
            response = await dana.get(f"/console/tokens/{token_id}{way}")
            assert response.status_code == 200, (way, dana.text)
            assert "<script>alert" not in response.text, way
            assert "<img src=x" not in response.text, way
            assert len(response.content) < 100_000
        await dana.post("/console/tokens/revoke", {"id": token_id}, token=await _token(dana))
        assert "<script>alert" not in dana.page.text
        assert "<img src=x" not in dana.page.text


async def test_several_tokens_are_revoked_after_they_were_named(stage):
    dana, olga = await signed_in(stage, "dana"), await signed_in(stage, "olga")
    mine = [await made(dana, f"mine {number}") for number in range(3)]
    other_id, other = await made(olga, "hers")
    await dana.get("/console/tokens")
    ids = [("id", mine[0][0]), ("id", mine[1][0]), ("id", other_id), ("id", "tok_none"), ("id", "<b>")]
    token = dana.form_token()
    await dana.post("/console/tokens/revoke", ids, token=token)
    assert "Revoke these tokens?" in dana.text
    assert "mine 0" in dana.text
    assert "hers" not in dana.text
    assert all([await stage.allows(secret) for _, secret in mine])
    await dana.post("/console/tokens/revoke", [*ids, ("confirmed", "yes")], token=token)
    assert [await stage.allows(secret) for _, secret in (*mine, ("", other))] == [False, False, True, True]
    for wrong in ([], [("id", f"tok_{number}") for number in range(101)]):
        await dana.post("/console/tokens/revoke", wrong, token=token)
        assert dana.page.status_code == 400
