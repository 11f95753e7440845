"""What would stop working: recent uses of live tokens, decided once as things are and once as they would be."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.admin.faults import shown
from authz_service.admin.management import Actor, Management
from authz_service.admin.places import find_node, find_user
from authz_service.admin.reaches import unknown_target
from authz_service.admin.tokens import READ
from authz_service.admin.usage import DAYS
from authz_service.admin.views import format_moment, load_names
from authz_service.catalog.model import bits
from authz_service.directory.model import Node, NodeId, NodeKind
from authz_service.engine.decide import decide
from authz_service.engine.model import Decision, PermissionRequest, Request, World
from authz_service.engine.overlay import Overlay
from authz_service.engine.places import node_text
from authz_service.errors import Fault, ForbiddenError, InvalidInputError
from authz_service.pdp.check import parse_catalog
from authz_service.store import changes, pins, usage
from authz_service.store.changes import format_revision
from authz_service.store.paging import read_cursor, write_cursor
from authz_service.store.usage import ANYWHERE, MANY, TokenUse
from authz_service.tokens.model import Conditions, Token, TokenId

_CHUNK: Final = 200
_MOST_USES: Final = 2_000
"""Of one page: it may end early, with a cursor."""
_ORDER: Final = "change"


@dataclass(frozen=True, slots=True)
class Change:
    """Exactly one of three is given, and what goes with it.

    `permission` is gone from `catalog`; `user` has `role` at `node`, None being none; tokens move to a `version`.
    """

    catalog: str
    permission: str | None = None
    user: str | None = None
    node: str | None = None
    role: str | None = None
    version: int | None = None
    days: int = DAYS
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class _Other:
    """The world as it would be: how each token would read, and who would have another role."""

    catalog: str
    without: frozenset[str] = frozenset()
    version: int | None = None
    role: tuple[NodeId, NodeId, str | None] | None = None

    def token(self, token: Token) -> Token:
        scopes = tuple(
            replace(scope, permissions=tuple(name for name in scope.permissions if name not in self.without))
            if scope.catalog == self.catalog
            else scope
            for scope in token.scopes
        )
        catalogs = dict(token.catalogs)
        if self.version is not None and self.catalog in catalogs:
            catalogs[self.catalog] = self.version
        return replace(token, scopes=scopes, catalogs=catalogs)


async def simulate_change(management: Management, actor: Actor, change: Change) -> Mapping[str, Any]:
    """One page of recent uses that the change would end, by token. It changes nothing.

    Needs `token:read` for all tokens; for a membership, at the group that it is in: then uses there are all that is
    looked at, and nothing is counted of others (M3). Uses whose place is not known one by one are counted as
    `unjudged`. Raises ForbiddenError, InvalidInputError.
    """
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        authority.require_holds(READ)
        everything = await authority.may(READ)
        other, owner = await _read(conn, management, authority, change, everything=everything)
        permissions = None
        if change.permission is not None:
            permissions = await _resting_on(conn, management, change)
        after = None if change.cursor is None else _after(change.cursor)
        # Who may not see all uses sees those at the membership's node: the database tells of no other, whatever the
        # cursor says.
        below = None if everything or other.role is None else _number(other.role[1])
        survey = _Survey(conn, authority, other, everything=everything)
        looked = 0
        more = True
        while more and len(survey.items) < change.limit and looked < _MOST_USES:
            uses = await usage.load_uses(
                conn,
                other.catalog,
                days=change.days,
                after=after,
                limit=_CHUNK,
                permissions=permissions,
                owner=owner,
                below=below,
            )
            for use in uses:
                if len(survey.items) >= change.limit:
                    break
                await survey.judge(use)
                after = (use.token, use.permission, use.place)
                looked += 1
                await asyncio.sleep(0)
            else:
                more = len(uses) == _CHUNK
        return {
            "items": await survey.describe(),
            "next_cursor": write_cursor(_ORDER, *after) if more and after is not None else None,
            "days": change.days,
            "judged": survey.judged,
            "unjudged": survey.unjudged,
            "revision": format_revision(await changes.current(conn)),
        }


def _after(cursor: str) -> tuple[str, str, str]:
    token, permission, place = read_cursor(cursor, _ORDER, 3)
    return token, permission, place


async def _read(
    conn: AsyncConnection, management: Management, authority: Authority, change: Change, *, everything: bool
) -> tuple[_Other, int | None]:
    """What would be other, and the owner whose tokens alone it could touch."""
    faults: list[Fault] = []
    name = parse_catalog(change.catalog)[0]
    catalog = await management.shelf.find(conn, name, change.version)
    if catalog is None:
        label = name if change.version is None else f"{name}@{change.version}"
        faults.append(Fault("/catalog", "catalog_unknown", f"there is no catalog `{shown(label)}`"))
    elif change.permission is not None and change.permission not in catalog.by_name:
        message = f"`{catalog.label}` has no permission `{shown(change.permission)}`"
        faults.append(Fault("/permission", "permission_unknown", message))
    role: tuple[NodeId, NodeId, str | None] | None = None
    if change.user is not None and change.node is not None:
        user = await find_user(authority, change.user)
        place = await find_node(management, authority, change.node)
        if user is None:
            faults.append(Fault("/user", "owner_unknown", f"there is no user `{shown(change.user)}`; write a username"))
        if place is None or place.kind not in (NodeKind.PROJECT, NodeKind.GROUP):
            faults.append(Fault("/node", "target_unknown", unknown_target(change.node)))
        if user is not None and place is not None and not faults:
            role = (user.id, place.id, change.role)
    if faults or catalog is None:
        raise InvalidInputError("the body has faults" if len(faults) > 1 else "the body has a fault", faults=faults)
    if not everything and (role is None or not await authority.may_at_group_of(READ, role[1])):
        raise ForbiddenError(f"this token may not ask that: it needs `{READ}` for all tokens, or at the group")
    without = frozenset[str]()
    if change.permission is not None:
        permission = catalog.by_name[change.permission]
        aliases = {alias for alias, meant in catalog.aliases.items() if meant == permission.name}
        without = frozenset({permission.name}) | aliases
    return _Other(name, without, change.version, role), None if role is None else _number(role[0])


def _number(node: NodeId) -> int | None:
    return node if isinstance(node, int) else None


async def _resting_on(conn: AsyncConnection, management: Management, change: Change) -> frozenset[str]:
    """The permissions whose use could rest on the one that goes: itself, and what it implies."""
    catalog = await management.shelf.find(conn, parse_catalog(change.catalog)[0], None)
    if catalog is None or change.permission is None:
        return frozenset()
    number = catalog.by_name[change.permission].number
    names: set[str] = set()
    for row in catalog.confers.values():
        names |= {catalog.permissions[one].name for one in bits(row[number])}
    return frozenset(names)


class _Survey:
    """Decides uses both ways and keeps those that would end."""

    def __init__(self, conn: AsyncConnection, authority: Authority, other: _Other, *, everything: bool) -> None:
        self._conn = conn
        self._authority = authority
        self._other = other
        self._everything = everything
        self.items: list[tuple[TokenUse, Token, str, Decision]] = []
        self.judged = 0
        self.unjudged = 0

    async def judge(self, use: TokenUse) -> None:
        world = self._authority.world
        node = await world.node(int(use.place)) if use.place.isdigit() else None
        if not self._everything and (node is None or not await self._authority.may_at_group_of(READ, node.id)):
            return
        token = await world.token(use.token)
        target = await self._target(use, node)
        if token is None or target is None:
            self.unjudged += 1
            return
        line = await world.ancestors(token) or ()
        request = Request(self._other.catalog, PermissionRequest(use.permission, target), world.now)
        before, after = await world.answer(partial(self._decide, token, line, request))
        if not before.allowed:
            self.unjudged += 1
            return
        self.judged += 1
        if not after.allowed:
            self.items.append((use, token, target, after))

    async def _target(self, use: TokenUse, node: Node | None) -> str | None:
        if node is None:
            return None if use.place.isdigit() or use.place in (ANYWHERE, MANY) else use.place
        return await self._authority.world.answer(lambda world: node_text(world, node))

    def _decide(
        self, token: Token, line: tuple[Token, ...], request: Request, world: World
    ) -> tuple[Decision, Decision]:
        now, then = Overlay(world), Overlay(world)
        for one in (token, *line):
            free = replace(one, conditions=Conditions())
            now, then = now.with_token(free), then.with_token(self._other.token(free))
        if self._other.role is not None:
            then = then.with_role(*self._other.role)
        return (
            decide(now.tokens[token.id], now, request),
            decide(then.tokens[token.id], then, request),
        )

    async def describe(self) -> list[dict[str, Any]]:
        """By token, in the order of their ids."""
        ids = sorted({token.id for _, token, _, _ in self.items})
        records = await pins.load_live(self._conn, ids)
        names = await load_names(self._conn, list(records.values()), None)
        grouped: dict[TokenId, dict[str, Any]] = {}
        for use, token, target, after in self.items:
            entry = grouped.setdefault(
                token.id,
                {"token_id": token.id, "name": token.name, "owner": names.owner(token.owner), "uses": []},
            )
            entry["uses"].append(
                {
                    "permission": use.permission,
                    "target": target,
                    "calls": use.calls,
                    "last_at": format_moment(use.last_at),
                    "reason": after.reason.value,
                }
            )
        return list(grouped.values())
