"""What a fact is called before it is here: the keys by which facts are missed and loaded."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from authz_service.catalog.model import ParameterKind
from authz_service.directory.model import NodeKind
from authz_service.tokens.model import TokenId


class TokenKey(NamedTuple):
    digest: bytes


class TokenIdKey(NamedTuple):
    token: TokenId


class UserKey(NamedTuple):
    user: int


class MembershipsKey(NamedTuple):
    user: int


class NodeKey(NamedTuple):
    node: int


class PathKey(NamedTuple):
    source: str
    path: str


class ExternalKey(NamedTuple):
    source: str
    kind: ParameterKind
    external_id: str


class AboveKey(NamedTuple):
    """The places of a user's memberships and all that lies above them."""

    user: int


class UnderKey(NamedTuple):
    """Nodes of a kind at or under a node; `node` 0 is everywhere in the source."""

    source: str
    node: int
    kind: NodeKind


class CatalogKey(NamedTuple):
    name: str
    version: int


class SchemaKey(NamedTuple):
    """The GraphQL schema that counts for a catalog version."""

    name: str
    version: int


class NewestKey(NamedTuple):
    """Which installed version of a catalog is the newest."""

    name: str


class PoliciesKey(NamedTuple):
    """Every policy for a catalog: they are few, and each decision looks at all that lie on a way up."""

    catalog: str


class GrantsKey(NamedTuple):
    """All that was asked and given for one token."""

    token: TokenId


FactKey: TypeAlias = (
    TokenKey
    | TokenIdKey
    | UserKey
    | MembershipsKey
    | NodeKey
    | PathKey
    | ExternalKey
    | AboveKey
    | UnderKey
    | CatalogKey
    | SchemaKey
    | NewestKey
    | PoliciesKey
    | GrantsKey
)
