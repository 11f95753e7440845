"""Questions about subjects that are named, not proven: a token by its public id, or a user as such (rule A13)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeAlias

from authz_service.catalog.model import Catalog
from authz_service.directory.model import DEFAULT_SOURCE, Attributes, NodeKind, is_path
from authz_service.engine.decide import decide
from authz_service.engine.model import Decision, OperationRequest, PermissionRequest, Reason, Request, World, deny
from authz_service.engine.users import decide_user
from authz_service.pdp.check import DecisionPoint, parse_catalog
from authz_service.pdp.limits import GroupLimit
from authz_service.pdp.question import Answer, Ask, Freshly, HttpCall, Question
from authz_service.redaction import redact_tokens
from authz_service.tokens.model import Token, TokenId
from authz_service.tokens.secret import is_token_id


class SubjectKind(StrEnum):
    """Who can be asked about by name."""

    TOKEN = "token"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Subject:
    """`id` is a token's public id, or a username."""

    kind: SubjectKind
    id: str


@dataclass(frozen=True, slots=True)
class NamedAction:
    """An action on a resource: the operation `record.write` where the catalog has one, else permission `record:write`.

    `resource` empty means that `action` is a whole permission.
    """

    resource: str
    action: str
    target: str | None

    def resolve(self, catalog: Catalog | None) -> PermissionRequest | OperationRequest:
        operation = f"{self.resource}.{self.action}"
        if catalog is not None and operation in catalog.operations:
            return OperationRequest(operation, target=self.target)
        return PermissionRequest(self.permission, self.target)

    @property
    def permission(self) -> str:
        return f"{self.resource}:{self.action}" if self.resource else self.action


About: TypeAlias = NamedAction | HttpCall

KINDS: Final = frozenset(kind.value for kind in NodeKind)
"""Types of resources that are places: an action on one may be a whole permission."""
ROUTE: Final = "route"
"""The type of resource whose id is the path of a bare request, and whose action is its method."""


def about_of(kind: str, key: str, action: str) -> About:
    """What an action on a resource asks for.

    `record` `record-1` and `read` is the permission `record:read` (or the operation `record.read`) at `record-1`;
    `project` `acme/web` and `issue:read` is that permission at `project:acme/web`; `route` `/issues` and `GET` is the
    request as a client sends it.
    """
    if kind == ROUTE:
        return HttpCall(action, key)
    if ":" in action and kind in KINDS:
        return NamedAction("", action, key if kind == NodeKind.INSTANCE.value else f"{kind}:{key}")
    return NamedAction(kind, action, key)


@dataclass(frozen=True, slots=True)
class SubjectAsk:
    """One question about one subject. `client_address` is the end client's."""

    subject: Subject
    about: About
    catalog: str
    attributes: Attributes = field(default_factory=dict)
    client_address: str | None = None
    limit: GroupLimit | None = None


async def check_subjects(point: DecisionPoint, asks: Sequence[SubjectAsk], freshly: Freshly) -> list[Answer]:
    """One answer for each, all at one revision (rule A12). Raises CannotDecideError, RevisionUnknownError.

    Who asks has proven nothing about the subject: it is for callers that hold `decision:evaluate` alone. Leaves no
    decision records: `record_subjects` does, for questions that somebody asked.
    """
    await point.be_fresh(freshly)
    works = [_Work(point, ask) for ask in asks]
    stamp, decisions = await point.decide_all(works)
    return [Answer(decision, token, stamp) for decision, token in decisions]


def record_subjects(point: DecisionPoint, asks: Sequence[SubjectAsk], answers: Sequence[Answer]) -> None:
    """Leave a decision record of each; that of a user as such names no token."""
    if not point.records.on:
        return
    for ask, answer in zip(asks, answers, strict=True):
        named = ask.about
        about = PermissionRequest(named.permission, named.target) if isinstance(named, NamedAction) else named
        point.records.note_answers(Question([Ask(about)], ask.catalog), [answer])


@dataclass(frozen=True, slots=True)
class _Work:
    """One decision, run again until all its facts are at hand."""

    point: DecisionPoint
    ask: SubjectAsk

    def __call__(self) -> tuple[Decision, Token | None]:
        now = self.point.follower.now()
        if self.ask.subject.kind is SubjectKind.TOKEN:
            return self._decide_token(now)
        return self._decide_user(now), None

    def _decide_token(self, now: datetime) -> tuple[Decision, Token | None]:
        facts = self.point.facts
        shown = self.ask.subject.id
        token = facts.token(TokenId(shown)) if is_token_id(shown) else None
        if token is None:
            return deny(Reason.UNKNOWN_TOKEN), None
        own = self.point.own_catalog(token, parse_catalog(self.ask.catalog)[0])
        request = self._request(own, now)
        decision = decide(token, facts, request)
        if self.ask.limit is not None and own is not None:
            decision = self.ask.limit.narrow(decision, token, own, facts, request)
        return decision, token

    def _decide_user(self, now: datetime) -> Decision:
        facts = self.point.facts
        name, version = parse_catalog(self.ask.catalog)
        catalog = facts.newest_catalog(name) if version is None else facts.catalog(name, version)
        if catalog is None:
            return deny(
                Reason.CATALOG_MISMATCH, says=f"there is no catalog `{redact_tokens(self.ask.catalog[:80])}` here"
            )
        user = find_user(facts, catalog, self.ask.subject.id)
        if user is None:
            return deny(Reason.OWNER_INACTIVE)
        request = self._request(catalog, now)
        decision = decide_user(user, catalog, facts, request)
        if self.ask.limit is not None:
            somebody = Token(TokenId(""), user, {catalog.name: catalog.version})
            decision = self.ask.limit.narrow(decision, somebody, catalog, facts, request)
        return decision

    def _request(self, catalog: Catalog | None, now: datetime) -> Request:
        name, version = parse_catalog(self.ask.catalog)
        about: PermissionRequest | OperationRequest
        if isinstance(self.ask.about, NamedAction):
            about = self.ask.about.resolve(catalog)
        elif catalog is None:
            about = OperationRequest("", target=self.ask.about.target)
        else:
            about = self.point.routing.resolve(catalog, self.ask.about)
        return Request(name, about, now, version, self.ask.attributes, self.ask.client_address)


def find_user(world: World, catalog: Catalog, username: str) -> int | None:
    """The node of a user of the catalog's directory. A username is no external id, whatever it is made of."""
    if not is_path(username) or "/" in username:
        return None
    node = world.find(catalog.source or DEFAULT_SOURCE, NodeKind.USER, username)
    return None if node is None or not isinstance(node.id, int) else node.id
