"""What a token needs of the groups it reaches into, kept in step with it: asked, narrowed, approved by itself (P4)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.admin.drafts import ends_later
from authz_service.admin.issuing import CREATE_ANY
from authz_service.catalog.model import Catalog
from authz_service.directory.model import INSTANCE_ID, NodeId, User, format_target
from authz_service.store import events, grants, policies
from authz_service.store.audit import AuditEntry
from authz_service.store.changes import ChangeSet
from authz_service.store.events import Event, EventKind
from authz_service.store.grandfathering import Directory
from authz_service.store.grants import By, RequestRecord
from authz_service.store.seen import load_seen_paths
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.asking import Book, Ground, covers, needed
from authz_service.tokens.grants import Approvals, Grant, GrantRequest, GrantState, Origin, Pair, RequestState
from authz_service.tokens.model import ReachKind, Scope, Token, TokenId, TokenKind
from authz_service.tokens.policy import AutoApproval, outlives, set_aside

DECIDE: Final = "grant:decide"
MOST_MEMBERSHIPS: Final = 100
"""A reach of all memberships asks so many groups at creation; with more, each is asked at the first use there."""
OWNER_ROLE: Final = "owner"


async def settle_token(
    conn: AsyncConnection, touched: ChangeSet, authority: Authority, record: TokenRecord, before: Token | None
) -> Sequence[AuditEntry]:
    """After a creation (`before` None) or an edit: less is taken back at once, more is asked, in this transaction.

    Answers the rows of the audit for what was granted at once, which the caller inserts with its stamp.
    """
    token = record.token
    if token.kind is TokenKind.LEGACY:
        return ()
    entries: list[AuditEntry] = []
    user = await authority.world.user(token.owner) if isinstance(token.owner, int) else None
    for name in sorted(token.catalogs):
        book = {policy.node: policy for policy in (await policies.load_catalog(conn, name))[1]}
        requiring = any(policy.approval is not None and policy.approval.required for policy in book.values())
        if not requiring or set_aside(token, name, admin=user is not None and user.admin):
            continue
        version = token.catalogs[name]
        catalog = await authority.world.answer(lambda world: world.catalog(name, version))  # noqa: B023
        if catalog is not None:
            settling = await Settling.open(conn, touched, authority, record, catalog, book)
            await settling.settle(before)
            entries += settling.entries
    return entries


def folded(token: Token, catalog: Catalog) -> Token:
    """The token with upstream places written as the catalog compares them (C9)."""
    if not catalog.upstream:
        return token

    def fold(scope: Scope) -> Scope:
        nodes = tuple(catalog.fold(node) if isinstance(node, str) else node for node in scope.reach.nodes)
        return replace(scope, reach=replace(scope.reach, nodes=nodes))

    return replace(token, scopes=tuple(fold(scope) for scope in token.scopes))


async def memberships_of(authority: Authority, token: Token, catalog: str) -> list[NodeId]:
    """Where the owner is a member, if a scope of the catalog reaches all memberships."""
    reaching = any(scope.catalog == catalog and scope.reach.kind is ReachKind.ALL_MEMBERSHIPS for scope in token.scopes)
    if not reaching or not isinstance(token.owner, int):
        return []
    return list(await authority.world.answer(lambda world: world.memberships(token.owner)))


@dataclass(slots=True)
class Settling:
    """One token, one catalog, one transaction."""

    conn: AsyncConnection
    touched: ChangeSet
    authority: Authority
    record: TokenRecord
    catalog: Catalog
    book: Book
    directory: Directory
    ground: Ground
    memberships: list[NodeId]
    approvals: Approvals
    entries: list[AuditEntry] = field(default_factory=list)
    """What was granted at once, for the audit."""

    @classmethod
    async def open(
        cls,
        conn: AsyncConnection,
        touched: ChangeSet,
        authority: Authority,
        record: TokenRecord,
        catalog: Catalog,
        book: Book,
    ) -> Settling:
        """Holds what was asked and granted for the token until the transaction ends."""
        await grants.hold(conn, record.family)
        book = {catalog.fold(node) if isinstance(node, str) else node: policy for node, policy in book.items()}
        memberships = await memberships_of(authority, record.token, catalog.name)
        memberships = [] if len(memberships) > MOST_MEMBERSHIPS else memberships
        approvals = await grants.load_of_family(conn, record.family)
        directory = Directory()
        await directory.read(conn, [*book, *memberships, *_nodes_of(approvals)])
        found = cls(
            conn, touched, authority, record, catalog, book, directory, directory.ground(book), memberships, approvals
        )
        await found._read(record.token)
        return found

    async def _read(self, token: Token) -> None:
        nodes = [node for scope in token.scopes for node in scope.reach.nodes]
        await self.directory.read(self.conn, nodes)

    def needs(self, token: Token) -> dict[NodeId, frozenset[Pair]]:
        return needed(folded(token, self.catalog), self.catalog.name, self.memberships, self.ground)

    async def settle(self, before: Token | None) -> None:
        """Bring requests and grants in step with the token as it is now."""
        if before is not None:
            await self._read(before)
        wanted = self.needs(self.record.token)
        had = {} if before is None else self.needs(before)
        longer = before is not None and ends_later(before.expires_at, self.record.token.expires_at)
        for group in sorted({*wanted, *had}, key=str):
            await self._settle_group(group, wanted.get(group, frozenset()), had.get(group, frozenset()), longer=longer)
        for grant in self.approvals.grants if longer else ():
            # All memberships that are too many to be asked, and those of before: what was granted there lives longer.
            group = grant.group
            if group not in {*wanted, *had} and self._active(group) == grant and self.ground.approving(group) == group:
                request = await self._pending(group)
                stood = grant.pairs | (frozenset() if request is None else request.request.asked)
                await self._settle_group(group, stood, stood, longer=True)

    async def _settle_group(self, group: NodeId, want: frozenset[Pair], had: frozenset[Pair], *, longer: bool) -> None:
        way, by = self.ground.way, By(self.authority.token.id, self.authority.user_id)
        grant, request = self._active(group), await self._pending(group)
        added = {pair for pair in want if not covers(had, pair, way(pair[1]))}
        kept: frozenset[Pair] = frozenset()
        again: frozenset[Pair] = frozenset()
        if grant is not None:
            kept = self._within(grant.pairs, want)
            if longer and not self._by_rule(group, want, by):
                again = await self._given_by_rule_alone(group, kept)
                kept -= again
            if kept != grant.pairs:
                await grants.set_pairs(self.conn, self.touched, grant, kept)
        asked = frozenset() if request is None else self._within(request.request.asked, want)
        new = frozenset(pair for pair in added if not covers({*kept, *asked}, pair, way(pair[1])))
        if new or again:
            await self.ask(group, asked | new | again, by)
        elif request is not None and not asked:
            await grants.close_request(
                self.conn, self.touched, request, RequestState.CANCELLED, by=by, reason="no longer needed"
            )
        elif request is not None and asked != request.request.asked:
            await grants.set_asked(self.conn, self.touched, request, asked)

    async def _given_by_rule_alone(self, group: NodeId, kept: frozenset[Pair]) -> frozenset[Pair]:
        """What of a grant the last approval that covers it gave by rule (P2)."""
        stored = await grants.load_approved(self.conn, self.record.family, self.catalog.name, group)
        found: set[Pair] = set()
        for pair in kept:
            last = [one for one in stored if covers(one.request.given, pair, self.ground.way(pair[1]))][-1:]
            found |= {pair for one in last if one.given_by_rule}
        return frozenset(found)

    def _within(self, pairs: Iterable[Pair], want: Iterable[Pair]) -> frozenset[Pair]:
        """The parts of the pairs that lie inside what is wanted."""
        way = self.ground.way
        want = frozenset(want)
        inner = {pair for pair in pairs if covers(want, pair, way(pair[1]))}
        return frozenset(inner | {pair for pair in want if covers(pairs, pair, way(pair[1]))})

    def _active(self, group: NodeId) -> Grant | None:
        for grant in self.approvals.grants:
            here = grant.catalog == self.catalog.name and grant.group == group
            if here and grant.state is GrantState.ACTIVE:
                return grant
        return None

    async def _pending(self, group: NodeId) -> RequestRecord | None:
        for request in self.approvals.requests:
            here = request.catalog == self.catalog.name and request.group == group
            if here and request.state is RequestState.PENDING:
                return await grants.find_request(self.conn, request.id)
        return None

    # asking

    async def ask(self, group: NodeId, asked: frozenset[Pair], by: By, reason: str | None = None) -> None:
        """Ask the group; what it or a rule gives by itself is granted at once, the rest waits for a review."""
        given, origin = await self._given_at_once(group, asked, by)
        await self._write(group, asked, given, origin, by, self.record.reason if reason is None else reason)

    async def _write(
        self, group: NodeId, asked: frozenset[Pair], given: frozenset[Pair], origin: Origin, by: By, reason: str
    ) -> None:
        conn, touched, family, name = self.conn, self.touched, self.record.family, self.catalog.name
        if given:
            number = await grants.open_request(conn, touched, family, name, group, given, by=by, reason=reason)
            opened = await grants.find_request(conn, number)
            if opened is not None:
                await grants.close_request(
                    conn, touched, opened, RequestState.APPROVED, by=By(), reason=f"by {origin.value}", given=given
                )
            await grants.give(conn, touched, family, name, group, given, origin=origin, by=By())
            await self.tell(EventKind.GRANT_APPROVED, group, number, origin=origin.value)
            details = {
                "request": number,
                "catalog": name,
                "group": group,
                "reason": f"by {origin.value}",
                "given": grants.write_pairs(given),
            }
            self.entries.append(entry_of("grant.approve", self.record, self.authority, group, details))
        if asked - given:
            number = await grants.open_request(conn, touched, family, name, group, asked - given, by=by, reason=reason)
            await self.tell(EventKind.GRANT_REQUESTED, group, number)

    async def tell(self, kind: EventKind, group: NodeId, number: int, **data: object) -> None:
        await tell(self.conn, kind, self.record.token, group, request=number, catalog=self.catalog.name, **data)

    async def _given_at_once(self, group: NodeId, asked: frozenset[Pair], by: By) -> tuple[frozenset[Pair], Origin]:
        user = self.authority.user
        if user is None or not self._asks_in_person(by):
            return frozenset(), Origin.REVIEW
        if user.id == self.record.token.owner and await self._owns(user, group):
            given = await self._own_part(group, asked)
            if given:
                return given, Origin.OWNER
        if self._by_rule(group, asked | self.needs(self.record.token).get(group, frozenset()), by):
            return asked, Origin.RULE
        return frozenset(), Origin.REVIEW

    def _asks_in_person(self, by: By) -> bool:
        user = self.authority.user
        return user is not None and not user.service_account and by.user == user.id

    async def _owns(self, user: User, group: NodeId) -> bool:
        held: Mapping[NodeId, str] = await self.authority.world.answer(lambda world: world.memberships(user.id))
        return any(held.get(node) == OWNER_ROLE for node in self.ground.way(group))

    async def _own_part(self, group: NodeId, asked: frozenset[Pair]) -> frozenset[Pair]:
        """What the token that asks is itself granted there: else a denied one could have another made (P4)."""
        authority = self.authority
        if await authority.may(CREATE_ANY) or await authority.may_at(DECIDE, group) or authority.signed_in:
            return asked
        _, own = await grants.load_of_token(self.conn, authority.token.id)
        held: set[Pair] = set()
        for grant in own.grants:
            if grant.catalog == self.catalog.name and grant.group == group and grant.state is GrantState.ACTIVE:
                held |= grant.pairs
        await self.directory.read(self.conn, [node for _, node in held])
        way = self.ground.way
        return frozenset(pair for pair in asked if covers(held, pair, way(pair[1])))

    def _by_rule(self, group: NodeId, held: frozenset[Pair], by: By) -> bool:
        """Whether rules let a person's token hold all this in the group (P2).

        The group, or what lies above it, has to have a list; each list on the way up of any place has to have a rule
        that fits.
        """
        above = {INSTANCE_ID, *self.ground.way(group)}
        nodes = above | {node for _, at in held for node in self.ground.way(at)}
        lists = {
            node: policy.approval.auto_approve
            for node, policy in self.book.items()
            if node in nodes and policy.approval is not None and policy.approval.auto_approve is not None
        }
        if not self._asks_in_person(by) or lists.keys().isdisjoint(above):
            return False
        return all(any(self._meets(rule, group, held) for rule in rules) for rules in lists.values())

    def _meets(self, rule: AutoApproval, group: NodeId, asked: frozenset[Pair]) -> bool:
        if rule.only_reads:
            named = [self.catalog.by_name.get(name) for name, _ in asked]
            if any(permission is None or permission.mutates for permission in named):
                return False
        if rule.max_lifetime_days is not None and outlives(self.record.token, rule.max_lifetime_days):
            return False
        nodes = {node for _, node in asked}
        return rule.max_nodes is None or (group not in nodes and len(nodes) <= rule.max_nodes)


def entry_of(
    action: str, token: TokenRecord, authority: Authority, group: NodeId, details: Mapping[str, object]
) -> AuditEntry:
    """What the audit says; it concerns the group."""
    return AuditEntry(
        action=action,
        subject=token.token.id,
        actor_token=authority.token.id,
        actor_user=authority.user_id,
        details=details,
        nodes=(group,) if isinstance(group, int) else (),
    )


async def tell(conn: AsyncConnection, kind: EventKind, token: Token, group: NodeId, **data: object) -> None:
    """Let whoever listens at the group, or to the token, know."""
    owner = token.owner if isinstance(token.owner, int) else None
    nodes = (group,) if isinstance(group, int) else ()
    await events.append_event(conn, Event(kind, token.id, owner, nodes, data))


async def load_standing(
    conn: AsyncConnection,
    records: Sequence[TokenRecord],
    viewer: NodeId | None,
    only: Collection[NodeId] | None = None,
) -> Mapping[TokenId, list[dict[str, Any]]]:
    """By family, as JSON: what groups have granted and what waits for them, by their paths of today.

    Of groups that the viewer sees (D5); with `only`, of those among these alone.
    """
    stood = await grants.load_of_families(conn, list({record.family for record in records}))
    found: dict[TokenId, list[Grant | GrantRequest]] = {
        family: [
            *(one for one in of_family.requests if one.state is RequestState.PENDING),
            *(one for one in of_family.grants if one.state is GrantState.ACTIVE),
        ]
        for family, of_family in stood.items()
    }
    groups = {one.group for of_family in found.values() for one in of_family if only is None or one.group in only}
    paths = await load_seen_paths(conn, viewer, sorted(node for node in groups if isinstance(node, int)))
    texts: dict[NodeId, str] = {node: format_target(*named) for node, named in paths.items()}
    texts |= {node: node for node in groups if isinstance(node, str)}
    return {
        family: sorted(
            (_describe_standing(one, texts[one.group]) for one in of_family if one.group in texts),
            key=lambda one: (one["group"], one["catalog"], one["state"]),
        )
        for family, of_family in found.items()
    }


def _describe_standing(one: Grant | GrantRequest, group: str) -> dict[str, Any]:
    pairs, request = (one.asked, one.id) if isinstance(one, GrantRequest) else (one.pairs, None)
    return {
        "group": group,
        "catalog": one.catalog,
        "state": one.state.value,
        "permissions": sorted({name for name, _ in pairs}),
        "request_id": request,
    }


def groups_of(standing: Sequence[Mapping[str, Any]]) -> list[str]:
    """The groups that these speak of, each once."""
    return sorted({one["group"] for one in standing})


def _nodes_of(approvals: Approvals) -> list[NodeId]:
    found = [node for grant in approvals.grants for _, node in grant.pairs]
    return found + [node for request in approvals.requests for _, node in request.asked]
