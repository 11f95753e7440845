from __future__ import annotations

import json

import pytest
from msgspec import UNSET

from authz_service.directory import changes
from authz_service.directory.changes import parse_import
from authz_service.directory.lines import (
    DeleteLine,
    DeleteMembershipLine,
    LinkedUser,
    MembershipLine,
    MoveLine,
    PlaceLine,
    UserLine,
)
from authz_service.directory.model import NodeKind, TargetText, UserState, Visibility
from authz_service.errors import Fault, InvalidInputError


def user(**said) -> dict:
    return {"type": "user", "username": "dana", **said}


def group(**said) -> dict:
    return {"type": "group", "path": "acme", **said}


def parse(*lines: dict):
    return parse_import(b"\n".join(json.dumps(line).encode() for line in lines))


def faults_of(body: bytes | dict) -> tuple[Fault, ...]:
    with pytest.raises(InvalidInputError) as caught:
        parse_import(body if isinstance(body, bytes) else json.dumps(body).encode())
    return caught.value.faults


def codes_of(body: bytes | dict) -> list[str]:
    return [fault.code for fault in faults_of(body)]


def test_a_user_line_is_read_whole():
    (line,) = parse(
        user(
            external_id="7",
            state="blocked",
            admin=True,
            external=True,
            service_account=True,
            namespace_id="107",
            home="acme/bots",
            same_as="github:9",
            source="gitlab",
            attributes={"team": "red", "level": 3, "oncall": False},
        )
    )
    assert line == UserLine(
        number=1,
        source="gitlab",
        username="dana",
        external_id="7",
        state=UserState.BLOCKED,
        admin=True,
        external=True,
        service_account=True,
        namespace_id="107",
        home=TargetText(NodeKind.GROUP, path="acme/bots"),
        same_as=LinkedUser("github", TargetText(NodeKind.USER, external_id="9")),
        attributes={"team": "red", "level": 3, "oncall": False},
    )


def test_what_a_line_does_not_say_is_told_from_what_it_clears():
    silent, clearing = parse(user(), user(home=None, namespace_id=None, same_as=None))
    assert (silent.home, silent.namespace_id, silent.same_as, silent.admin) == (UNSET, UNSET, UNSET, UNSET)
    assert (clearing.home, clearing.namespace_id, clearing.same_as) == (None, None, None)


def test_places_memberships_moves_and_deletions_are_read():
    lines = parse(
        group(external_id="12", visibility="internal"),
        {"type": "project", "path": "acme/web", "archived": True, "attributes": {"tier": 1}},
        {"type": "membership", "user": "dana", "node": "group:12", "role": "developer"},
        {"type": "move", "node": "acme/web", "to": "user:dana"},
        {"type": "move", "node": "group:12", "to": None},
        {"type": "delete", "what": "membership", "user": "7", "node": "acme"},
        {"type": "delete", "what": "user", "user": "dana"},
        {"type": "delete", "what": "project", "external_id": "R_kgDO=="},
        {"type": "delete", "what": "group", "node": "12"},
    )
    assert lines == (
        PlaceLine(number=1, kind=NodeKind.GROUP, path="acme", external_id="12", visibility=Visibility.INTERNAL),
        PlaceLine(number=2, kind=NodeKind.PROJECT, path="acme/web", archived=True, attributes={"tier": 1}),
        MembershipLine(
            number=3,
            user=TargetText(NodeKind.USER, path="dana"),
            node=TargetText(NodeKind.GROUP, external_id="12"),
            role="developer",
        ),
        MoveLine(number=4, node=TargetText(None, path="acme/web"), to=TargetText(NodeKind.USER, path="dana")),
        MoveLine(number=5, node=TargetText(NodeKind.GROUP, external_id="12"), to=None),
        DeleteMembershipLine(
            number=6, user=TargetText(NodeKind.USER, external_id="7"), node=TargetText(None, path="acme")
        ),
        DeleteLine(number=7, what=TargetText(NodeKind.USER, path="dana")),
        DeleteLine(number=8, what=TargetText(NodeKind.PROJECT, external_id="R_kgDO==")),
        DeleteLine(number=9, what=TargetText(NodeKind.GROUP, external_id="12")),
    )


def test_blank_lines_are_skipped_and_counted():
    lines = parse_import(b'\n{"type":"user","username":"dana"}\r\n\n \n{"type":"group","path":"acme"}\n')
    assert [line.number for line in lines] == [2, 5]


def test_an_empty_import_is_no_fault():
    assert parse_import(b"") == ()


def test_every_faulty_line_is_named():
    body = b'{"type":"user"}\n{"type":"group","path":"acme"}\nnonsense\n'
    body += b'{"type":"group","path":"a//b","external_id":"1 2"}\n'
    assert [(fault.where, fault.code) for fault in faults_of(body)] == [
        ("line 1", "invalid_field"),
        ("line 3", "invalid_json"),
        ("line 4", "invalid_path"),
        ("line 4", "invalid_id"),
    ]


def test_who_wrote_lines_badly_is_told_that_more_may_follow():
    with pytest.raises(InvalidInputError, match="1 fault; nothing was stored; what the lines name is looked up once"):
        parse_import(b"nonsense\n")


def test_very_many_faults_are_counted_and_the_first_are_named():
    with pytest.raises(InvalidInputError, match="1500 faults, the first 1000 are named") as caught:
        parse_import(b"x\n" * 1500)
    assert len(caught.value.faults) == 1000


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "d\u0430na",
        "d\u00e4na",
        "-dana",
        "da na",
        "dana\n",
        "dana\0",
        "x" * 256,
        "123",
        "~1",
        "a%2fb",
    ],
)
def test_a_name_that_could_pass_for_another_is_refused(name: str):
    assert codes_of(user(username=name)) == ["invalid_name"]


@pytest.mark.parametrize("path", ["", "/acme", "acme/", "a//b", "a/../b", "42", "a/\u0430", "/".join("a" * 22)])
def test_a_path_that_is_not_canonical_is_refused(path: str):
    assert codes_of(group(path=path)) == ["invalid_path"]


def test_a_project_at_the_top_is_refused():
    assert codes_of({"type": "project", "path": "web"}) == ["invalid_path"]


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'"user"',
        b"{",
        b'{"type":"user","username":"dana"} {}',
        b'{"type":"user","username":"dana"',
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"type":"user","username":"dana","attributes":{"x":NaN}}',
        b'{"type":"user","username":"dana","username":"erin"}',
        b'{"type":"user","username":"dana","attributes":{"x":1,"x":2}}',
        b'{"type":"user","username":"dana","attributes":{"x":' + b"9" * 5000 + b"}}",
    ],
)
def test_odd_json_is_refused(body: bytes):
    assert codes_of(body)[0] in {"invalid_json", "invalid_field"}


def test_a_field_given_twice_is_named():
    (fault,) = faults_of(b'{"type":"user","username":"dana","admin":false,"admin":true}')
    assert (fault.code, "`admin`" in fault.message) == ("invalid_json", True)


@pytest.mark.parametrize(
    "line",
    [
        user(unknown=1),
        user(external_id=7),
        user(admin="yes"),
        user(admin=1),
        user(state="asleep"),
        user(username=None),
        user(attributes={"x": 1.5}),
        user(attributes={"x": None}),
        user(attributes={"x": ["y"]}),
        group(visibility="secret"),
        group(admin=True),
        {"type": "nothing"},
        {"type": "membership", "user": "dana", "node": "acme"},
        {"type": "move", "node": "acme"},
        {"type": "delete", "what": "everything"},
        {"type": "delete", "what": "user"},
        {"type": "delete", "what": "user", "node": "acme"},
        {"type": "delete", "what": "user", "user": "dana", "external_id": "7"},
        {"type": "delete", "what": "membership", "user": "dana"},
        {},
    ],
)
def test_a_field_of_another_kind_is_refused(line: dict):
    assert codes_of(line) == ["invalid_field"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (user(source="Git Lab"), "invalid_source"),
        (user(external_id=""), "invalid_id"),
        (user(external_id="x" * 65), "invalid_id"),
        (user(namespace_id="\u0661"), "invalid_id"),
        (user(home="project:acme/web"), "invalid_target"),
        (user(same_as="dana"), "invalid_target"),
        (user(same_as="gitlab:group:7"), "invalid_target"),
        ({"type": "membership", "user": "dana", "node": "acme", "role": "Developer"}, "invalid_role"),
        ({"type": "membership", "user": "dana", "node": "user:erin", "role": "guest"}, "invalid_target"),
        ({"type": "membership", "user": "dana", "node": "instance", "role": "admin"}, "invalid_target"),
        ({"type": "membership", "user": "dana", "node": "42", "role": "guest"}, "invalid_target"),
        ({"type": "membership", "user": "group:7", "node": "acme", "role": "guest"}, "invalid_target"),
        ({"type": "move", "node": "user:dana", "to": "acme"}, "invalid_target"),
        ({"type": "move", "node": "instance", "to": "acme"}, "invalid_target"),
        ({"type": "delete", "what": "project", "node": "group:acme"}, "invalid_target"),
    ],
)
def test_what_names_nothing_is_refused(line: dict, code: str):
    assert codes_of(line) == [code]


@pytest.mark.parametrize("name", ["role", "admin", "state", "membership", "visibility"])
def test_no_attribute_says_what_decides(name: str):
    assert codes_of(user(attributes={name: "x"})) == ["invalid_attributes"]


@pytest.mark.parametrize(
    "attributes",
    [
        {"Upper": 1},
        {"": 1},
        {"x" * 65: 1},
        {"x": "nul\0"},
        {"x": "\ud800"},
        {"x": "y" * 1025},
        {"x": 2**63},
        {f"x{number}": 1 for number in range(65)},
    ],
)
def test_attributes_that_cannot_be_stored_are_refused(attributes: dict):
    assert codes_of(group(attributes=attributes)) == ["invalid_attributes"]


def test_a_line_too_long_is_refused_unread():
    assert codes_of(b'{"x":"' + b"y" * changes.MAX_LINE_BYTES + b'"}') == ["line_too_long"]


def test_too_many_lines_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(changes, "MAX_LINES", 2)
    assert codes_of(b'{"type":"user","username":"dana"}\n' * 3) == ["too_many_lines"]


def test_messages_hold_no_names_of_python_and_no_control_characters():
    body = b"\n".join(
        json.dumps(line).encode()
        for line in (
            user(external_id=7),
            user(username="\x1b[31m`x`\u202e"),
            user(attributes={"x": 1.5}),
            group(path=7),
        )
    )
    for fault in faults_of(body):
        assert fault.message.isprintable()
        assert fault.message[0].islower() or fault.message[0] == "`"
        assert not fault.message.endswith(".")
        assert "`str`" not in fault.message
        assert "`int`" not in fault.message


def test_a_long_text_of_a_stranger_is_cut():
    (fault,) = faults_of(user(username="!" * 60_000))
    assert len(fault.message) < 400
