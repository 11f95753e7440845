"""What a decision is asked with and answered by: requests, the world they are asked about, reasons, decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NoReturn, Protocol

from authz_service.catalog.model import Catalog, Condition, ParameterKind, Target, TargetKind
from authz_service.compiler.approvals import Approval
from authz_service.compiler.lookup import Lookup
from authz_service.directory.model import Attributes, Node, NodeId, NodeKind, User
from authz_service.tokens.model import Token, TokenId
from authz_service.tokens.policy import Policy


class Reason(StrEnum):
    """Public codes of a decision, in the order of rules A1 to A5: add, never rename or reuse."""

    GRANTED = "granted"
    GRANTED_OPEN = "granted_open"
    GRANTED_PUBLIC_READ = "granted_public_read"
    # rule A1, the token
    MALFORMED_TOKEN = "malformed_token"
    UNKNOWN_TOKEN = "unknown_token"
    TOKEN_REVOKED = "token_revoked"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_NOT_YET_VALID = "token_not_yet_valid"
    OWNER_INACTIVE = "owner_inactive"
    CONDITION_FAILED = "condition_failed"
    # rule A2, the question
    CATALOG_MISMATCH = "catalog_mismatch"
    BAD_PATH = "bad_path"
    BAD_DOCUMENT = "bad_document"
    OPERATION_UNKNOWN = "operation_unknown"
    OPERATION_CLOSED = "operation_closed"
    SCHEMA_REQUIRED = "schema_required"
    PERMISSION_UNKNOWN = "permission_unknown"
    TARGET_REQUIRED = "target_required"
    TARGET_UNKNOWN = "target_unknown"
    BOUNDARY_MISMATCH = "boundary_mismatch"
    ATTRIBUTE_MISSING = "attribute_missing"
    # rule A3, what was given
    PERMISSION_MISSING = "permission_missing"
    OUTSIDE_REACH = "outside_reach"
    # rule A4, the owner
    OWNER_NOT_MEMBER = "owner_not_member"
    OWNER_ROLE_TOO_LOW = "owner_role_too_low"
    # rule A5, policy and approval
    POLICY_FORBIDS_KIND = "policy_forbids_kind"
    LIFETIME_EXCEEDS_POLICY = "lifetime_exceeds_policy"
    APPROVAL_PENDING = "approval_pending"
    APPROVAL_DENIED = "approval_denied"
    APPROVAL_REVOKED = "approval_revoked"


REASON_ORDER: Mapping[Reason, int] = {reason: position for position, reason in enumerate(Reason)}
"""Position in the order of the rules: of several failures the earliest is named (A9)."""

TOKEN_REASONS = frozenset(
    {
        Reason.MALFORMED_TOKEN,
        Reason.UNKNOWN_TOKEN,
        Reason.TOKEN_REVOKED,
        Reason.TOKEN_EXPIRED,
        Reason.TOKEN_NOT_YET_VALID,
        Reason.OWNER_INACTIVE,
        Reason.CONDITION_FAILED,
    }
)
"""A1: towards end clients these are 401, all other denials 403 (A11)."""


@dataclass(frozen=True, slots=True)
class PermissionRequest:
    """A bare check: may the token use this permission at this target? `target` as written by the asker."""

    permission: str
    target: str | None = None


@dataclass(frozen=True, slots=True)
class OperationRequest:
    """A check of one call. `operation` is an id of the catalog, or any text for a call in no table.

    `parameters` are decoded path parameters; `target` is what the PEP gave for items whose target is the caller's.
    `mutates` speaks of calls in no table only; what the catalog says of an operation wins.
    """

    operation: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    mutates: bool = True
    bad_path: bool = False
    """The request's path has no single reading: `bad_path`, whatever the operation."""
    path_fault: str = field(default="", compare=False)
    """What is wrong with it, as a sentence."""
    bad_document: bool = False
    """The GraphQL document that the request is cannot be read in one way: `bad_document`, whatever the operation."""
    at: Target | None = None
    """What the request itself says of where it is, in place of the caller's `target`: for parts of a document."""
    unlisted: Reason = Reason.OPERATION_UNKNOWN
    """What an operation in no table is, where no bundle covers it."""
    wide: bool = False
    """A part of a document: a group stands for the projects in it where the permission is unknown to groups (C3)."""


@dataclass(frozen=True, slots=True)
class Request:
    """One question. `version` None means the catalog version the token was made under.

    `attributes` come from an authenticated PEP only (C5). `now` is database time, aware. `client_address` is the end
    client's, None where unknown.
    """

    catalog: str
    ask: PermissionRequest | OperationRequest
    now: datetime
    version: int | None = None
    attributes: Attributes = field(default_factory=dict)
    client_address: str | None = None


@dataclass(frozen=True, slots=True)
class Missing:
    """One item that fails A3. `target` is the place's text, `project:acme/web`, or `anywhere`."""

    permission: str
    boundary: NodeKind
    target: str


@dataclass(frozen=True, slots=True)
class PolicyNote:
    """What a policy says that made a denial, for messages: at which place, in words, since when."""

    place: str
    says: str
    since: datetime | None = None
    node: NodeId | None = None
    """Of an approval: the group that has to give it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer. Never use it as a truth value: read `allowed`.

    `missing` lists all items of the chosen set that fail A3 (A9). `hide` says that the end client must not learn that
    the target exists (A10). `absent` names the attributes without which no answer is possible (C5).
    """

    allowed: bool
    reason: Reason
    missing: tuple[Missing, ...] = ()
    hide: bool = False
    absent: tuple[str, ...] = ()
    target: str | None = None
    """The text of the target where the decision fell, for messages; None where there is none."""
    failed_token: TokenId | None = None
    """The token that failed: the asked one or the nearest failing ancestor (T4)."""
    policy: PolicyNote | None = None
    """Which policy made an A5 denial."""
    used: tuple[tuple[str, str], ...] = ()
    """Of an allow: each permission that the token had to hold for it, and the text of the place; for usage alone."""
    says: str = field(default="", compare=False)
    """What to say in place of the reason's own sentence, which knows nothing of the question; for people alone."""

    def __bool__(self) -> NoReturn:
        raise TypeError("a decision is not a truth value: read `.allowed`")


@dataclass(frozen=True, slots=True)
class TracedItem:
    """How one item of a set fared.

    `reason` is the first rule's that stopped it, or `granted…`; None where another item's target stopped the set.
    """

    permission: str
    boundary: NodeKind
    target: str | None
    reason: Reason | None
    kind: TargetKind = TargetKind.CALLER
    """How the catalog says that the target is found: at `below` and `anywhere`, `target` is only where it begins."""
    node: NodeId | None = None
    """The target's id."""


@dataclass(frozen=True, slots=True)
class TracedSet:
    """How one requirement set that counted fared. `assumed` are values taken for absent attributes (C5)."""

    reason: Reason
    items: tuple[TracedItem, ...]
    when: Condition = ()
    min_role: str | None = None
    assumed: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class TracedToken:
    """How one token of the line fared (T4): the shown one first, then its ancestors as far as they were asked."""

    token: TokenId
    reason: Reason | None = None
    catalog: str | None = None
    sets: list[TracedSet] = field(default_factory=list)


def allow(reason: Reason, *, target: str | None = None, used: tuple[tuple[str, str], ...] = ()) -> Decision:
    return Decision(allowed=True, reason=reason, target=target, used=used)


def deny(
    reason: Reason,
    missing: tuple[Missing, ...] = (),
    *,
    hide: bool = False,
    target: str | None = None,
    failed_token: TokenId | None = None,
    policy: PolicyNote | None = None,
    says: str = "",
) -> Decision:
    return Decision(
        allowed=False,
        reason=reason,
        missing=missing,
        hide=hide,
        target=target,
        failed_token=failed_token,
        policy=policy,
        says=says,
    )


class World(Protocol):
    """Live facts at one revision.

    An implementation may raise its own error where a fact is not at hand yet; the engine lets it pass.
    """

    def catalog(self, name: str, version: int) -> Catalog | None: ...

    def lookup(self, token: Token, catalog: Catalog) -> Lookup: ...

    def token(self, token: TokenId) -> Token | None: ...

    def user(self, user: NodeId) -> User | None: ...

    def node(self, node: NodeId) -> Node | None:
        """The node, or None when it is unknown or deleted."""
        ...

    def find(self, source: str, kind: NodeKind | None, path: str) -> Node | None:
        """By path, compared without case; `kind` None takes whatever lies there."""
        ...

    def find_external(self, source: str, kind: ParameterKind, external_id: str) -> Node | None:
        """By external id, which compares exactly; NAMESPACE uses its own id space (C3)."""
        ...

    def memberships(self, user: NodeId) -> Mapping[NodeId, str]:
        """The user's own rows: node to role name."""
        ...

    def is_member_below(self, user: NodeId, group: NodeId) -> bool:
        """Whether some membership row of the user lies strictly below the group (D5)."""
        ...

    def at_or_below(self, node: NodeId, kind: NodeKind) -> Iterable[Node]: ...

    def every(self, source: str, kind: NodeKind) -> Iterable[Node]: ...

    def policies(self, catalog: Catalog) -> Mapping[NodeId, Policy]:
        """Every policy for the catalog, by node (P1)."""
        ...

    def grants(self, token: Token, catalog: Catalog) -> Mapping[NodeId, Approval]:
        """What was asked and given for the token, by group (P4)."""
        ...
