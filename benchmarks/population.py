"""A large organisation, made as a stream: groups, projects, users with memberships, and tokens by the million."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from authz_service.pdp.secrets import Peppers
from benchmarks.bulk import Issued, Nodes, gateway_row, issue, loading, scopes_of, token_row
from benchmarks.oracle import GRANTED, Ask, Holder, right_answer
from benchmarks.workload import PERMISSIONS, SEED, make_grants

GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Size:
    groups: int = 5_000
    projects: int = 100_000
    users: int = 100_000
    heavy: int = 20_000
    """Memberships of the first user."""


class Population:
    """The directory. Tokens are given only where their owner is a member, as they are issued."""

    def __init__(self, size: Size, seed: int = SEED) -> None:
        rng = random.Random(seed)
        self.nodes = Nodes()
        self.users: list[str] = []
        self.memberships: dict[str, tuple[str, ...]] = {}
        self.inside: dict[str, list[str]] = {}
        """Group to the projects anywhere below it."""
        groups = self._make_groups(size.groups, rng)
        self.projects = [self._make_project(number, groups, rng) for number in range(size.projects)]
        filled = [group for group in groups if group in self.inside]
        for number in range(size.users):
            name = f"user-{number}"
            self.nodes.add(name, "user")
            self.users.append(name)
            chosen = rng.sample(self.projects, size.heavy) if number == 0 else rng.sample(filled, rng.randint(1, 5))
            self.memberships[name] = tuple(chosen)
        self.nodes.add(GATEWAY, "user")

    def _make_groups(self, count: int, rng: random.Random) -> list[str]:
        """One in twenty at the top, a quarter below them, the rest below those."""
        tops = [f"org-{number}" for number in range(max(1, count // 20))]
        middle = [f"{rng.choice(tops)}/team-{number}" for number in range(count // 4)]
        bottom = [f"{rng.choice(middle)}/unit-{number}" for number in range(count - len(tops) - len(middle))]
        found = [*tops, *middle, *bottom]
        for group in found:
            self.nodes.add(group, "group")
        return found

    def _make_project(self, number: int, groups: Sequence[str], rng: random.Random) -> str:
        path = f"{rng.choice(groups)}/project-{number}"
        self.nodes.add(path, "project")
        above = path
        while "/" in above:
            above = above.rpartition("/")[0]
            self.inside.setdefault(above, []).append(path)
        return path

    def number_of(self, user: str) -> int:
        return self.nodes.numbers[user]

    def below(self, node: str) -> Sequence[str]:
        """The projects at or below a node."""
        return self.inside.get(node) or (node,)

    async def store(self, url: str) -> None:
        numbers = self.nodes.numbers
        async with loading(url, large=True) as load:
            await load.nodes(self.nodes.rows)
            await load.users([*(numbers[user] for user in self.users), numbers[GATEWAY]])
            await load.memberships(
                (numbers[user], numbers[node]) for user, nodes in self.memberships.items() for node in nodes
            )

    def make_holder(
        self, number: int, rng: random.Random, *, owner: str | None = None, scopes: int | None = None
    ) -> Holder:
        """1 to 8 grants, on what the owner is a member of, or on one of the projects below it."""
        owner = owner or self.users[rng.randrange(1, len(self.users))]
        held = self.memberships[owner]
        nodes = tuple(
            node if rng.random() < 0.5 else rng.choice(self.below(node))
            for node in (rng.choice(held) for _ in range(scopes or rng.randint(1, 8)))
        )
        return Holder(f"token-{number}", owner, make_grants(rng, nodes, len(nodes)))

    def make_ask(self, position: int, holder: Holder, rng: random.Random) -> Ask:
        """About as often allowed as not."""
        grant = rng.choice(holder.grants)
        target = rng.choice(self.below(grant.node))
        if rng.random() < 0.5:
            return Ask(position, rng.choice(grant.permissions), target)
        return Ask(position, rng.choice(PERMISSIONS), target)

    def right_answer(self, holder: Holder, ask: Ask) -> str:
        return right_answer(holder, ask, self.memberships)


@dataclass
class Sample:
    """Tokens that are asked about, with questions and the oracle's answers."""

    issued: list[Issued] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)


@dataclass
class Issues:
    """The tokens of one database: how many, and those that will be asked about."""

    gateway: Issued
    cold: Sample
    warm: Sample
    heavy: Sample


async def store_tokens(
    url: str, population: Population, peppers: Peppers, *, tokens: int, warm: int, asks: int, cold: int, heavy: int
) -> Issues:
    """Store so many tokens, and `heavy` more of the user with the most memberships; keep what will be asked."""
    rng = random.Random(SEED + tokens)
    made = Issues(issue(peppers), Sample(), Sample(), Sample())
    warm, cold = min(warm, tokens), min(cold, tokens)
    chosen_warm = set(rng.sample(range(tokens), warm))
    chosen_cold = set(rng.sample(range(tokens), cold))
    each = max(1, asks // warm)

    def rows() -> Iterator[tuple[Any, ...]]:
        for number in range(tokens + heavy):
            owner = population.users[0] if number >= tokens else None
            holder = population.make_holder(number, rng, owner=owner)
            issued = issue(peppers)
            if number >= tokens:
                _keep(made.heavy, population, holder, issued, 1, rng)
            if number in chosen_warm:
                _keep(made.warm, population, holder, issued, each, rng)
            if number in chosen_cold:
                _keep(made.cold, population, holder, issued, 1, rng)
            scopes = scopes_of(holder.grants, population.nodes.numbers)
            yield token_row(issued, peppers, population.number_of(holder.owner), scopes, name=holder.name)
        yield gateway_row(made.gateway, peppers, population.number_of(GATEWAY))

    async with loading(url, large=True) as load:
        await load.tokens(rows())
    for sample in (made.warm, made.cold, made.heavy):
        _shuffle(sample, rng)
    return made


def _keep(
    sample: Sample, population: Population, holder: Holder, issued: Issued, asks: int, rng: random.Random
) -> None:
    position = len(sample.issued)
    sample.issued.append(issued)
    for _ in range(asks):
        ask = population.make_ask(position, holder, rng)
        sample.asks.append(ask)
        sample.answers.append(population.right_answer(holder, ask))


def _shuffle(sample: Sample, rng: random.Random) -> None:
    """In an order that no cache likes."""
    order = list(range(len(sample.asks)))
    rng.shuffle(order)
    sample.asks = [sample.asks[position] for position in order]
    sample.answers = [sample.answers[position] for position in order]


def allowed_share(answers: Iterable[str]) -> float:
    found = list(answers)
    return sum(answer == GRANTED for answer in found) / len(found)
