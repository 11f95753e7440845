"""One change of a token, a membership or an account: as data, as a sentence, and made in a world of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, TypeVar

from authz_service.directory.model import NodeId
from authz_service.engine.overlay import Overlay
from authz_service.tokens.model import Reach, ReachKind, Scope, Token, TokenId

T = TypeVar("T")


class StepKind(StrEnum):
    """Public words: add, never rename. In the order in which equally short fixes are named."""

    ADD_PERMISSIONS = "add_permissions"
    ADD_NODES = "add_nodes"
    ADD_SCOPE = "add_scope"
    ADD_LEGACY_SCOPE = "add_legacy_scope"
    ADD_MEMBERSHIP = "add_membership"
    CHANGE_ROLE = "change_role"
    MAKE_ADMIN = "make_admin"
    APPROVE = "approve"
    RELAX_POLICY = "relax_policy"


@dataclass(frozen=True, slots=True)
class Step:
    """One change. What does not apply is left at its default.

    `scope` is a position in the token's scopes. `nodes` and `targets` name the same places, by id and as text; of an
    approval the group comes first, then the place. `user` is the account that a membership, a role or the
    rights of an admin are for, `username` its name as of now.
    """

    kind: StepKind
    token: TokenId | None = None
    catalog: str | None = None
    scope: int | None = None
    reach: ReachKind | None = None
    nodes: tuple[NodeId, ...] = ()
    targets: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()
    legacy_scope: str | None = None
    user: NodeId | None = None
    username: str | None = None
    role: str | None = None

    def document(self) -> dict[str, Any]:
        """As JSON; what does not apply is left out."""
        found: dict[str, Any] = {
            "kind": self.kind.value,
            "token_id": self.token,
            "catalog": self.catalog,
            "scope": self.scope,
            "reach": None if self.reach is None else self.reach.value,
            "nodes": list(self.targets) or None,
            "permissions": list(self.permissions) or None,
            "legacy_scope": self.legacy_scope,
            "user": self.username,
            "role": self.role,
        }
        return {name: value for name, value in found.items() if value is not None}

    def sentence(self) -> str:
        """Lower case, no full stop."""
        listed = _listed(self.permissions)
        match self.kind:
            case StepKind.ADD_PERMISSIONS:
                return f"add {listed} to the scope on {_place(self.reach, self.targets)}"
            case StepKind.ADD_NODES:
                return f"add {_listed(self.targets)} to the scope with {listed}"
            case StepKind.ADD_SCOPE:
                return f"give the token {listed} on {_place(self.reach, self.targets)}"
            case StepKind.ADD_LEGACY_SCOPE:
                return f"add the legacy scope `{self.legacy_scope}`"
            case StepKind.ADD_MEMBERSHIP:
                return f"make the token's owner a member of {_listed(self.targets)} as `{self.role}`"
            case StepKind.CHANGE_ROLE:
                return f"give the token's owner the role `{self.role}` on {_listed(self.targets)}"
            case StepKind.MAKE_ADMIN:
                return "make the token's owner an admin"
            case StepKind.APPROVE:
                return f"have {_listed(self.targets[:1])} approve {listed} on {_listed(self.targets[1:])}"
            case StepKind.RELAX_POLICY:
                return f"have the policy of {_listed(self.targets)} changed, which does not allow it"


@dataclass(frozen=True, slots=True)
class Fix:
    """Steps that, taken together, turn a denial into an allow."""

    steps: tuple[Step, ...]

    def document(self) -> dict[str, Any]:
        """As JSON: the sentence for people, the steps for programs."""
        return {"sentence": self.sentence(), "steps": [step.document() for step in self.steps]}

    def sentence(self) -> str:
        return "; ".join(step.sentence() for step in self.steps)


def take(step: Step, world: Overlay, shown: Token) -> Overlay:
    """The world after the step. `shown` is the token that the question is about, which `world` may not know."""
    match step.kind:
        case StepKind.ADD_MEMBERSHIP | StepKind.CHANGE_ROLE if step.user is not None:
            return world.with_role(step.user, step.nodes[0], step.role)
        case StepKind.MAKE_ADMIN:
            user = None if step.user is None else world.user(step.user)
            return world if user is None else world.with_user(replace(user, admin=True))
        case StepKind.APPROVE if step.token is not None:
            return world.with_grant(step.token, step.nodes[0], step.permissions, step.nodes[1])
        case StepKind.RELAX_POLICY:
            return world.without_policy(step.nodes[0])
    if step.token is None:
        return world
    token = world.tokens.get(step.token) or (shown if step.token == shown.id else world.token(step.token))
    return world if token is None else world.with_token(change_token(token, step))


def change_token(token: Token, step: Step) -> Token:
    """The token after a step that is about it; the same token for a step of another kind."""
    scopes = list(token.scopes)
    match step.kind:
        case StepKind.ADD_PERMISSIONS if step.scope is not None:
            scope = scopes[step.scope]
            scopes[step.scope] = replace(scope, permissions=_joined(scope.permissions, step.permissions))
        case StepKind.ADD_NODES if step.scope is not None:
            scope = scopes[step.scope]
            scopes[step.scope] = replace(scope, reach=Reach(scope.reach.kind, _joined(scope.reach.nodes, step.nodes)))
        case StepKind.ADD_SCOPE if step.reach is not None and step.catalog is not None:
            scopes.append(Scope(step.catalog, Reach(step.reach, step.nodes), step.permissions))
        case StepKind.ADD_LEGACY_SCOPE if step.legacy_scope is not None:
            return replace(token, legacy_scopes=_joined(token.legacy_scopes, (step.legacy_scope,)))
        case _:
            return token
    return replace(token, scopes=tuple(scopes))


def _joined(first: tuple[T, ...], second: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(dict.fromkeys((*first, *second)))


_REACHES: Final = {
    ReachKind.ALL_MEMBERSHIPS: "all the owner's memberships",
    ReachKind.PERSONAL_PROJECTS: "the owner's personal projects",
    ReachKind.USER: "the owner's account",
    ReachKind.INSTANCE: "the instance",
}


def _place(reach: ReachKind | None, targets: Sequence[str]) -> str:
    return _listed(targets) if reach is None or reach is ReachKind.SELECTED else _REACHES[reach]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
