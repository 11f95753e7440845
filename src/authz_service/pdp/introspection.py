"""What a token is, for those who may ask for decisions about it: the facts behind RFC 7662."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from authz_service.engine.decide import line_failure
from authz_service.engine.model import PermissionRequest, Request
from authz_service.errors import ForbiddenError
from authz_service.pdp.check import ANY_CATALOG, DecisionPoint
from authz_service.tokens.model import Token, TokenKind
from authz_service.tokens.policy import MANAGEMENT


@dataclass(frozen=True, slots=True)
class Introspected:
    """A token that works now. `owner` is a username, or the free text of C9; `catalogs` those the caller asks about."""

    token: Token
    owner: str
    catalogs: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """What it was given in these catalogs, each word once: permissions, or a coarse token's scopes."""
        token = self.token
        if token.kind is TokenKind.LEGACY:
            return _once(token.legacy_scopes)
        scopes = [scope for scope in token.scopes if scope.catalog in self.catalogs]
        return _once(name for scope in scopes for name in scope.permissions)


def _once(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))


async def introspect(
    point: DecisionPoint, caller: Token, secret: str, *, address: str | None, client_address: str | None
) -> Introspected | None:
    """None for whatever is not active, unknown, or for no catalog that the caller may ask about.

    `address` is the caller's, `client_address` the end client's: a token that is bound to networks is not active
    without one. Raises ForbiddenError unless the caller holds `decision:evaluate` at the instance.
    """
    await point.require_evaluator(caller)
    digest = point.peppers.digest(secret)

    # Both are looked up in here: what ended while something was loaded has ended.
    def describe() -> Introspected | None:
        asker = point.caller_now(caller, address)
        if not point.asks_everywhere(asker, address):
            raise ForbiddenError(
                "introspection tells of a token everywhere: it needs `decision:evaluate` on `instance`"
            )
        token = None if digest is None else point.facts.find_token(digest)
        if token is None:
            return None
        asked = tuple(sorted(name for name in token.catalogs if {ANY_CATALOG, name} & set(asker.evaluates)))
        request = Request(MANAGEMENT, PermissionRequest(""), point.follower.now(), client_address=client_address)
        if line_failure(token, point.facts, request) is not None or not asked:
            return None
        if not isinstance(token.owner, int):
            return Introspected(token, token.owner, asked)
        user = point.facts.user(token.owner)
        return None if user is None else Introspected(token, user.username, asked)

    _, [found] = await point.decide_all([describe])
    return found
