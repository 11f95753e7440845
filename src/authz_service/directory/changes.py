"""Lines of a directory import, from NDJSON to values. Pure: what they refer to is found later, by the plan."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from authz_service.directory.lines import (
    DeleteLine,
    DeleteMembershipLine,
    Faults,
    Line,
    LinkedUser,
    MembershipLine,
    MoveLine,
    PlaceLine,
    UserLine,
)
from authz_service.directory.model import (
    MAX_ID_LENGTH,
    SEGMENT,
    Attributes,
    NodeKind,
    Scalar,
    TargetText,
    UserState,
    Visibility,
    is_path,
    parse_target,
)

__all__ = ["Line", "parse_import", "parse_lines"]

MAX_LINES: Final = 1_000_000
MAX_LINE_BYTES: Final = 64 * 1024
MAX_ATTRIBUTES: Final = 64

_SOURCE: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_ROLE: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_EXTERNAL_ID: Final = re.compile(rf"[!-~]{{1,{MAX_ID_LENGTH}}}")
_ATTRIBUTE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MAX_ATTRIBUTE_TEXT: Final = 1024
_INT64: Final = range(-(2**63), 2**63)
# Rule C5: what decides about people and places is said by its own field, never by an attribute.
_NEVER_ATTRIBUTES: Final = frozenset({"role", "admin", "state", "membership", "visibility"})


class _Wire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    source: str | None = None


class _User(_Wire, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="user"):
    username: str
    external_id: str | None = None
    state: UserState | UnsetType = UNSET
    admin: bool | UnsetType = UNSET
    external: bool | UnsetType = UNSET
    service_account: bool | UnsetType = UNSET
    namespace_id: str | UnsetType | None = UNSET
    home: str | UnsetType | None = UNSET
    same_as: str | UnsetType | None = UNSET
    attributes: dict[str, str | int | bool] | UnsetType = UNSET


class _Place(_Wire, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    path: str
    external_id: str | None = None
    visibility: Literal["public", "internal", "private"] | UnsetType = UNSET
    attributes: dict[str, str | int | bool] | UnsetType = UNSET
    archived: bool | UnsetType = UNSET


class _Group(_Place, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="group"):
    pass


class _Project(_Place, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="project"):
    pass


class _Membership(_Wire, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="membership"):
    user: str
    node: str
    role: str


class _Delete(_Wire, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="delete"):
    what: Literal["user", "group", "project", "membership"]
    user: str | None = None
    node: str | None = None
    external_id: str | None = None


class _Move(_Wire, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="move"):
    node: str
    to: str | None


_AnyWire: TypeAlias = _User | _Group | _Project | _Membership | _Delete | _Move


def parse_import(body: bytes) -> tuple[Line, ...]:
    """Parse a whole NDJSON body. Raises InvalidInputError with every line's faults (`line 7`, counted from 1)."""
    return parse_lines(body.split(b"\n"))


def parse_lines(lines: Iterable[bytes]) -> tuple[Line, ...]:
    """Like `parse_import`, of lines as they stream in. Blank lines are skipped, and counted."""
    faults = Faults()
    parsed: list[Line] = []
    for number, text in enumerate(lines, start=1):
        if number > MAX_LINES:
            faults.add(number, "too_many_lines", f"an import takes {MAX_LINES} lines; send the rest in another")
            break
        if not text.strip():
            continue
        line = _parse_line(number, text, faults)
        if line is not None:
            parsed.append(line)
    faults.raise_any("; what the lines name is looked up once all are well written, and may have faults of its own")
    return tuple(parsed)


class _OddJsonError(ValueError):
    """Something that JSON parsers disagree on."""


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _OddJsonError(f"the field `{twice}` is given twice; keep one")
    return found


def _no_constants(text: str) -> None:
    raise _OddJsonError(f"`{text}` is no JSON; use a whole number or a text")


def _parse_line(number: int, text: bytes, faults: Faults) -> Line | None:
    if len(text) > MAX_LINE_BYTES:
        faults.add(number, "line_too_long", f"the line is longer than {MAX_LINE_BYTES} bytes")
        return None
    try:
        value = json.loads(text.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constants)
    except _OddJsonError as odd:
        faults.add(number, "invalid_json", str(odd))
        return None
    except (ValueError, RecursionError):
        faults.add(number, "invalid_json", "the line is no JSON object in UTF-8; write one change a line")
        return None
    try:
        wire: _AnyWire = msgspec.convert(value, _AnyWire, strict=True)
    except msgspec.ValidationError as error:
        faults.add(number, "invalid_field", _in_plain_words(str(error)))
        return None
    reader = _Reader(number, faults)
    line = _READERS[type(wire)](reader, wire)
    return line if reader.good else None


# msgspec names the types it wants as Python does.
_TYPES: Final = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number with a fraction",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_TYPE_NAMES: Final = re.compile(r"`((?:str|int|float|bool|array|object|null)(?: \| \w+)*)`")
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")
_PLACE: Final = re.compile(r" - at (?:`key` in )?`\$\.?([^`]*)`$")


def _in_plain_words(message: str) -> str:
    message = _TYPE_NAMES.sub(lambda found: " or ".join(_TYPES[name] for name in found[1].split(" | ")), message)
    message = _MISSING.sub(r"the field `\1` is missing", message).replace("Object contains unknown", "there is no")
    place = _PLACE.search(message)
    if place:
        message = message[: place.start()] + (f" at `{place[1]}`" if place[1] else "")
    message = message.replace("'", "`")
    message = message if len(message) <= 300 else f"{message[:300]}…"
    return message[:1].lower() + message[1:]


@dataclass(slots=True)
class _Reader:
    """Turns a line's texts into values, and goes on after a fault, so that all of a line's faults are found."""

    number: int
    faults: Faults
    good: bool = True

    def _fault(self, code: str, message: str) -> None:
        self.good = False
        self.faults.add(self.number, code, message)

    def source(self, text: str | None) -> str | None:
        if text is not None and not _SOURCE.fullmatch(text):
            self._fault("invalid_source", f"`{_shown(text)}` is no source; use lower-case letters, digits, `_` and `-`")
        return text

    def external_id(self, text: str | None, what: str = "external_id") -> str | None:
        if text is not None and not _EXTERNAL_ID.fullmatch(text):
            self._fault(
                "invalid_id",
                f"`{_shown(text)}` is no {what}; use 1 to {MAX_ID_LENGTH} printable ASCII characters without spaces",
            )
        return text

    def username(self, text: str) -> str:
        if not SEGMENT.fullmatch(text) or not is_path(text) or text.isdigit():
            self._fault(
                "invalid_name",
                f"`{_shown(text)}` is no username; use ASCII letters, digits, `_`, `.` and `-`, not digits alone",
            )
        return text

    def path(self, text: str, kind: NodeKind) -> str:
        if not is_path(text) or text.isdigit():
            self._fault(
                "invalid_path",
                f"`{_shown(text)}` is no path; use at most 21 names between slashes, each of ASCII letters, digits, "
                "`_`, `.` and `-`, and more than digits alone",
            )
        elif kind is NodeKind.PROJECT and "/" not in text:
            self._fault("invalid_path", f"`{text}` has no parent; a project lies in a group or in a user's namespace")
        return text

    def role(self, text: str) -> str:
        if not _ROLE.fullmatch(text):
            self._fault("invalid_role", f"`{_shown(text)}` is no role; use lower-case letters, digits, `_` and `-`")
        return text

    def attributes(self, given: Mapping[str, Scalar] | UnsetType) -> Attributes | UnsetType:
        if given is UNSET:
            return UNSET
        if len(given) > MAX_ATTRIBUTES:
            self._fault("invalid_attributes", f"there are more than {MAX_ATTRIBUTES} attributes")
        for name, value in given.items():
            if not _ATTRIBUTE.fullmatch(name):
                self._fault(
                    "invalid_attributes",
                    f"`{_shown(name)}` is no attribute's name; use lower-case letters, digits and `_`",
                )
            elif name in _NEVER_ATTRIBUTES:
                self._fault("invalid_attributes", f"`{name}` is no attribute; say it in a field or line of its own")
            elif not _is_storable(value):
                self._fault(
                    "invalid_attributes",
                    f"the attribute `{name}` has a value that cannot be stored; use true, false, a whole number of 64 "
                    f"bits or up to {_MAX_ATTRIBUTE_TEXT} printable characters",
                )
        return given

    def target(self, text: str) -> TargetText:
        """A place: `acme/platform`, `group:12`, `project:42`; a bare path is of any kind."""
        target = parse_target(text)
        if target is None or target.kind is NodeKind.INSTANCE:
            self._fault(
                "invalid_target",
                f"`{_shown(text)}` names no place; write a path, or a kind and an id, as `group:12`",
            )
            return _NOWHERE
        return target

    def reference(self, text: str, kind: NodeKind) -> TargetText:
        """A thing whose kind is known: `dana`, `user:dana`, and digits are an external id."""
        target = parse_target(text if ":" in text else f"{kind.value}:{text}")
        if target is None or target.kind is not kind:
            self._fault("invalid_target", f"`{_shown(text)}` names no {kind.value}")
            return _NOWHERE
        return target

    def linked(self, text: str) -> LinkedUser:
        source, colon, user = text.partition(":")
        if not colon or not _SOURCE.fullmatch(source):
            self._fault(
                "invalid_target", f"`{_shown(text)}` names no user of a source; write it as `gitlab:dana` or `gitlab:7`"
            )
            return LinkedUser("", _NOWHERE)
        return LinkedUser(source, self.reference(user, NodeKind.USER))

    def user_line(self, wire: _User) -> Line:
        home = wire.home
        same_as = wire.same_as
        return UserLine(
            number=self.number,
            source=self.source(wire.source),
            username=self.username(wire.username),
            external_id=self.external_id(wire.external_id),
            state=wire.state,
            admin=wire.admin,
            external=wire.external,
            service_account=wire.service_account,
            namespace_id=UNSET if wire.namespace_id is UNSET else self.external_id(wire.namespace_id, "namespace_id"),
            home=self.reference(home, NodeKind.GROUP) if isinstance(home, str) else home,
            same_as=self.linked(same_as) if isinstance(same_as, str) else same_as,
            attributes=self.attributes(wire.attributes),
        )

    def place_line(self, wire: _Place) -> Line:
        kind = NodeKind.GROUP if isinstance(wire, _Group) else NodeKind.PROJECT
        visibility = wire.visibility
        return PlaceLine(
            number=self.number,
            source=self.source(wire.source),
            kind=kind,
            path=self.path(wire.path, kind),
            external_id=self.external_id(wire.external_id),
            visibility=UNSET if visibility is UNSET else Visibility[visibility.upper()],
            archived=wire.archived,
            attributes=self.attributes(wire.attributes),
        )

    def membership_line(self, wire: _Membership) -> Line:
        return MembershipLine(
            number=self.number,
            source=self.source(wire.source),
            user=self.reference(wire.user, NodeKind.USER),
            node=self._member_place(wire.node),
            role=self.role(wire.role),
        )

    def delete_line(self, wire: _Delete) -> Line:
        source = self.source(wire.source)
        said = {name for name in ("user", "node", "external_id") if getattr(wire, name) is not None}
        if wire.what == "membership":
            if said != {"user", "node"}:
                self._fault("invalid_field", "to delete a membership, say `user` and `node`")
            return DeleteMembershipLine(
                number=self.number,
                source=source,
                user=self.reference(wire.user, NodeKind.USER) if wire.user is not None else _NOWHERE,
                node=self._member_place(wire.node) if wire.node is not None else _NOWHERE,
            )
        kind = NodeKind(wire.what)
        by_name = "user" if kind is NodeKind.USER else "node"
        what = _NOWHERE
        if len(said) != 1 or not said <= {by_name, "external_id"}:
            self._fault("invalid_field", f"to delete a {wire.what}, say either `{by_name}` or `external_id`")
        elif wire.external_id is not None:
            what = TargetText(kind, external_id=self.external_id(wire.external_id))
        else:
            what = self.reference(wire.user or wire.node or "", kind)
        return DeleteLine(number=self.number, source=source, what=what)

    def move_line(self, wire: _Move) -> Line:
        node = self.target(wire.node)
        if node.kind is NodeKind.USER:
            self._fault("invalid_target", f"`{_shown(wire.node)}` is a user; only groups and projects can move")
        return MoveLine(
            number=self.number,
            source=self.source(wire.source),
            node=node,
            to=None if wire.to is None else self.target(wire.to),
        )

    def _member_place(self, text: str) -> TargetText:
        node = self.target(text)
        if node.kind is NodeKind.USER:
            self._fault("invalid_target", f"`{_shown(text)}` is a user; people are members of groups and projects")
        return node


_NOWHERE: Final = TargetText(None)

_READERS: Final[Mapping[type, Callable[[_Reader, Any], Line]]] = {
    _User: _Reader.user_line,
    _Group: _Reader.place_line,
    _Project: _Reader.place_line,
    _Membership: _Reader.membership_line,
    _Delete: _Reader.delete_line,
    _Move: _Reader.move_line,
}


def _is_storable(value: Scalar) -> bool:
    if isinstance(value, str):
        # A NUL or half a surrogate pair is no text to PostgreSQL, and no such character prints.
        return len(value) <= _MAX_ATTRIBUTE_TEXT and value.isprintable()
    return isinstance(value, bool) or value in _INT64


def _shown(text: str) -> str:
    """A text from a stranger, short enough and harmless in a message."""
    clean = text.encode("ascii", "backslashreplace").decode()
    clean = "".join(letter if letter.isprintable() and letter != "`" else "?" for letter in clean)
    return clean if len(clean) <= 80 else f"{clean[:80]}…"
