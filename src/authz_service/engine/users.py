"""The decision for a user as such, who shows no token (rule A13)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from authz_service.catalog.model import Catalog
from authz_service.compiler.compile import compile_user
from authz_service.directory.model import NodeId, UserState
from authz_service.engine.case import open_case
from authz_service.engine.decide import judge
from authz_service.engine.model import Decision, Reason, Request, World, deny
from authz_service.tokens.model import Token, TokenId

_NO_TOKEN: Final = TokenId("")


def decide_user(user: NodeId, catalog: Catalog, world: World, request: Request) -> Decision:
    """Allow or deny this request of a signed-in user: what their memberships and roles allow, and no more.

    `catalog` is the version to decide by; `request.catalog` and `request.version` are not looked at. Never use it for
    somebody who showed a token: it knows no scopes, no policies and no grants.
    """
    account = world.user(user)
    if account is None or account.state is not UserState.ACTIVE:
        return deny(Reason.OWNER_INACTIVE)
    if catalog.upstream:
        # Who is a member where, only the API knows (C9).
        return deny(Reason.OWNER_NOT_MEMBER)
    nobody = Token(_NO_TOKEN, user, {catalog.name: catalog.version})
    case = replace(open_case(nobody, catalog, world, request), lookup=compile_user(catalog), policies={})
    return judge(case, catalog, request.ask)
