"""The directory as the service has it: the lines of its export, read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from authz_service.sync.errors import StrangeAnswerError
from authz_service.sync.records import GROUP, PROJECT, USER, Key

_PLACES: Final = (GROUP, PROJECT)


@dataclass(frozen=True, slots=True)
class Account:
    """A user with an external id."""

    id: str
    username: str | None
    state: str
    admin: bool
    external: bool
    service_account: bool
    namespace_id: str | None


@dataclass(frozen=True, slots=True)
class Spot:
    """A group or project with an external id. `path` is None once it has lost its name."""

    key: Key
    path: str | None
    visibility: str
    archived: bool


@dataclass(slots=True)
class Here:
    """What has external ids: the rest was written by hand, and no sync touches it.

    `paths` has every path there is, in lower case, and what is there: None for what was written by hand.
    """

    accounts: dict[str, Account] = field(default_factory=dict)
    spots: dict[Key, Spot] = field(default_factory=dict)
    roles: dict[tuple[str, Key], str] = field(default_factory=dict)
    deleted: set[Key] = field(default_factory=set)
    paths: dict[str, Key | None] = field(default_factory=dict)

    def parent_of(self, path: str) -> Key | None:
        """What lies above this path, if that has an external id."""
        return self.paths.get(path.lower().rpartition("/")[0])

    def top_of(self, path: str) -> Key | None:
        return self.paths.get(path.lower().partition("/")[0])


def read_export(body: bytes) -> Here:
    """Raises StrangeAnswerError for what is no export."""
    here = Here()
    try:
        for line in body.splitlines():
            _read(msgspec.json.decode(line), here)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise StrangeAnswerError("the service's own directory cannot be read; is it of this version") from error
    return here


def _read(line: Mapping[str, Any], here: Here) -> None:
    kind, external = line["type"], line.get("external_id")
    if kind == USER and "state" in line:
        key = None if external is None else (USER, external)
        if line["username"] is not None:
            here.paths[line["username"].lower()] = key
        if external is not None:
            here.accounts[external] = Account(
                external,
                line["username"],
                line["state"],
                line["admin"],
                line["external"],
                line["service_account"],
                line["namespace_id"],
            )
    elif kind in _PLACES:
        place = None if external is None else (kind, external)
        if line["path"] is not None:
            here.paths[line["path"].lower()] = place
        if place is not None:
            here.spots[place] = Spot(place, line["path"], line["visibility"], line["archived"])
    elif kind == "membership":
        user, node = _by_id(line["user"]), _by_id(line["node"])
        if user is not None and node is not None:
            here.roles[user[1], node] = line["role"]
    elif kind == "delete" and external is not None:
        here.deleted.add((line["what"], external))


def _by_id(target: str) -> Key | None:
    """None for what is named by its path: it has no external id, or none that is a number."""
    kind, _, name = target.partition(":")
    return (kind, name) if name.isascii() and name.isdigit() else None
