"""What a sync finds to change, and the file that it goes on from."""

from __future__ import annotations

import json
import os

import pytest

from authz_service.sync.compare import compare, find_missing
from authz_service.sync.errors import StateFileError, StrangeAnswerError, TooManyDeletionsError
from authz_service.sync.here import read_export
from authz_service.sync.journal import LONGEST_AGE, Journal, Subject
from authz_service.sync.records import Member, Person, Picture, Place
from authz_service.sync.running import pieces


def here(*lines: dict):
    return read_export("\n".join(map(json.dumps, lines)).encode())


def user(number: str, name: str, **given) -> dict:
    usual = {"state": "active", "admin": False, "external": False, "service_account": False, "namespace_id": None}
    return {"type": "user", "username": name, "external_id": number} | usual | given


def place(kind: str, number: str | None, path: str | None, **given) -> dict:
    return {"type": kind, "path": path, "external_id": number, "visibility": "private", "archived": False} | given


def member(who: str, where: str, role: str) -> dict:
    return {"type": "membership", "user": who, "node": where, "role": role}


def picture(*places: Place, people: tuple[Person, ...] = (), roles: dict | None = None) -> Picture:
    return Picture(
        people={one.id: one for one in people}, places={one.key: one for one in places}, roles=dict(roles or {})
    )


def group(number: str, path: str, **given) -> Place:
    return Place("group", number, path, "private", **given)


def project(number: str, path: str, **given) -> Place:
    return Place("project", number, path, "private", **given)


def said(found) -> list[tuple[str, str, str]]:
    return [(one.how, one.kind, one.name) for one in found.changes]


def test_what_is_the_same_is_not_said_again():
    dana = Person("7", "dana", "active", admin=False)
    known = here(user("7", "dana"), place("group", "1", "acme"), member("user:7", "group:1", "owner"))
    seen = picture(group("1", "acme"), people=(dana,), roles={("7", ("group", "1")): "owner"})
    assert compare(seen, known, None, ()).changes == []


def test_what_lies_in_a_renamed_group_is_not_said_to_have_moved():
    known = here(place("group", "1", "acme"), place("group", "2", "acme/shop"), place("project", "3", "acme/shop/web"))
    seen = picture(group("1", "globex"), group("2", "globex/shop"), project("3", "globex/shop/web"))
    assert said(compare(seen, known, None, ())) == [("changed", "group", "globex")]


@pytest.mark.parametrize(
    ("before", "after"), [("acme/shop", "shop"), ("shop", "acme/shop"), ("acme/shop", "acme/Shop"), (None, "shop")]
)
def test_a_move_is_found_also_from_and_to_the_top(before, after):
    known = here(place("group", "1", "acme"), place("group", "2", before))
    [change] = compare(picture(group("1", "acme"), group("2", after)), known, None, ()).changes
    assert (change.name, change.line["path"], change.line["external_id"]) == (after, after, "2")


def test_parents_come_before_what_lies_in_them_and_deletions_last():
    known = here(place("group", "9", "old"), place("project", "8", "old/x"))
    seen = picture(project("3", "a/b/c"), group("2", "a/b"), group("1", "a"))
    assert said(compare(seen, known, None, ())) == [
        ("created", "group", "a"),
        ("created", "group", "a/b"),
        ("created", "project", "a/b/c"),
        ("deleted", "project", "old/x"),
        ("deleted", "group", "old"),
    ]


def test_members_of_what_could_not_be_read_keep_what_they_have():
    known = here(user("7", "dana"), place("project", "3", "acme/web"), member("user:7", "project:3", "owner"))
    seen = picture(group("1", "acme"), project("3", "acme/web"), people=(Person("7", "dana"),))
    assert ("deleted", "membership", "dana at acme/web") in said(compare(seen, known, None, ()))
    seen.unread.add(("project", "3"))
    assert all(kind != "membership" for _, kind, _ in said(compare(seen, known, None, ())))


def test_only_what_has_an_id_of_the_upstream_is_ever_missing():
    known = here(
        user("7", "dana"),
        user(None, "root") | {"external_id": None},
        place("group", None, "local"),
        place("group", "1", "acme"),
        place("group", "2", "other"),
        member("user:7", "group:1", "owner"),
    )
    assert set(find_missing(picture(), known, None)) == {("group", "1"), ("group", "2"), ("user", "7")}
    assert set(find_missing(picture(), known, {"1"})) == {("group", "1"), ("user", "7")}
    assert find_missing(picture(), known, {"3"}) == []


@pytest.mark.parametrize(("most", "refused"), [(0, True), (24.9, True), (25, False), (100, False)])
def test_the_share_that_may_go_is_counted_for_each_kind(most, refused):
    known = here(
        *(place("group", str(one), f"g{one}") for one in range(4)), *(user(str(one), f"u{one}") for one in range(90))
    )
    people = tuple(Person(str(one), f"u{one}") for one in range(90))
    found = compare(picture(*(group(str(one), f"g{one}") for one in range(3)), people=people), known, None, ())
    if refused:
        with pytest.raises(TooManyDeletionsError, match=r"1 of 4 groups \(25 %\)"):
            found.check_deletions(most)
    else:
        found.check_deletions(most)


def test_names_that_only_look_like_paths_are_left_out():
    bad = ["../etc", "a//b", "a/..", "-x", "ünï", "a b", "", "a/" * 21 + "b", "12"]
    found = compare(picture(*(group(str(one), path) for one, path in enumerate(bad))), here(), None, ())
    assert found.changes == []
    assert len(found.left_out) == len(bad)


@pytest.mark.parametrize("text", ["{", "[]", '{"type": "user", "state": 1}', '{"path": "x"}', "\ufffd", '"x"'])
def test_what_is_no_export_is_refused(text):
    with pytest.raises(StrangeAnswerError):
        read_export(text.encode())


def test_a_large_import_comes_in_pieces_that_keep_their_order():
    seen = picture(*(group(str(one), f"g{one}") for one in range(25)))
    changes = compare(seen, here(), None, ()).changes
    found = list(pieces(changes, most_lines=10))
    assert [len(body.splitlines()) for _, body in found] == [10, 10, 5]
    assert [one for part, _ in found for one in part] == changes


# the file

SUBJECT = Subject("gitlab", "https://gitlab.test", (), "default")
MEMBER = Member("group", "1", "7", "owner", 50)


def test_a_page_is_there_again_and_half_a_line_is_not(tmp_path):
    path = tmp_path / "own" / "state"
    with Journal(path, SUBJECT, now=1000.0) as journal:
        journal.add("members/group/1", [MEMBER], "page=2")
        journal.add("members/group/1", [MEMBER], None)
        journal.add("members/group/2", [], "page=2")
        journal.add("confirm/user/7", [], None, absent=True)
    with path.open("ab") as file:
        file.write(b'{"type":"page","stream":"members/group/2","rec')
    for _ in range(2):
        with Journal(path, SUBJECT, now=2000.0) as journal:
            assert journal.resumed == 4
            first, second = journal.pages["members/group/1"], journal.pages["members/group/2"]
            assert (first.records, first.done, first.next) == ([MEMBER, MEMBER], True, None)
            assert (second.records, second.done, second.next) == ([], False, "page=2")
            assert journal.pages["confirm/user/7"].absent
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("broken", [b"\0" * 40, b"{}\n", b'{"type":"page","stream":7}\n', b"\xff\xfe\n"])
def test_whatever_follows_a_broken_line_is_fetched_again(tmp_path, broken):
    path = tmp_path / "state"
    with Journal(path, SUBJECT, now=1000.0) as journal:
        journal.add("users", [MEMBER], None)
    whole = path.read_bytes()
    path.write_bytes(whole + broken + whole.splitlines(keepends=True)[1])
    with Journal(path, SUBJECT, now=1000.0) as journal:
        assert journal.resumed == 1
        journal.add("groups", [], None)
    with Journal(path, SUBJECT, now=1000.0) as journal:
        assert set(journal.pages) == {"users", "groups"}


@pytest.mark.parametrize(("now", "fresh", "pages"), [(1000 + LONGEST_AGE - 1, False, 1), (1000 + LONGEST_AGE, False, 0), (999.0, False, 0), (1000.0, True, 0)])  # fmt: skip  # noqa: E501
def test_what_is_too_old_or_not_wanted_is_forgotten(tmp_path, now, fresh, pages):
    path = tmp_path / "state"
    with Journal(path, SUBJECT, now=1000.0) as journal:
        journal.add("users", [], None)
    with Journal(path, SUBJECT, now=now, fresh=fresh) as journal:
        assert journal.resumed == pages


def test_a_file_of_another_sync_or_of_others_is_not_used(tmp_path):
    path = tmp_path / "state"
    with Journal(path, SUBJECT, now=1000.0), pytest.raises(StateFileError, match="another sync uses"):
        Journal(path, SUBJECT, now=1000.0)
    with pytest.raises(StateFileError, match="of another sync"):
        Journal(path, Subject("gitlab", "https://other.test", (), "default"), now=1000.0)
    path.chmod(0o640)
    with pytest.raises(StateFileError, match="not yours alone"):
        Journal(path, SUBJECT, now=1000.0)
    path.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(StateFileError):
        Journal(link, SUBJECT, now=1000.0)
    with pytest.raises(StateFileError):
        Journal(tmp_path, SUBJECT, now=1000.0)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(StateFileError, match="not yours alone"):
        Journal(tmp_path / "pipe", SUBJECT, now=1000.0)
