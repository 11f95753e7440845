"""The audit's chain: sealed, proven, and what whoever owns the database cannot do to it unseen."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tests.support.managing import PEPPER, Stage, body_of, staged

from authz_service.admin.audit import ChainWalk, Verdict, Verification, verify_chain, verify_export
from authz_service.admin.sealing import (
    Ed25519Signer,
    PepperSigner,
    Sealer,
    Verifier,
    format_checkpoint,
    parse_checkpoint,
    read_signer,
)
from authz_service.cli import main
from authz_service.errors import Fault, InvalidInputError, StartError
from authz_service.store import audit, audit_chain
from authz_service.store.audit_chain import Link, row_hash


@pytest.fixture
async def whole_stage(database_url):
    async with staged(database_url) as running:
        yield running


@pytest.fixture
async def stage(whole_stage):
    """With nobody who seals but the test."""
    [sealing] = [task for task in asyncio.all_tasks() if task.get_name() == "audit"]
    sealing.cancel()
    await asyncio.gather(sealing, return_exceptions=True)
    return whole_stage


def sealer(stage: Stage, **given) -> Sealer:
    return Sealer(stage.database, PepperSigner(stage.peppers), **given)


async def changes(stage: Stage, many: int) -> None:
    """Audited ones, without asking."""
    for number in range(many):
        async with stage.database.transaction() as conn:
            await audit.insert(conn, audit.AuditEntry("test.change", f"thing:{number}", details={"number": number}))


async def sealed(stage: Stage, many: int = 5) -> list:
    """A chain of some rows, with a checkpoint at its end; that checkpoint, kept elsewhere."""
    await changes(stage, many)
    await sealer(stage).seal_now(checkpoint=True)
    return await checkpoints(stage)


async def checkpoints(stage: Stage) -> list:
    async with stage.database.read() as conn:
        return list((await audit_chain.list_checkpoints(conn))[0])


async def tamper(stage: Stage, *statements: str) -> None:
    """As whoever owns the tables: the trigger stops nobody who can take it away."""
    async with stage.database.transaction() as conn:
        await conn.execute(text("alter table audit disable trigger user"))
        for statement in statements:
            await conn.execute(text(statement))
        await conn.execute(text("alter table audit enable trigger user"))


async def verified(stage: Stage, kept=()):
    async with stage.database.snapshot() as conn:
        return await verify_chain(conn, Verifier.of(None, stage.peppers), kept)


def codes(found) -> list[tuple[str, str]]:
    return [(one.where, one.code) for one in found.faults]


async def test_every_change_of_management_is_sealed_by_itself_within_moments(whole_stage):
    stage = whole_stage
    admin = await stage.admin()
    made = (await stage.call("POST", "/v1/tokens", admin, body_of())).json()
    await stage.call("DELETE", f"/v1/tokens/{made['id']}", admin)
    for _ in range(100):
        page = (await stage.call("GET", "/v1/audit", admin)).json()
        if all(item["seal"] for item in page["items"]):
            break
        await asyncio.sleep(0.1)
    assert [item["action"] for item in page["items"]] == ["token.revoke", "token.create"]
    assert [item["seal"] for item in page["items"]] == [2, 1]
    found = await verified(stage)
    assert (found.rows, found.unsealed, found.faults) == (2, 0, ())


async def test_sealing_again_changes_nothing_and_rows_that_commit_late_come_last(stage):
    await sealed(stage)
    async with stage.database.transaction() as late:
        await audit.insert(late, audit.AuditEntry("test.change", "late"))
        await changes(stage, 1)
        await sealer(stage).seal_now()
    await sealer(stage).seal_now()
    found = await verified(stage)
    assert (found.rows, found.faults) == (7, ())
    async with stage.database.read() as conn:
        links = await audit_chain.load_links(conn)
    assert links[-1].row.entry.subject == "late"
    assert links[-1].row.id < links[-2].row.id


async def test_one_seals_at_a_time_and_the_other_goes_on(stage):
    await changes(stage, 3)
    async with stage.database.transaction() as conn:
        assert await audit_chain.seal_rows(conn) is not None
        assert await sealer(stage).seal_now() == 0
    found = await verified(stage)
    assert (found.rows, found.faults) == (3, ())


async def test_a_flipped_byte_is_found_in_the_row_that_it_is_in(stage):
    await sealed(stage)
    await tamper(stage, "update audit set subject = 'thing:X' where seal = 3")
    assert codes(await verified(stage)) == [("seal 3", "row_changed")]


CHANGES = [
    "details = '{\"number\": 20}'",
    "at = at + interval '1 microsecond'",
    "actor_token = 'tok_x'",
    "actor_user = 1",
    "action = 'test.changed'",
    "nodes = '{1}'",
    "revision = 1",
    "id = id + 1000000",
    "hash = set_byte(hash, 0, get_byte(hash, 0) # 1)",
    "prev_hash = set_byte(prev_hash, 31, get_byte(prev_hash, 31) # 1)",
]


async def test_whatever_is_changed_of_a_row_is_found(stage):
    await sealed(stage)
    for change in CHANGES:
        async with stage.database.transaction() as conn:
            await conn.execute(text("alter table audit disable trigger user"))
            await conn.execute(text(f"update audit set {change} where seal = 3"))
            found = codes(await verify_chain(conn, Verifier.of(None, stage.peppers)))
            await conn.rollback()
        assert found, change
        assert {where for where, _ in found} <= {"seal 3", "seal 4"}
    assert codes(await verified(stage)) == []


async def test_a_deleted_row_is_missing(stage):
    await sealed(stage)
    await tamper(stage, "delete from audit where seal in (2, 3)")
    found = await verified(stage)
    assert codes(found) == [("seal 4", "rows_missing")]
    assert found.faults[0].message == "rows 2 to 3 are missing before this one"


async def test_a_deleted_row_whose_gap_was_closed_is_found_too(stage):
    await sealed(stage)
    await tamper(stage, "delete from audit where seal = 2", "update audit set seal = seal - 1 where seal > 2")
    assert ("seal 2", "row_replaced") in codes(await verified(stage))


async def test_a_cut_tail_is_found_by_the_checkpoint_of_the_database_itself(stage):
    await sealed(stage)
    await tamper(stage, "delete from audit where seal > 3")
    assert codes(await verified(stage)) == [("checkpoint 5", "tail_cut")]


async def test_a_cut_tail_is_found_by_a_checkpoint_kept_elsewhere_alone(stage):
    kept = await sealed(stage)
    await tamper(stage, "delete from audit where seal > 3", "delete from audit_checkpoint")
    assert codes(await verified(stage)) == []
    assert codes(await verified(stage, kept)) == [("checkpoint 5", "tail_cut")]


async def test_a_chain_that_was_made_anew_differs_from_what_was_signed(stage):
    kept = await sealed(stage)
    async with stage.database.read() as conn:
        links = await audit_chain.load_links(conn)
    before, statements = audit_chain.NO_HASH, ["delete from audit_checkpoint"]
    for link in links:
        row = link.row
        if link.seal == 2:
            row = replace(row, entry=replace(row.entry, subject="thing:forged"))
        hashed = row_hash(before, link.seal, row)
        statements.append(
            f"update audit set subject = '{row.entry.subject}', prev_hash = '\\x{before.hex()}', "
            f"hash = '\\x{hashed.hex()}' where seal = {link.seal}"
        )
        before = hashed
    await tamper(stage, *statements)
    assert codes(await verified(stage)) == []
    assert codes(await verified(stage, kept)) == [("checkpoint 5", "checkpoint_differs")]


async def test_a_checkpoint_that_nobody_signed_is_forged(stage):
    kept = await sealed(stage)
    forged = replace(kept[0], seal=99)
    assert codes(await verified(stage, [forged])) == [("checkpoint 99", "checkpoint_forged")]
    other = replace(kept[0], key_id="k9")
    assert ("checkpoint 5", "checkpoint_unproven") in codes(await verified(stage, [other]))


async def test_the_sealer_says_when_the_chain_has_lost_its_checkpoint_and_signs_no_more(stage):
    await sealed(stage)
    await tamper(stage, "delete from audit where seal > 3")
    heard = []
    await changes(stage, 4)
    await sealer(stage, observe=lambda rows, broken: heard.append((rows, broken))).seal_now(checkpoint=True)
    assert heard == [(4, True)]
    assert [one.seal for one in await checkpoints(stage)] == [5]
    assert codes(await verified(stage)) == [("checkpoint 5", "checkpoint_differs")]


async def test_a_seal_is_set_once(stage):
    await sealed(stage)
    for statement in ("update audit set hash = ''", "update audit set seal = null", "update audit set subject = 'x'"):
        with pytest.raises(DBAPIError, match="sealed once"):
            async with stage.database.transaction() as conn:
                await conn.execute(text(statement))


async def test_checkpoints_of_an_ed25519_key_are_verified_by_its_public_half(stage, tmp_path):
    signer = Ed25519Signer(Ed25519PrivateKey.generate())
    file = tmp_path / "checkpoints.jsonl"
    await changes(stage, 3)
    writer = Sealer(stage.database, signer, file=file)
    await writer.seal_now(checkpoint=True)
    await changes(stage, 1)
    await writer.seal_now(checkpoint=True)
    lines = file.read_bytes().splitlines()
    kept = [parse_checkpoint(line) for line in lines]
    assert [one.seal for one in kept] == [3, 4]
    verifier = Verifier({}, None).with_key(signer.public_pem.encode())
    assert [verifier.holds(one) for one in kept] == [True, True]
    assert verifier.holds(replace(kept[0], hash=kept[1].hash)) is False
    assert Verifier({}, None).holds(kept[0]) is None
    assert json.loads(lines[0]) == format_checkpoint(kept[0])


def test_a_key_file_that_holds_no_ed25519_key_stops_the_start(tmp_path):
    file = tmp_path / "key.pem"
    for text_of in (b"", b"nonsense"):
        file.write_bytes(text_of)
        with pytest.raises(StartError, match="AUTHZ_AUDIT_KEY_FILE"):
            read_signer(file, None)  # type: ignore[arg-type]
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(pem)
    assert read_signer(file, None).algorithm == "ed25519"  # type: ignore[arg-type]


@pytest.mark.parametrize("line", ["", "{}", "[]", '{"seal": "x"}', '{"seal": 1, "hash": "zz"}', "null", "[" * 100_000])
def test_what_is_no_checkpoint_is_refused(line):
    with pytest.raises(InvalidInputError):
        parse_checkpoint(line)


async def test_an_export_is_proven_without_a_database(stage):
    admin = await stage.admin()
    await stage.call("POST", "/v1/tokens", admin, body_of())
    kept = await sealed(stage, 300)
    answer = await stage.call("GET", "/v1/audit/export", admin)
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = answer.content.splitlines()
    assert len(lines) == 301
    verifier = Verifier.of(None, stage.peppers)
    found = verify_export(lines, verifier, kept)
    assert (found.rows, found.unsealed, found.faults) == (301, 0, ())
    assert codes(verify_export(lines[1:], verifier, kept)) == [("checkpoint 301", "tail_cut")]
    changed = [line.replace(b'"thing:7"', b'"thing:8"') for line in lines]
    assert [code for _, code in codes(verify_export(changed, verifier, kept))] == ["row_changed"]
    assert [code for _, code in codes(verify_export(lines[:9] + lines[10:], verifier, kept))] == [
        "rows_missing",
        "row_changed",
    ]
    with pytest.raises(InvalidInputError):
        verify_export([b'{"action": "x"}'], verifier, [])


async def test_pages_are_complete_and_filters_keep_what_they_say(stage):
    admin = await stage.admin()
    for number in range(3):
        await stage.call("POST", "/v1/tokens", admin, body_of(name=f"t{number}"))
    await changes(stage, 4)
    seen, cursor = [], ""
    while cursor is not None:
        page = (
            await stage.call("GET", "/v1/audit", admin, params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        ).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert len(seen) == len(set(seen)) == 7

    async def count(**params) -> int:
        return len((await stage.call("GET", "/v1/audit", admin, params=params)).json()["items"])

    assert await count(action="token.") == 3
    assert await count(action="token") == 0
    assert await count(subject="thing:1") == 1
    assert await count(actor="root") == 3
    assert await count(actor="dana") == 0
    assert await count(node="group:acme") == 3
    assert await count(node="group:hidden") == 0
    assert await count(at_before="2020-01-01T00:00:00Z") == 0
    assert await count(at_from="2020-01-01T00:00:00Z") == 7


async def test_an_owner_of_a_group_reads_what_concerns_it_and_nothing_beside(stage):
    admin = await stage.admin()
    both = [{"reach": {"kind": "selected", "nodes": ["project:acme/web", "group:hidden"]}, "permissions": ["job:read"]}]
    await stage.call("POST", "/v1/tokens", admin, body_of(owner="root", scopes=both))
    elsewhere = [{"reach": {"kind": "selected", "nodes": ["group:hidden"]}, "permissions": ["job:read"]}]
    await stage.call("POST", "/v1/tokens", admin, body_of(owner="root", scopes=elsewhere))
    bots = [{"reach": {"kind": "all_memberships"}, "permissions": ["job:read"]}]
    await stage.call("POST", "/v1/tokens", admin, body_of(owner="bot", scopes=bots))
    _, olga = await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "audit:read"))
    answer = await stage.call("GET", "/v1/audit", olga, params={"node": "group:acme"})
    items = answer.json()["items"]
    assert [item["nodes"] for item in items] == [["group:acme"], ["project:acme/web"]]
    assert all(item["partial"] and item["details"] == {} and item["hash"] is None for item in items)
    assert "hidden" not in answer.text
    for params in ({}, {"node": "instance"}):
        assert (await stage.call("GET", "/v1/audit", olga, params=params)).status_code == 403
    hidden = await stage.call("GET", "/v1/audit", olga, params={"node": "group:hidden"})
    absent = await stage.call("GET", "/v1/audit", olga, params={"node": "group:absent"})
    assert hidden.status_code == absent.status_code == 400
    assert hidden.text.replace("hidden", "absent") == absent.text
    assert (await stage.call("GET", "/v1/audit/export", olga)).status_code == 403
    assert (await stage.call("GET", "/v1/audit/checkpoints", olga)).status_code == 403
    exported = await stage.call("GET", "/v1/audit/export", olga, params={"node": "group:acme"})
    assert len(exported.content.splitlines()) == 2


async def test_who_holds_no_audit_read_reads_nothing(stage):
    _, dana = await stage.give("dana", await stage.scope_at("authz", ["group:acme"], "audit:read"))
    _, other = await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "token:read"))
    for secret in (dana, other):
        answer = await stage.call("GET", "/v1/audit", secret, params={"node": "group:acme"})
        assert answer.status_code == 403
    assert (await stage.call("GET", "/v1/audit")).status_code == 401


SENSELESS = [
    {"cursor": "x"},
    {"limit": "0"},
    {"unknown": "1"},
    {"at_from": "yesterday"},
    {"actor": "nobody-here"},
    {"actor_token": "tok_short"},
    {"node": "group:absent"},
]


async def test_a_question_that_makes_no_sense_is_a_problem(stage):
    admin = await stage.admin()
    for params in SENSELESS:
        answer = await stage.call("GET", "/v1/audit", admin, params=params)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input"), params


async def test_the_command_proves_the_chain_of_a_database(stage, database_url, monkeypatch, tmp_path, capsys):
    kept = await sealed(stage)
    file = tmp_path / "kept.jsonl"
    file.write_text("".join(json.dumps(format_checkpoint(one)) + "\n" for one in kept))
    monkeypatch.setenv("AUTHZ_DATABASE_URL", database_url)
    monkeypatch.delenv("AUTHZ_PEPPERS", raising=False)
    verify = ["audit", "verify", "--checkpoints", str(file), "--output", "json"]
    assert await asyncio.to_thread(main, verify) == 3  # the key is not known
    told = json.loads(capsys.readouterr().out)
    assert (told["verdict"], told["whole"], told["faults"][0]["code"]) == ("unproven", False, "checkpoint_unproven")
    monkeypatch.setenv("AUTHZ_PEPPERS", f"k1:{base64.b64encode(PEPPER).decode()}")
    assert await asyncio.to_thread(main, verify) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["verdict"], told["whole"]) == ("whole", True)
    await tamper(stage, "delete from audit where seal > 4")
    assert await asyncio.to_thread(main, ["audit", "verify"]) == 1
    assert "the audit is not whole" in capsys.readouterr().err
    monkeypatch.delenv("AUTHZ_PEPPERS", raising=False)
    assert await asyncio.to_thread(main, verify) == 1  # what is wrong counts, whatever else cannot be told
    assert json.loads(capsys.readouterr().out)["verdict"] == "not_whole"


async def test_an_export_and_checkpoints_under_a_pepper_are_proven_by_the_command(stage, monkeypatch, tmp_path, capsys):
    kept = await sealed(stage)
    (tmp_path / "kept.jsonl").write_text("".join(json.dumps(format_checkpoint(one)) + "\n" for one in kept))
    exported = await stage.call("GET", "/v1/audit/export", await stage.admin())
    (tmp_path / "audit.jsonl").write_bytes(exported.content)
    (tmp_path / "peppers").write_text(f"k1:{base64.b64encode(PEPPER).decode()}\n")
    for name in ("AUTHZ_PEPPERS", "AUTHZ_PEPPERS_FILE", "AUTHZ_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    files = ["--export", str(tmp_path / "audit.jsonl"), "--checkpoints", str(tmp_path / "kept.jsonl")]
    assert await asyncio.to_thread(main, ["audit", "verify", *files]) == 3
    assert "could not be proven whole" in capsys.readouterr().err
    monkeypatch.setenv("AUTHZ_PEPPERS_FILE", str(tmp_path / "peppers"))
    assert await asyncio.to_thread(main, ["audit", "verify", *files]) == 0
    monkeypatch.delenv("AUTHZ_PEPPERS_FILE")
    monkeypatch.setenv("AUTHZ_PEPPERS", f"k1:{base64.b64encode(bytes(PEPPER[::-1])).decode()}")
    assert await asyncio.to_thread(main, ["audit", "verify", *files]) == 1
    assert "checkpoint 5: its signature is not one of key" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["audit", "verify"], ["pepper", "status"]])
async def test_who_could_not_look_does_not_say_what_is_there(command, monkeypatch, tmp_path, capsys):
    for name in ("AUTHZ_PEPPERS_FILE", "AUTHZ_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AUTHZ_PEPPERS", f"k1:{base64.b64encode(PEPPER).decode()}")
    assert await asyncio.to_thread(main, command) == 2
    assert capsys.readouterr().err.count("set AUTHZ_DATABASE_URL") == 1
    monkeypatch.setenv("AUTHZ_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert await asyncio.to_thread(main, command) == 3
    assert "cannot be reached" in capsys.readouterr().err


async def test_a_file_that_is_no_export_is_not_an_audit_that_is_not_whole(tmp_path):
    (tmp_path / "audit.jsonl").write_text('{"action": "x"}\n')
    assert await asyncio.to_thread(main, ["audit", "verify", "--export", str(tmp_path / "audit.jsonl")]) == 2


def test_a_fault_that_breaks_the_chain_is_told_after_any_number_of_unproven_checkpoints():
    at = datetime(2026, 1, 1, tzinfo=UTC)
    many = [audit_chain.Checkpoint(0, audit_chain.NO_HASH, at, "ed25519", "0" * 16, b"") for _ in range(1500)]
    walk = ChainWalk([*many, replace(many[0], seal=5)], Verifier({}, None))
    walk.end()
    told = Verification(0, walk.head, 0, walk.checkpoints, tuple(walk.faults))
    assert told.verdict is Verdict.NOT_WHOLE
    unproven = Verification(0, walk.head, 0, 1, (Fault("checkpoint 1", "checkpoint_unproven", ""),))
    assert unproven.verdict is Verdict.UNPROVEN


def test_the_hash_takes_in_every_column_but_the_chain_itself():
    from authz_service.store.tables import audit as table

    row = audit.read_row(dict.fromkeys(table.c.keys()) | {"nodes": [], "details": {}, "at": _epoch()})
    first = row_hash(audit_chain.NO_HASH, 1, row)
    assert first == row_hash(audit_chain.NO_HASH, 1, row)
    assert first != row_hash(bytes(31) + b"\x01", 1, row)
    assert first != row_hash(audit_chain.NO_HASH, 2, row)
    assert {column.name for column in table.c} - {"seal", "hash", "prev_hash"} == {
        "id", "at", "actor_token", "actor_user", "action", "subject", "details", "nodes", "revision",
    }  # fmt: skip
    assert isinstance(Link(row, 1, first, audit_chain.NO_HASH), Link)


def _epoch():
    return datetime(2026, 1, 1, tzinfo=UTC)


async def test_a_statement_that_fails_does_not_end_the_sealing(whole_stage):
    metrics = whole_stage.app.state.serving.metrics
    async with whole_stage.database.transaction() as conn:
        await conn.execute(text("alter table audit rename column prev_hash to gone"))
    await changes(whole_stage, 3)
    async with asyncio.timeout(20):
        while not metrics.part_failures.labels("audit")._value.get():
            await asyncio.sleep(0.05)
    async with whole_stage.database.transaction() as conn:
        await conn.execute(text("alter table audit rename column gone to prev_hash"))
    unsealed = 3
    async with asyncio.timeout(20):
        while unsealed:
            async with whole_stage.database.read() as conn:
                found = await conn.execute(text("select count(*) from audit where hash is null"))
                unsealed = found.scalar_one()
            await asyncio.sleep(0.05)
