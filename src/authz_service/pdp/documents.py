"""GraphQL documents asked about: read by the catalog version of the token, and decided part by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from authz_service.cache.bounded import Bounded
from authz_service.cache.facts import Facts, NotAtHandError
from authz_service.cache.keys import FactKey
from authz_service.catalog.graphql_documents import (
    MAX_CHARACTERS,
    MAX_NAME,
    BadDocumentError,
    Document,
    DocumentFault,
    FoundFault,
    bad_document,
    parse_document,
)
from authz_service.catalog.graphql_reach import Budget, Part, Reacher
from authz_service.catalog.model import Catalog
from authz_service.engine.decide import decide
from authz_service.engine.documents import DecidedPart, combine, is_about_all, request_of
from authz_service.engine.model import Decision, OperationRequest, Request, TracedToken, World
from authz_service.pdp.limits import GroupLimit
from authz_service.tokens.model import Token

MAX_DOCUMENTS: Final = 20
"""Documents of one request."""
_REMEMBERED: Final = 256
_LONGEST_REMEMBERED: Final = 4096
"""Characters: a parsed document takes a hundred times the room of its text."""


@dataclass(frozen=True, slots=True)
class DocumentText:
    """One document as it was sent, the variables as JSON gives them."""

    query: str
    variables: Mapping[str, Any] = field(default_factory=dict)
    operation_name: str | None = None


@dataclass(frozen=True, slots=True)
class GraphqlCall:
    """What one request holds: a document, or a list of them that is allowed as a whole only.

    `target` is what the PEP gives for what a document does not place (C3). `faults` say that the request could not be
    read. With `reading`, the request was of a method that may only read, and its URL has to say everything.
    """

    documents: Sequence[DocumentText] = ()
    target: str | None = None
    faults: tuple[FoundFault, ...] = ()
    listed: bool = False
    """Whether the documents came as a list, even a list of one."""
    reading: bool = False


@dataclass(frozen=True, slots=True)
class DocumentAnswer:
    """What the decision was made of: parts with the number of their document, or faults."""

    parts: tuple[tuple[int, DecidedPart], ...] = ()
    faults: tuple[FoundFault, ...] = ()


NO_DOCUMENT: Final = FoundFault(
    DocumentFault.MISSING, "nobody sent the document along: let the gateway send bodies, or ask `/check/graphql`"
)


class DocumentReader:
    """Remembers short documents and what it takes to read by a catalog; both never change."""

    def __init__(self) -> None:
        self._documents: Bounded[str, Document] = Bounded(_REMEMBERED)
        self._reachers: dict[str, tuple[Catalog, Reacher]] = {}

    def reacher(self, catalog: Catalog, facts: Facts) -> Reacher:
        """Raises NotAtHandError while the schema is not loaded."""
        schema = facts.schema(catalog.name, catalog.version)
        known = self._reachers.get(catalog.label)
        if known is None or known[0] is not catalog or known[1].schema is not schema:
            known = self._reachers[catalog.label] = (catalog, Reacher(catalog, schema))
        return known[1]

    def parse(self, text: str) -> Document:
        """Raises BadDocumentError, each time anew."""
        found = self._documents.get(text)
        if found is None:
            found = parse_document(text)
            if len(text) <= _LONGEST_REMEMBERED:
                self._documents[text] = found
        return found

    def read(self, catalog: Catalog, facts: Facts, call: GraphqlCall) -> list[tuple[int, Part]]:
        """What a call reaches, each part with the number of its document. Raises BadDocumentError, NotAtHandError."""
        if call.faults:
            raise BadDocumentError(call.faults)
        if not 1 <= len(call.documents) <= MAX_DOCUMENTS:
            message = f"a request holds 1 to {MAX_DOCUMENTS} documents, and this one {len(call.documents)}"
            raise bad_document(DocumentFault.TOO_MANY_DOCUMENTS, message)
        if sum(len(each.query) for each in call.documents) > MAX_CHARACTERS:
            message = f"documents have at most {MAX_CHARACTERS} characters together; send less"
            raise bad_document(DocumentFault.TOO_LARGE, message)
        reacher = self.reacher(catalog, facts)
        budget = Budget()
        found = []
        for number, each in enumerate(call.documents):
            document = self.parse(each.query)
            if call.reading:
                _require_whole(document, each)
            parts = reacher.reach(
                document,
                operation_name=each.operation_name,
                variables=each.variables,
                target=call.target,
                budget=budget,
            )
            found += [(number, part) for part in parts]
        return found


def _require_whole(document: Document, sent: DocumentText) -> None:
    """Refuses what a request by GET leaves to a body: many gateways send none on, and servers read it all the same.

    Raises BadDocumentError, also for a mutation.
    """
    operation = document.operation(sent.operation_name)
    if document.mutates(sent.operation_name):
        raise bad_document(DocumentFault.MUTATION_BY_GET, "a mutation takes POST; send it so")
    defined = [one.variable.name.value for one in operation.variable_definitions or ()]
    left = [name for name in defined if name not in sent.variables]
    if left:
        message = f"by GET the URL gives each variable a value, and `{left[0][:MAX_NAME]}` none; send one, or use POST"
        raise bad_document(DocumentFault.VARIABLE_MISSING, message)


@dataclass(frozen=True, slots=True)
class CallJudge:
    """Decides calls that were read: of one token, with what one question says besides.

    `request` says everything but what is asked. `limit` is the asker's, and each part is seen through it.
    """

    token: Token
    world: World
    request: Request
    catalog: Catalog | None
    limit: GroupLimit | None = None

    def refuse(self, faults: tuple[FoundFault, ...]) -> tuple[Decision, DocumentAnswer]:
        """A call that could not be read; what is wrong with the token or the catalog comes before that."""
        asked = replace(self.request, ask=OperationRequest("", bad_document=True))
        return decide(self.token, self.world, asked), DocumentAnswer(faults=faults)

    def judge(
        self,
        found: Sequence[tuple[int, Part]],
        target: str | None,
        missing: dict[FactKey, None],
        trace: list[TracedToken] | None = None,
    ) -> tuple[Decision, DocumentAnswer] | None:
        """All parts as one answer; None when facts are missing, which are then noted, those of all parts at once.

        Raises ValueError for no parts: nothing asked is nothing allowed.
        """
        if not found:
            raise ValueError("a document reaches something")
        decided: list[tuple[int, DecidedPart]] = []
        for number, part in found:
            try:
                decision = self._decide(part, target, trace)
            except NotAtHandError as error:
                missing[error.key] = None
                continue
            if is_about_all(self.token, decision):
                return decision, DocumentAnswer()
            decided.append((number, DecidedPart(part, decision)))
        if len(decided) < len(found):
            return None
        return combine([part.decision for _, part in decided]), DocumentAnswer(tuple(decided))

    def _decide(self, part: Part, target: str | None, trace: list[TracedToken] | None) -> Decision:
        asked = replace(self.request, ask=request_of(part, target))
        decision = decide(self.token, self.world, asked, None if self.limit is not None else trace)
        if self.limit is None or self.catalog is None:
            return decision
        return self.limit.narrow(decision, self.token, self.catalog, self.world, asked)
