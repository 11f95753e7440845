"""The blast radius of a token: all that it could reach, and what it did lately. For when its secret has leaked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from authz_service.admin.authority import Authority
from authz_service.admin.management import Actor, Management
from authz_service.admin.searching import EffectiveQuery, list_effective
from authz_service.admin.tokens import find_seen, may_see_whole
from authz_service.admin.usage import UsageQuery, show_usage
from authz_service.admin.views import format_moment, revoked_reason, state_of
from authz_service.pdp.search import Search
from authz_service.store import events, usage

_MOST_USED: Final = 1000


async def show_blast_radius(
    management: Management, search: Search, actor: Actor, token_id: str, query: EffectiveQuery, *, days: int
) -> Mapping[str, Any]:
    """A page of what it could reach, as if it had not ended; on the first page also what is known of its use.

    Whoever sees the token whole gets all of it, owners of groups what lies in their groups. Raises NotFoundError.
    """
    reach = await list_effective(management, search, actor, token_id, query, as_if_live=True)
    used = await show_usage(management, actor, token_id, UsageQuery(days=days, limit=_MOST_USED))
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        record = await find_seen(conn, authority, token_id)
        whole = await may_see_whole(authority, record)
        told = await events.load_of_token(conn, record.token.id) if whole else ()
        line = await usage.load_descendants(conn, record.token.id) if whole else ()
        return {
            **reach,
            "state": state_of(record.token, authority.world.now).value,
            "revoked_at": format_moment(record.token.revoked_at),
            "revoked_reason": revoked_reason(record, whole=whole),
            "last_used_at": format_moment(record.last_used_at),
            "related": sorted(one for one in line if one != record.token.id),
            "days": days,
            "used": used["items"],
            "used_more": used["next_cursor"] is not None,
            "networks": used["networks"],
            "events": [
                {"id": f"evt_{one.id}", "kind": one.event.kind.value, "at": format_moment(one.at)} for one in told
            ],
            "partial": not whole,
        }
