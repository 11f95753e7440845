"""Where a deny is decided: rules A1 and A2, then the sets, then every ancestor of the token (T4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from authz_service.catalog.model import (
    Catalog,
    Item,
    Operation,
    Permission,
    RequirementSet,
    Target,
    TargetKind,
)
from authz_service.catalog.near import no_such_permission
from authz_service.compiler.lookup import LegacyHoldings
from authz_service.directory.model import NodeKind, UserState
from authz_service.engine.case import Case, open_case
from authz_service.engine.conditions import address_allowed
from authz_service.engine.explain import say_mismatch
from authz_service.engine.items import owner_failure
from authz_service.engine.model import (
    Decision,
    OperationRequest,
    PermissionRequest,
    PolicyNote,
    Reason,
    Request,
    TracedToken,
    World,
    allow,
    deny,
)
from authz_service.engine.places import Place
from authz_service.engine.policies import bearing_objection, ends_public_reads, kind_objection
from authz_service.engine.sets import decide_sets
from authz_service.tokens.model import Token, TokenId

_CALLER: Final = Target(TargetKind.CALLER)
MAX_ANCESTORS: Final = 32
"""A longer line of ancestors is refused at creation; beyond it a token counts as revoked."""


def explain(token: Token, world: World, request: Request) -> tuple[Decision, list[TracedToken]]:
    """The same decision, and how every token of the line and every requirement set fared."""
    trace: list[TracedToken] = []
    return decide(token, world, request, trace), trace


def decide(token: Token, world: World, request: Request, trace: list[TracedToken] | None = None) -> Decision:
    """Allow or deny this request of this token at the world's revision; with `trace`, say there how it came about.

    A secret that is no token of ours never comes here: `malformed_token` and `unknown_token` are the caller's to give.
    Raises nothing of its own; what the world raises passes through, and must be treated as "cannot decide" (A11).
    """
    version = token.catalogs.get(request.catalog)
    catalog = None if version is None else world.catalog(request.catalog, version)
    failure = token_failure(token, world, request, catalog)
    if failure is None and (catalog is None or request.version not in (None, version)):
        failure = Reason.CATALOG_MISMATCH
    if failure is not None or catalog is None:
        failure = failure or Reason.CATALOG_MISMATCH
        says = say_mismatch(request.catalog, request.version) if failure is Reason.CATALOG_MISMATCH else ""
        return _traced(trace, token.id, deny(failure, failed_token=token.id, says=says))
    decision = _decide_one(token, catalog, world, request, trace)
    if not decision.allowed:
        return replace(decision, failed_token=token.id)
    for parent in _ancestors(token, world):
        if isinstance(parent, str):
            return _traced(trace, parent, deny(Reason.TOKEN_REVOKED, failed_token=parent))
        failure = token_failure(parent, world, request, catalog)
        if failure is not None:
            return _traced(trace, parent.id, deny(failure, failed_token=parent.id))
        above = _decide_one(parent, catalog, world, request, trace)
        if not above.allowed:
            return replace(above, failed_token=parent.id)
    return decision


def _traced(trace: list[TracedToken] | None, token: TokenId, decision: Decision) -> Decision:
    if trace is not None:
        trace.append(TracedToken(token, decision.reason))
    return decision


def line_failure(token: Token, world: World, request: Request) -> Reason | None:
    """Rule A1 for the token and all its ancestors: what identifies a caller. None when it holds."""
    failure = token_failure(token, world, request)
    for parent in _ancestors(token, world):
        if failure is not None:
            return failure
        failure = Reason.TOKEN_REVOKED if isinstance(parent, str) else token_failure(parent, world, request)
    return failure


def _ancestors(token: Token, world: World) -> Iterator[Token | TokenId]:
    """The tokens above, nearest first; where the line is broken, circular or too long, the id at which it is (T4)."""
    line = {token.id}
    while token.parent is not None:
        parent = world.token(token.parent)
        if parent is None or parent.id in line or len(line) > MAX_ANCESTORS:
            yield token.parent
            return
        line.add(parent.id)
        yield parent
        token = parent


def token_failure(token: Token, world: World, request: Request, catalog: Catalog | None = None) -> Reason | None:
    """Rule A1 for a token that is ours, or None when it holds. Expiry has no grace.

    An owner who is only a text passes where `catalog` leaves owners upstream, and where no catalog is given.
    """
    if token.revoked_at is not None:
        return Reason.TOKEN_REVOKED
    if token.expires_at is not None and request.now >= token.expires_at:
        return Reason.TOKEN_EXPIRED
    if token.not_before is not None and request.now < token.not_before:
        return Reason.TOKEN_NOT_YET_VALID
    if isinstance(token.owner, int):
        owner = world.user(token.owner)
        if owner is None or owner.state is not UserState.ACTIVE:
            return Reason.OWNER_INACTIVE
    elif catalog is not None and not catalog.upstream:
        return Reason.OWNER_INACTIVE
    if not address_allowed(token.conditions, request.client_address):
        return Reason.CONDITION_FAILED
    return None


def _decide_one(
    token: Token, catalog: Catalog, world: World, request: Request, trace: list[TracedToken] | None
) -> Decision:
    """Rules A2 to A8 for one token of the line."""
    traced = None if trace is None else TracedToken(token.id, catalog=catalog.label)
    decision = judge(open_case(token, catalog, world, request, traced), catalog, request.ask)
    if trace is not None and traced is not None:
        traced.reason = decision.reason
        trace.append(traced)
    return decision


def judge(case: Case, catalog: Catalog, ask: PermissionRequest | OperationRequest) -> Decision:
    """Rules A2 to A8 for one case; rule A1 and the line above a token are not in it."""
    if isinstance(ask, PermissionRequest):
        permission = catalog.by_name.get(ask.permission)
        if permission is None:
            return deny(Reason.PERMISSION_UNKNOWN, says=no_such_permission(catalog, ask.permission))
        return _decide_permission(case, permission)
    if ask.bad_path:
        return deny(Reason.BAD_PATH, says=ask.path_fault)
    if ask.bad_document:
        return deny(Reason.BAD_DOCUMENT)
    operation = catalog.operations.get(ask.operation)
    if operation is None:
        return _decide_unlisted(case, ask)
    return _decide_operation(case, operation)


def _decide_permission(case: Case, permission: Permission) -> Decision:
    place = case.resolve(_CALLER)
    if isinstance(place, Reason):
        return _unresolved(case, place)
    if place.kind not in permission.boundaries:
        return _denied_at(case, place, Reason.BOUNDARY_MISMATCH)
    return decide_sets(case, (RequirementSet((Item(permission.name, place.kind, _CALLER),)),), None)


def _decide_unlisted(case: Case, ask: OperationRequest) -> Decision:
    """An operation in no table: a legacy scope with `any_operation` has it judged by its target (C7)."""
    return _decide_by_target(
        case,
        lambda legacy: legacy.any_write or (legacy.any_read and not ask.mutates),
        ask.unlisted,
    )


def _decide_by_target(case: Case, covers: Callable[[LegacyHoldings], bool], otherwise: Reason) -> Decision:
    """What no set speaks of, by the place the caller gives; `otherwise` where the token's bundles do not cover it."""
    legacy = case.lookup.legacy_public
    if legacy is None or not covers(legacy):
        return deny(otherwise)
    place = case.resolve(_CALLER)
    if isinstance(place, Reason):
        return _unresolved(case, place)
    there = case.legacy_at(place)
    if there is None or not covers(there) or (place.kind is NodeKind.USER and place.id != case.own_id):
        return _denied_at(case, place, Reason.OUTSIDE_REACH)
    failure = owner_failure(case, place, None)
    if failure is not None:
        return _denied_at(case, place, failure)
    objection = bearing_objection(case, place)
    if objection is not None:
        return _denied_at(case, place, objection.reason, objection.note)
    return allow(Reason.GRANTED, target=place.text)


def _decide_operation(case: Case, operation: Operation) -> Decision:
    if operation.closed and not case.legacy:
        return deny(Reason.OPERATION_CLOSED)
    opened = _open(case, operation) if operation.open else None
    if opened is not None and (opened.allowed or not operation.sets):
        return opened
    if operation.sets:
        return decide_sets(case, operation.sets, operation)
    return _decide_by_target(
        case,
        lambda legacy: operation.id in legacy.operations,
        Reason.OPERATION_CLOSED if operation.closed else Reason.PERMISSION_MISSING,
    )


def _open(case: Case, operation: Operation) -> Decision | None:
    """Rule A7's `open`; None where the flag has no effect (C4)."""
    if operation.open_at is None:
        return allow(Reason.GRANTED_OPEN)
    if operation.mutates and not operation.reviewed:
        return None
    place = case.resolve(operation.open_at)
    if isinstance(place, Reason):
        return _unresolved(case, place)
    failure = None if place.public else owner_failure(case, place, None)
    if failure is not None:
        return _denied_at(case, place, failure)
    objection = kind_objection(case, place) if place.public and ends_public_reads(case, place) else None
    if objection is not None:
        return _denied_at(case, place, objection.reason, objection.note)
    return allow(Reason.GRANTED_OPEN, target=place.text)


def _unresolved(case: Case, reason: Reason) -> Decision:
    hide = reason is Reason.TARGET_UNKNOWN and not case.catalog.upstream
    return deny(reason, hide=hide, target=case.request.ask.target)


def _denied_at(case: Case, place: Place, reason: Reason, policy: PolicyNote | None = None) -> Decision:
    return deny(reason, hide=not case.places.seen(place), target=place.text, policy=policy)
