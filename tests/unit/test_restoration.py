from __future__ import annotations

import json

import pytest

from authz_service.admin.restoration import read_revoked
from authz_service.errors import InvalidInputError
from authz_service.tokens.secret import new_token_id

ONE, TWO, THREE = (new_token_id() for _ in range(3))


def line(**entry: object) -> bytes:
    return json.dumps({"action": "token.revoke", "subject": ONE, "details": {}, "at": "2026-11-21", **entry}).encode()


def test_the_subject_of_a_revoke_was_revoked_and_all_that_its_details_name():
    assert read_revoked([line(details={"also": [TWO, THREE]})]) == [ONE, TWO, THREE]


def test_an_import_names_the_tokens_of_the_users_it_deleted():
    entry = line(action="directory.import", subject="source:default", details={"revoked": [TWO]})
    assert read_revoked([entry]) == [TWO]


def test_other_entries_revoke_nothing():
    assert read_revoked([line(action="token.create"), line(action="catalog.install", subject="gitlab@2")]) == []


def test_what_comes_twice_is_named_once():
    assert read_revoked([line(), b"", line(details={"also": [ONE]})]) == [ONE]


def test_what_is_no_token_id_is_passed_over():
    assert read_revoked([line(subject="tok_; drop table", details={"also": [7, None, "x"], "revoked": "all"})]) == []


@pytest.mark.parametrize("broken", [b"{", b"[]", b"7", b'{"action": "token.revoke"}', b"\xff"])
def test_every_line_that_is_no_entry_is_named(broken):
    with pytest.raises(InvalidInputError) as caught:
        read_revoked([line(), broken, line(), broken])
    assert [fault.where for fault in caught.value.faults] == ["line 2", "line 4"]
