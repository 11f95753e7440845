"""A catalog as the engine uses it: permissions by number, operations and their requirements, roles (C1 to C9)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Final

from authz_service.directory.model import NodeKind, Scalar

NO_ROLE_NEEDED: Final = "none"
"""As `min_role` of an instance permission: the owner need not be admin (A4)."""

ADMIN_ROLE: Final = "admin"
"""The instance's only role (C6)."""

BOUNDARIES: Final = (NodeKind.PROJECT, NodeKind.GROUP, NodeKind.USER, NodeKind.INSTANCE)
"""In the order that breaks ties between requirement sets (A9)."""

Condition = tuple[tuple[str, Scalar], ...]
"""A `when`: every (attribute, value) must be equal, types included; the empty condition always matches (C5)."""


class TargetKind(StrEnum):
    """How an item's target is found (C3)."""

    PARAMETER = "parameter"
    SELF = "self"
    INSTANCE = "instance"
    BELOW = "below"
    ANYWHERE = "anywhere"
    CALLER = "caller"


class ParameterKind(StrEnum):
    """What a path parameter names. A namespace is a group, or a user by its namespace's own external id (C3)."""

    PROJECT = "project"
    GROUP = "group"
    USER = "user"
    NAMESPACE = "namespace"


class OwnerCheck(StrEnum):
    """Where owners and targets are known (C9): in the directory, or upstream and not checked here."""

    DIRECTORY = "directory"
    UPSTREAM = "upstream"


class OperationKind(StrEnum):
    """Where an operation comes from; its id is unique within a catalog whatever its kind."""

    REST = "rest"
    GRAPHQL = "graphql"
    GIT = "git"
    REGISTRY = "registry"
    ACTION = "action"


class AnyOperation(StrEnum):
    """Which operations in no table a legacy scope covers (C7)."""

    NONE = "none"
    READ = "read"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Target:
    """Where an item must hold. PARAMETER and BELOW name `parameters` (joined by `/`) and what they are (`names`).

    BELOW without parameters is below the owner's own node. For SELF, `owner_is` is a parameter that names a user and
    must name the owner.
    """

    kind: TargetKind
    parameters: tuple[str, ...] = ()
    names: ParameterKind | None = None
    owner_is: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One (permission, boundary, target) of a requirement."""

    permission: str
    boundary: NodeKind
    target: Target


@dataclass(frozen=True, slots=True)
class RequirementSet:
    """All items must hold (A6). `min_role` is tested at the first item's target (C6)."""

    items: tuple[Item, ...]
    when: Condition = ()
    min_role: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of the API. `id` is `GET /projects/:id/pipelines`, `Mutation.createIssue`, `git.push`.

    `open_at` is the node an `open` operation names: it must be public, or A4 hold there (C4). `reviewed` is the mark
    that lets `open` on a node and `public_read` cover a mutating operation; without it they have no effect there.
    """

    id: str
    kind: OperationKind
    sets: tuple[RequirementSet, ...] = ()
    mutates: bool = True
    open: bool = False
    open_at: Target | None = None
    public_read: bool = False
    closed: bool = False
    reviewed: bool = False
    extension: bool = False
    method: str | None = None
    path: str | None = None
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Permission:
    """`resource:action` and where it exists. `boundaries` maps each boundary to its `min_role`, or None (C6).

    `number` is the bit this permission has in masks of this catalog version; it is never stored in a token (C8).
    """

    name: str
    number: int
    boundaries: Mapping[NodeKind, str | None]
    implies: tuple[str, ...] = ()
    mutates: bool = False
    public_read: bool = False
    reviewed: bool = False
    visitor: bool = False
    when: Condition = ()
    category: str = ""
    description: str = ""
    deprecated: bool = False
    extension: bool = False

    @property
    def resource(self) -> str:
        return self.name.partition(":")[0]

    @property
    def action(self) -> str:
        return self.name.partition(":")[2]

    @property
    def reads_public(self) -> bool:
        """Whether a public node satisfies an item of this permission (A7, C4)."""
        return self.public_read and (self.reviewed or not self.mutates)


class ArgumentKind(StrEnum):
    """What an argument of a GraphQL field names (C3).

    A PLACE is whatever lies at a path. An ID is a global id: of a place, or of something whose place the caller says.
    """

    PROJECT = "project"
    GROUP = "group"
    USER = "user"
    NAMESPACE = "namespace"
    PLACE = "place"
    ID = "id"


@dataclass(frozen=True, slots=True)
class FieldPlace:
    """Where one GraphQL field is: what an `argument` of it names, or SELF, INSTANCE or CALLER in `word`."""

    word: TargetKind | None = None
    names: ArgumentKind | None = None
    argument: str = ""


@dataclass(frozen=True, slots=True)
class GraphqlRules:
    """Where the fields of a GraphQL document are (C3).

    `arguments` maps `input.projectPath` to what it names, on every field but those that `fields` speaks of. Objects of
    the types `places` lie where their own field names them; through a field of `stays` they lie where that field is,
    and whatever a field of `leaves` gives out lies nowhere known. `global_ids` maps what a global id begins with to
    what it names.
    """

    path: str = ""
    arguments: Mapping[str, ArgumentKind] = field(default_factory=dict)
    fields: Mapping[str, tuple[FieldPlace, ...]] = field(default_factory=dict)
    places: frozenset[str] = frozenset()
    stays: frozenset[str] = frozenset()
    leaves: frozenset[str] = frozenset()
    global_ids: Mapping[str, ParameterKind] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Role:
    """`inherits: False` makes a membership with this role count only at its own node (C6)."""

    name: str
    includes: tuple[str, ...] = ()
    inherits: bool = True


@dataclass(frozen=True, slots=True)
class Bundle:
    """A legacy scope: permissions and operations a coarse token carries (C7).

    With `public_only`, none of it counts at a project or group that is not public.
    """

    name: str
    permissions: frozenset[str] = frozenset()
    operations: frozenset[str] = frozenset()
    any_operation: AnyOperation = AnyOperation.NONE
    description: str = ""
    public_only: bool = False


def bits(mask: int) -> Iterator[int]:
    """The numbers of the bits that are set, ascending."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def slips(name: str) -> set[str]:
    """The name, and what it is with one letter less: two names that share one of these are a slip of the pen apart."""
    return {name} | {name[:at] + name[at + 1 :] for at in range(len(name))}


@dataclass(frozen=True)
class Catalog:
    """One version of one API's catalog. Build it with the loader, which proves its references; never change it.

    `aliases` maps a former permission name to today's (C8). `words` are the API's own names of the boundaries.
    """

    name: str
    version: int
    permissions: tuple[Permission, ...]
    operations: Mapping[str, Operation] = field(default_factory=dict)
    roles: Mapping[str, Role] = field(default_factory=dict)
    top_role: str | None = None
    bundles: Mapping[str, Bundle] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    owner_check: OwnerCheck = OwnerCheck.DIRECTORY
    source: str | None = None
    case_sensitive: bool = False
    single_owner: bool = False
    forbidding_legacy_ends_public_reads: bool = False
    base_path: str = ""
    attribute_parameters: Mapping[str, str] = field(default_factory=dict)
    """Attribute name to the path parameter that gives it (C5)."""
    encoded_parameters: frozenset[str] = frozenset()
    """Path parameters whose values may hold encoded separators, beyond those that name projects and groups."""
    spanning_parameters: frozenset[str] = frozenset()
    """Path parameters that take raw slashes too."""
    words: Mapping[NodeKind, str] = field(default_factory=dict)
    title: str = ""
    graphql: GraphqlRules | None = None
    """Where documents are sent and what their arguments name; None for an API that takes none."""

    @property
    def label(self) -> str:
        """`gitlab@1`."""
        return f"{self.name}@{self.version}"

    @property
    def upstream(self) -> bool:
        return self.owner_check is OwnerCheck.UPSTREAM

    def fold(self, text: str) -> str:
        """A path, or the text of an upstream node, as this catalog compares it (C9)."""
        return text if self.case_sensitive else text.lower()

    @cached_property
    def by_name(self) -> Mapping[str, Permission]:
        """Every permission by its name, and by each alias of it."""
        found = {permission.name: permission for permission in self.permissions}
        for alias, name in self.aliases.items():
            if name in found:
                found.setdefault(alias, found[name])
        return found

    @cached_property
    def near_names(self) -> Mapping[str, list[str]]:
        """The permissions that each text is a slip of (`slips`)."""
        found: dict[str, list[str]] = {}
        for permission in self.permissions:
            for slip in slips(permission.name):
                found.setdefault(slip, []).append(permission.name)
        return found

    @cached_property
    def holders(self) -> Mapping[NodeKind, tuple[int, ...]]:
        """For each boundary and permission number: the mask of permissions that confer it there, itself included.

        Zero where the permission does not exist at the boundary. Implications are followed to their end (C2), and
        only between permissions that both exist at the boundary; a permission whose own `when` does not match is cut
        out of the mask at each request (C5).
        """
        confers = self._closure()
        table: dict[NodeKind, tuple[int, ...]] = {}
        for boundary in BOUNDARIES:
            row = [0] * len(self.permissions)
            for holder in self.permissions:
                if boundary not in holder.boundaries:
                    continue
                for name in confers[holder.name]:
                    conferred = self.by_name[name]
                    if boundary in conferred.boundaries:
                        row[conferred.number] |= 1 << holder.number
            table[boundary] = tuple(row)
        return table

    @cached_property
    def confers(self) -> Mapping[NodeKind, tuple[int, ...]]:
        """`holders` the other way round: the mask of permissions that each permission confers at the boundary."""
        table: dict[NodeKind, tuple[int, ...]] = {}
        for boundary, row in self.holders.items():
            given = [0] * len(row)
            for number, holders in enumerate(row):
                for holder in bits(holders):
                    given[holder] |= 1 << number
            table[boundary] = tuple(given)
        return table

    @cached_property
    def existing(self) -> Mapping[NodeKind, int]:
        """The mask of permissions that exist at each boundary."""
        return {
            boundary: sum(1 << item.number for item in self.permissions if boundary in item.boundaries)
            for boundary in BOUNDARIES
        }

    @cached_property
    def implies_anything(self) -> bool:
        return any(permission.implies for permission in self.permissions)

    @cached_property
    def by_min_role(self) -> Mapping[NodeKind, Mapping[str | None, int]]:
        """For each boundary: the mask of permissions that name each `min_role` there, None for those that name none."""
        table: dict[NodeKind, dict[str | None, int]] = {boundary: {} for boundary in BOUNDARIES}
        for permission in self.permissions:
            for boundary, role in permission.boundaries.items():
                table[boundary][role] = table[boundary].get(role, 0) | 1 << permission.number
        return table

    @cached_property
    def numbers(self) -> Mapping[tuple[str, str], int]:
        """(resource, action) of each permission to its number; aliases are not in it."""
        return {(permission.resource, permission.action): permission.number for permission in self.permissions}

    @cached_property
    def public_reads(self) -> int:
        """The mask of permissions that a public node grants to anyone (A7)."""
        return sum(1 << permission.number for permission in self.permissions if permission.reads_public)

    def _closure(self) -> Mapping[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}
        for permission in self.permissions:
            reached = {permission.name}
            waiting = list(permission.implies)
            while waiting:
                name = self.by_name[waiting.pop()].name
                if name not in reached:
                    reached.add(name)
                    waiting.extend(self.by_name[name].implies)
            found[permission.name] = frozenset(reached)
        return found

    @cached_property
    def conditional(self) -> int:
        """The mask of permissions that have a `when`."""
        return sum(1 << permission.number for permission in self.permissions if permission.when)

    @cached_property
    def roles_satisfying(self) -> Mapping[str, frozenset[str]]:
        """For each role: the roles that include it, itself among them (C6)."""
        includes: dict[str, set[str]] = {}
        for name in self.roles:
            reached = {name}
            waiting = list(self.roles[name].includes)
            while waiting:
                role = waiting.pop()
                if role not in reached and role in self.roles:
                    reached.add(role)
                    waiting.extend(self.roles[role].includes)
            includes[name] = reached
        return {name: frozenset(role for role, inside in includes.items() if name in inside) for name in self.roles}

    @cached_property
    def stationary_roles(self) -> frozenset[str]:
        """Roles that count only at their own node (C6)."""
        return frozenset(role.name for role in self.roles.values() if not role.inherits)
