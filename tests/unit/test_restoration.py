from __future__ import annotations

import json

import pytest

from authz_service.admin.restoration import read_export
from authz_service.errors import InvalidInputError
from authz_service.tokens.secret import new_token_id

ONE, TWO, THREE = (new_token_id() for _ in range(3))


def line(**entry: object) -> bytes:
    return json.dumps({"action": "token.revoke", "subject": ONE, "details": {}, "at": "2026-11-21", **entry}).encode()


def test_the_subject_of_a_revoke_was_revoked_and_all_that_its_details_name():
    assert read_export([line(details={"also": [TWO, THREE]})]).revoked == [ONE, TWO, THREE]


def test_an_import_names_the_tokens_of_the_users_it_deleted():
    entry = line(action="directory.import", subject="source:default", details={"revoked": [TWO]})
    assert read_export([entry]).revoked == [TWO]


def test_other_entries_revoke_nothing():
    assert read_export([line(action="token.create"), line(action="catalog.install", subject="gitlab@2")]).revoked == []


def test_what_comes_twice_is_named_once():
    assert read_export([line(), b"", line(details={"also": [ONE]})]).revoked == [ONE]


def test_what_is_no_token_id_is_passed_over():
    assert (
        read_export([line(subject="tok_; drop table", details={"also": [7, None, "x"], "revoked": "all"})]).revoked
        == []
    )


@pytest.mark.parametrize("broken", [b"{", b"[]", b"7", b'{"action": "token.revoke"}', b"\xff"])
def test_every_line_that_is_no_entry_is_named(broken):
    with pytest.raises(InvalidInputError) as caught:
        read_export([line(), broken, line(), broken])
    assert [fault.where for fault in caught.value.faults] == ["line 2", "line 4"]


def test_a_leaked_and_a_reused_token_were_revoked_and_a_rotated_one_is_told_apart():
    leak = line(action="token.leak", subject=TWO, details={"revoked": [TWO]})
    reuse = line(action="token.reuse", subject=THREE, details={"family": THREE, "revoked": [THREE]})
    rotated = line(action="token.rotate", details={"by": THREE, "overlap_seconds": 0}, id=7, at="2026-11-21T10:00:00Z")
    export = read_export([leak, reuse, rotated])
    assert export.revoked == [TWO, THREE]
    assert [(one.subject, one.id) for one in export.rotated] == [(ONE, 7)]


def test_what_may_have_taken_something_from_somebody_is_kept_for_review():
    lines = [line(action="policy.set", subject="group:acme", at="2026-11-21T10:00:00Z"), line(action="grant.revoke")]
    assert [one.action for one in read_export(lines).others] == ["policy.set", "grant.revoke"]
    assert read_export([line(action="token.create"), line(action="session.open")]).others == []


@pytest.mark.parametrize("odd", [{"id": "7"}, {"id": -1}, {"id": 1 << 70}, {"at": 7}, {"at": "soon"}, {"at": None}])
def test_an_entry_with_an_odd_number_or_time_is_read_as_one_without(odd):
    [entry] = read_export([line(action="policy.set", **odd)]).others
    assert entry.id is None
    assert entry.at is None
