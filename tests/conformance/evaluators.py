"""Who is asked about the cases: each answers as the service would, by its own means."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from tests.reference import naive
from tests.support.case_documents import documents_by_engine, documents_by_reference
from tests.support.case_rows import asked_user, rows_of
from tests.support.cases import Case
from tests.support.memory_world import MemoryWorld, decide_in

from authz_service.engine.model import Decision
from authz_service.engine.users import decide_user


class Evaluator(Protocol):
    """`decide` gets the whole case: its world, with names in place of ids, and its question.

    Token ids in the answer are `tok_` and the label. `target` is not compared.
    """

    name: str

    def takes(self, case: Case) -> bool:
        """Whether the case can be put to this one (`Case.where`)."""
        ...

    def decide(self, case: Case) -> Decision | Awaitable[Decision]: ...


class Reference:
    """The rules once more, from rows."""

    name = "reference"

    def takes(self, case: Case) -> bool:
        return case.where != "service"

    def decide(self, case: Case) -> Decision:
        asked = rows_of(case)
        if case.question.user is not None:
            user, catalog = asked_user(case, asked.rows)
            return naive.decide_user(asked.rows, user, catalog, asked.request)
        if case.question.graphql is not None:
            return documents_by_reference(case, asked)
        return naive.decide(asked.rows, asked.token, asked.request)


class Engine:
    """The engine in a world of dictionaries."""

    name = "engine"

    def takes(self, case: Case) -> bool:
        return case.where != "service"

    def decide(self, case: Case) -> Decision:
        asked = rows_of(case)
        if case.question.user is not None:
            user, catalog = asked_user(case, asked.rows)
            return decide_user(user, catalog, MemoryWorld(asked.rows), asked.request)
        if case.question.graphql is not None:
            return documents_by_engine(case, asked)
        return decide_in(MemoryWorld(asked.rows), asked.token, asked.request)


EVALUATORS: list[Evaluator] = [Reference(), Engine()]
