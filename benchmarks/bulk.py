"""Rows by the million: written by COPY under the real schema, with real digests, in place of a million requests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import asyncpg

from authz_service.catalog.model import Catalog
from authz_service.directory.model import NodeKind
from authz_service.pdp.secrets import Peppers
from authz_service.store.connect import read_url
from authz_service.store.shipped import shipped_catalogs
from authz_service.store.tables import metadata
from authz_service.tokens.model import Scope
from authz_service.tokens.secret import new_secret, new_token_id
from benchmarks.oracle import Grant
from benchmarks.workload import CATALOG, PERMISSIONS, ROLE

FIRST_NODE = 1000
"""Below it are the rows that the migrations make."""
SOURCE = "default"

Node = tuple[int, str, int | None, str, int]
"""Number, kind, parent, name, visibility."""
_PRIVATE = 0
_PUBLIC = 2

_NODE = ("id", "source", "kind", "parent_id", "name", "name_key", "visibility")
_ACCOUNT = ("node_id", "state", "admin", "external", "service_account")
_MEMBERSHIP = ("user_id", "node_id", "role")
_TOKEN = (
    "id", "digest", "kid", "kind", "name", "owner_id", "catalogs", "scopes", "legacy_scopes", "evaluates",
    "conditions", "family_id", "reason", "may_rotate_self",
)  # fmt: skip


@cache
def catalog() -> Catalog:
    """The newest version of the measured catalog that is shipped; it must have all permissions of the workload."""
    found = max((each for each in shipped_catalogs() if each.name == CATALOG), key=lambda each: each.version)
    absent = [name for name in PERMISSIONS if NodeKind.PROJECT not in found.by_name[name].boundaries]
    if absent:
        raise ValueError(f"catalog `{found.label}` has no {', '.join(absent)} on projects")
    return found


@dataclass(frozen=True, slots=True)
class Issued:
    """A token that is in the database."""

    id: str
    secret: str


class Nodes:
    """Gives numbers to paths, parents first."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.rows: list[Node] = []

    def add(self, path: str, kind: str) -> int:
        parent, _, name = path.rpartition("/")
        number = FIRST_NODE + len(self.rows)
        visibility = _PUBLIC if kind == "user" else _PRIVATE
        self.rows.append((number, kind, self.numbers[parent] if parent else None, name, visibility))
        self.numbers[path] = number
        return number


def token_row(
    issued: Issued,
    peppers: Peppers,
    owner: int,
    scopes: Sequence[tuple[Sequence[int], Sequence[str]]],
    *,
    name: str = "",
) -> tuple[Any, ...]:
    """A fine-grained token with (nodes, permissions) of the measured catalog."""
    written = [
        {"catalog": CATALOG, "reach": {"kind": "selected", "nodes": list(nodes)}, "permissions": list(permissions)}
        for nodes, permissions in scopes
    ]
    return _row(issued, peppers, owner, {CATALOG: catalog().version}, written, (), name)


def gateway_row(issued: Issued, peppers: Peppers, owner: int) -> tuple[Any, ...]:
    """The caller's own token: it may ask about every catalog, everywhere."""
    scope = {"catalog": "authz", "reach": {"kind": "instance"}, "permissions": ["decision:evaluate"]}
    return _row(issued, peppers, owner, {"authz": 1}, [scope], ("*",), "gateway")


def managing_row(
    issued: Issued, peppers: Peppers, owner: int, version: int, scopes: Iterable[Scope]
) -> tuple[Any, ...]:
    """A token for management itself, with reaches that name no nodes."""
    written = [
        {"catalog": scope.catalog, "reach": {"kind": scope.reach.kind.value}, "permissions": list(scope.permissions)}
        for scope in scopes
    ]
    return _row(issued, peppers, owner, {"authz": version}, written, (), "manager")


def _row(
    issued: Issued,
    peppers: Peppers,
    owner: int,
    catalogs: dict[str, int],
    scopes: list[dict[str, Any]],
    evaluates: tuple[str, ...],
    name: str,
) -> tuple[Any, ...]:
    digest = peppers.digest(issued.secret)
    found = (issued.id, digest, peppers.current, "fine_grained", name, owner, json.dumps(catalogs), json.dumps(scopes))
    return (*found, [], list(evaluates), "{}", issued.id, "", False)


def issue(peppers: Peppers) -> Issued:
    return Issued(new_token_id(), new_secret(peppers.prefix, peppers.current).reveal())


def scopes_of(grants: Iterable[Grant], numbers: dict[str, int]) -> list[tuple[list[int], tuple[str, ...]]]:
    return [([numbers[grant.node]], grant.permissions) for grant in grants]


@asynccontextmanager
async def loading(url: str, *, large: bool = False) -> AsyncIterator[Loading]:
    """A connection to load over; it leaves fresh statistics. `large` makes the indexes anew when all rows are in."""
    connection = await asyncpg.connect(read_url(url))
    try:
        if large:
            await connection.execute("set session_replication_role = replica")  # rows made together refer to each other
            await connection.execute("set maintenance_work_mem = '512MB'")
        indexes = await _drop_indexes(connection) if large else []
        yield Loading(connection)
        for statement in indexes:
            await connection.execute(statement)
        await connection.execute("vacuum analyze")
    finally:
        await connection.close()


async def _drop_indexes(connection: asyncpg.Connection) -> list[str]:
    """Drop all but what constraints hold; answers with how to make them."""
    tables = [table.name for table in metadata.sorted_tables]
    rows = await connection.fetch(
        """
        select i.indexrelid::regclass::text as name, pg_get_indexdef(i.indexrelid) as made
        from pg_index i join pg_class c on c.oid = i.indrelid
        where c.relname = any($1) and not exists (select from pg_constraint where conindid = i.indexrelid)
        """,
        tables,
    )
    for row in rows:
        await connection.execute(f"drop index {row['name']}")
    return [row["made"] for row in rows]


class Loading:
    """Writes rows by COPY."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def nodes(self, rows: Iterable[Node]) -> None:
        await self._copy(
            "node",
            _NODE,
            (
                (number, SOURCE, kind, parent, name, name.lower(), visibility)
                for number, kind, parent, name, visibility in rows
            ),
        )
        await self._connection.execute(
            "select setval(pg_get_serial_sequence('node', 'id'), (select max(id) from node))"
        )

    async def users(self, numbers: Iterable[int]) -> None:
        """The accounts behind user nodes."""
        await self._copy("account", _ACCOUNT, ((number, "active", False, False, False) for number in numbers))

    async def memberships(self, rows: Iterable[tuple[int, int]]) -> None:
        await self._copy("membership", _MEMBERSHIP, ((user, node, ROLE) for user, node in rows))

    async def tokens(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Rows of `token_row`, and the nodes that their scopes name."""
        nodes: list[tuple[str, int]] = []

        def noting() -> Iterable[tuple[Any, ...]]:
            for row in rows:
                named = {node for scope in json.loads(row[7]) for node in scope["reach"].get("nodes", ())}
                nodes.extend((row[0], node) for node in named)
                yield row

        await self._copy("token", _TOKEN, noting())
        await self._copy("token_node", ("token_id", "node_id"), nodes)

    async def _copy(self, table: str, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
        await self._connection.copy_records_to_table(table, columns=list(columns), records=rows)
