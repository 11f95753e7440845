"""Rule A5: whether the policies in force at a place admit the token, and its grant covers the request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from authz_service.compiler.approvals import NOTHING_YET, Approval, Closed, Masks
from authz_service.directory.model import INSTANCE_ID, NodeId, NodeKind
from authz_service.engine.case import Case
from authz_service.engine.model import PolicyNote, Reason
from authz_service.engine.places import PLACE_KINDS, Place
from authz_service.tokens.model import TokenKind
from authz_service.tokens.policy import (
    ALWAYS,
    Bearer,
    Policy,
    approval_in_force,
    kind_in_force,
    lifetime_in_force,
    outlives,
    set_aside,
)

_CLOSED: Final = {Closed.DENIED: Reason.APPROVAL_DENIED, Closed.REVOKED: Reason.APPROVAL_REVOKED}


@dataclass(frozen=True, slots=True)
class Objection:
    """Why A5 fails, and what the policy says that makes it so."""

    reason: Reason
    note: PolicyNote


def objection_at(case: Case, place: Place, conferring: int) -> Objection | None:
    """Rule A5 at a place for a permission that these confer there; None when it holds."""
    if not governed(case):
        return None
    return (
        kind_objection(case, place)
        or _lifetime_objection(case, place)
        or (None if case.legacy else _approval_objection(case, place, conferring))
    )


def bearing_objection(case: Case, place: Place) -> Objection | None:
    """The part of A5 that speaks of the token alone, whatever is asked: kind and lifetime."""
    if not governed(case):
        return None
    return kind_objection(case, place) or _lifetime_objection(case, place)


def governed(case: Case) -> bool:
    """Whether any policy could speak of this token in this catalog (P3)."""
    return bool(case.policies) and not set_aside(case.token, case.catalog.name, admin=_bearer(case).admin)


def kind_objection(case: Case, place: Place) -> Objection | None:
    """Whether tokens of this kind and owner are forbidden there now. Ask `governed` first."""
    kind = case.token.kind
    since, policy = kind_in_force(_policies(case, place), kind, _bearer(case))
    if since is None or policy is None or case.request.now < since:
        return None
    what = "legacy tokens" if kind is TokenKind.LEGACY else "fine-grained tokens"
    begun = policy.since if since == ALWAYS else since
    note = PolicyNote(_text_of(place, policy.node), f"forbids {what}", begun)
    return Objection(Reason.POLICY_FORBIDS_KIND, note)


def ends_public_reads(case: Case, place: Place) -> bool:
    """Rule A8: where a catalog wants it so, a forbidden legacy token does not even read what anyone may."""
    return (
        case.legacy
        and case.catalog.forbidding_legacy_ends_public_reads
        and governed(case)
        and kind_objection(case, place) is not None
    )


def ruled_below(case: Case, top: Place) -> Iterator[Place]:
    """The groups below a group that have a policy of their own: no others can object where those above do not."""
    if any(node != INSTANCE_ID and node not in top.chain for node in case.policies):
        yield from case.places.groups_below(top, case.policies.keys())


def approved_at(case: Case, place: Place) -> int | None:
    """The mask of permissions, as granted, that A5 lets through at the place; None where it objects to nothing."""
    if not governed(case):
        return None
    if kind_objection(case, place) is not None or _lifetime_objection(case, place) is not None:
        return 0
    group, _ = approving_group(case, place)
    if group is None or case.legacy:
        return None
    held = 0
    for node in place.chain:
        held |= _approval(case, group).active.get(node, 0)
    return held


def approving_group(case: Case, place: Place) -> tuple[NodeId | None, Policy | None]:
    """The topmost group on the way down that requires approval, and the policy that makes it so (P4)."""
    way = [(node, case.policies.get(node)) for node in _way(place)]
    position, policy = approval_in_force(way)
    if position is None or place.kind not in PLACE_KINDS:
        return None, None
    if way[position][0] != INSTANCE_ID:
        return way[position][0], policy
    top = place.chain[-1]
    return (top, policy) if _is_group(case, top) else (None, None)


def _is_group(case: Case, node: NodeId) -> bool:
    if isinstance(node, str):
        return node.startswith(f"{NodeKind.GROUP.value}:")
    found = case.world.node(node)
    return found is not None and found.kind is NodeKind.GROUP


def _lifetime_objection(case: Case, place: Place) -> Objection | None:
    days, policy = lifetime_in_force(_policies(case, place), case.token.kind, _bearer(case))
    if days is None or policy is None or not outlives(case.token, days):
        return None
    many = "1 day" if days == 1 else f"{days} days"
    note = PolicyNote(_text_of(place, policy.node), f"allows lives of {many} at most", policy.since)
    return Objection(Reason.LIFETIME_EXCEEDS_POLICY, note)


def _approval_objection(case: Case, place: Place, conferring: int) -> Objection | None:
    group, policy = approving_group(case, place)
    if group is None:
        return None
    approval = _approval(case, group)
    if _covers(approval.active, place, conferring):
        return None
    reason = Reason.APPROVAL_PENDING
    if not _covers(approval.pending, place, conferring):
        closed = (how for how, masks in approval.closed if _covers(masks, place, conferring))
        reason = _CLOSED.get(next(closed, None), reason)  # type: ignore[arg-type]
    since = None if policy is None else policy.since
    return Objection(reason, PolicyNote(_text_of(place, group), "requires approval", since, group))


def _approval(case: Case, group: NodeId) -> Approval:
    return case.world.grants(case.token, case.catalog).get(group, NOTHING_YET)


def _covers(masks: Masks, place: Place, conferring: int) -> bool:
    return any(masks.get(node, 0) & conferring for node in place.chain)


def _way(place: Place) -> Iterator[NodeId]:
    """The nodes from the instance down to the place."""
    yield INSTANCE_ID
    yield from (node for node in reversed(place.chain) if node != INSTANCE_ID)


def _policies(case: Case, place: Place) -> Iterator[Policy]:
    for node in _way(place):
        policy = case.policies.get(node)
        if policy is not None:
            yield policy


def _bearer(case: Case) -> Bearer:
    owner = case.owner
    return Bearer() if owner is None else Bearer(owner.service_account, owner.admin)


def _text_of(place: Place, node: NodeId) -> str:
    """What people call a node on the way up of the place."""
    if node == INSTANCE_ID:
        return NodeKind.INSTANCE.value
    if node == place.id:
        return place.text
    path = place.text.partition(":")[2].split("/")
    return f"{NodeKind.GROUP.value}:{'/'.join(path[: len(path) - place.chain.index(node)])}"
