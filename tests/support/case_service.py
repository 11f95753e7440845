"""One running service that takes one case's world after another, and is asked every way there is."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.reference.rows import Rows
from tests.support.case_rows import NOW, rows_of, token_id
from tests.support.cases import SHOWN, Case, CaseWorld, Question
from tests.support.stored_rows import external_id, import_lines, install, put_rows, read_rows

from authz_service.app import create_app
from authz_service.catalog.graphql_schema import format_schema, load_schema
from authz_service.catalog.loader import load_catalog
from authz_service.config import load_settings
from authz_service.directory.model import NodeId, NodeKind
from authz_service.engine.attributes import RESERVED
from authz_service.engine.model import Decision, OperationRequest, PermissionRequest
from authz_service.pdp.check import DecisionPoint
from authz_service.pdp.documents import DocumentText, GraphqlCall
from authz_service.pdp.question import Ask
from authz_service.pdp.question import Question as Asked
from authz_service.pdp.secrets import Peppers
from authz_service.store import catalog_schemas, tokens
from authz_service.store.changes import ChangeSet, append, begin_epoch
from authz_service.store.database import Database
from authz_service.store.token_families import supersede
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.model import Reach, ReachKind, Scope, Token, TokenId
from authz_service.tokens.secret import new_secret

PEPPER = bytes(range(50, 82))
GATEHOUSE = "gatehouse"
"""The source of the directory that the asking gateway's own account lies in: no case has it."""
_PLACEHOLDER = re.compile(r":(\w+)|\*(\w+)|\{(\w+)\*?\}")


@dataclass
class CaseService:
    """`enter` a case, then ask. Entering a world that is there already does nothing."""

    app: Any
    database: Database
    point: DecisionPoint
    long: httpx.AsyncClient
    hot: httpx.AsyncClient
    gateway: str = ""
    secrets: Mapping[TokenId, str] | None = None
    rows: Rows | None = None
    """What is stored, read back."""
    entered: CaseWorld | None = None

    async def enter(self, case: Case) -> None:
        if case.world is self.entered:
            return
        self.entered = None
        before = rows_before(case)
        await self._clear()
        await install(self.database, *case.world.catalogs)
        await install_schemas(self.database, case.world)
        stored = await put_rows(self.database, before, self.point.peppers)
        self.secrets = stored.secrets
        await self.point.follower.poll_now()
        if case.world.then:
            if case.question.permission or case.question.operation:
                await self.decide(case.question)  # what is remembered from before must not answer after
            events = Events(self.database, before, self.point.peppers)
            for event in case.world.then:
                await events.happen(*event.split())
            self.secrets = {**self.secrets, **events.secrets}
            await self.point.follower.poll_now()
        self.rows = await read_rows(self.database)
        self.entered = case.world

    async def _clear(self) -> None:
        """Nothing of the case before is left, and it is `NOW`."""
        ours = {"source": GATEHOUSE}
        async with self.database.transaction() as conn:
            owner = "(select id from node where source = :source)"
            # The service may be asking a group about a token of before: nothing comes between the statements below.
            await conn.execute(text("lock table grant_request in share row exclusive mode"))
            for table in ("policy", "grant_request", "token_grant"):
                await conn.execute(text(f"delete from {table}"))
            await conn.execute(text("delete from token_node"))
            await conn.execute(text(f"delete from token where owner_id is null or owner_id not in {owner}"), ours)
            await conn.execute(text("delete from membership"))
            await conn.execute(text(f"delete from account where node_id not in {owner}"), ours)
            await conn.execute(text("delete from node where kind <> 'instance' and source <> :source"), ours)
            await conn.execute(text("delete from catalog_version"))
            await conn.execute(
                text("update clock_shift set shift = cast(:now as timestamptz) - clock_timestamp()"), {"now": NOW}
            )
            await begin_epoch(conn)

    # asking

    def secret_of(self, question: Question) -> str:
        if question.secret is None:
            assert self.secrets is not None
            if token_id(question.token) in self.secrets:
                return self.secrets[token_id(question.token)]
        made = new_secret(self.point.peppers.prefix, self.point.peppers.current).reveal()
        return made[:-1] if question.secret == "malformed" else made

    async def decide(self, question: Question) -> Decision:
        """What the decision point says of a permission or an operation."""
        about: PermissionRequest | OperationRequest | GraphqlCall
        if question.graphql is not None:
            text = DocumentText(question.graphql, question.variables, question.operation_name)
            about = GraphqlCall([text], question.target)
        elif question.operation is not None:
            about = OperationRequest(question.operation, question.parameters, question.target, question.mutates)
        else:
            assert question.permission is not None
            about = PermissionRequest(question.permission, question.target)
        asked = Asked([Ask(about, question.attributes)], _label(question), question.client_address)
        [answer] = await self.point.check(self.secret_of(question), asked)
        return answer.decision

    def body(self, question: Question) -> dict[str, Any]:
        """Of `/check` and its like, but for what is asked."""
        found: dict[str, Any] = {"token": self.secret_of(question), "catalog": _label(question)}
        if question.client_address is not None:
            found["client_address"] = question.client_address
        return found

    async def post(self, client: httpx.AsyncClient, path: str, body: Any, secret: str | None = None) -> httpx.Response:
        return await client.post(path, json=body, headers={"Authorization": f"Bearer {secret or self.gateway}"})


async def install_schemas(database: Database, world: CaseWorld) -> None:
    """The schemas of the world, each beside the first catalog of its name."""
    for name, sdl in world.schemas.items():
        catalog = next(one for one in map(load_catalog, world.catalogs) if one.name == name)
        async with database.transaction() as conn:
            changes = ChangeSet()
            text = format_schema(load_schema(sdl))
            await catalog_schemas.install(
                conn, changes, name=name, version=catalog.version, text=text, installed_by="test"
            )
            await append(conn, changes)


def together(cases: Iterable[Case]) -> list[Case]:
    """The same cases world by world: equal worlds to which nothing happens are one, with the tokens of all."""
    worlds: dict[str, CaseWorld] = {}
    tokens_of: dict[str, dict[str, Mapping[str, Any]]] = {}
    found: list[tuple[Case, str]] = []
    for number, case in enumerate(cases):
        named = {label: token for label, token in case.world.tokens.items() if label != SHOWN}
        key = repr(replace(case.world, tokens=named)) + (f" and then {number}" if case.world.then else "")
        worlds.setdefault(key, case.world)
        tokens_of.setdefault(key, named)
        if SHOWN in case.world.tokens:
            label = f"{SHOWN}_{number}"
            tokens_of[key][label] = case.world.tokens[SHOWN]
            case = replace(case, question=replace(case.question, token=label))  # noqa: PLW2901
        found.append((case, key))
    shared = {key: replace(world, tokens=tokens_of[key]) for key, world in worlds.items()}
    order = list(worlds)
    found.sort(key=lambda pair: order.index(pair[1]))
    return [replace(case, world=shared[key]) for case, key in found]


def rows_before(case: Case) -> Rows:
    """The case's world before its events, whatever is asked about it."""
    quiet = replace(case.question, operation="GET /", permission=None)
    return rows_of(replace(case, world=replace(case.world, then=()), question=quiet)).rows


def evaluation(case: Case) -> dict[str, Any] | None:
    """A question about a user as such, as `/access/v1/evaluation` takes it; None where none would ask it."""
    question = case.question
    call = http_call(case)
    if call is not None and "target" not in call:
        resource, action = {"type": "route", "id": call["path"]}, call["method"]
    elif question.target is not None and (question.permission or "." in (question.operation or "").partition(" ")[0]):
        kind, _, action = (question.permission or question.operation or "").replace(":", ".", 1).partition(".")
        resource = {"type": kind, "id": question.target}
    else:
        return None
    ours = {"catalog": _label(question), "explain": True}
    subject = {"type": "user", "id": question.user}
    return {"subject": subject, "action": {"name": action}, "resource": resource, "context": {"authz": ours}}


def item(question: Question) -> dict[str, Any]:
    """A bare permission as `/check` takes it."""
    assert question.permission is not None
    resource, _, action = question.permission.partition(":")
    found: dict[str, Any] = {"resource": resource, "action": action}
    if question.target is not None:
        found["target"] = question.target
    if question.attributes:
        found["attributes"] = dict(question.attributes)
    return found


def document(question: Question) -> dict[str, Any]:
    """A GraphQL document as `/check/graphql` takes it."""
    found = {
        "query": question.graphql,
        "variables": dict(question.variables) or None,
        "operation_name": question.operation_name,
        "target": question.target,
        "attributes": dict(question.attributes) or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def is_bare(question: Question) -> bool:
    return question.permission is not None and RESERVED.isdisjoint(question.attributes)


def http_call(case: Case) -> dict[str, Any] | None:
    """The question as `/check/http` takes it; None where no request would ask it."""
    question = case.question
    if question.http is not None:
        method, _, path = question.http.partition(" ")
        return {"method": method, "path": path}
    if question.operation is None or not RESERVED.isdisjoint(question.attributes):
        return None
    method, _, template = question.operation.partition(" ")
    if not template.startswith("/") or "(" in template:
        return None
    [catalog] = [one for one in map(load_catalog, case.world.catalogs) if one.name == question.catalog][:1]
    if question.operation not in catalog.operations and question.mutates is (method in ("GET", "HEAD")):
        return None
    names = {name for found in _PLACEHOLDER.findall(template) for name in found if name}
    if names != set(question.parameters) or not all(question.parameters.values()):
        return None

    def fill(found: re.Match[str]) -> str:
        name = next(group for group in found.groups() if group is not None)
        return quote(question.parameters[name], safe="")

    path = (catalog.base_path or "") + _PLACEHOLDER.sub(fill, template)
    given = {"target": question.target, "attributes": dict(question.attributes) or None}
    return {"method": method, "path": path} | {name: value for name, value in given.items() if value is not None}


def _label(question: Question) -> str:
    return question.catalog if question.version is None else f"{question.catalog}@{question.version}"


class Events:
    """What `then` says, done by imports and by a revocation."""

    def __init__(self, database: Database, rows: Rows, peppers: Peppers) -> None:
        self._database = database
        self._peppers = peppers
        self.secrets: dict[TokenId, str] = {}
        self._places = {node.id: node for node in rows.nodes}
        self._by_text: dict[str, NodeId] = {}
        for node in rows.nodes:
            if node.kind is not NodeKind.INSTANCE:
                self._by_text[f"{node.kind.value}:{self._path(node.id)}"] = node.id

    def _path(self, place: NodeId | None) -> str:
        names: list[str] = []
        while place is not None:
            names.append(self._places[place].name)
            place = self._places[place].parent
        return "/".join(reversed(names))

    def _find(self, written: str) -> NodeId:
        """By the text that the case's world has for it, whatever happened since."""
        kinds = ("group", "project", "user")
        texts = [written] if ":" in written else [f"{kind}:{written}" for kind in kinds]
        return next(self._by_text[one] for one in texts if one in self._by_text)

    async def happen(self, verb: str, *words: str) -> None:
        if verb == "revoke":
            async with self._database.transaction() as conn:
                changes = ChangeSet()
                await tokens.revoke(conn, changes, token_id(words[0]), reason="test")
                await append(conn, changes)
            return
        if verb in ("rotate", "reuse"):
            await self._database.run_in_transaction(lambda conn: self._live(conn, verb, *words))
            return
        await import_lines(self._database, self._line(verb, *words))

    async def _live(self, conn: AsyncConnection, verb: str, label: str, *words: str) -> None:
        changes = ChangeSet()
        record = await tokens.get(conn, token_id(label), lock=True)
        if verb == "reuse":
            await tokens.revoke_family(conn, changes, record.family, reason="test")
        else:
            new = token_id(f"{label}_new")
            secret = new_secret(self._peppers.prefix, self._peppers.current)
            digest = self._peppers.digest(secret.reveal())
            assert digest is not None
            await tokens.insert(conn, replace(record, token=replace(record.token, id=new)), digest)
            overlap = timedelta(hours=int(words[1])) if words else timedelta()
            await supersede(conn, changes, record.token.id, new, overlap=overlap, reason="test")
            self.secrets[new] = secret.reveal()
        await append(conn, changes)

    def _line(self, verb: str, *words: str) -> dict[str, Any]:
        if verb in ("block", "unblock", "delete"):
            state = {"block": "blocked", "unblock": "active", "delete": "deleted"}[verb]
            return {"type": "user", "username": words[0], "state": state} | self._ids(self._find(f"user:{words[0]}"))
        if verb in ("join", "leave"):
            place = self._find(words[1])
            line = {"user": words[0], "node": self._path(place), "source": self._places[place].source}
            if verb == "join":
                return line | {"type": "membership", "role": words[2]}
            return line | {"type": "delete", "what": "membership"}
        place = self._find(words[0])
        node = self._places[place]
        if verb == "move":
            parent = self._find(words[-1])
            line = {"type": "move", "node": self._path(place), "to": self._path(parent), "source": node.source}
            self._places[place] = replace(node, parent=parent)
            return line
        if verb != "rename":
            raise ValueError(f"no such event: {verb}")
        self._places[place] = replace(node, name=words[-1])
        return {"type": node.kind.value, "path": self._path(place)} | self._ids(place)

    def _ids(self, place: NodeId) -> dict[str, Any]:
        node = self._places[place]
        found = {"source": node.source}
        if node.kind is not NodeKind.USER:
            return found | {"external_id": external_id(node)}
        return found if node.external_id is None else found | {"external_id": node.external_id}


@asynccontextmanager
async def case_service(url: str) -> AsyncIterator[CaseService]:
    """On a database of its own, with a gateway that may ask about everything."""
    pepper = base64.b64encode(PEPPER).decode()
    app = create_app(load_settings({}, database_url=url, peppers=f"k1:{pepper}"))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service") as long,
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app.state.hot), base_url="http://service") as hot,
    ):
        services = app.state.services
        found = CaseService(app, services.management.database, services.point, long, hot)
        await import_lines(found.database, {"type": "user", "username": "gateway", "source": GATEHOUSE})
        found.gateway = await _gateway(found)
        yield found


async def _gateway(service: CaseService) -> str:
    async with service.database.read() as conn:
        owner = (await conn.execute(text("select id from node where source = :one"), {"one": GATEHOUSE})).scalar_one()
    secret = new_secret(service.point.peppers.prefix, service.point.peppers.current)
    digest = service.point.peppers.digest(secret.reveal())
    assert digest is not None
    held = Scope("authz", Reach(ReachKind.INSTANCE), ("decision:evaluate",))
    token = Token(TokenId("tok_gateway"), owner, {"authz": 1}, scopes=(held,), evaluates=("*",))
    async with service.database.transaction() as conn:
        await tokens.insert(conn, TokenRecord(token, service.point.peppers.current, token.id), digest)
    return secret.reveal()
