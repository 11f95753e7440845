"""Things to test with, valid as they come: a test names the one part that it is about."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from authz_service.catalog.model import (
    BOUNDARIES,
    Catalog,
    Item,
    Operation,
    OperationKind,
    ParameterKind,
    Permission,
    RequirementSet,
    Role,
    Target,
    TargetKind,
)
from authz_service.directory.model import INSTANCE_ID, Node, NodeId, NodeKind, User, Visibility
from authz_service.engine.model import OperationRequest, PermissionRequest, Request
from authz_service.tokens.model import Reach, ReachKind, Scope, Token, TokenId
from tests.reference.rows import Rows

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
CATALOG = "forge"

_numbers = itertools.count(INSTANCE_ID + 1)


def instance() -> Node:
    return Node(INSTANCE_ID, NodeKind.INSTANCE, "instance", visibility=Visibility.PUBLIC)


def group(name: str = "acme", parent: Node | None = None, **changes: Any) -> Node:
    """Private, and at the top unless it has a parent."""
    return _node(NodeKind.GROUP, name, parent, changes)


def project(name: str = "web", parent: Node | None = None, **changes: Any) -> Node:
    """Private. Every project lies in something: without a parent the caller makes one."""
    return _node(NodeKind.PROJECT, name, parent, changes)


def account(name: str = "dana", **changes: Any) -> tuple[User, Node]:
    """An active user with the node that is both account and namespace; `changes` are the user's."""
    node = _node(NodeKind.USER, name, None, {"visibility": Visibility.PUBLIC})
    return User(**{"id": node.id, "username": name, **changes}), node


def _node(kind: NodeKind, name: str, parent: Node | None, changes: dict[str, Any]) -> Node:
    number = next(_numbers)
    return Node(
        **{
            "id": number,
            "kind": kind,
            "name": name,
            "parent": None if parent is None else parent.id,
            "external_id": str(9000 + number),
            **changes,
        }
    )


def permission(name: str = "issue:read", number: int = 0, **changes: Any) -> Permission:
    """Exists at all boundaries, needs no role."""
    return Permission(**{"name": name, "number": number, "boundaries": dict.fromkeys(BOUNDARIES), **changes})


def operation(id_: str = "GET /projects/:id/issues", needs: str = "issue:read", **changes: Any) -> Operation:
    """Needs one permission at the project that `:id` names, and mutates nothing."""
    target = Target(TargetKind.PARAMETER, ("id",), ParameterKind.PROJECT)
    sets = (RequirementSet((Item(needs, NodeKind.PROJECT, target),)),)
    return Operation(**{"id": id_, "kind": OperationKind.REST, "sets": sets, "mutates": False, **changes})


def catalog(*permissions: Permission, operations: tuple[Operation, ...] = (), **changes: Any) -> Catalog:
    """Roles member ⊂ owner; `issue:read` alone where no permission is given."""
    return Catalog(
        **{
            "name": CATALOG,
            "version": 1,
            "permissions": permissions or (permission(),),
            "operations": {one.id: one for one in operations},
            "roles": {"member": Role("member"), "owner": Role("owner", ("member",))},
            "top_role": "owner",
            **changes,
        }
    )


def scope(*permissions: str, on: tuple[Node, ...] = (), reach: ReachKind = ReachKind.SELECTED) -> Scope:
    nodes: tuple[NodeId, ...] = tuple(node.id for node in on)
    return Scope(CATALOG, Reach(reach, nodes), permissions or ("issue:read",))


def token(owner: User, *scopes: Scope, **changes: Any) -> Token:
    """Fine-grained, alive and without conditions."""
    number = next(_numbers)
    return Token(
        **{
            "id": TokenId(f"tok_{number}"),
            "owner": owner.id,
            "catalogs": {CATALOG: 1},
            "scopes": scopes,
            "created_at": NOW - DAY,
            **changes,
        }
    )


def ask(permission_name: str = "issue:read", target: str | None = "project:acme/web", **changes: Any) -> Request:
    return Request(**{"catalog": CATALOG, "ask": PermissionRequest(permission_name, target), "now": NOW, **changes})


def call(operation_id: str = "GET /projects/:id/issues", *, target: str | None = None, **parameters: str) -> Request:
    return Request(CATALOG, OperationRequest(operation_id, parameters, target), NOW)


def rows(*things: object, members: Iterable[tuple[User, Node, str]] = ()) -> Rows:
    """All of it as rows, whatever it is, with the instance; accounts come as they were made."""
    found = Rows(nodes=[instance()])
    for thing in things:
        for part in thing if isinstance(thing, tuple) else (thing,):
            for kind, rows_of_kind in ((Node, found.nodes), (User, found.users), (Token, found.tokens)):
                if isinstance(part, kind):
                    rows_of_kind.append(part)
            if isinstance(part, Catalog):
                found.catalogs.append(part)
    found.memberships.extend((user.id, node.id, role) for user, node, role in members)
    return found
