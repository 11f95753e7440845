"""Cases as rows: for evaluators that have no service around them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from tests.reference.rows import Rows
from tests.support.case_rulings import CaseApprovals, policy_of
from tests.support.cases import Case, CaseWorld, only_keys

from authz_service.catalog.loader import load_catalog
from authz_service.catalog.model import Catalog
from authz_service.directory.model import (
    DEFAULT_SOURCE,
    INSTANCE_ID,
    Node,
    NodeId,
    NodeKind,
    User,
    UserState,
    Visibility,
)
from authz_service.engine.model import OperationRequest, PermissionRequest, Request
from authz_service.tokens.model import Conditions, Reach, ReachKind, Scope, Token, TokenId, TokenKind
from authz_service.tokens.policy import Policy

_OFFSET = re.compile(r"now(?: ([+-]) (\d+) (minutes|hours|days))?")


@dataclass(frozen=True)
class CaseRows:
    """A case's world as rows, its question as a request, and the token asked about."""

    rows: Rows
    token: TokenId
    request: Request


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def token_id(label: str) -> TokenId:
    return TokenId(f"tok_{label}")


def rows_of(case: Case) -> CaseRows:
    """For evaluators that decide from rows. All events of `then` have happened."""
    builder = _RowsBuilder(case.world)
    question = case.question
    ask: PermissionRequest | OperationRequest
    if question.operation is not None:
        ask = OperationRequest(question.operation, question.parameters, question.target, question.mutates)
    else:
        assert question.permission is not None or question.graphql is not None
        ask = PermissionRequest(question.permission or "", question.target)
    request = Request(question.catalog, ask, NOW, question.version, question.attributes, question.client_address)
    return CaseRows(builder.build(), token_id(question.token), request)


def asked_user(case: Case, rows: Rows) -> tuple[NodeId, Catalog]:
    """The user as such that the case asks about, 0 for nobody, and the version they are decided by (A13)."""
    question = case.question
    user = next((one.id for one in rows.users if one.username == question.user), 0)
    versions = [one for one in rows.catalogs if one.name == question.catalog]
    wanted = [one for one in versions if question.version in (None, one.version)]
    return user, max(wanted, key=lambda one: one.version)


class _RowsBuilder:
    def __init__(self, world: CaseWorld) -> None:
        self._world = world
        self._catalogs = [_catalog(text) for text in world.catalogs]
        self._ids: dict[str, int] = {"instance": INSTANCE_ID}
        self._nodes = [Node(INSTANCE_ID, NodeKind.INSTANCE, "instance", visibility=Visibility.PUBLIC)]
        self._users: list[User] = []
        self._memberships: list[tuple[NodeId, NodeId, str]] = []
        self._tokens: list[Token] = []
        self._successors: dict[TokenId, TokenId] = {}
        self._approvals = CaseApprovals()

    def build(self) -> Rows:
        for name, written in self._world.users.items():
            self._add_user(name, written)
        for text, written in self._world.nodes.items():
            self._add_node(text, written)
        for name, roles in self._world.members.items():
            for path, role in (roles or {}).items():
                self._memberships.append((self._ids[f"user:{name}"], self._place(path), role))
        homes = {name: written.get("home") for name, written in self._world.users.items()}
        self._users = [
            replace(user, home=self._place(homes[user.username])) if homes[user.username] else user
            for user in self._users
        ]
        for label, written in self._world.tokens.items():
            self._tokens.append(self._token(label, written))
        for event in self._world.then:
            self._happen(*event.split())
        policies = [self._policy(written) for written in self._world.policies]
        requests, grants = self._approvals.requests, self._approvals.grants
        return Rows(
            self._nodes, self._users, self._memberships, self._tokens, self._catalogs, policies, requests, grants
        )

    def _policy(self, written: Mapping[str, Any]) -> Policy:
        catalog = written.get("catalog", self._catalogs[0].name)
        return policy_of(written, catalog, self._ruled(catalog, written["at"]))

    def _ruled(self, catalog: str, written: str) -> NodeId:
        upstream = any(one.upstream for one in self._catalogs if one.name == catalog)
        return written if upstream and written != "instance" else self._place(written)

    def _add_user(self, name: str, written: Mapping[str, Any]) -> None:
        only_keys(
            name, written, "state", "admin", "external", "service_account", "home", "id", "namespace_id", "attributes",
            "source",
        )  # fmt: skip
        number = len(self._ids) + 1
        self._ids[f"user:{name}"] = number
        state = UserState(written.get("state", "active"))
        self._users.append(
            User(
                number,
                name,
                state,
                admin=written.get("admin", False),
                external=written.get("external", False),
                service_account=written.get("service_account", False),
            )
        )
        if state is UserState.DELETED:
            return
        self._nodes.append(
            Node(
                number,
                NodeKind.USER,
                name,
                visibility=Visibility.PUBLIC,
                external_id=written.get("id"),
                namespace_external_id=written.get("namespace_id"),
                attributes=written.get("attributes") or {},
                source=written.get("source", DEFAULT_SOURCE),
            )
        )

    def _add_node(self, text: str, written: Mapping[str, Any]) -> None:
        only_keys(text, written, "visibility", "id", "archived", "attributes", "source")
        kind, _, path = text.partition(":")
        above, _, name = path.rpartition("/")
        number = len(self._ids) + 1
        self._ids[text] = number
        self._nodes.append(
            Node(
                number,
                NodeKind(kind),
                name,
                self._place(above) if above else None,
                Visibility[written.get("visibility", "private").upper()],
                written.get("id"),
                archived=written.get("archived", False),
                attributes=written.get("attributes") or {},
                source=written.get("source", DEFAULT_SOURCE),
            )
        )

    def _place(self, written: str) -> int:
        """By text, `group:acme`, or by path alone."""
        texts = [written] if ":" in written else [f"{kind}:{written}" for kind in ("group", "project", "user")]
        texts += ["instance"] if written == "instance" else []
        for text in texts:
            if text in self._ids:
                return self._ids[text]
        raise ValueError(f"there is no `{written}`")

    def _token(self, label: str, written: Mapping[str, Any]) -> Token:
        only_keys(
            label, written, "owner", "catalogs", "scopes", "legacy", "expires", "not_before", "revoked", "networks",
            "parent", "resource_owner", "created", "approvals",
        )  # fmt: skip
        versions = written.get("catalogs") or {self._catalogs[0].name: self._catalogs[0].version}
        upstream = any(catalog.upstream for catalog in self._named(versions))
        owner = written.get("owner", "dana")
        resource_owner = written.get("resource_owner")
        for history in written.get("approvals") or ():
            catalog = history.get("catalog", next(iter(versions)))
            self._approvals.add(token_id(label), catalog, history, lambda text: self._ruled(catalog, text))  # noqa: B023
        return Token(
            token_id(label),
            owner if upstream else self._place(f"user:{owner}"),
            dict(versions),
            TokenKind.LEGACY if "legacy" in written else TokenKind.FINE_GRAINED,
            tuple(self._scope(scope, next(iter(versions)), upstream=upstream) for scope in written.get("scopes") or ()),
            tuple(written.get("legacy") or ()),
            created_at=_moment(written.get("created")) or NOW - timedelta(days=30),
            not_before=_moment(written.get("not_before")),
            expires_at=_moment(written.get("expires")),
            revoked_at=_moment(written.get("revoked")),
            conditions=Conditions(tuple(written.get("networks") or ())),
            parent=token_id(written["parent"]) if "parent" in written else None,
            resource_owner=resource_owner if upstream or resource_owner is None else self._place(resource_owner),
        )

    def _named(self, versions: Mapping[str, int]) -> list[Catalog]:
        return [catalog for catalog in self._catalogs if versions.get(catalog.name) == catalog.version]

    def _scope(self, written: Mapping[str, Any], catalog: str, *, upstream: bool) -> Scope:
        only_keys("scope", written, "catalog", "on", "reach", "may")
        kind = ReachKind(written.get("reach", "selected"))
        nodes: tuple[NodeId, ...] = tuple(written.get("on") or ())
        if not upstream:
            nodes = tuple(self._place(str(node)) for node in nodes)
        return Scope(written.get("catalog", catalog), Reach(kind, nodes), tuple(written["may"]))

    def _happen(self, verb: str, *words: str) -> None:
        """One event: `move project:acme/web to group:other`, `rename … to …`, `block dana`, `leave dana acme`, …"""
        if verb in ("move", "rename"):
            self._change_node(verb, words[0], words[-1])
        elif verb in ("block", "unblock", "delete"):
            state = {"block": UserState.BLOCKED, "unblock": UserState.ACTIVE, "delete": UserState.DELETED}[verb]
            number = self._place(f"user:{words[0]}")
            self._users = [replace(user, state=state) if user.id == number else user for user in self._users]
            if verb == "delete":
                self._nodes = [node for node in self._nodes if number not in (node.id, node.parent)]
                self._tokens = [
                    replace(token, revoked_at=NOW) if token.owner == number else token for token in self._tokens
                ]
        elif verb in ("leave", "join"):
            user, node = self._place(f"user:{words[0]}"), self._place(words[1])
            self._memberships = [row for row in self._memberships if row[:2] != (user, node)]
            if verb == "join":
                self._memberships.append((user, node, words[2]))
        elif verb == "revoke":
            self._tokens = [
                replace(token, revoked_at=NOW) if token.id == token_id(words[0]) else token for token in self._tokens
            ]
        elif verb == "rotate":
            self._rotate(words[0], overlap=timedelta(hours=int(words[2])) if words[1:] else None)
        elif verb == "reuse":
            self._end_family(token_id(words[0]))
        else:
            raise ValueError(f"no such event: {verb}")

    def _rotate(self, label: str, *, overlap: timedelta | None) -> None:
        """`rotate reader` or `rotate reader over 2 hours`: what comes of it is `reader_new`."""
        old = next(token for token in self._tokens if token.id == token_id(label))
        new = replace(old, id=token_id(f"{label}_new"), created_at=NOW)
        ends = old if overlap is None else replace(old, expires_at=min(old.expires_at or NOW + overlap, NOW + overlap))
        out = replace(old, revoked_at=NOW) if overlap is None else ends
        moved = [replace(token, parent=new.id) if token.parent == old.id else token for token in self._tokens]
        self._tokens = [out if token.id == old.id else token for token in moved] + [new]
        self._successors[old.id] = new.id

    def _end_family(self, member: TokenId) -> None:
        """All that came of a member by rotation, and all that hangs under one of these."""
        ended = {member}
        while True:
            more = {new for old, new in self._successors.items() if old in ended}
            more |= {token.id for token in self._tokens if token.parent in ended}
            if more <= ended:
                break
            ended |= more
        self._tokens = [
            replace(token, revoked_at=token.revoked_at or NOW) if token.id in ended else token for token in self._tokens
        ]

    def _change_node(self, verb: str, text: str, to: str) -> None:
        number = self._place(text)
        for position, node in enumerate(self._nodes):
            if node.id == number and verb == "move":
                self._nodes[position] = replace(node, parent=self._place(to))
            elif node.id == number and verb == "rename":
                self._nodes[position] = replace(node, name=to)


def _moment(written: str | None) -> datetime | None:
    if written is None:
        return None
    found = _OFFSET.fullmatch(written)
    if found is None:
        raise ValueError(f"`{written}` is not `now`, `now + 3 days` or `now - 5 minutes`")
    sign, count, unit = found.groups()
    if sign is None:
        return NOW
    offset = timedelta(**{unit: int(count)})
    return NOW + offset if sign == "+" else NOW - offset


@cache
def _catalog(text: str) -> Catalog:
    return load_catalog(text)
