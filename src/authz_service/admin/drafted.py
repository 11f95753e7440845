"""What a token that nobody has made yet would be answered, and how that would come about: nothing is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from authz_service.admin.authority import Authority
from authz_service.admin.drafts import TokenDraft
from authz_service.admin.faults import shown
from authz_service.admin.issuing import CREATE, IssueReader
from authz_service.admin.management import Actor, Management
from authz_service.engine.decide import explain
from authz_service.engine.fix import find_fixes
from authz_service.engine.model import Decision, OperationRequest, PermissionRequest, Request, TracedToken, World
from authz_service.engine.overlay import Overlay
from authz_service.engine.steps import Fix
from authz_service.errors import Fault, ForbiddenError, InvalidInputError
from authz_service.pdp.check import parse_catalog
from authz_service.pdp.routing import HttpCall, Routing
from authz_service.tokens.model import Token
from authz_service.tokens.secret import new_token_id


@dataclass(frozen=True, slots=True)
class Explained:
    """A decision about a draft. `decision.hide` says that its owner may not know of the place (A10)."""

    decision: Decision
    trace: Sequence[TracedToken]
    fixes: Sequence[Fix]


async def explain_draft(
    management: Management, routing: Routing, actor: Actor, draft: TokenDraft, call: PermissionRequest | HttpCall
) -> Explained:
    """As if the draft were a token, and nothing of it approved yet. The draft's catalog decides.

    Raises InvalidInputError with every fault of the draft, ForbiddenError for an owner the actor makes no tokens for.
    """
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        authority.require_holds(CREATE)
        issue = await IssueReader(conn, management, authority, draft).read(new_token_id())
        if not await authority.may_for(CREATE, issue.token.owner):
            raise ForbiddenError(f"this token may not ask for that owner: it needs `{CREATE}` for them")
        token = replace(issue.token, created_at=authority.world.now)
        name = parse_catalog(draft.catalog or "")[0]
        catalog = issue.catalogs.get(name)
        if catalog is None:
            message = f"the draft is not for `{shown(draft.catalog or '')}`; choose its catalog"
            raise InvalidInputError("the question has a fault", faults=[Fault("catalog", "catalog_mismatch", message)])
        about: PermissionRequest | OperationRequest
        # The first call of a catalog builds its routes, which takes a second for a large one.
        about = await asyncio.to_thread(routing.resolve, catalog, call) if isinstance(call, HttpCall) else call
        request = Request(name, about, authority.world.now, client_address=actor.client_address)
        return await authority.world.answer(partial(_explain, token, request))


def _explain(token: Token, request: Request, world: World) -> Explained:
    there = Overlay(world).with_token(token)
    decision, trace = explain(token, there, request)
    return Explained(decision, trace, find_fixes(token, there, request, decision))
