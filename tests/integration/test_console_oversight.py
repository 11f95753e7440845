"""What overseers look at in the console: leaks, the audit and its chain, the reach of a token, a group at a glance."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from tests.support.console import Visitor, make, secret_of, signed_in, token_of
from tests.support.managing import Stage, staged

WEB = "?catalog=gitlab&node=project:acme/web&p=job:read&step=finish"
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'; drop table token; --", "\u202eabc")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(make_database: Any) -> AsyncIterator[Stage]:
    async with staged(make_database()) as found:
        yield found


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def made(visitor: Visitor, name: str) -> tuple[str, str]:
    page = await make(visitor, ("create", {"name": name, "expires": "30"}), begin=WEB)
    assert page.status_code == 201, visitor.text
    return token_of(page.text), secret_of(page.text)


async def settle(stage: Stage) -> None:
    """Until every report was looked up, by the service itself."""
    async with asyncio.timeout(30):
        while True:
            async with stage.database.read() as conn:
                if not (await conn.execute(text("select count(*) from leak_report"))).scalar_one():
                    return
            await asyncio.sleep(0.05)


async def test_whoever_finds_a_secret_ends_it_and_learns_nothing(stage):
    dana, eve, root = [await signed_in(stage, name) for name in ("dana", "eve", "root")]
    token_id, secret = await made(dana, "to be found")
    answers = []
    for text_of_it in (secret, "azt_k1_" + "0" * 40, "no secret at all"):
        await eve.get("/console/leaks")
        await eve.post("/console/leaks", {"secrets": text_of_it, "found_in": "a <b>paste</b>"})
        assert eve.page.status_code == 200
        assert secret not in eve.page.text
        answers.append(re.sub(r"these \d+ texts?", "these", eve.text))
    assert len(set(answers)) == 1
    await settle(stage)
    assert not await stage.allows(secret)
    await root.get("/console/leaks")
    assert token_id in root.page.text
    assert "a <b>paste</b>" in root.text
    assert "<b>paste" not in root.page.text
    await eve.get("/console/leaks")
    assert token_id not in eve.page.text


@pytest.mark.parametrize("secrets", ["", " \n ", "x" * 401, "\n".join(f"azt_{number}" for number in range(101))])
async def test_a_report_of_nothing_or_of_too_much_is_refused(stage, secrets):
    eve = await signed_in(stage, "eve")
    await eve.get("/console/leaks")
    await eve.post("/console/leaks", {"secrets": secrets})
    assert eve.page.status_code == 400
    assert "Write 1 to 100 secrets" in eve.text


async def test_the_audit_shows_that_its_chain_holds_and_where_it_does_not(stage):
    dana, root = await signed_in(stage, "dana"), await signed_in(stage, "root")
    async with asyncio.timeout(60):
        while "sealed in a chain" not in root.text or "0 rows are sealed" in root.text or "sealed within" in root.text:
            await root.get("/console/audit")
            await asyncio.sleep(0.1)
    assert "hold together" in root.text
    await dana.get("/console/audit?node=group:acme")
    assert "sealed in a chain" not in dana.text
    changed = "update audit set action = 'token.nothing' where seal = (select max(seal) - 2 from audit)"
    async with stage.database.transaction() as conn:
        await conn.execute(text("alter table audit disable trigger user"))
        seal = (await conn.execute(text("select max(seal) - 2 from audit"))).scalar_one()
        before = (await conn.execute(text("select action from audit where seal = :s"), {"s": seal})).scalar_one()
        await conn.execute(text(changed))
    await root.get("/console/audit")
    assert f"The chain is broken at row {seal}." in root.text
    async with stage.database.transaction() as conn:
        await conn.execute(text("update audit set action = :a where seal = :s"), {"a": before, "s": seal})
        await conn.execute(text("alter table audit enable trigger user"))
    await root.get("/console/audit")
    assert "hold together" in root.text


async def test_all_that_a_token_could_reach_is_listed_even_after_its_end(stage):
    dana = await signed_in(stage, "dana")
    token_id, _ = await made(dana, "wide enough")
    for _ in range(2):
        await dana.get(f"/console/tokens/{token_id}/radius")
        assert dana.page.status_code == 200, dana.text
        assert "project:acme/web job:read" in dana.text
        await dana.post(f"/console/tokens/{token_id}/revoke", {"confirmed": "yes"}, token=await _form(dana, token_id))
    assert "It has ended" in (await _again(dana, token_id)).text


async def _form(visitor: Visitor, token_id: str) -> str:
    await visitor.get(f"/console/tokens/{token_id}/revoke")
    return visitor.form_token()


async def _again(visitor: Visitor, token_id: str) -> Visitor:
    await visitor.get(f"/console/tokens/{token_id}/radius")
    return visitor


async def test_a_groups_owner_finds_everything_about_it_from_its_page(stage):
    dana, olga = await signed_in(stage, "dana"), await signed_in(stage, "olga")
    await made(dana, "inside acme")
    await olga.get("/console/directory/place?target=group:acme")
    links = set(re.findall(r'href="(/console/\w+\?node=[^"]+)"', olga.page.text))
    assert len(links) == 6
    for link in links:
        response = await olga.get(link.replace("&amp;", "&"))
        assert response.status_code == 200, (link, olga.text[:300])
    await olga.get("/console/tokens?node=group:acme")
    assert "inside acme" in olga.text
    exported = await olga.get("/console/tokens.csv?node=group:acme")
    assert "inside acme" in exported.text


@pytest.mark.parametrize("given", [*HOSTILE, "%00", "\\", "x" * 2000, "group:hidden", "group:nowhere"])
async def test_nothing_typed_into_the_new_pages_breaks_them(stage, given):
    olga = await signed_in(stage, "olga")
    answers = {}
    for path, name in (
        ("/console/leaks", "node"),
        ("/console/leaks", "cursor"),
        ("/console/grants", "token"),
        ("/console/requests", "node"),
        ("/console/policies", "node"),
        ("/console/tokens/new", "fix"),
        ("/console/playground", "draft"),
        ("/console/sign-in/openid", "next"),
    ):
        response = await olga.get(path, params={name: given})
        assert response.status_code in (200, 400, 403, 404), (path, name, olga.text[:200])
        assert "<script>alert" not in response.text
        assert "<img src=x" not in response.text
        answers[path, name] = response.status_code
    if given.startswith("group:"):
        assert answers["/console/leaks", "node"] in (200, 400)
