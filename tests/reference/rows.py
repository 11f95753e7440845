"""Everything a decision depends on, as plain rows."""

from __future__ import annotations

from dataclasses import dataclass, field

from authz_service.catalog.model import Catalog
from authz_service.directory.model import Node, NodeId, User
from authz_service.tokens.grants import Grant, GrantRequest
from authz_service.tokens.model import Token
from authz_service.tokens.policy import Policy


@dataclass(frozen=True)
class Rows:
    """One state of the world. A deleted user keeps its row in `users` and has none in `nodes` (D2)."""

    nodes: list[Node] = field(default_factory=list)
    users: list[User] = field(default_factory=list)
    memberships: list[tuple[NodeId, NodeId, str]] = field(default_factory=list)
    """(user, node, role); at most one for each user and node."""
    tokens: list[Token] = field(default_factory=list)
    catalogs: list[Catalog] = field(default_factory=list)
    policies: list[Policy] = field(default_factory=list)
    requests: list[GrantRequest] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
