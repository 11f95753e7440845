"""What a replaced token keeps, while it still works beside the new one, when that one is edited (T5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_network

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.admin.issuing import Issue
from authz_service.admin.management import Management
from authz_service.admin.stored import read_stored
from authz_service.admin.within import keep_held
from authz_service.tokens.model import Conditions, Scope, Token


async def narrow_replaced(
    conn: AsyncConnection, management: Management, authority: Authority, former: Token, edited: Issue
) -> Token:
    """The replaced token with what lies both within its own and within the edited one: it never gains.

    Where the two have no network in common it has ended. Raises what `read_stored` raises.
    """
    stored = await read_stored(conn, management, authority, former)
    own = await keep_held(authority.world, edited.token, stored)
    new = await keep_held(authority.world, former, edited)
    begins = [moment for moment in (former.not_before, edited.token.not_before) if moment is not None]
    ends = [moment for moment in (former.expires_at, edited.token.expires_at) if moment is not None]
    networks = _common_networks(former.conditions.networks, edited.token.conditions.networks)
    if networks is None:
        ends.append(authority.world.now)
    return replace(
        former,
        scopes=_common_scopes((former.scopes, own.scopes), (edited.token.scopes, new.scopes)),
        legacy_scopes=tuple(dict.fromkeys((*own.legacy_scopes, *new.legacy_scopes))),
        evaluates=tuple(dict.fromkeys((*own.evaluates, *new.evaluates))),
        conditions=former.conditions if networks is None else Conditions(networks),
        not_before=max(begins, default=None),
        expires_at=min(ends, default=None),
    )


def _common_scopes(*sides: tuple[Sequence[Scope], Sequence[Scope]]) -> tuple[Scope, ...]:
    """Of two tokens, each with its scopes and what the other holds of them: one that is held whole says it all."""
    for scopes, kept in sides:
        if tuple(scopes) == tuple(kept):
            return tuple(scopes)
    return tuple(dict.fromkeys(scope for _, kept in sides for scope in kept))


def networks_within(inner: Conditions, outer: Conditions) -> bool:
    """Whether each address that meets the first meets the second; no networks are any address."""
    if not outer.networks:
        return True
    return bool(inner.networks) and all(_is_within_any(network, outer.networks) for network in inner.networks)


def _common_networks(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...] | None:
    """Empty where neither says any; None where they say some and no address is in both."""
    if not one or not other:
        return tuple(one or other)
    kept = [network for network in one if _is_within_any(network, other)]
    kept += [network for network in other if _is_within_any(network, one)]
    return tuple(dict.fromkeys(kept)) or None


def _is_within_any(network: str, around: Sequence[str]) -> bool:
    inner = ip_network(network)
    wide = [ip_network(text) for text in around]
    return any(inner.version == one.version and inner.subnet_of(one) for one in wide)  # type: ignore[arg-type]
