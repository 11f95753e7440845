"""What is asked: a directory, tokens and random questions, the same for everybody, with the oracle's answers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.oracle import GRANTED, Ask, Grant, Holder, covers, right_answer

SEED = 20_260
CATALOG = "gitlab"
ROLE = "developer"

PERMISSIONS = (
    "branch:create", "branch:delete", "branch:read", "code:push", "code:read", "environment:create",
    "environment:delete", "environment:read", "environment:stop", "environment:update", "job:read", "job:run",
    "job:update", "job_artifact:delete", "job_artifact:read", "label:create", "label:read", "label:update",
    "member:read", "member:update", "merge_request:read", "package:create", "package:delete", "package:update",
    "pipeline:create", "pipeline:delete", "pipeline:read", "pipeline:update", "pipeline_schedule:create",
    "pipeline_schedule:delete", "pipeline_schedule:read", "pipeline_schedule:update", "release:create",
    "release:delete", "release:update", "runner:read", "runner:update", "terraform_state:delete",
    "terraform_state:lock", "terraform_state:read",
)  # fmt: skip
"""Permissions of the shipped catalog that exist on projects; whoever is measured knows exactly these."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Paths, owners with the groups they are members of, tokens, questions, and the reason of each right answer."""

    groups: tuple[str, ...]
    projects: tuple[str, ...]
    memberships: Mapping[str, tuple[str, ...]]
    tokens: tuple[Holder, ...]
    asks: tuple[Ask, ...]
    answers: tuple[str, ...]

    @property
    def allowed(self) -> tuple[bool, ...]:
        return tuple(answer == GRANTED for answer in self.answers)

    @property
    def nodes(self) -> tuple[str, ...]:
        return self.groups + self.projects


def make_workload(
    *, tokens: int = 1000, asks: int = 20_000, projects: int = 500, users: int = 50, seed: int = SEED
) -> Workload:
    """1 to 8 grants a token over 60 groups nested three deep; half of the questions are allowed.

    Who owns a token is a member wherever the token was given something, so that engines which know no owners give the
    same answers. This service looks at the owner all the same.
    """
    rng = random.Random(seed)
    groups = make_groups()
    places = tuple(f"{rng.choice(groups)}/project-{number}" for number in range(projects))
    tops = [group for group in groups if "/" not in group]
    memberships = {f"user-{number}": tuple(rng.sample(tops, rng.randint(1, 3))) for number in range(users)}
    below = {owner: _below(owned, groups, places) for owner, owned in memberships.items()}
    owners = list(memberships)
    made = []
    for number in range(tokens):
        owner = rng.choice(owners)
        made.append(Holder(f"token-{number}", owner, make_grants(rng, below[owner])))
    holders = tuple(made)
    inside = {node: [place for place in places if covers(node, place)] for node in (*groups, *places)}
    asked = tuple(_ask(rng, holders, inside, places, memberships) for _ in range(asks))
    answers = tuple(right_answer(holders[ask.token], ask, memberships) for ask in asked)
    return Workload(groups, places, memberships, holders, asked, answers)


def make_groups() -> tuple[str, ...]:
    """60 groups: 5 at the top, 15 below them, 40 below those."""
    tops = [f"top-{number}" for number in range(5)]
    middle = [f"{top}/team-{number}" for top in tops for number in range(3)]
    bottom = [f"{middle[number % len(middle)]}/unit-{number}" for number in range(40)]
    return (*tops, *middle, *bottom)


def make_grants(rng: random.Random, nodes: tuple[str, ...], count: int | None = None) -> tuple[Grant, ...]:
    """`count` grants, 1 to 8 when it is None, of 1 to 8 permissions each."""
    return tuple(
        Grant(rng.choice(nodes), tuple(rng.sample(PERMISSIONS, rng.randint(1, 8))))
        for _ in range(count or rng.randint(1, 8))
    )


def _below(tops: tuple[str, ...], groups: tuple[str, ...], places: tuple[str, ...]) -> tuple[str, ...]:
    """Where an owner's tokens may be given something: where the owner is a member, and some project lies."""
    here = [place for place in places if any(covers(top, place) for top in tops)]
    above = [group for group in groups if any(covers(group, place) for place in here)]
    return (*here, *(group for group in above if any(covers(top, group) for top in tops)))


def _ask(
    rng: random.Random,
    holders: tuple[Holder, ...],
    inside: Mapping[str, list[str]],
    places: tuple[str, ...],
    memberships: Mapping[str, tuple[str, ...]],
) -> Ask:
    """A question that is allowed, or, as often, one that is not."""
    if rng.random() < 0.5:
        number = rng.randrange(len(holders))
        grant = rng.choice(holders[number].grants)
        return Ask(number, rng.choice(grant.permissions), rng.choice(inside[grant.node]))
    while True:
        ask = Ask(rng.randrange(len(holders)), rng.choice(PERMISSIONS), rng.choice(places))
        if right_answer(holders[ask.token], ask, memberships) != GRANTED:
            return ask


@dataclass(frozen=True, slots=True)
class Batch:
    """Many questions about one token, with the reason of each right answer."""

    token: int
    asks: tuple[Ask, ...]
    answers: tuple[str, ...]


def make_batches(workload: Workload, *, size: int, count: int, seed: int = SEED) -> tuple[Batch, ...]:
    """Batches of distinct tokens, half of each allowed as far as the token's grants reach."""
    rng = random.Random(seed)
    inside: dict[str, list[str]] = {}
    batches = []
    for number in rng.sample(range(len(workload.tokens)), count):
        holder = workload.tokens[number]
        asks = []
        for position in range(size):
            grant = rng.choice(holder.grants)
            if grant.node not in inside:
                inside[grant.node] = [place for place in workload.projects if covers(grant.node, place)]
            if position % 2:
                asks.append(Ask(number, rng.choice(grant.permissions), rng.choice(inside[grant.node])))
            else:
                asks.append(Ask(number, rng.choice(PERMISSIONS), rng.choice(workload.projects)))
        answers = tuple(right_answer(holder, ask, workload.memberships) for ask in asks)
        batches.append(Batch(number, tuple(asks), answers))
    return tuple(batches)
