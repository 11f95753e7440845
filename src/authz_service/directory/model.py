"""Nodes, users, visibility and the text form of a target (rules D1 to D5, C9)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final, TypeAlias

# A node of the directory has a database id. Under `owner_check: upstream` (C9) there is no directory, and
# a node is its text, `project:acme/web`. The two never meet: a catalog uses one form or the other.
NodeId: TypeAlias = int | str

INSTANCE_ID: Final = 1
"""The instance's row in every directory; it is the parent of all for policies (D1)."""

DEFAULT_SOURCE: Final = "default"
MAX_GROUP_DEPTH: Final = 20
"""Groups nest to this depth (D1), so a chain has at most 21 nodes."""

Scalar: TypeAlias = str | int | bool
Attributes: TypeAlias = Mapping[str, Scalar]

SEGMENT: Final = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,254}")
"""One part of a path, or a username: ASCII only, so that no two names look alike."""
_RESERVED_SEGMENTS: Final = frozenset({".", ".."})


class NodeKind(StrEnum):
    """Kinds of node; the same words are the boundaries at which a permission may exist (C1)."""

    PROJECT = "project"
    GROUP = "group"
    USER = "user"
    INSTANCE = "instance"


class Visibility(IntEnum):
    """Ordered from the most closed: the effective visibility is the least on the way up (D1)."""

    PRIVATE = 0
    INTERNAL = 1
    PUBLIC = 2


class UserState(StrEnum):
    """Only an active owner's tokens work; deletion is for ever, unblocking revives (D2)."""

    ACTIVE = "active"
    BLOCKED = "blocked"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Node:
    """One place. `parent` is None for the instance, and for groups and users at the top.

    `visibility` is the node's own; a user's and the instance's is PUBLIC. `name` is the last segment of the path.
    """

    id: NodeId
    kind: NodeKind
    name: str
    parent: NodeId | None = None
    visibility: Visibility = Visibility.PRIVATE
    external_id: str | None = None
    namespace_external_id: str | None = None
    """A user's namespace has an id of its own, in the id space of groups (C3)."""
    archived: bool = False
    attributes: Attributes = field(default_factory=dict)
    source: str = DEFAULT_SOURCE


@dataclass(frozen=True, slots=True)
class User:
    """The account behind a user node (D1). `home` is a service account's home group."""

    id: NodeId
    username: str
    state: UserState = UserState.ACTIVE
    admin: bool = False
    external: bool = False
    service_account: bool = False
    home: NodeId | None = None


@dataclass(frozen=True, slots=True)
class TargetText:
    """A target as written: `kind` None means a bare path.

    Exactly one of `path` and `external_id` is set, and neither for the instance.
    """

    kind: NodeKind | None
    path: str | None = None
    external_id: str | None = None


def parse_target(text: str) -> TargetText | None:
    """Read `acme/platform/api`, `project:acme/web`, `project:42`, `user:dana` or `instance`.

    None when the text names nothing that could exist: an empty or overlong text, bare digits (they could be an id
    of any kind), an unknown kind, a path with an empty, dotted or non-ASCII part. The caller answers it as an
    unknown target. Never normalises: a text that is not canonical names nothing.
    """
    if text == "instance":
        return TargetText(NodeKind.INSTANCE)
    prefix, colon, rest = text.partition(":")
    kind: NodeKind | None = None
    if colon:
        if prefix not in ("project", "group", "user"):
            return None
        kind = NodeKind(prefix)
    else:
        rest = text
    if rest.isascii() and rest.isdigit():
        return TargetText(kind, external_id=rest) if kind is not None and len(rest) <= MAX_ID_LENGTH else None
    if not is_path(rest) or (kind is NodeKind.USER and "/" in rest):
        return None
    return TargetText(kind, path=rest)


MAX_PATH_LENGTH: Final = 1024
MAX_ID_LENGTH: Final = 64


def is_path(text: str) -> bool:
    """Whether the text is a canonical path: at most 21 segments, each ASCII and none of them `.` or `..`."""
    if not text or len(text) > MAX_PATH_LENGTH:
        return False
    segments = text.split("/")
    if len(segments) > MAX_GROUP_DEPTH + 1:
        return False
    return all(SEGMENT.fullmatch(part) and part not in _RESERVED_SEGMENTS for part in segments)


def format_target(kind: NodeKind, path: str) -> str:
    """The canonical text of a node, as answers and stored upstream scopes use it: `project:acme/web`, `instance`."""
    return "instance" if kind is NodeKind.INSTANCE else f"{kind.value}:{path}"
