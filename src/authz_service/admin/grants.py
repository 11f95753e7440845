"""The review of grant requests, and the grants that stand: listed, decided, taken back (rules P4, M1, M3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.approval_views import describe_grants, describe_pairs, describe_requests
from authz_service.admin.approvals import DECIDE, OWNER_ROLE, entry_of, tell
from authz_service.admin.authority import Authority
from authz_service.admin.faults import Faults, shown
from authz_service.admin.management import Actor, Management
from authz_service.admin.ruled_places import find_ruled_place
from authz_service.directory.model import NodeId
from authz_service.errors import AuthzError, ConflictError, ForbiddenError, InvalidInputError, NotFoundError
from authz_service.store import audit, changes, grant_lists, grants, owners, tokens
from authz_service.store.changes import ChangeSet, format_revision
from authz_service.store.events import EventKind
from authz_service.store.grandfathering import Directory
from authz_service.store.grant_lists import ApprovalFilter
from authz_service.store.grants import By, GrantRecord, RequestRecord
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.asking import covers
from authz_service.tokens.grants import GrantRequest, GrantState, Origin, Pair, RequestState
from authz_service.tokens.model import TokenId
from authz_service.tokens.secret import is_token_id

READ: Final = "grant:read"
REVOKE: Final = "grant:revoke"
EDIT_TOKEN: Final = "token:edit"
READ_TOKEN: Final = "token:read"
MOST_AT_ONCE: Final = 100


class Verdict(StrEnum):
    """What a reviewer says, or who asked takes back."""

    APPROVE = "approve"
    DENY = "deny"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Review:
    """`permissions` and `nodes` approve less than was asked: these alone, on these places or below what was asked."""

    verdict: Verdict
    reason: str = ""
    permissions: tuple[str, ...] | None = None
    nodes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ApprovalQuery:
    """What a list is asked for. Without `node` and `token`, an admin gets everything."""

    node: str | None = None
    token: str | None = None
    state: str | None = None
    catalog: str | None = None
    limit: int = 50
    cursor: str | None = None


async def list_requests(management: Management, actor: Actor, query: ApprovalQuery) -> Mapping[str, Any]:
    """One page of what was asked of a group and of those below it. Raises ForbiddenError, InvalidInputError."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        wanted = await _filter(conn, management, authority, query)
        found, cursor = await grant_lists.list_requests(conn, wanted, limit=query.limit, cursor=query.cursor)
        items = await describe_requests(conn, found, authority.token.owner)
        return {"items": items, "next_cursor": cursor, "revision": format_revision(await changes.current(conn))}


async def list_grants(management: Management, actor: Actor, query: ApprovalQuery) -> Mapping[str, Any]:
    """One page of what a group and those below it granted. Raises ForbiddenError, InvalidInputError."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        wanted = await _filter(conn, management, authority, query)
        found, cursor = await grant_lists.list_grants(conn, wanted, limit=query.limit, cursor=query.cursor)
        items = await describe_grants(conn, found, authority.token.owner)
        return {"items": items, "next_cursor": cursor, "revision": format_revision(await changes.current(conn))}


async def _filter(
    conn: AsyncConnection, management: Management, authority: Authority, query: ApprovalQuery
) -> ApprovalFilter:
    """Rule M3: at a group its owners, of one token whoever manages it, of everything an admin."""
    authority.require_holds(READ, READ_TOKEN)
    everything = await authority.may(READ)
    under: NodeId | None = None
    family: TokenId | None = None
    if query.node is not None:
        under = await find_ruled_place(conn, management, authority, query.node, READ, catalog=query.catalog)
    if query.token is not None:
        record = (await tokens.find_by_id(conn, TokenId(query.token))).record if is_token_id(query.token) else None
        mine = record is not None and await authority.may_for(READ_TOKEN, record.token.owner)
        if not (mine or everything or under is not None):
            raise NotFoundError("there is no such token, or this token may not see it")
        # At a group a token that is not there and one that asks nothing of it look the same: an empty list.
        family = TokenId(query.token) if record is None else record.family
    if not everything and under is None and family is None:
        raise ForbiddenError(f"this token may not see all groups: name one as `node`, or be an admin with `{READ}`")
    return ApprovalFilter(under, query.state, query.catalog, family)


async def decide_request(
    management: Management, actor: Actor, request_id: int, review: Review, *, wait: bool = False
) -> Mapping[str, Any]:
    """Approve, deny or cancel one request.

    Raises NotFoundError for what the actor may not see, ForbiddenError, ConflictError for what is closed already, and
    InvalidInputError for an approval of what was not asked; then nothing is changed.
    """

    async def work(conn: AsyncConnection) -> tuple[Mapping[str, Any], changes.Stamp]:
        authority = await Authority.open(conn, management, actor, hold=True)
        return await _decide(conn, authority, request_id, review)

    described, stamp = await management.database.run_in_transaction(work)
    if wait:
        await management.settled(stamp)
    return described


async def decide_requests(
    management: Management, actor: Actor, ids: Sequence[int], review: Review
) -> Sequence[Mapping[str, Any]]:
    """Each by itself: one that cannot be decided stops no other. Raises InvalidInputError for too many."""
    return await _each(ids, lambda one: decide_request(management, actor, one, review))


async def _each(ids: Sequence[int], act: Callable[[int], Awaitable[Mapping[str, Any]]]) -> Sequence[Mapping[str, Any]]:
    if not 0 < len(ids) <= MOST_AT_ONCE:
        raise InvalidInputError(f"name 1 to {MOST_AT_ONCE} at once")
    results: list[Mapping[str, Any]] = []
    for one in dict.fromkeys(ids):
        try:
            results.append({"id": one, "done": await act(one), "problem": None})
        except (ConflictError, ForbiddenError, NotFoundError, InvalidInputError) as error:
            results.append({"id": one, "done": None, "problem": _problem(error)})
    return results


def _problem(error: AuthzError) -> Mapping[str, Any]:
    faults = [{"where": fault.where, "code": fault.code, "message": fault.message} for fault in error.faults]
    return {"code": error.code, "detail": error.message, "faults": faults}


async def _decide(
    conn: AsyncConnection, authority: Authority, request_id: int, review: Review
) -> tuple[Mapping[str, Any], changes.Stamp]:
    record = await grants.find_request(conn, request_id)
    token = None if record is None else await _newest(conn, record.family)
    if record is None or token is None or not await _sees(authority, record.request.group, token):
        raise NotFoundError("there is no such request, or this token may not see it")
    await _require_may_decide(conn, authority, record, token, review.verdict)
    await grants.hold(conn, record.family)
    record = await grants.find_request(conn, request_id) or record
    _require_pending(record)
    if review.verdict is Verdict.APPROVE and token.token.revoked_at is not None:
        raise ConflictError("the token is revoked; nothing of it can be approved any more")
    touched, by = ChangeSet(), By(authority.token.id, authority.user_id)
    given = await _given(conn, record, review) if review.verdict is Verdict.APPROVE else frozenset[Pair]()
    state = {
        Verdict.APPROVE: RequestState.APPROVED,
        Verdict.DENY: RequestState.DENIED,
        Verdict.CANCEL: RequestState.CANCELLED,
    }[review.verdict]
    await grants.close_request(conn, touched, record, state, by=by, reason=review.reason, given=given)
    request = record.request
    if given:
        await grants.give(
            conn, touched, record.family, request.catalog, request.group, given, origin=Origin.REVIEW, by=by
        )
    stamp = await changes.append(conn, touched)
    details = {
        "request": request.id,
        "catalog": request.catalog,
        "group": request.group,
        "reason": review.reason,
        "given": grants.write_pairs(given),
    }
    await audit.insert(conn, entry_of(f"grant.{review.verdict.value}", token, authority, request.group, details), stamp)
    await tell(conn, _EVENTS[review.verdict], token.token, request.group, request=request.id, catalog=request.catalog)
    closed = await grants.find_request(conn, request_id) or record
    viewer = authority.token.owner
    [described] = await describe_requests(conn, [closed], viewer)
    still = await describe_pairs(conn, await _still_granted(conn, request, given), viewer)
    return {**described, "still_granted": still, "revision": format_revision(stamp)}, stamp


async def _still_granted(conn: AsyncConnection, request: GrantRequest, given: frozenset[Pair]) -> frozenset[Pair]:
    """What of a request the active grant covers although it was not given: a place that moved may lie in one now."""
    found = await grants.load_of_family(conn, request.token)
    active = {
        pair
        for grant in found.grants
        if grant.state is GrantState.ACTIVE and (grant.catalog, grant.group) == (request.catalog, request.group)
        for pair in grant.pairs
    }
    directory, rest = Directory(), request.asked - given
    await directory.read(conn, [node for _, node in rest])
    return frozenset(pair for pair in rest if covers(active, pair, directory.way(pair[1])))


_EVENTS: Final = {
    Verdict.APPROVE: EventKind.GRANT_APPROVED,
    Verdict.DENY: EventKind.GRANT_DENIED,
    Verdict.CANCEL: EventKind.GRANT_CANCELLED,
}


def _require_pending(record: RequestRecord) -> None:
    if record.request.state is not RequestState.PENDING:
        newer = "" if record.superseded_by is None else f" and superseded by request {record.superseded_by}"
        raise ConflictError(f"this request is {record.request.state.value} already{newer}; nothing was changed")


async def _newest(conn: AsyncConnection, family: TokenId) -> TokenRecord | None:
    """The living member of a token's rotations that came last; when all have ended, the last."""
    return await grants.newest_of_family(conn, family)


async def _sees(authority: Authority, group: NodeId, token: TokenRecord) -> bool:
    if await may_at(authority, READ, group) or await may_at(authority, DECIDE, group):
        return True
    return await authority.may_for(READ_TOKEN, token.token.owner)


async def may_at(authority: Authority, permission: str, group: NodeId) -> bool:
    """At a group of the directory; at one that only an API knows, as an admin (C9)."""
    if await authority.may(permission):
        return True
    return isinstance(group, int) and await authority.may_at(permission, group)


async def _require_may_decide(
    conn: AsyncConnection, authority: Authority, record: RequestRecord, token: TokenRecord, verdict: Verdict
) -> None:
    group, owner = record.request.group, token.token.owner
    if verdict is Verdict.CANCEL:
        if not await authority.may_for(EDIT_TOKEN, owner):
            raise ForbiddenError(f"only who manages the token takes back its requests: that needs `{EDIT_TOKEN}`")
        return
    if not await may_at(authority, DECIDE, group):
        raise ForbiddenError(f"this token may not decide that: it needs `{DECIDE}` at the group")
    if verdict is not Verdict.APPROVE:
        return
    by_service = authority.user is not None and authority.user.service_account
    if by_service and await _others_own(conn, group, None):
        # Whoever may issue its tokens would approve by it what they asked for themselves.
        raise ForbiddenError("a service account approves nothing where a person owns the group; ask an owner")
    user = authority.user_id
    own = user is not None and user in (owner, record.asked_by.user)
    if own and await _others_own(conn, group, user):
        raise ForbiddenError("nobody approves their own request; ask another owner of the group")


async def _others_own(conn: AsyncConnection, group: NodeId, user: int | None) -> bool:
    """Whether an active human owner of the group is there besides this one. Upstream there are admins alone."""
    if not isinstance(group, int):
        return False
    found = await owners.load_human_owners(conn, group, OWNER_ROLE)
    return any(one != user for one in found)


async def _given(conn: AsyncConnection, record: RequestRecord, review: Review) -> frozenset[Pair]:
    """What of the request is approved. Raises InvalidInputError with every name that was not asked."""
    asked, faults = record.request.asked, Faults()
    names = {name for name, _ in asked}
    wanted = names if review.permissions is None else set(review.permissions)
    for position, name in enumerate(review.permissions or ()):
        if name not in names:
            faults.add(f"/permissions/{position}", "not_asked", f"`{shown(name)}` was not asked for")
    pairs = frozenset(pair for pair in asked if pair[0] in wanted)
    if review.nodes is not None:
        pairs = await _on_nodes(conn, pairs, review.nodes, faults)
    faults.raise_any("the review")
    if not pairs:
        raise InvalidInputError("nothing of the request would be approved; deny it")
    return pairs


async def _on_nodes(
    conn: AsyncConnection, pairs: frozenset[Pair], texts: Sequence[str], faults: Faults
) -> frozenset[Pair]:
    directory = Directory()
    await directory.read(conn, [node for _, node in pairs])
    given: set[Pair] = set()
    for position, text in enumerate(texts):
        node = await owners.find_node(conn, text, directory_of=[node for _, node in pairs])
        await directory.read(conn, [] if node is None else [node])
        inside = (
            set()
            if node is None
            else {(name, node) for name, _ in pairs if covers(pairs, (name, node), directory.way(node))}
        )
        if not inside:
            faults.add(f"/nodes/{position}", "not_asked", f"`{shown(text)}` does not lie in what was asked for")
        given |= inside
    return frozenset(given)


# grants


async def revoke_grant(
    management: Management, actor: Actor, grant_id: int, reason: str = "", *, wait: bool = False
) -> Mapping[str, Any]:
    """End what a group granted; the token lives on elsewhere. Again changes nothing. Raises as `decide_request`."""

    async def work(conn: AsyncConnection) -> tuple[Mapping[str, Any], changes.Stamp]:
        authority = await Authority.open(conn, management, actor, hold=True)
        record = await grants.find_grant(conn, grant_id)
        token = None if record is None else await _newest(conn, record.family)
        if record is None or token is None or not await _sees(authority, record.grant.group, token):
            raise NotFoundError("there is no such grant, or this token may not see it")
        if not await may_at(authority, REVOKE, record.grant.group):
            raise ForbiddenError(f"this token may not revoke that: it needs `{REVOKE}` at the group")
        return await _revoke(conn, authority, record, token, reason)

    described, stamp = await management.database.run_in_transaction(work)
    if wait:
        await management.settled(stamp)
    return described


async def _revoke(
    conn: AsyncConnection, authority: Authority, record: GrantRecord, token: TokenRecord, reason: str
) -> tuple[Mapping[str, Any], changes.Stamp]:
    await grants.hold(conn, record.family)
    touched, grant = ChangeSet(), record.grant
    by = By(authority.token.id, authority.user_id)
    done = grant.state is GrantState.ACTIVE and await grants.revoke(conn, touched, record, by=by, reason=reason)
    stamp = await changes.append(conn, touched)
    if done:
        details = {"grant": grant.id, "catalog": grant.catalog, "group": grant.group, "reason": reason}
        await audit.insert(conn, entry_of("grant.revoke", token, authority, grant.group, details), stamp)
        await tell(conn, EventKind.GRANT_REVOKED, token.token, grant.group, grant=grant.id, catalog=grant.catalog)
    [described] = await describe_grants(
        conn, [await grants.find_grant(conn, grant.id) or record], authority.token.owner
    )
    return {**described, "revision": format_revision(stamp)}, stamp


async def revoke_grants(
    management: Management, actor: Actor, ids: Sequence[int], reason: str
) -> Sequence[Mapping[str, Any]]:
    """Each by itself, as `decide_requests`."""
    return await _each(ids, lambda one: revoke_grant(management, actor, one, reason))
