"""Drawn worlds and their questions as one strategy, and how many decisions a run makes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from tests.property.questions import Questioner
from tests.property.worlds import WorldMaker
from tests.reference.rows import Rows
from tests.support.memory_world import MemoryWorld, decide_in

from authz_service.engine.model import Decision, Request
from authz_service.tokens.model import Token, TokenId

DECISIONS = int(os.environ.get("AUTHZ_EXAMPLES", "20000"))
"""How many decisions the comparison with the reference makes; the other properties make a tenth of that each."""
QUESTIONS = 50


@dataclass(frozen=True)
class Drawn:
    """One world and the questions about it; `seed` draws it again."""

    seed: int | str
    rows: Rows
    world: MemoryWorld
    questions: list[tuple[TokenId, Request]]

    def __repr__(self) -> str:
        return f"draw({self.seed!r})"

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """Hypothesis would print every field of it."""
        printer.text(repr(self))

    @property
    def random(self) -> Random:
        """For what a property changes; the same for the same world."""
        return Random(f"change {self.seed}")

    def decide(self, rows: Rows | None = None) -> list[Decision]:
        """The engine's answers to all questions, in this world or in a changed one."""
        world = self.world if rows is None else MemoryWorld(rows)
        return [decide_in(world, token, request) for token, request in self.questions]

    def with_tokens(self, change: Callable[[Token], Token]) -> Rows:
        return replace(self.rows, tokens=[change(token) for token in self.rows.tokens])


def draw(seed: int | str) -> Drawn:
    random = Random(seed)
    rows = WorldMaker(random).make()
    world = MemoryWorld(rows)
    questions = Questioner(random, rows).ask(QUESTIONS, lambda *asked: decide_in(world, *asked).allowed)
    return Drawn(seed, rows, world, list(questions))


def drawn_worlds() -> st.SearchStrategy[Drawn]:
    return st.integers(0, 2**32 - 1).map(draw)


def decisions(count: int) -> settings:
    """Enough worlds for so many decisions. A smaller seed is no simpler world, so nothing is shrunk."""
    return settings(max_examples=max(1, count // QUESTIONS), phases=(Phase.explicit, Phase.generate))
