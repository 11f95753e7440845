"""Groups and the instance by what people write, where policies, approvals, webhooks and trust are meant (P1, C9)."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import INSTANCE, Authority
from authz_service.admin.management import Management
from authz_service.admin.places import find_node
from authz_service.admin.reaches import unknown_target
from authz_service.directory.model import INSTANCE_ID, NodeId, NodeKind, parse_target
from authz_service.errors import Fault, ForbiddenError, InvalidInputError


async def find_ruled_place(
    conn: AsyncConnection,
    management: Management,
    authority: Authority,
    text: str,
    permission: str,
    *,
    catalog: str | None = None,
) -> NodeId:
    """The instance, or a group at which the actor holds the permission; hidden and unknown ones are the same.

    Where the catalog knows no directory the group is its text, and an admin's. Raises InvalidInputError,
    ForbiddenError.
    """
    everywhere = await authority.may(permission)
    if text == INSTANCE:
        if not everywhere:
            raise ForbiddenError(f"this token may not do that: it needs `{permission}` on `{INSTANCE}`")
        return INSTANCE_ID
    found = None if catalog is None else await management.shelf.find(conn, catalog, None)
    if found is not None and found.upstream:
        return _upstream(text, permission, everywhere=everywhere, fold=found.fold)
    place = await find_node(management, authority, text)
    if place is None:
        fault = Fault("node", "target_unknown", unknown_target(text))
        raise InvalidInputError("the request has a fault", faults=[fault])
    if not everywhere and not await authority.may_at(permission, place.id):
        raise ForbiddenError(f"this token may not do that: it needs `{permission}` at the group")
    if place.kind is not NodeKind.GROUP:
        fault = Fault("node", "invalid_value", f"`{place.text}` is no group; name a group or `{INSTANCE}`")
        raise InvalidInputError("the request has a fault", faults=[fault])
    return place.id


async def find_own_group(management: Management, authority: Authority, text: str, permission: str, *, only: str) -> int:
    """A group where the actor holds the permission; `only` says why nothing else will do.

    Raises InvalidInputError, ForbiddenError.
    """
    authority.require_holds(permission)
    place = await find_node(management, authority, text)
    if place is None or place.kind is not NodeKind.GROUP:
        message = unknown_target(text) if place is None else f"`{place.text}` is no group; {only}"
        code = "target_unknown" if place is None else "invalid_value"
        raise InvalidInputError("the request has a fault", faults=[Fault("/node", code, message)])
    if not await authority.may(permission) and not await authority.may_at(permission, place.id):
        raise ForbiddenError(f"this token may not do that: it needs `{permission}` on `{place.text}`")
    return int(place.id)


def _upstream(text: str, permission: str, *, everywhere: bool, fold: Callable[[str], str]) -> NodeId:
    if not everywhere:
        raise ForbiddenError(f"this token may not do that: it needs `{permission}` on `{INSTANCE}`")
    written = parse_target(text)
    if written is None or written.kind is not NodeKind.GROUP or written.path is None:
        fault = Fault("node", "target_unknown", "write the group with its kind, as `group:acme`")
        raise InvalidInputError("the request has a fault", faults=[fault])
    return fold(f"{NodeKind.GROUP.value}:{written.path}")
