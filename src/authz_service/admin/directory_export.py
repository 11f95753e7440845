"""A source's directory as the lines of an import: what a sync compares with, and what another service can take in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from sqlalchemy import RowMapping

from authz_service.admin.authority import Authority
from authz_service.admin.management import Actor, Management
from authz_service.directory.model import NodeKind, Visibility
from authz_service.store import changes, directory_export
from authz_service.store.changes import format_revision

READ: Final = "directory:read"
_CHUNK: Final = 1000
_Row: TypeAlias = RowMapping


async def export_directory(management: Management, actor: Actor, source: str) -> tuple[str, Sequence[bytes]]:
    """The revision, and the lines of it in an order that an import takes. Raises ForbiddenError.

    What was deleted is there too, as the deletion of its external id: that id is never given again (D2). A line with
    `path` null is of something that lost its name; an import refuses it, for it has none to give.
    """
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        await authority.require(READ)
        nodes = await directory_export.load_nodes(conn, source)
        memberships = await directory_export.load_memberships(conn, source)
        deleted = await directory_export.load_deleted(conn, source)
        revision = format_revision(await changes.current(conn))
    # Some seconds for a large directory: not on the loop that decides.
    return revision, await asyncio.to_thread(lambda: list(_chunks(nodes, memberships, deleted)))


def _chunks(nodes: Sequence[_Row], memberships: Sequence[_Row], deleted: Sequence[_Row]) -> Iterator[bytes]:
    lines: list[bytes] = []
    for document in _documents(nodes, memberships, deleted):
        lines.append(msgspec.json.encode(document))
        if len(lines) == _CHUNK:
            yield b"\n".join([*lines, b""])
            lines.clear()
    yield b"\n".join([*lines, b""])


def _documents(
    nodes: Sequence[_Row], memberships: Sequence[_Row], deleted: Sequence[_Row]
) -> Iterator[Mapping[str, Any]]:
    names: dict[int, str] = {row["id"]: name for row in nodes if (name := _name(row)) is not None}
    for row in nodes:
        yield _user(row) if row["kind"] == NodeKind.USER else _place(row)
    for row in nodes:
        said = _links(row, names)
        if said:
            yield {"type": "user", "username": row["path"], "external_id": row["external_id"], **said}
    # By what they name and not by our numbers: the same directory gives the same lines.
    pairs = [(names.get(row["node_id"]), names.get(row["user_id"]), row["role"]) for row in memberships]
    for node, user, role in sorted((one for one in pairs if None not in one), key=str):
        yield {"type": "membership", "user": user, "node": node, "role": role}
    for row in deleted:
        yield {"type": "delete", "what": row["kind"], "external_id": row["external_id"]}


def _name(row: _Row) -> str | None:
    """By its external id where that is a number, as an import takes one; else by its path."""
    said = row["external_id"] if _is_number(row["external_id"]) else row["path"]
    return None if said is None else f"{row['kind']}:{said}"


def _is_number(external: str | None) -> bool:
    return external is not None and external.isascii() and external.isdigit()


def _user(row: _Row) -> Mapping[str, Any]:
    return {
        "type": "user",
        "username": row["path"],
        "external_id": row["external_id"],
        "state": row["state"],
        "admin": row["admin"],
        "external": row["external"],
        "service_account": row["service_account"],
        "namespace_id": row["namespace_id"],
        "attributes": row["attributes"],
    }


def _place(row: _Row) -> Mapping[str, Any]:
    return {
        "type": row["kind"],
        "path": row["path"],
        "external_id": row["external_id"],
        "visibility": Visibility(row["visibility"]).name.lower(),
        "archived": row["archived"],
        "attributes": row["attributes"],
    }


def _links(row: _Row, names: Mapping[int, str]) -> dict[str, Any]:
    """What a user's line can say only once all others are there."""
    said: dict[str, Any] = {}
    if row["kind"] != NodeKind.USER or row["path"] is None:
        return said
    home = names.get(row["home_id"])
    if home is not None:
        said["home"] = home
    if row["linked_source"] is not None:
        by_id = _is_number(row["linked_id"])
        said["same_as"] = f"{row['linked_source']}:{row['linked_id'] if by_id else row['linked_name']}"
    return said
