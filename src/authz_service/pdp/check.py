"""The decision point: decides for a caller, from fresh facts, and loads those that are missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from authz_service.cache.clock import elapsed
from authz_service.cache.facts import Facts, NotAtHandError
from authz_service.cache.follower import Follower
from authz_service.cache.keys import FactKey
from authz_service.catalog.graphql_documents import BadDocumentError
from authz_service.catalog.model import Catalog, ParameterKind
from authz_service.directory.model import (
    DEFAULT_SOURCE,
    INSTANCE_ID,
    NodeKind,
    TargetText,
    parse_target,
)
from authz_service.engine.decide import decide, line_failure
from authz_service.engine.fix import find_fixes
from authz_service.engine.model import Decision, OperationRequest, PermissionRequest, Reason, Request, TracedToken, deny
from authz_service.errors import Fault, ForbiddenError, InvalidInputError, OverloadedError, UnauthenticatedError
from authz_service.pdp.documents import CallJudge, DocumentAnswer, DocumentReader, GraphqlCall
from authz_service.pdp.limits import GroupLimit, asks_at
from authz_service.pdp.loader import Loader
from authz_service.pdp.question import Answer, Freshly, HttpCall, Question
from authz_service.pdp.records import OFF
from authz_service.pdp.routing import Routing
from authz_service.pdp.secrets import Peppers
from authz_service.pdp.unasked import UnaskedBook
from authz_service.pdp.usage import UsageBook
from authz_service.store.changes import Stamp, parse_revision
from authz_service.tokens.model import Token
from authz_service.tokens.policy import EVALUATE, MANAGEMENT
from authz_service.tokens.secret import is_token_id

PUBLIC_ID: Final = "this is a token's public id; send its secret"
"""Of what was shown, its shape alone: the id may be nobody's."""
ANY_CATALOG: Final = "*"
"""In a token's `evaluates`: every catalog (rule M1)."""

About: TypeAlias = PermissionRequest | OperationRequest | HttpCall | GraphqlCall
T = TypeVar("T")
_ROUNDS: Final = 64
"""How often one question may need more facts before it is given up: a chain of 21 nodes needs a handful."""


@dataclass(frozen=True, slots=True)
class Use:
    """Who used which permissions. `owner` is a username, or the free text of C9.

    `permissions` is empty where an operation's alternatives differ, or needs none: then it cannot be said which.
    """

    owner: str
    permissions: tuple[str, ...]


class DecisionPoint:
    """Answers from facts at one revision, or raises CannotDecideError; never allows on doubt (rule A11)."""

    def __init__(self, facts: Facts, follower: Follower, loader: Loader, peppers: Peppers) -> None:
        self.facts = facts
        self.follower = follower
        self.peppers = peppers
        self._loader = loader
        self.routing = Routing()
        self.documents = DocumentReader()
        self.unasked = UnaskedBook()
        """Tokens used where a group was never asked to approve them; the composition root has them asked for."""
        self.usage: UsageBook | None = None
        """Where what is allowed is counted; the composition root gives it."""
        self.records = OFF
        """Where decisions leave a record."""

    # who asks

    async def authenticate(self, secret: str | None, *, client_address: str | None = None) -> Token:
        """The caller's own token, if rule A1 holds for it and all its ancestors. Raises UnauthenticatedError.

        One message for every failure: who shows a bad token learns nothing about it.
        """
        digest = None if secret is None else self.peppers.digest(secret)

        def find() -> Token | None:
            token = None if digest is None else self.facts.find_token(digest)
            return None if token is None or not self._stands(token, client_address) else token

        token = await self._answer(find)
        if token is None and secret is not None and is_token_id(secret):
            raise UnauthenticatedError(PUBLIC_ID)
        if token is None:
            raise _unauthenticated()
        return token

    def _stands(self, caller: Token, client_address: str | None) -> bool:
        """Rule A1 for the caller and all above it."""
        request = Request(MANAGEMENT, PermissionRequest(""), self.follower.now(), client_address=client_address)
        return line_failure(caller, self.facts, request) is None

    def caller_now(self, caller: Token, client_address: str | None) -> Token:
        """The caller as the facts have it: bodies come in slowly, loads take their time, and tokens end meanwhile.

        To be judged, a caller is looked up in the very work that judges it. Raises UnauthenticatedError when rule A1
        holds for it no more.
        """
        known = self.facts.token(caller.id)
        if known is None or not self._stands(known, client_address):
            raise _unauthenticated()
        return known

    async def find_token(self, secret: str) -> Token | None:
        """The token of a secret, whatever its state; None when it is none of ours."""
        digest = self.peppers.digest(secret)
        if digest is None:
            return None
        return await self._answer(lambda: self.facts.find_token(digest))

    async def require_evaluator(self, caller: Token) -> None:
        """Raises ForbiddenError unless the caller may ask for decisions at all (`decision:evaluate`), somewhere.

        The way out before anything of a question is read.
        """
        if MANAGEMENT not in caller.catalogs or not any(EVALUATE in scope.permissions for scope in caller.scopes):
            raise ForbiddenError("this token may not ask for decisions: it needs `decision:evaluate`")

    async def require_may_ask(
        self,
        caller: Token,
        catalog: str,
        targets: Sequence[str | None] | None,
        *,
        client_address: str | None = None,
    ) -> None:
        """Raises ForbiddenError when the caller asks about a catalog or a group that is not its own (rule M1).

        `targets` None is a question whose targets are found only later: it takes `decision:evaluate` at the instance,
        or else `find_limit`.
        """
        if await self._may_ask_everywhere(caller, catalog, client_address):
            return
        if targets is None:
            raise ForbiddenError("this token may ask only about targets in its own groups: ask for a permission there")
        for target in dict.fromkeys(targets):
            if not await self._asks_within_group(caller, target, catalog, client_address):
                raise ForbiddenError("this token may ask only about targets in its own groups")

    async def find_limit(self, caller: Token, catalog: str, *, client_address: str | None = None) -> GroupLimit | None:
        """For questions whose targets are found only later: what `check` has to be given, None for no limit.

        Raises ForbiddenError when the caller asks about a catalog that is not its own (rule M1).
        """
        if await self._may_ask_everywhere(caller, catalog, client_address):
            return None
        return GroupLimit(caller.id, client_address)

    async def _may_ask_everywhere(self, caller: Token, catalog: str, client_address: str | None) -> bool:
        name = catalog.partition("@")[0]

        def ask() -> bool:
            known = self.caller_now(caller, client_address)
            if not {ANY_CATALOG, name} & set(known.evaluates):
                raise ForbiddenError(f"this token may not ask about catalog `{name}`")
            return self.asks_everywhere(known, client_address)

        return await self._answer(ask)

    def asks_everywhere(self, caller: Token, client_address: str | None) -> bool:
        """Whether a caller that was looked up now holds `decision:evaluate` at the instance (rule M1)."""
        ask = PermissionRequest(EVALUATE, "instance")
        request = Request(MANAGEMENT, ask, self.follower.now(), client_address=client_address)
        return decide(caller, self.facts, request).allowed

    async def _asks_within_group(
        self, caller: Token, target: str | None, catalog: str, client_address: str | None
    ) -> bool:
        """Whether some group at or above the target is the caller's to ask about."""
        written = None if target is None else parse_target(target)
        if written is None or written.kind in (NodeKind.INSTANCE, NodeKind.USER):
            return False

        def ask() -> bool:
            source = self._source_of(catalog)
            path = written.path or self._path_of(written, source)
            if path is not None and written.kind is NodeKind.PROJECT:
                path = path.rpartition("/")[0]
            request = Request(MANAGEMENT, PermissionRequest(""), self.follower.now(), client_address=client_address)
            known = self.caller_now(caller, client_address)
            return bool(path) and asks_at(known, path or "", source, self.facts, request)

        return await self._answer(ask)

    def _source_of(self, catalog: str) -> str:
        """Where the paths of a catalog lie."""
        name, version = parse_catalog(catalog)
        found = self.facts.newest_catalog(name) if version is None else self.facts.catalog(name, version)
        return DEFAULT_SOURCE if found is None or found.source is None else found.source

    def _path_of(self, written: TargetText, source: str) -> str | None:
        """The path behind an external id."""
        if written.kind is None or written.external_id is None:
            return None
        node = self.facts.find_external(source, ParameterKind(written.kind.value), written.external_id)
        names = []
        while node is not None:
            names.append(node.name)
            node = None if node.parent is None else self.facts.node(node.parent)
        return "/".join(reversed(names)) or None

    # what is asked

    async def check(self, secret: str, question: Question, *, limit: GroupLimit | None = None) -> list[Answer]:
        """One answer for each item, all at one revision (rule A12). Raises CannotDecideError, RevisionUnknownError.

        `limit` is the asker's (`find_limit`): what lies beyond it is answered as if it were not there, unexplained.
        """
        await self.be_fresh(question.freshly)
        digest = self.peppers.digest(secret)
        if digest is None:
            says = PUBLIC_ID if is_token_id(secret) else ""
            unreadable = Answer(deny(Reason.MALFORMED_TOKEN, says=says), None, self.follower.require_fresh())
            self.records.note_answers(question, [unreadable] * len(question.items))
            return [unreadable] * len(question.items)
        since = 0.0 if question.freshly == Freshly() else elapsed()
        answers = await self._decide_items(lambda: self.facts.find_token(digest, since), question, limit)
        if self.usage is not None and not question.explain:
            self._note_usage(self.usage, question, answers)
        for answer in answers:
            if answer.decision.policy is not None:
                self.unasked.note(answer.decision, parse_catalog(question.catalog)[0])
        self.records.note_answers(question, answers)
        return answers

    def _note_usage(self, book: UsageBook, question: Question, answers: Sequence[Answer]) -> None:
        """What was allowed counts as used; a question that asks for reasons was not asked by somebody who acts."""
        for answer in answers:
            token = answer.token
            if token is None or not answer.decision.allowed:
                continue
            catalog = self.own_catalog(token, parse_catalog(question.catalog)[0])
            if catalog is not None:
                book.note_decision(self.facts, token.id, catalog, answer.decision)
                book.note_address(token.id, question.client_address)

    async def check_own(self, token: Token, question: Question) -> list[Answer]:
        """The same questions of a token about itself (rule M4)."""
        await self.be_fresh(question.freshly)
        answers = await self._decide_items(lambda: self.facts.token(token.id), question)
        if any(answer.decision.hide for answer in answers) and isinstance(token.owner, int):
            # Read for a hidden group, so read for one that does not exist: time must not tell the two apart (A10).
            await self._answer(lambda: self.facts.is_member_below(token.owner, INSTANCE_ID))
        self.records.note_answers(question, answers)
        return answers

    async def describe_use(self, token: Token, catalog: str, about: About) -> Use:
        """What the API behind an allowed call may be told of it; it decides nothing."""

        def describe() -> Use:
            owner, permissions = token.owner, []
            if isinstance(owner, int):
                user = self.facts.user(owner)
                owner = "" if user is None else user.username
            name = parse_catalog(catalog)[0]
            if isinstance(about, PermissionRequest):
                permissions = [about.permission]
            elif (call := self._documents_of(token, name, about)) is not None:
                permissions = self._permissions_of(token, name, call)
            elif isinstance(about, HttpCall) and (found := self.own_catalog(token, name)) is not None:
                resolved = self.routing.resolve(found, about)
                operation = found.operations.get(resolved.operation)
                sets = () if operation is None else operation.sets
                alternatives = {tuple(sorted({item.permission for item in one.items})) for one in sets}
                permissions = list(next(iter(alternatives))) if len(alternatives) == 1 else []
            return Use(owner, tuple(permissions))

        return await self._answer(describe)

    def _permissions_of(self, token: Token, catalog: str, call: GraphqlCall) -> list[str]:
        """What all parts of allowed documents needed; nothing where alternatives differ."""
        found = self.own_catalog(token, catalog)
        needed: dict[str, None] = {}
        for _, part in [] if found is None else self.documents.read(found, self.facts, call):
            operation = None if found is None else found.operations.get(part.operation)
            sets = () if operation is None else operation.sets
            alternatives = {tuple(sorted({item.permission for item in one.items})) for one in sets}
            if len(alternatives) > 1:
                return []
            needed.update(dict.fromkeys(name for names in alternatives for name in names))
        return list(needed)

    async def be_fresh(self, freshly: Freshly) -> None:
        """Returns once the facts are as fresh as asked for. Raises CannotDecideError, RevisionUnknownError."""
        if freshly.at_least is not None:
            wanted = parse_revision(freshly.at_least)
            if wanted is None:
                raise InvalidInputError(
                    "the body has a fault",
                    faults=[Fault("/at_least", "invalid_revision", f"`{freshly.at_least[:64]}` is no revision")],
                )
            await self.follower.reach(wanted)
        if freshly.fully_consistent:
            await self.follower.poll_now()

    async def _decide_items(
        self, find: Callable[[], Token | None], question: Question, limit: GroupLimit | None = None
    ) -> list[Answer]:
        name, version = parse_catalog(question.catalog)
        for _ in range(_ROUNDS):
            stamp = self.follower.require_fresh()
            try:
                token = find()
            except NotAtHandError as error:
                await self._loader.load([error.key], since=error.since)
                continue
            if token is None:
                return [Answer(deny(Reason.UNKNOWN_TOKEN), None, stamp)] * len(question.items)
            now = self.follower.now()
            missing: dict[FactKey, None] = {}
            answers: list[Answer] = []
            for ask in question.items:
                try:
                    call = self._documents_of(token, name, ask.about)
                    about = PermissionRequest("") if call is not None else self.resolve(token, name, ask.about)
                    request = Request(name, about, now, version, ask.attributes, question.client_address)
                    trace: list[TracedToken] | None = [] if question.explain else None
                    if call is not None:
                        judge = CallJudge(token, self.facts, request, self.own_catalog(token, name), limit)
                        judged = self._judge_call(judge, call, missing, trace)
                        if judged is not None:
                            answers.append(Answer(judged[0], token, stamp, None if limit else trace, judged[1]))
                        continue
                    decision = decide(token, self.facts, request, trace)
                    fixes = find_fixes(token, self.facts, request, decision) if question.explain else ()
                    own = None if limit is None else self.own_catalog(token, name)
                    if limit is not None and own is not None:
                        decision, whole = limit.narrow(decision, token, own, self.facts, request), decision
                        trace = trace if decision is whole else None
                    answers.append(Answer(decision, token, stamp, trace, fixes=fixes if trace is not None else ()))
                except NotAtHandError as error:
                    missing[error.key] = None
            if not missing:
                return answers
            await self._loader.load(missing)
        raise _too_many_facts()

    def _documents_of(self, token: Token, catalog: str, about: About) -> GraphqlCall | None:
        """The GraphQL documents that a question is, also where it comes as the request that carries them."""
        if isinstance(about, HttpCall):
            found = self.own_catalog(token, catalog)
            return None if found is None else about.graphql(found)
        return about if isinstance(about, GraphqlCall) else None

    def _judge_call(
        self, judge: CallJudge, call: GraphqlCall, missing: dict[FactKey, None], trace: list[TracedToken] | None
    ) -> tuple[Decision, DocumentAnswer] | None:
        """The decision on documents; None when facts are missing, which are then noted."""
        if judge.catalog is None:
            return judge.refuse(call.faults)
        try:
            found = self.documents.read(judge.catalog, self.facts, call)
        except BadDocumentError as error:
            return judge.refuse(error.faults)
        return judge.judge(found, call.target, missing, trace)

    def resolve(self, token: Token, catalog: str, about: About) -> PermissionRequest | OperationRequest:
        """A bare request is an operation of the catalog version that the token was made under (C8)."""
        if isinstance(about, GraphqlCall):
            return OperationRequest("", target=about.target)
        if not isinstance(about, HttpCall):
            return about
        found = self.own_catalog(token, catalog)
        # Without a catalog the answer is `catalog_mismatch`, whatever the operation.
        return OperationRequest("", target=about.target) if found is None else self.routing.resolve(found, about)

    def own_catalog(self, token: Token, catalog: str) -> Catalog | None:
        """The version that the token was made under."""
        version = token.catalogs.get(catalog)
        return None if version is None else self.facts.catalog(catalog, version)

    async def decide_all(self, works: Sequence[Callable[[], T]]) -> tuple[Stamp, list[T]]:
        """The results of all `works`, at one revision; each is run again until it needs no fact that is not at hand."""
        for _ in range(_ROUNDS):
            stamp = self.follower.require_fresh()
            missing: dict[FactKey, None] = {}
            found: list[T] = []
            for work in works:
                try:
                    found.append(work())
                except NotAtHandError as error:
                    missing[error.key] = None
            if not missing:
                return stamp, found
            await self._loader.load(missing)
        raise _too_many_facts()

    async def _answer(self, work: Callable[[], T]) -> T:
        """Run `work` on fresh facts until it needs no more of them."""
        for _ in range(_ROUNDS):
            self.follower.require_fresh()
            try:
                return work()
            except NotAtHandError as error:
                await self._loader.load([error.key])
        raise _too_many_facts()


def parse_catalog(text: str) -> tuple[str, int | None]:
    """`gitlab` or `gitlab@1`. A version that is no number names no version that exists: -1."""
    name, at, version = text.partition("@")
    if not at:
        return name, None
    return name, int(version) if version.isascii() and version.isdigit() and len(version) < 10 else -1


def _unauthenticated() -> UnauthenticatedError:
    return UnauthenticatedError("show a valid token as `Authorization: Bearer`")


def _too_many_facts() -> OverloadedError:
    return OverloadedError("this question needs more facts than one question may; ask for less at once")
