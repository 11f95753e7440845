"""Would this token make these calls, and what is the smallest that would: nothing is stored, nothing is granted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.admin.drafts import TokenDraft
from authz_service.admin.faults import shown
from authz_service.admin.issuing import CREATE, CREATE_ANY, IssueReader
from authz_service.admin.management import Actor, Management
from authz_service.admin.places import find_user, own_source
from authz_service.admin.tokens import find_seen, may_see_whole
from authz_service.catalog.model import Catalog
from authz_service.directory.model import NodeId
from authz_service.engine.decide import decide
from authz_service.engine.explain import HIDDEN_MESSAGE, describe
from authz_service.engine.fix import find_fixes
from authz_service.engine.model import Decision, OperationRequest, PermissionRequest, Reason, Request, World
from authz_service.engine.overlay import Overlay
from authz_service.engine.steps import Fix
from authz_service.engine.suggest import Need, Suggestion, Where, needs_of, suggest
from authz_service.errors import Fault, ForbiddenError, InvalidInputError, NotFoundError
from authz_service.pdp.check import parse_catalog
from authz_service.pdp.routing import HttpCall, Routing
from authz_service.store import changes
from authz_service.store.changes import format_revision
from authz_service.tokens.model import Conditions, ReachKind, Scope, Token, TokenKind
from authz_service.tokens.secret import new_token_id

MOST_CALLS: Final = 200
_MOST_FIXES: Final = 20
"""Denials for which fixes are looked for: each takes some ten milliseconds."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """`catalog` is a name or a version of it. At most one of `token_id`, `draft` and `owner` is given."""

    catalog: str
    calls: Sequence[PermissionRequest | HttpCall]
    owner: str | None = None
    token_id: str | None = None
    draft: TokenDraft | None = None
    client_address: str | None = None


async def simulate(management: Management, routing: Routing, actor: Actor, asked: Simulation) -> Mapping[str, Any]:
    """What a token, a draft, or nobody yet, would be answered for these calls; and the smallest token for them.

    Needs `token:create` for the owner, and to see a token that is named. Raises ForbiddenError, NotFoundError,
    InvalidInputError.
    """
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        desk = _Desk(conn, management, authority, routing, asked)
        token = await desk.find_token()
        catalog = await desk.find_catalog(token)
        if token is None:
            token_or_none, bare = None, await desk.make_bare(catalog)
        else:
            token_or_none, bare = token, _bare(token)
        requests = await desk.read_calls(catalog)
        answers = (
            None
            if token_or_none is None
            else await desk.decide_all([(token_or_none, request) for request in requests], fixes=True)
        )
        suggestion = await desk.suggest(catalog, bare, requests)
        stamp = await changes.current(conn)
        return {
            "catalog": catalog.label,
            "owner": await desk.owner_name(bare.owner),
            "decisions": answers,
            "suggestion": suggestion,
            "revision": format_revision(stamp),
        }


def _bare(token: Token) -> Token:
    """A token of the same owner and versions that holds nothing, from anywhere, for as long as it takes."""
    return replace(
        token,
        id=new_token_id(),
        kind=TokenKind.FINE_GRAINED,
        scopes=(),
        legacy_scopes=(),
        conditions=Conditions(),
        parent=None,
        not_before=None,
        expires_at=None,
        revoked_at=None,
        resource_owner=None,
    )


class _Desk:
    """One simulation, on one snapshot."""

    def __init__(
        self,
        conn: AsyncConnection,
        management: Management,
        authority: Authority,
        routing: Routing,
        asked: Simulation,
    ) -> None:
        self._conn = conn
        self._management = management
        self._authority = authority
        self._routing = routing
        self._asked = asked

    # what is asked about

    async def find_token(self) -> Token | None:
        """The token, or what the draft would become. Raises NotFoundError for one that the actor sees only in part."""
        asked, authority = self._asked, self._authority
        if asked.token_id is not None:
            record = await find_seen(self._conn, authority, asked.token_id)
            if not await may_see_whole(authority, record):
                raise NotFoundError("there is no such token, or this token may not see all of it")
            return record.token
        if asked.draft is None:
            return None
        authority.require_holds(CREATE)
        issue = await IssueReader(self._conn, self._management, authority, asked.draft).read(new_token_id())
        await self._require_may_create(issue.token.owner)
        return replace(issue.token, created_at=authority.world.now)

    async def find_catalog(self, token: Token | None) -> Catalog:
        """By the token's version, else by that which the actor would issue under (M2)."""
        name, version = parse_catalog(self._asked.catalog)
        if token is not None:
            own = token.catalogs.get(name)
            if own is None or version not in (None, own):
                message = f"the token is not for `{shown(self._asked.catalog)}`"
                raise _fault("/catalog", "catalog_mismatch", message)
            version = own
        elif version is None and not await self._authority.may(CREATE_ANY):
            version = self._authority.token.catalogs.get(name)
        found = await self._management.shelf.find(self._conn, name, version)
        if found is None:
            message = (
                f"there is no catalog `{shown(self._asked.catalog)}`; `GET /v1/catalogs` lists those that there are"
            )
            raise _fault("/catalog", "catalog_unknown", message)
        return found

    async def make_bare(self, catalog: Catalog) -> Token:
        """Nobody's token yet, of the owner that is named."""
        self._authority.require_holds(CREATE)
        owner = await self._find_owner(catalog)
        await self._require_may_create(owner)
        now = self._authority.world.now
        return Token(new_token_id(), owner, {catalog.name: catalog.version}, created_at=now)

    async def _find_owner(self, catalog: Catalog) -> NodeId:
        text = self._asked.owner
        if catalog.upstream:
            if not text:
                raise _fault("/owner", "missing_field", "say whose token this is, by the name that the API knows")
            return text
        if text is None:
            return self._authority.token.owner
        node = await find_user(self._authority, text, catalog.source or await own_source(self._authority))
        if node is None:
            raise _fault("/owner", "owner_unknown", f"there is no user `{shown(text)}`; write a username")
        return node.id

    async def _require_may_create(self, owner: NodeId) -> None:
        if not await self._authority.may_for(CREATE, owner):
            raise ForbiddenError(
                f"this token may not ask for that owner: it needs `{CREATE}` as the owner, at the home group of a "
                "service account, or as an admin"
            )

    async def owner_name(self, owner: NodeId) -> str:
        user = await self._authority.world.user(owner) if isinstance(owner, int) else None
        return str(owner) if user is None else user.username

    async def read_calls(self, catalog: Catalog) -> list[Request]:
        """As the engine asks. A path that names no operation stays a question, which is denied."""
        found = []
        for call in self._asked.calls:
            about: PermissionRequest | OperationRequest
            if isinstance(call, HttpCall):
                # The first call of a catalog builds its routes, which takes a second for a large one.
                about = await asyncio.to_thread(self._routing.resolve, catalog, call)
            else:
                about = call
            now = self._authority.world.now
            found.append(Request(catalog.name, about, now, client_address=self._asked.client_address))
        return found

    # what is answered

    async def decide_all(self, asked: Sequence[tuple[Token, Request]], *, fixes: bool) -> list[dict[str, Any]]:
        """Decisions as end clients get them: what the owner may not know of looks like what does not exist (A10)."""
        answers = []
        looked = 0
        for token, request in asked:
            named = fixes and looked < _MOST_FIXES
            decision, found = await self._authority.world.answer(partial(_decide, token, request, fixes=named))
            looked += not decision.allowed
            answers.append(render(decision, found if named else None))
            await asyncio.sleep(0)
        return answers

    async def suggest(self, catalog: Catalog, bare: Token, requests: Sequence[Request]) -> dict[str, Any]:
        world = self._authority.world
        first: list[tuple[Need, ...]] = []
        for request in requests:
            first.append(await world.answer(partial(_needs, bare, request, ())))
            await asyncio.sleep(0)
        known = tuple(
            dict.fromkeys(want.atom.where for needs in first for need in needs for way in need for want in way)
        )
        needs: list[Need] = []
        left_out: list[int] = []
        for position, request in enumerate(requests):
            wanted = await world.answer(partial(_needs, bare, request, known))
            needs += wanted
            if not all(wanted):
                left_out.append(position)
            await asyncio.sleep(0)
        found = await asyncio.to_thread(suggest, catalog, bare, needs)
        token = replace(bare, scopes=found.scopes, resource_owner=found.resource_owner)
        plain = await self.decide_all([(token, requests[position]) for position in left_out], fixes=False)
        left_out = [position for position, one in zip(left_out, plain, strict=True) if one["decision"] == "deny"]
        asked = [(token, request) for request in requests]
        for position in left_out:
            asked[position] = (await self._make_in_vain(catalog, bare, requests[position]), requests[position])
        decisions = await self.decide_all(asked, fixes=True)
        return {
            "token": await self._write(catalog, bare, found),
            "exact": found.exact,
            "size": found.size,
            "at_least": found.at_least,
            "left_out": left_out,
            "decisions": decisions,
        }

    async def _make_in_vain(self, catalog: Catalog, bare: Token, request: Request) -> Token:
        """For a call that no token of this owner makes: one that holds what it asks for."""
        needs = await self._authority.world.answer(partial(_needs, bare, request, (), in_vain=True))
        found = await asyncio.to_thread(suggest, catalog, bare, needs)
        return replace(bare, scopes=found.scopes, resource_owner=found.resource_owner)

    async def _write(self, catalog: Catalog, bare: Token, found: Suggestion) -> dict[str, Any]:
        """A request that `POST /v1/tokens` takes as it is."""
        body: dict[str, Any] = {
            "name": "suggested",
            "owner": await self.owner_name(bare.owner),
            "catalog": catalog.label,
            "scopes": [write_scope(scope, found.targets) for scope in found.scopes],
        }
        if found.resource_owner is not None:
            body["resource_owner"] = await self._target_of(catalog, found.resource_owner)
        return body

    async def _target_of(self, catalog: Catalog, node: NodeId) -> str:
        if isinstance(node, str):
            return catalog.fold(node)
        found = await self._authority.world.node(node)
        return "" if found is None else f"{found.kind.value}:{found.name}"  # it lies at the top


def write_scope(scope: Scope, targets: Mapping[NodeId, str]) -> dict[str, Any]:
    """A scope as requests write it."""
    reach: dict[str, Any] = {"kind": scope.reach.kind.value}
    if scope.reach.kind is ReachKind.SELECTED:
        reach["nodes"] = [targets[node] for node in scope.reach.nodes]
    return {"reach": reach, "permissions": list(scope.permissions)}


def _decide(token: Token, request: Request, world: World, *, fixes: bool) -> tuple[Decision, tuple[Fix, ...]]:
    there = Overlay(world).with_token(token)
    decision = decide(token, there, request)
    return decision, find_fixes(token, there, request, decision) if fixes else ()


def _needs(
    bare: Token, request: Request, known: Sequence[Where], world: World, *, in_vain: bool = False
) -> tuple[Need, ...]:
    return needs_of(bare, world, request, known, in_vain=in_vain)


def render(decision: Decision, fixes: Sequence[Fix] | None = None) -> dict[str, Any]:
    """A decision as the owner of the token may see it."""
    if decision.hide and not decision.allowed:
        return {"decision": "deny", "reason": Reason.TARGET_UNKNOWN.value, "message": HIDDEN_MESSAGE}
    found: dict[str, Any] = {
        "decision": "allow" if decision.allowed else "deny",
        "reason": decision.reason.value,
        "message": describe(decision),
    }
    if decision.missing:
        found["missing"] = [
            {"permission": item.permission, "boundary": item.boundary.value, "target": item.target}
            for item in decision.missing
        ]
    if fixes is not None and not decision.allowed:
        found["fixes"] = [fix.document() for fix in fixes]
    return found


def _fault(where: str, code: str, message: str) -> InvalidInputError:
    return InvalidInputError("the body has a fault", faults=[Fault(where, code, message)])
