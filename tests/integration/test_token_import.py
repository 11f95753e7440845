"""Bring your own: tokens that another system issued, by the digests of their secrets; the secrets work on (M3, A1)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from tests.support.managing import Stage, body_of, scope, staged

from authz_service.config import load_settings
from authz_service.errors import StartError
from authz_service.pdp.secrets import Peppers
from authz_service.redaction import redact
from authz_service.store import audit

OLD = "glpat-" + "Zx81" * 5
OTHER = "ghp_" + "q7R" * 12


@pytest.fixture
async def stage(database_url):
    async with staged(database_url, foreign_prefixes="glpat-, ghp_") as running:
        yield running


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def line(secret: str = OLD, **changes: Any) -> dict[str, Any]:
    """An imported token of dana's that reads a project's jobs."""
    prefix = next((one for one in ("glpat-", "ghp_") if secret.startswith(one)), "glpat-")
    return body_of(**({"sha256": sha256(secret), "prefix": prefix} | changes))


async def bring(stage: Stage, caller: str, *lines: Any) -> httpx.Response:
    body = b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines)
    return await stage.call("POST", "/v1/tokens/import", caller, body)


async def check(stage: Stage, gateway: str, secret: str, action: str = "read", **more: Any) -> httpx.Response:
    body = {"token": secret, "catalog": "gitlab", "resource": "job", "action": action, "target": "acme/web"} | more
    return await stage.call("POST", "/check", gateway, body)


async def reason(stage: Stage, secret: str, **more: Any) -> str:
    answer = await check(stage, await stage.admin(), secret, fully_consistent=True, **more)
    return str(answer.json()["reason"])


async def count(stage: Stage) -> int:
    async with stage.database.read() as conn:
        return int((await conn.execute(text("select count(*) from token"))).scalar_one())


async def test_the_old_secret_works_once_its_digest_is_imported(stage):
    admin = await stage.admin()
    assert await reason(stage, OLD) == "unknown_token"
    made = (datetime.now(UTC) - timedelta(days=100)).isoformat()
    answer = await bring(stage, admin, line(created_at=made), line(OTHER, owner="bot", name="bot's"))
    assert answer.status_code == 201, answer.text
    assert [one["line"] for one in answer.json()["tokens"]] == [1, 2]
    assert await reason(stage, OLD) == "granted"
    assert await reason(stage, OLD, action="delete") == "permission_missing"
    assert await reason(stage, OTHER) == "granted"
    first = answer.json()["tokens"][0]["id"]
    shown = (await stage.call("GET", f"/v1/tokens/{first}", admin)).json()
    assert (shown["imported_as"], shown["owner"], shown["state"]) == ("glpat-", "dana", "active")
    assert datetime.fromisoformat(shown["created_at"]) == datetime.fromisoformat(made)
    for _ in range(3):  # the short way too
        assert (await check(stage, admin, OLD)).json()["decision"] == "allow"


async def test_the_old_secret_is_a_bearer_token_everywhere(stage):
    held = {"catalog": "authz", "reach": {"kind": "user"}, "permissions": ["token:read"]}
    admin = await stage.admin()
    await bring(stage, admin, line(catalog=..., scopes=[held]))
    assert (await stage.call("GET", "/v1/self", OLD)).json()["owner"] == "dana"
    assert (await stage.call("GET", "/v1/tokens", OLD)).status_code == 200


async def test_a_coarse_token_of_another_system_is_a_coarse_token_here(stage):
    coarse = line(kind="legacy", legacy_scopes=["read_api"], scopes=...)
    assert (await bring(stage, await stage.admin(), coarse)).status_code == 201
    assert await reason(stage, OLD) == "granted"
    assert await reason(stage, OLD, action="run") == "permission_missing"


async def test_an_imported_token_is_revoked_and_rotated_into_one_of_ours(stage):
    admin = await stage.admin()
    token = (await bring(stage, admin, line())).json()["tokens"][0]["id"]
    new = (await stage.call("POST", f"/v1/tokens/{token}/rotate", admin, {"overlap_seconds": 3600})).json()
    assert new["secret"].startswith("azt_k1_")
    assert new["imported_as"] is None
    assert await stage.allows(OLD)
    assert await stage.allows(new["secret"])
    await stage.call("DELETE", f"/v1/tokens/{token}", admin)
    assert await reason(stage, OLD) == "token_revoked"


async def test_what_is_stored_tells_nobody_the_secret_nor_its_plain_digest(stage):
    await bring(stage, await stage.admin(), line())
    async with stage.database.read() as conn:
        tables = (await conn.execute(text("select tablename from pg_tables where schemaname = 'public'"))).scalars()
        for table in tables.all():
            rows = (await conn.execute(text(f'select t::text from "{table}" t'))).scalars().all()
            assert not [row for row in rows if OLD[6:] in row or sha256(OLD) in row], table


# who may


async def test_only_an_admin_with_the_permission_imports(stage):
    imports = scope("authz", "instance", "token:import")
    parent, _ = await stage.give("root", imports)
    callers = {
        "no permission": (await stage.give("root", scope("authz", "instance", "token:create_any", "token:create")))[1],
        "no admin": (await stage.give("olga", imports))[1],
        "a child": (await stage.give("root", imports, parent=parent))[1],
    }
    for who, secret in callers.items():
        answer = await bring(stage, secret, line())
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), who
        assert (await stage.call("POST", "/v1/tokens/import", secret, b"no JSON at all")).status_code == 403, who
    assert (await stage.call("POST", "/v1/tokens/import", None, b"")).status_code == 401
    alone = (await stage.give("root", imports))[1]
    assert (await bring(stage, alone, line())).status_code == 201


# all or none


async def test_every_fault_of_every_line_is_named_and_nothing_is_stored(stage):
    admin = await stage.admin()
    await bring(stage, admin, line(OTHER))
    before = await count(stage)
    answer = await bring(
        stage,
        admin,
        line(),
        line(OTHER),
        line(),
        line(secrets.token_hex(9), prefix="xox-", name=" "),
        line(sha256="A" * 64),
        line(sha256="abc", prefix=...),
        line(secrets.token_hex(8), owner="nobody", expires_at="2020-01-01T00:00:00Z"),
        line(secrets.token_hex(8), created_at="2999-01-01T00:00:00Z"),
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")
    assert {(fault["where"], fault["code"]) for fault in answer.json()["faults"]} == {
        ("line 2 /sha256", "already_here"),
        ("line 3 /sha256", "duplicate"),
        ("line 4 /prefix", "prefix_unknown"),
        ("line 4 /name", "too_short"),
        ("line 5 /sha256", "invalid_digest"),
        ("line 6 /prefix", "missing_field"),
        ("line 7 /owner", "owner_unknown"),
        ("line 7 /expires_at", "in_past"),
        ("line 8 /created_at", "in_future"),
    }
    assert await count(stage) == before
    assert await reason(stage, OLD) == "unknown_token"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n\n",
        b"{",
        b"[]",
        b"null",
        b'{"sha256": 1}',
        b'{"sha256": "x", "surprise": 1}',
        b"\xff\xfe",
        json.dumps({"name": "x", "secret": OLD}).encode(),
        b"\n".join(json.dumps(line(str(number))).encode() for number in range(4)),
    ],
)
async def test_what_is_no_import_is_refused(database_url, body):
    async with staged(database_url, foreign_prefixes="glpat-", max_import_tokens=3) as stage:
        admin = await stage.admin()
        answer = await stage.call("POST", "/v1/tokens/import", admin, body)
        assert answer.status_code == 400
        assert OLD not in answer.text
        assert not answer.json().get("faults") or "what the lines name is looked up once" in answer.json()["detail"]
        assert await count(stage) == 1


async def test_a_secret_that_was_issued_here_is_not_imported_as_another(stage):
    """Its digest is of another kind, so that it could not even be found."""
    _, own = await stage.give("dana", await stage.scope_at("gitlab", ["acme/web"], "job:read"))
    assert (await bring(stage, await stage.admin(), line(sha256=sha256(own)))).status_code == 201
    assert await reason(stage, own) == "granted"
    assert await reason(stage, own, action="run") == "permission_missing"


async def test_two_imports_of_the_same_token_at_once_make_it_once(stage):
    admins = [await stage.admin() for _ in range(3)]
    answers = await asyncio.gather(*(bring(stage, admin, line()) for admin in admins))
    assert sorted(answer.status_code for answer in answers) == [201, 400, 400]


async def test_hundreds_of_tokens_come_in_one_import(stage):
    lines = [line(f"glpat-{number:040}", name=f"n{number}") for number in range(200)]
    answer = await bring(stage, await stage.admin(), *lines)
    assert (answer.status_code, answer.json()["imported"]) == (201, 200)
    assert await reason(stage, f"glpat-{199:040}") == "granted"
    async with stage.database.read() as conn:
        query = text("select count(*) from audit where action = 'token.import'")
        assert (await conn.execute(query)).scalar_one() == 200
        page, _ = await audit.list_page(conn, audit.AuditFilter(action="token.import"), limit=1)
    assert page[0].entry.details["as"] == "glpat-"


async def test_an_owner_is_not_given_more_tokens_than_the_settings_allow(database_url):
    async with staged(database_url, foreign_prefixes="glpat-", max_tokens_per_owner=2) as stage:
        admin = await stage.admin()
        three = [line(f"glpat-{number:020}") for number in range(3)]
        assert (await bring(stage, admin, *three)).status_code == 409
        assert (await bring(stage, admin, *three[:2])).status_code == 201


# what strangers send


async def test_secrets_of_prefixes_nobody_registered_are_malformed(stage):
    for odd in (
        "xoxb-" + "a" * 30,
        "glpat-",
        "glpat-short",
        "glpat- " + "a" * 20,
        "glpat-" + "ä" * 20,
        "Glpat-" + "a" * 20,
    ):
        assert await reason(stage, odd) == "malformed_token", odd
    assert await reason(stage, "glpat-" + "a" * 250) == "malformed_token"
    assert await reason(stage, OLD + "=") == "unknown_token"


async def test_a_flood_of_made_up_secrets_is_shed_and_leaves_known_tokens_be(database_url):
    """They have no checksum, so that each costs a look-up: those that are too many at once are turned away."""
    bounds = {"loads_running": 1, "loads_waiting": 20, "cache_unknown_tokens": 100}
    async with staged(database_url, foreign_prefixes="glpat-", **bounds) as stage:
        admin = await stage.admin()
        await bring(stage, admin, line())
        assert (await check(stage, admin, OLD)).json()["decision"] == "allow"
        flood = [check(stage, admin, f"glpat-{secrets.token_hex(20)}") for _ in range(300)]
        known = [check(stage, admin, OLD) for _ in range(50)]
        answers = await asyncio.gather(*flood, *known)
        statuses = {answer.status_code for answer in answers[:300]}
        assert statuses == {200, 503}
        assert {answer.json()["reason"] for answer in answers[:300] if answer.status_code == 503} == {"overloaded"}
        assert {answer.json()["decision"] for answer in answers[300:]} == {"allow"}
        assert len(stage.app.state.services.point.facts.unknown_digests) <= 100


async def test_an_old_secret_in_a_url_or_a_log_is_a_slip_too(stage):
    admin = await stage.admin()
    answer = await stage.call("GET", f"/v1/tokens?search={OLD}", admin)
    assert (answer.status_code, answer.json()["code"]) == (400, "secret_in_url")
    assert OLD[6:] not in redact(f"somebody sent {OLD} here")


# settings

PEPPERS = ",".join(
    f"{kid}:{base64.b64encode(bytes(range(start, start + 32))).decode()}" for kid, start in (("k1", 1), ("k2", 90))
)


def faults(given: str, **more: str) -> list[str]:
    environ = {"AUTHZ_DATABASE_URL": "postgresql://x/y", "AUTHZ_PEPPERS": PEPPERS, "AUTHZ_PEPPER_KID": "k2"}
    try:
        load_settings(environ | {"AUTHZ_FOREIGN_PREFIXES": given} | more)
    except StartError as error:
        return [fault.code for fault in error.faults if fault.where == "AUTHZ_FOREIGN_PREFIXES"]
    return []


def test_a_registered_prefix_names_its_pepper_where_there_are_several():
    assert faults("glpat-:k1, ghp_:k2") == []
    assert faults("glpat-") == ["missing"]
    assert faults("glpat-:k9") == ["unknown"]
    assert faults("glpat-:K1") == ["invalid"]
    assert faults("g:k1") == ["invalid"]
    assert faults("a b-:k1") == ["invalid"]
    assert faults("azt_k1:k1") == ["contradiction"]
    assert faults("az:k1") == ["contradiction"]
    assert faults("gh:k1,ghp_:k1") == ["contradiction"]
    assert faults("glpat-", AUTHZ_PEPPERS=PEPPERS.partition(",")[0], AUTHZ_PEPPER_KID="k1") == []


def test_an_imported_digest_stays_under_the_pepper_of_its_prefix():
    one = Peppers({"k1": b"a" * 32}, "k1", foreign={"glpat-": "k1"})
    later = Peppers({"k1": b"a" * 32, "k2": b"b" * 32}, "k2", foreign={"glpat-": "k1"})
    assert one.digest(OLD) == later.digest(OLD) == one.digest_imported("glpat-", sha256(OLD))
    assert one.digest(OLD) != one.digest(OLD + "x")
    assert one.digest(OTHER) is None
    with pytest.raises(ValueError, match="pepper"):
        Peppers({"k1": b"a" * 32}, "k1", foreign={"glpat-": "k2"})
