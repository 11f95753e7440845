"""What the lines of a directory import say, as values, and how their faults are collected. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from msgspec import UNSET, UnsetType

from authz_service.directory.model import Attributes, NodeKind, TargetText, UserState, Visibility
from authz_service.errors import Fault, InvalidInputError

MAX_FAULTS: Final = 1000
"""More are counted, not named: a wrong file of a million lines must not answer with a million faults."""


@dataclass(frozen=True, slots=True)
class LinkedUser:
    """A user of another source, as `same_as` names one."""

    source: str
    user: TargetText


@dataclass(frozen=True, slots=True, kw_only=True)
class UserLine:
    """What a line says of a user. UNSET is what it does not say: unchanged, or the default of a new user."""

    number: int
    source: str | None = None
    username: str
    external_id: str | None = None
    state: UserState | UnsetType = UNSET
    admin: bool | UnsetType = UNSET
    external: bool | UnsetType = UNSET
    service_account: bool | UnsetType = UNSET
    namespace_id: str | UnsetType | None = UNSET
    home: TargetText | UnsetType | None = UNSET
    same_as: LinkedUser | UnsetType | None = UNSET
    attributes: Attributes | UnsetType = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceLine:
    """What a line says of a group or a project; UNSET as in UserLine, and a new place is private."""

    number: int
    source: str | None = None
    kind: NodeKind
    path: str
    external_id: str | None = None
    visibility: Visibility | UnsetType = UNSET
    archived: bool | UnsetType = UNSET
    attributes: Attributes | UnsetType = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipLine:
    """The user's one role at the node from now on: a former one is replaced."""

    number: int
    source: str | None = None
    user: TargetText
    node: TargetText
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteLine:
    """A user, group or project to delete, for ever, with all below it (D2)."""

    number: int
    source: str | None = None
    what: TargetText


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteMembershipLine:
    number: int
    source: str | None = None
    user: TargetText
    node: TargetText


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveLine:
    """A group or project to put under another parent, keeping its name; `to` None is the top."""

    number: int
    source: str | None = None
    node: TargetText
    to: TargetText | None


Line: TypeAlias = UserLine | PlaceLine | MembershipLine | DeleteLine | DeleteMembershipLine | MoveLine


@dataclass(slots=True)
class Faults:
    """Collects the faults of an import by line, and counts those beyond MAX_FAULTS."""

    named: list[Fault] = field(default_factory=list)
    count: int = 0

    def add(self, number: int, code: str, message: str) -> None:
        """One fault of line `number`."""
        self.count += 1
        if len(self.named) < MAX_FAULTS:
            self.named.append(Fault(f"line {number}", code, message))

    def raise_any(self, then: str = "") -> None:
        """Raises InvalidInputError when there is a fault. `then` is what was not looked at because of it."""
        if not self.count:
            return
        many = "1 fault" if self.count == 1 else f"{self.count} faults"
        cut = f", the first {MAX_FAULTS} are named" if self.count > MAX_FAULTS else ""
        raise InvalidInputError(f"the import has {many}{cut}; nothing was stored{then}", faults=self.named)
