"""Random catalogs: permissions, roles, operations and bundles that use every part of the catalog model."""

from __future__ import annotations

from random import Random

from authz_service.catalog.model import (
    BOUNDARIES,
    NO_ROLE_NEEDED,
    AnyOperation,
    Bundle,
    Catalog,
    Condition,
    Item,
    Operation,
    OperationKind,
    OwnerCheck,
    ParameterKind,
    Permission,
    RequirementSet,
    Role,
    Target,
    TargetKind,
)
from authz_service.directory.model import NodeKind, Scalar

PROJECT, GROUP, USER, INSTANCE = BOUNDARIES

ROLE_NAMES = ("guest", "planner", "reporter", "developer", "owner")
STATIONARY_ROLE = "minimal"
STRANGE_ROLE = "captain"
"""No catalog knows it: it counts as bare membership (C6)."""

RESOURCES = ("issue", "job", "wiki", "hook", "key")
ACTIONS = ("read", "write")

VALUES: dict[str, tuple[Scalar, ...]] = {
    "resource.status": ("open", "closed", 1, True),
    "resource.archived": (True, False),
    "resource.visibility": ("public", "internal", "private"),
    "action.soft": ("true", True, 1),
    "subject.team": ("red", "blue"),
    "subject.role": (*ROLE_NAMES, STATIONARY_ROLE, "admin", STRANGE_ROLE),
    "subject.state": ("active",),
    "subject.admin": (True, False, 1),
    "subject.external": (True, False),
    "subject.service_account": (True, False),
    "context.touches_workflows": (True, False),
}
ATTRIBUTE_PARAMETERS = {"resource.status": "status", "action.soft": "soft"}
PARAMETERS: dict[str, ParameterKind] = {
    "id": ParameterKind.PROJECT,
    "gid": ParameterKind.GROUP,
    "uid": ParameterKind.USER,
    "nid": ParameterKind.NAMESPACE,
}
PUBLISHED: dict[NodeKind, tuple[Target, ...]] = {
    PROJECT: (
        Target(TargetKind.PARAMETER, ("id",), ParameterKind.PROJECT),
        Target(TargetKind.PARAMETER, ("id",), ParameterKind.PROJECT),
        Target(TargetKind.PARAMETER, ("id",), ParameterKind.PROJECT),
        Target(TargetKind.PARAMETER, ("owner", "repo"), ParameterKind.PROJECT),
        Target(TargetKind.CALLER),
        Target(TargetKind.BELOW, ("gid",), ParameterKind.GROUP),
        Target(TargetKind.BELOW, ("nid",), ParameterKind.NAMESPACE),
        Target(TargetKind.BELOW, ("id",), ParameterKind.PROJECT),
        Target(TargetKind.BELOW, ("uid",), ParameterKind.USER),
        Target(TargetKind.BELOW),
        Target(TargetKind.ANYWHERE),
        Target(TargetKind.PARAMETER, ("gid",), ParameterKind.GROUP),
    ),
    GROUP: (
        Target(TargetKind.PARAMETER, ("gid",), ParameterKind.GROUP),
        Target(TargetKind.PARAMETER, ("gid",), ParameterKind.GROUP),
        Target(TargetKind.PARAMETER, ("nid",), ParameterKind.NAMESPACE),
        Target(TargetKind.CALLER),
        Target(TargetKind.BELOW, ("gid",), ParameterKind.GROUP),
        Target(TargetKind.BELOW, ("id",), ParameterKind.PROJECT),
        Target(TargetKind.ANYWHERE),
        Target(TargetKind.PARAMETER, ("id",), ParameterKind.PROJECT),
    ),
    USER: (
        Target(TargetKind.SELF),
        Target(TargetKind.SELF, owner_is="uid"),
        Target(TargetKind.PARAMETER, ("uid",), ParameterKind.USER),
        Target(TargetKind.PARAMETER, ("nid",), ParameterKind.NAMESPACE),
        Target(TargetKind.CALLER),
        Target(TargetKind.BELOW, ("uid",), ParameterKind.USER),
        Target(TargetKind.ANYWHERE),
    ),
    INSTANCE: (Target(TargetKind.INSTANCE), Target(TargetKind.CALLER), Target(TargetKind.ANYWHERE)),
}
OPEN_AT = (
    None,
    Target(TargetKind.PARAMETER, ("id",), ParameterKind.PROJECT),
    Target(TargetKind.PARAMETER, ("nid",), ParameterKind.NAMESPACE),
    Target(TargetKind.CALLER),
    Target(TargetKind.INSTANCE),
    Target(TargetKind.SELF),
)


class CatalogMaker:
    """Draws one catalog; two made from equal `random` states are equal."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._conditions = [self._condition() for _ in range(3)]
        """Few, so that several permissions and sets wait for the same attribute."""

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def make(self, name: str, *, version: int = 1, source: str | None = None, upstream: bool = False) -> Catalog:
        roles = self._roles()
        permissions = tuple(self._permission(number, roles) for number in range(self._random.randint(4, 8)))
        operations = [self._operation(number, permissions, roles) for number in range(self._random.randint(6, 10))]
        return Catalog(
            name=name,
            version=version,
            permissions=permissions,
            operations={operation.id: operation for operation in operations},
            roles=roles,
            top_role="owner" if self._chance(0.85) else None,
            bundles=self._bundles(permissions, operations),
            aliases={"old:name": permissions[0].name, "lost:name": "never:was"},
            owner_check=OwnerCheck.UPSTREAM if upstream else OwnerCheck.DIRECTORY,
            source=source,
            case_sensitive=self._chance(0.25),
            single_owner=self._chance(0.15),
            forbidding_legacy_ends_public_reads=self._chance(0.5),
            attribute_parameters=ATTRIBUTE_PARAMETERS if self._chance(0.5) else {},
        )

    def _roles(self) -> dict[str, Role]:
        roles = {STATIONARY_ROLE: Role(STATIONARY_ROLE, inherits=False)}
        for position, name in enumerate(ROLE_NAMES):
            below = [STATIONARY_ROLE, *ROLE_NAMES[:position]]
            includes = tuple(role for role in below if self._chance(0.5))
            roles[name] = Role(name, includes, inherits=self._chance(0.95))
        return roles

    def _condition(self) -> tuple[str, Scalar]:
        name = self._random.choice(list(VALUES))
        return name, self._random.choice(VALUES[name])

    def _when(self, share: float) -> Condition:
        if not self._chance(share):
            return ()
        first = self._random.choice(self._conditions)
        if self._chance(0.3):
            other = self._random.choice(self._conditions)
            if other[0] != first[0]:
                return (first, other)
        if self._chance(0.3):
            return ((first[0], self._random.choice(VALUES[first[0]])),)
        return (first,)

    def _min_role(self, boundary: NodeKind) -> str | None:
        if boundary is INSTANCE:
            return self._random.choice((None, NO_ROLE_NEEDED, NO_ROLE_NEEDED, "admin"))
        return self._random.choice(ROLE_NAMES) if self._chance(0.15) else None

    def _permission(self, number: int, roles: dict[str, Role]) -> Permission:
        name = _permission_name(number)
        boundaries = [kind for kind in (PROJECT, GROUP) if self._chance(0.75)]
        boundaries += [kind for kind in (USER, INSTANCE) if self._chance(0.3)]
        if not boundaries:
            boundaries = [PROJECT]
        implies = tuple(_permission_name(other) for other in range(4) if other != number and self._chance(0.12))
        return Permission(
            name,
            number,
            {boundary: self._min_role(boundary) for boundary in boundaries},
            implies=implies,
            mutates=self._chance(0.4),
            public_read=self._chance(0.2),
            reviewed=self._chance(0.3),
            visitor=self._chance(0.4),
            when=self._when(0.08),
        )

    def _operation(self, number: int, permissions: tuple[Permission, ...], roles: dict[str, Role]) -> Operation:
        mutates = self._chance(0.4)
        is_open = self._chance(0.12)
        sets: list[RequirementSet] = []
        if not (is_open and self._chance(0.6)) and not self._chance(0.04):
            sets = self._sets(permissions, mutates=mutates)
        return Operation(
            id=f"{'POST' if mutates else 'GET'} /things/{number}",
            kind=OperationKind.REST,
            sets=tuple(sets),
            mutates=mutates,
            open=is_open,
            open_at=self._random.choice(OPEN_AT) if is_open else None,
            public_read=self._chance(0.15),
            closed=self._chance(0.05),
            reviewed=self._chance(0.4),
        )

    def _sets(self, permissions: tuple[Permission, ...], *, mutates: bool) -> list[RequirementSet]:
        sets = [self._set(permissions, mutates=mutates) for _ in range(self._random.choice((1, 1, 2)))]
        if self._chance(0.4):
            sets += self._family(permissions)
        self._random.shuffle(sets)
        return sets[:3]

    def _family(self, permissions: tuple[Permission, ...]) -> list[RequirementSet]:
        """Alternatives that differ in their boundary alone."""
        target = self._random.choice(
            (
                Target(TargetKind.CALLER),
                Target(TargetKind.PARAMETER, ("nid",), ParameterKind.NAMESPACE),
                Target(TargetKind.PARAMETER, ("id",), ParameterKind.PROJECT),
            )
        )
        permission = self._random.choice(permissions)
        return [RequirementSet((Item(permission.name, boundary, target),)) for boundary in permission.boundaries]

    def _set(self, permissions: tuple[Permission, ...], *, mutates: bool) -> RequirementSet:
        items = [self._item(permissions, mutates=mutates) for _ in range(self._random.choice((1, 1, 1, 1, 1, 2, 2, 3)))]
        min_role = self._min_role(items[0].boundary) if self._chance(0.2) else None
        return RequirementSet(tuple(items), self._when(0.2), min_role)

    def _item(self, permissions: tuple[Permission, ...], *, mutates: bool) -> Item:
        permission = self._random.choice(permissions)
        boundary = self._random.choice(list(permission.boundaries))
        target = self._random.choice(PUBLISHED[boundary])
        if mutates and target.kind is TargetKind.ANYWHERE and not self._chance(0.05):
            target = PUBLISHED[boundary][0]  # no loader takes it; the engine must not trust that
        return Item(permission.name, boundary, target)

    def _bundles(self, permissions: tuple[Permission, ...], operations: list[Operation]) -> dict[str, Bundle]:
        return {
            name: Bundle(
                name,
                frozenset(permission.name for permission in permissions if self._chance(share)),
                frozenset(operation.id for operation in operations if self._chance(share / 2)),
                covers,
                public_only=self._chance(0.25),
            )
            for name, share, covers in (
                ("api", 0.9, self._random.choice(list(AnyOperation))),
                ("read_api", 0.5, self._random.choice((AnyOperation.NONE, AnyOperation.READ))),
                ("mail", 0.15, AnyOperation.NONE),
            )
        }


def _permission_name(number: int) -> str:
    return f"{RESOURCES[number // 2]}:{ACTIONS[number % 2]}"
