"""Loads the part of the directory that an import touches: many rows a statement, never one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.directory.known import Known, NameKey, Needs, Row
from authz_service.directory.lines import (
    DeleteLine,
    DeleteMembershipLine,
    Line,
    MembershipLine,
    MoveLine,
    PlaceLine,
    UserLine,
)
from authz_service.directory.model import NodeKind, TargetText, UserState, Visibility

T = TypeVar("T")

BATCH: Final = 10_000

# In every statement `n` is the node, and `a` its account if it is a user.
_ROW: Final = """
    n.id, n.source, n.kind, n.parent_id, n.name, n.external_id, n.namespace_id, n.visibility, n.archived, n.attributes,
    n.deleted_at is not null as deleted, a.state, a.admin, a.external, a.service_account, a.home_id, a.same_as
"""


def _rows(found: str) -> TextClause:
    return text(found.replace("<row>", _ROW).replace("<account>", "left join account a on a.node_id = n.id"))


_BY_TOP_NAME: Final = _rows("""
    select <row> from unnest(cast(:sources as text[]), cast(:keys as text[])) as w(source, key)
    join node n on n.source = w.source and n.name_key = w.key and n.parent_id is null and n.deleted_at is null <account>
""")
_BY_NAME: Final = _rows("""
    select <row> from unnest(cast(:parents as bigint[]), cast(:keys as text[])) as w(parent, key)
    join node n on n.parent_id = w.parent and n.name_key = w.key and n.deleted_at is null <account>
""")
_BY_EXTERNAL: Final = _rows("""
    select <row>
    from unnest(cast(:sources as text[]), cast(:kinds as text[]), cast(:ids as text[])) as w(source, kind, id)
    join node n on n.source = w.source and n.kind = w.kind and n.external_id = w.id <account>
""")
_BY_NAMESPACE: Final = _rows("""
    select <row> from unnest(cast(:sources as text[]), cast(:ids as text[])) as w(source, id)
    join node n on n.source = w.source and n.namespace_id = w.id <account>
""")
_BY_ID: Final = _rows("select <row> from node n <account> where n.id = any(cast(:ids as bigint[]))")
_BELOW: Final = _rows("""
    with recursive below(id) as (
        select unnest(cast(:ids as bigint[]))
        union
        select c.id from below join node c on c.parent_id = below.id
        where c.deleted_at is null and (c.kind = 'group' or not cast(:groups_only as boolean))
    )
    select <row> from below join node n on n.id = below.id <account>
""")
_ALL: Final = _rows("select <row> from node n <account>")


async def load_everything(conn: AsyncConnection) -> Known:
    """All rows of all sources: for an import whose lines depend on each other too deeply to ask step by step."""
    known = Known(complete=True)
    await _take(conn, known, _ALL, {})
    return known


async def load_first(conn: AsyncConnection, lines: Sequence[Line], source: str) -> Known:
    """What the lines name as the directory stands; what they name after their own changes is asked for later."""
    known, needs, paths = Known(), Needs(), set[tuple[str, tuple[str, ...]]]()
    for line in lines:
        in_source = line.source or source
        _note_ids(line, in_source, needs)
        for where, path in _paths(line, in_source):
            paths.add((where, tuple(path.lower().split("/"))))
    await load_needs(conn, known, needs)
    await _load_paths(conn, known, paths)
    return known


async def load_needs(conn: AsyncConnection, known: Known, needs: Needs) -> None:
    """Load what is asked for into `known`, and note what is not there."""
    for names in _batches(name for name in needs.names if name[1] == 0):
        top = {"sources": [source for source, _, _ in names], "keys": [key for _, _, key in names]}
        await _take(conn, known, _BY_TOP_NAME, top)
    for names in _batches(name for name in needs.names if name[1] != 0):
        nested = {"parents": [parent for _, parent, _ in names], "keys": [key for _, _, key in names]}
        await _take(conn, known, _BY_NAME, nested)
    for externals in _batches(needs.externals):
        sources, kinds, ids = zip(*externals, strict=True)
        await _take(conn, known, _BY_EXTERNAL, {"sources": sources, "kinds": [*map(str, kinds)], "ids": ids})
    for namespaces in _batches(needs.namespaces):
        sources, ids = zip(*namespaces, strict=True)
        await _take(conn, known, _BY_NAMESPACE, {"sources": sources, "ids": ids})
    for row_ids in _batches(needs.rows):
        await _take(conn, known, _BY_ID, {"ids": row_ids})
    for groups_only, tops in ((True, needs.groups_below), (False, needs.all_below)):
        for row_ids in _batches(tops):
            below = await _take(conn, known, _BELOW, {"ids": row_ids, "groups_only": groups_only})
            (known.with_groups if groups_only else known.with_all).update(below)
    known.note_absent(needs)


async def _take(conn: AsyncConnection, known: Known, statement: TextClause, given: Mapping[str, Any]) -> list[int]:
    found = []
    for row in (await conn.execute(statement, given)).mappings():
        found.append(row["id"])
        if row["id"] not in known.rows:
            known.add(_read(row))
    return found


def _read(row: Any) -> Row:
    read = Row(
        id=row["id"],
        source=row["source"],
        kind=NodeKind(row["kind"]),
        parent=row["parent_id"],
        name=row["name"],
        external_id=row["external_id"],
        namespace_id=row["namespace_id"],
        visibility=Visibility(row["visibility"]),
        archived=row["archived"],
        attributes=row["attributes"],
        deleted=row["deleted"],
    )
    if row["state"] is not None:
        read.state = UserState(row["state"])
        read.admin, read.external = row["admin"], row["external"]
        read.service_account = row["service_account"]
        read.home, read.same_as = row["home_id"], row["same_as"]
    return read


def _note_ids(line: Line, source: str, needs: Needs) -> None:
    match line:
        case UserLine():
            if line.external_id is not None:
                needs.externals.add((source, NodeKind.USER, line.external_id))
            if isinstance(line.namespace_id, str):
                needs.namespaces.add((source, line.namespace_id))
        case PlaceLine():
            if line.external_id is not None:
                needs.externals.add((source, line.kind, line.external_id))
                if line.kind is NodeKind.GROUP:
                    needs.namespaces.add((source, line.external_id))
        case _:
            pass
    for target in _targets(line):
        if target.external_id is not None and target.kind is not None:
            needs.externals.add((source, target.kind, target.external_id))


def _targets(line: Line) -> Iterator[TargetText]:
    match line:
        case MembershipLine() | DeleteMembershipLine():
            yield line.user
            yield line.node
        case DeleteLine():
            yield line.what
        case MoveLine():
            yield line.node
            if line.to is not None:
                yield line.to
        case UserLine():
            if isinstance(line.home, TargetText):
                yield line.home
        case PlaceLine():
            pass


def _paths(line: Line, source: str) -> Iterator[tuple[str, str]]:
    if isinstance(line, UserLine):
        yield source, line.username
    elif isinstance(line, PlaceLine):
        yield source, line.path
    for target in _targets(line):
        if target.path is not None:
            yield source, target.path


async def _load_paths(conn: AsyncConnection, known: Known, paths: set[tuple[str, tuple[str, ...]]]) -> None:
    """Level by level from the top, all paths at once: as many statements as the deepest path has names."""
    reached: dict[tuple[str, tuple[str, ...]], int] = {}
    for depth in range(1, max((len(path) for _, path in paths), default=0) + 1):
        wanted: dict[tuple[str, tuple[str, ...]], NameKey] = {}
        for source, path in paths:
            if len(path) < depth:
                continue
            parent = 0 if depth == 1 else reached.get((source, path[: depth - 1]))
            if parent is not None:
                wanted[source, path[:depth]] = (source, parent, path[depth - 1])
        await load_needs(conn, known, Needs(names={name for name in wanted.values() if name not in known.names}))
        for prefix, name in wanted.items():
            found = known.names[name]
            if found is not None:
                reached[prefix] = found


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch
