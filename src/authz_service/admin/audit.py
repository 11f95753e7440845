"""The audit as people read it: listed, exported, and proven whole (M1, M3)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.admin.faults import Faults, shown
from authz_service.admin.management import Actor, Management
from authz_service.admin.places import find_node, find_user
from authz_service.admin.reaches import unknown_target
from authz_service.admin.sealing import BY_PEPPER, ED25519, Verifier, format_checkpoint
from authz_service.admin.views import format_moment
from authz_service.directory.model import NodeKind, format_target
from authz_service.errors import Fault, ForbiddenError, InvalidInputError
from authz_service.store import audit, audit_chain, changes, directory
from authz_service.store.audit import AuditEntry, AuditFilter, AuditRow
from authz_service.store.audit_chain import NO_HASH, Checkpoint, Head, Link
from authz_service.store.changes import Revision, format_revision
from authz_service.tokens.model import TokenId
from authz_service.tokens.secret import is_token_id

READ: Final = "audit:read"
_EXPORT_PAGE: Final = 500
_MOST_FAULTS: Final = 1000
_KEY_WANTED: Final = {ED25519: "give its public key", BY_PEPPER: "set AUTHZ_PEPPERS or AUTHZ_PEPPERS_FILE with it"}


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """What a list of the audit is asked for, as text. `node` is a group: what concerns it and what lies below it."""

    node: str | None = None
    actor_token: str | None = None
    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    at_from: datetime | None = None
    at_before: datetime | None = None
    limit: int = 50
    cursor: str | None = None


async def list_audit(management: Management, actor: Actor, query: AuditQuery) -> Mapping[str, Any]:
    """One page, newest first. Without `audit:read` at the instance `node` has to be said. Raises ForbiddenError."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        authority.require_holds(READ)
        everything = await authority.may(READ)
        wanted = await _filter(conn, management, authority, query, everything=everything)
        rows, next_cursor = await audit.list_page(conn, wanted, limit=query.limit, cursor=query.cursor)
        only = None if everything else frozenset(wanted.within or ())
        return {
            "items": await _describe(conn, rows, only),
            "next_cursor": next_cursor,
            "revision": format_revision(await changes.current(conn)),
        }


async def export_audit(management: Management, actor: Actor, query: AuditQuery) -> AsyncIterator[bytes]:
    """The same rows, all of them, one JSON document a line; the authority is asked again for each page."""
    cursor = query.cursor
    while True:
        page = await list_audit(management, actor, replace(query, limit=_EXPORT_PAGE, cursor=cursor))
        for item in page["items"]:
            yield json.dumps(item, ensure_ascii=False).encode() + b"\n"
        cursor = page["next_cursor"]
        if cursor is None:
            return


async def list_checkpoints(
    management: Management, actor: Actor, *, limit: int, cursor: str | None
) -> Mapping[str, Any]:
    """Signed heads of the chain, newest first; they tell nothing of what was done. Needs `audit:read`, anywhere."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        authority.require_holds(READ)
        await authority.require(READ)
        found, next_cursor = await audit_chain.list_checkpoints(conn, limit=limit, cursor=cursor)
        return {
            "items": [format_checkpoint(one) for one in found],
            "next_cursor": next_cursor,
            "revision": format_revision(await changes.current(conn)),
        }


async def _filter(
    conn: AsyncConnection, management: Management, authority: Authority, query: AuditQuery, *, everything: bool
) -> AuditFilter:
    faults = Faults()
    within: Sequence[int] | None = None
    if query.node is not None:
        place = await find_node(management, authority, query.node)
        if place is None:
            message = unknown_target(query.node)
            raise InvalidInputError("the request has a fault", faults=[Fault("node", "target_unknown", message)])
        if not everything and not await authority.may_at_group_of(READ, place.id):
            raise ForbiddenError(f"this token may not read the audit there: it needs `{READ}` at the group")
        if place.kind is not NodeKind.INSTANCE:
            _, below = await directory.load_descendants(conn, int(place.id))
            within = (int(place.id), *(int(node.id) for node in below))
    if within is None and not everything:
        raise ForbiddenError(f"this token may not read the whole audit: name a `node` where it holds `{READ}`")
    user = None
    if query.actor is not None:
        found = await find_user(authority, query.actor)
        if found is None:
            faults.add("actor", "owner_unknown", f"there is no user `{shown(query.actor)}`; write a username")
        user = None if found is None else int(found.id)
    if query.actor_token is not None and not is_token_id(query.actor_token):
        faults.add("actor_token", "invalid_value", "this is no token's id; write `tok_…`")
    faults.raise_any("the request")
    return AuditFilter(
        within=within,
        actor_token=None if query.actor_token is None else TokenId(query.actor_token),
        actor_user=user,
        action=query.action,
        subject=query.subject,
        at_from=query.at_from,
        at_before=query.at_before,
    )


async def _describe(
    conn: AsyncConnection, rows: Sequence[AuditRow], only: frozenset[int] | None
) -> list[dict[str, Any]]:
    """With `only`, as a group's owner may read it: nothing of what lies outside, nor what else a token holds (M3)."""
    wanted = {node for row in rows for node in row.entry.nodes}
    wanted |= {row.entry.actor_user for row in rows if row.entry.actor_user is not None}
    paths = await directory.load_paths(conn, sorted(wanted))
    names = {node: format_target(kind, path) for node, (kind, path) in paths.items()}
    return [_describe_row(row, names, only) for row in rows]


def _describe_row(row: AuditRow, names: Mapping[int, str], only: frozenset[int] | None) -> dict[str, Any]:
    entry = row.entry
    nodes = [node for node in entry.nodes if only is None or node in only]
    whole = only is None or (len(nodes) == len(entry.nodes) and not entry.subject.startswith("tok_"))
    user = None if entry.actor_user is None else names.get(entry.actor_user, "").removeprefix("user:") or None
    return {
        "id": row.id,
        "at": row.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "action": entry.action,
        "subject": entry.subject,
        "actor": {"token": entry.actor_token if only is None else None, "user": user, "user_id": entry.actor_user},
        "nodes": sorted(names[node] for node in nodes if node in names),
        "node_ids": nodes,
        "details": dict(entry.details) if whole else {},
        "at_revision": row.revision,
        "seal": row.seal,
        "hash": None if row.hash is None or only is not None else row.hash.hex(),
        "partial": not whole,
    }


# proof


class ChainCode(StrEnum):
    """What can be wrong with the chain."""

    ROW_CHANGED = "row_changed"
    ROWS_MISSING = "rows_missing"
    ROW_REPLACED = "row_replaced"
    TAIL_CUT = "tail_cut"
    CHECKPOINT_DIFFERS = "checkpoint_differs"
    CHECKPOINT_FORGED = "checkpoint_forged"
    CHECKPOINT_UNPROVEN = "checkpoint_unproven"


class Verdict(StrEnum):
    """What the chain is. Unproven is one that is whole by all that could be told, and a checkpoint's key is missing."""

    WHOLE = "whole"
    NOT_WHOLE = "not_whole"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True)
class Verification:
    """What a walk over the chain found. `unsealed` rows came too late for a seal: a second's worth, normally."""

    rows: int
    head: Head
    unsealed: int
    checkpoints: int
    faults: tuple[Fault, ...]

    @property
    def verdict(self) -> Verdict:
        if not self.faults:
            return Verdict.WHOLE
        unproven = all(one.code == ChainCode.CHECKPOINT_UNPROVEN for one in self.faults)
        return Verdict.UNPROVEN if unproven else Verdict.NOT_WHOLE


class ChainWalk:
    """Takes links in the order of their seals and says what is wrong with them."""

    def __init__(self, checkpoints: Sequence[Checkpoint], verifier: Verifier) -> None:
        self.head = Head()
        self.rows = 0
        self.faults: list[Fault] = []
        self._broken = False
        self._waiting = sorted(checkpoints, key=lambda one: one.seal)
        self._verifier = verifier
        self.checkpoints = len(self._waiting)

    def take(self, link: Link) -> None:
        self.rows += 1
        where = f"seal {link.seal}"
        if link.seal > self.head.seal + 1:
            missing = link.seal - self.head.seal - 1
            first = self.head.seal + 1
            text = f"row {first} is" if missing == 1 else f"rows {first} to {link.seal - 1} are"
            self._add(where, ChainCode.ROWS_MISSING, f"{text} missing before this one")
        elif link.prev_hash != self.head.hash:
            self._add(where, ChainCode.ROW_REPLACED, "the row does not follow from the one before it")
        if audit_chain.row_hash(link.prev_hash, link.seal, link.row) != link.hash:
            self._add(where, ChainCode.ROW_CHANGED, f"row {link.row.id} is not what was sealed")
        self.head = Head(link.seal, link.hash)
        self._meet(lambda one: one.seal <= link.seal)

    def end(self) -> None:
        """After the last link: what checkpoints speak of and is not there was cut off."""
        self._meet(lambda one: True)  # noqa: ARG005 - all that are left

    def _meet(self, reached: Any) -> None:
        while self._waiting and reached(self._waiting[0]):
            self._judge(self._waiting.pop(0))

    def _judge(self, one: Checkpoint) -> None:
        where = f"checkpoint {one.seal}"
        proven = self._verifier.holds(one)
        if proven is False:
            self._add(where, ChainCode.CHECKPOINT_FORGED, f"its signature is not one of key `{shown(one.key_id)}`")
            return
        if proven is None:
            wanted = _KEY_WANTED.get(one.algorithm, "it is signed in a way that this version does not know")
            message = f"its key `{shown(one.key_id)}` is not known here; {wanted}"
            self._add(where, ChainCode.CHECKPOINT_UNPROVEN, message)
        if one.seal > self.head.seal:
            message = f"the chain ends at {self.head.seal}, and was at {one.seal} on {format_moment(one.at)}"
            self._add(where, ChainCode.TAIL_CUT, message)
        elif one.seal == self.head.seal and one.hash != self.head.hash:
            self._add(where, ChainCode.CHECKPOINT_DIFFERS, "the row at this place is another one than then")

    def _add(self, where: str, code: ChainCode, message: str) -> None:
        first = code is not ChainCode.CHECKPOINT_UNPROVEN and not self._broken
        self._broken |= first
        if first or len(self.faults) < _MOST_FAULTS:  # the verdict rests on it, however many were listed before
            self.faults.append(Fault(where, code.value, message))


async def verify_chain(conn: AsyncConnection, verifier: Verifier, kept: Sequence[Checkpoint] = ()) -> Verification:
    """Walk the whole chain of a snapshot and hold it against its own checkpoints and those kept elsewhere."""
    own: list[Checkpoint] = []
    cursor: str | None = None
    while True:
        found, cursor = await audit_chain.list_checkpoints(conn, limit=1000, cursor=cursor)
        own += found
        if cursor is None:
            break
    walk = ChainWalk([*own, *(one for one in kept if one not in own)], verifier)
    while links := await audit_chain.load_links(conn, after=walk.head.seal):
        for link in links:
            walk.take(link)
    walk.end()
    unsealed = await audit_chain.count_unsealed(conn)
    return Verification(walk.rows, walk.head, unsealed, walk.checkpoints, tuple(walk.faults))


def verify_export(lines: Sequence[bytes], verifier: Verifier, kept: Sequence[Checkpoint]) -> Verification:
    """The same over an export of the whole audit, without a database. Raises InvalidInputError for other lines."""
    rows = sorted((_parse_line(line, number) for number, line in enumerate(lines, 1)), key=lambda row: row.seal or 0)
    walk = ChainWalk(kept, verifier)
    previous = NO_HASH
    sealed = [row for row in rows if row.seal is not None and row.hash is not None]
    for row in sealed:
        if row.seal is not None and row.hash is not None:
            walk.take(Link(row, row.seal, row.hash, previous))
            previous = row.hash
    walk.end()
    return Verification(walk.rows, walk.head, len(rows) - len(sealed), walk.checkpoints, tuple(walk.faults))


def _parse_line(line: bytes, number: int) -> AuditRow:
    try:
        found = json.loads(line)
        entry = AuditEntry(
            action=found["action"],
            subject=found["subject"],
            actor_token=found["actor"]["token"],
            actor_user=found["actor"]["user_id"],
            details=found["details"],
            nodes=tuple(found["node_ids"]),
        )
        revision = None if found["at_revision"] is None else Revision(int(found["at_revision"]))
        hashed = None if found["hash"] is None else bytes.fromhex(found["hash"])
        return AuditRow(int(found["id"]), datetime.fromisoformat(found["at"]), entry, revision, hashed, found["seal"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        message = "this is no row of an export of the whole audit"
        raise InvalidInputError(message, faults=[Fault(f"line {number}", "invalid_line", message)]) from error
