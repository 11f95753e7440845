"""The whole service under a random sequence of everything that can happen to it, compared with the reference."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

import httpx
from sqlalchemy import text
from tests.property.questions import Questioner
from tests.reference import naive
from tests.reference.rows import Rows
from tests.support.answers import compared, read_answer, told
from tests.support.asked_for import TokenDrawer, managers
from tests.support.asking import Asked, Interview, askable, grouped, item_of
from tests.support.endings import Endings
from tests.support.forge import FORGE_2
from tests.support.lives import OVERLAPS, Lives, check_narrower, draw_edit, rotatable
from tests.support.memory_world import MemoryWorld, decide_in
from tests.support.pair import Pair, Side
from tests.support.powers import powers
from tests.support.receiver import Receiver
from tests.support.rulings import Call, RulingDrawer, undone_by_grandfathering
from tests.support.stored_rows import Reading, install, read_all
from tests.support.upheaval import Upheaval

from authz_service.admin.sweeps import Sweep
from authz_service.catalog.model import Catalog
from authz_service.directory.model import Node, NodeId, NodeKind, UserState
from authz_service.engine.model import Decision, PermissionRequest, Request
from authz_service.store.changes import Stamp, format_revision
from authz_service.tokens.model import Token, TokenId

POOL = 150
"""How many questions are remembered, to be asked again when their answer has changed, and now and then."""
FEW, MANY = 8, 24
"""How many living tokens are too few, and enough."""

Act = Callable[[], Awaitable[None]]


@dataclass
class Ledger:
    """What may never happen to what was seen once, whatever else does (D2, T1)."""

    tokens: dict[TokenId, Token] = field(default_factory=dict)
    revoked: set[TokenId] = field(default_factory=set)
    nodes: dict[NodeId, Node] = field(default_factory=dict)
    gone: set[NodeId] = field(default_factory=set)
    lives: Lives = field(default_factory=Lives)
    leaked: set[TokenId] = field(default_factory=set)
    purged: set[TokenId] = field(default_factory=set)

    def check(self, reading: Reading, context: str) -> None:
        try:
            self._forget(reading)
            self._check(reading.rows)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{context}") from error

    def _forget(self, reading: Reading) -> None:
        """Only what had ended is ever purged, and it never comes again."""
        there = {token.id for token in reading.rows.tokens}
        assert not self.purged & there, "a token came again"
        for token in [token for token in self.tokens.values() if token.id not in there]:
            ended = token.expires_at is not None and token.expires_at <= reading.now
            assert ended or token.revoked_at is not None, "a living token is gone"
            self.purged.add(token.id)
            del self.tokens[token.id]

    def _check(self, rows: Rows) -> None:
        found = {token.id: token for token in rows.tokens}
        for token in rows.tokens:
            self.lives.check_changed(self.tokens.setdefault(token.id, token), token)
            self.tokens[token.id] = token
            assert token.id not in self.revoked or token.revoked_at is not None, "a token came alive again"
            if token.revoked_at is not None:
                self.revoked.add(token.id)
        self.lives.edited.clear()
        self._check_lines(rows, found)
        self._check_nodes(rows)

    def _check_lines(self, rows: Rows, found: Mapping[TokenId, Token]) -> None:
        """Whoever revokes a token revokes its children; those of the deleted are denied with them, and stay."""
        deleted = {user.id for user in rows.users if user.state is UserState.DELETED}
        for token in rows.tokens:
            parent = None if token.parent is None else found[token.parent]
            if token.parent in self.leaked:
                continue  # a leak ends the very token that is out; its line has ended with it (T4)
            if parent is not None and parent.revoked_at is not None and parent.owner not in deleted:
                assert token.revoked_at is not None, f"{token.id} is not revoked with its parent"

    def _check_nodes(self, rows: Rows) -> None:
        alive = {node.id: node for node in rows.nodes}
        assert not self.gone & set(alive), "a place came back"
        for node in rows.nodes:
            known = self.nodes.setdefault(node.id, node)
            assert (node.kind, node.source) == (known.kind, known.source), "an id is another thing's now"
            assert known.external_id in (None, node.external_id), "an id is another thing's now"
        self.gone |= set(self.nodes) - set(alive)
        ids = Counter((node.source, node.kind, node.external_id) for node in self.nodes.values())
        assert all(count == 1 for (_, _, known), count in ids.items() if known is not None), "one thing has two ids"


class Machine:
    """One run. The same seed makes the same run, but for what happens at once."""

    def __init__(self, pair: Pair, seed: int | str, receiver: Receiver) -> None:
        self.pair = pair
        self.seed = seed
        self.random = Random(f"machine {seed}")
        self.upheaval = Upheaval(Random(f"upheaval {seed}"))
        self.rulings = RulingDrawer(Random(f"rulings {seed}"))
        self.secrets: dict[TokenId, str] = {}
        self.endings = Endings(Random(f"endings {seed}"), pair, receiver, self.secrets, self._note)
        self.ledger = Ledger(leaked=self.endings.leaked)
        self.pool: list[Asked] = []
        self.answers: dict[Asked, Decision] = {}
        self.log: list[str] = []
        self.counts: Counter[str] = Counter()
        self.told_to_revoke: set[TokenId] = set()
        self.reading: Reading
        self.drawer: TokenDrawer

    @property
    def rows(self) -> Rows:
        return self.reading.rows

    @property
    def context(self) -> str:
        return f"seed {self.seed!r}, after:\n" + "\n".join(self.log[-12:])

    async def begin(self) -> None:
        self.reading = await read_all(self.pair.database)
        self.drawer = TokenDrawer(Random(f"tokens {self.seed}"), self.reading.now)
        for body in managers(self.rows):
            await self._issue(self.pair.sides[0], self.pair.admin, body)
        await self.endings.begin()
        await self._settle()

    async def run(self, steps: int) -> None:
        for number in range(steps):
            await self.step()
            if number == steps // 2:
                await self.ask_a_newcomer()
        await self.ask_a_newcomer()
        await self.endings.check_heard()

    async def step(self) -> None:
        kinds: list[Callable[[], Awaitable[None]]] = [
            *[self._one_thing] * 8,
            *[self._several_at_once] * 2,
            *[self._ask_while_it_happens] * 3,
        ]
        await self.random.choice(kinds)()
        await self._settle()
        await self.ask()
        if len(self.log) % 10 == 0:
            await self.ask_a_newcomer()

    # what happens

    async def _one_thing(self) -> None:
        await self._draw_act()()

    async def _several_at_once(self) -> None:
        acts = [self._draw_act(alone=False) for _ in range(self.random.randint(2, 4))]
        self.counts["at once"] += 1
        await asyncio.gather(*(act() for act in acts))

    async def _ask_while_it_happens(self) -> None:
        """Each answer names its revision, and is what that revision's rows say: no answer is made of two."""
        before = self.reading
        act = self._draw_act(alone=False)
        questions = [asked for asked in self.pool if asked.bare]
        if not questions:
            await act()
            return
        answers: list[tuple[Asked, httpx.Response]] = []
        interview = Interview(self.pair, self.secrets, before)
        chosen = [[self.random.choice(questions) for _ in range(10)] for _ in range(4)]
        for side in self.pair.sides:
            if self.random.random() < 0.5:  # all is loaded while it changes
                side.point.facts.drop_all()
        happening = asyncio.create_task(act())

        async def keep_asking(number: int) -> None:
            for position, asked in enumerate(chosen[number]):
                if happening.done() and position > 2:
                    return
                body = interview.body(asked) | item_of(asked)
                side = self.pair.sides[number % 2]
                answer = await side.call("POST", "/check", self.pair.gateway, body, short=number < 2)
                assert answer.status_code == 200, (self.context, answer.text)
                answers.append((asked, answer))

        await asyncio.gather(*(keep_asking(number) for number in range(len(chosen))))
        await happening
        after = await read_all(self.pair.database)
        # Creation takes no revision, and nobody asks about what is not there yet.
        states = {format_revision(before.stamp): before, format_revision(after.stamp): after}
        # Families that ended whole are forgotten in a batch of their own; any other act is one transaction.
        batches = 2 if self.log[-1].startswith(f"sweep {Sweep.PURGE.value}") else 1
        if after.stamp.epoch == before.stamp.epoch:
            more = f"more than {batches} revisions: {await self._log_since(before.stamp)}\n{self.context}"
            assert after.stamp.revision <= before.stamp.revision + batches, more
        for asked, answer in answers:
            if batches > 1 and answer.json()["revision"] not in states:
                continue  # nobody read the rows between them
            self.counts["asked meanwhile"] += 1
            state = states[answer.json()["revision"]]
            decision = naive.decide(state.rows, asked.token, replace(asked.request, now=state.now))
            known = interview.known(asked.token)
            assert read_answer(answer.json(), {}) == told(decision, known), f"meanwhile: {asked}\n{self.context}"

    async def _log_since(self, stamp: Stamp) -> list[Any]:
        async with self.pair.database.read() as conn:
            rows = await conn.execute(text("select * from change_log where rev > :rev"), {"rev": stamp.revision})
            return [tuple(row) for row in rows]

    def _draw_act(self, *, alone: bool = True) -> Act:
        """Everything random is drawn now: what runs at once must not draw in the order in which it runs."""
        draw = self.random.random()
        side = self.random.choice(self.pair.sides)
        if self.random.random() < 0.15:
            return self._draw_life(side, alone=alone)
        if self.random.random() < 0.18:
            return self.endings.draw(side, self.reading, self.drawer, self._alive(), alone=alone)
        if self.random.random() < 0.12:
            ruling = self.rulings.draw(self.rows)
            return lambda: self._rule(side, ruling, alone=alone)
        few = len(self._alive()) < FEW
        if draw < (0.7 if few else 0.4):
            return self._draw_issue(side, alone=alone)
        if draw < 0.87:
            lines = self.upheaval.draw(self.rows)
            return lambda: self._import(side, lines)
        if draw < 0.94:
            return self._draw_revoke(side)
        if draw < 0.96:
            return self._install
        if alone and draw < 0.98:
            hours = self.random.choice((1, 1, 2))
            return lambda: self._shift(hours)
        if alone and draw < 0.99:
            return self._new_epoch
        lines = self.upheaval.draw(self.rows)
        return lambda: self._import(side, lines)

    def _draw_life(self, side: Side, *, alone: bool) -> Act:
        """An edit or a rotation: by an admin, by the token itself, or by another that may or may not."""
        out = [token for token in self.secrets if token in self.ledger.revoked - self.ledger.purged]
        token = rotatable(self.random, self.rows, self._alive(), out)
        if token is None:
            return self._draw_revoke(side)
        able = [one for one in self._alive() if "authz" in one.catalogs]
        by = self.random.choice(able) if able and self.random.random() < 0.6 else None
        if self.random.random() < 0.5 and token.id not in out:
            body = draw_edit(self.drawer, self.random, self.rows, token)
            return lambda: self._edit(side, token, by, body, alone=alone)
        overlap = {"overlap_seconds": self.random.choice(OVERLAPS)}
        itself = self.random.random() < 0.3
        return lambda: self._rotate(side, token, by, overlap, itself=itself, alone=alone)

    async def _edit(self, side: Side, token: Token, by: Token | None, body: Any, *, alone: bool) -> None:
        secret = self.pair.admin if by is None else self.secrets[by.id]
        self.ledger.lives.edited |= self.ledger.lives.of_family(token.id)
        before = self.reading
        answer = await side.call("PATCH", f"/v1/tokens/{token.id}", secret, body, headers={"If-Match": "*"})
        self._note(f"edit {token.id} by {by and by.id} {body}", answer, 200, 400, 401, 403, 404, 409)
        if answer.status_code == 200 and alone:
            self._check_replaced(before.rows, (await read_all(self.pair.database)).rows, token, before.now)
        if answer.status_code == 200 and by is not None and alone:
            # Nobody widens a token beyond what they hold themselves (M2).
            free = replace((await read_all(self.pair.database)).rows, policies=[])
            edited = naive.token_of(free, token.id)
            assert edited is not None
            held = powers(replace(before.rows, policies=[]), token, before.now)
            held |= powers(replace(before.rows, policies=[]), by, before.now, edited.catalogs)
            beyond = powers(free, edited, before.now) - held
            assert not beyond, f"{by} edited {token} beyond both: {sorted(beyond)}\n{self.context}"

    def _check_replaced(self, before: Rows, after: Rows, token: Token, now: datetime) -> None:
        """An edit gives those that the token replaced nothing (T5)."""
        free, whole = replace(after, policies=[]), replace(before, policies=[])
        for former in self.ledger.lives.of_family(token.id) - {token.id}:
            known, edited = naive.token_of(whole, former), naive.token_of(free, former)
            if known is None or edited is None or known == edited:
                continue
            self.counts["replaced ones narrowed"] += 1
            check_narrower(known, edited)
            beyond = powers(free, edited, now) - powers(whole, known, now)
            assert not beyond, f"an edit gave {known} also {sorted(beyond)}\n{self.context}"

    async def _rotate(
        self, side: Side, token: Token, by: Token | None, body: Any, *, itself: bool, alone: bool
    ) -> None:
        secret = self.secrets[token.id] if itself else self.pair.admin if by is None else self.secrets[by.id]
        path = "/v1/self/rotate" if itself else f"/v1/tokens/{token.id}/rotate"
        answer = await side.call("POST", path, secret, body)
        self._note(
            f"rotate {token.id} by {'itself' if itself else by and by.id} {body}", answer, 201, 400, 401, 403, 404, 409
        )
        if answer.status_code != 201:
            return
        made = answer.json()
        self.secrets[made["id"]] = made["secret"]
        self.ledger.lives.replaced[token.id] = TokenId(made["id"])
        if body["overlap_seconds"] == 0:
            self.told_to_revoke.add(token.id)
        if alone:
            rows = (await read_all(self.pair.database)).rows
            new = naive.token_of(rows, made["id"])
            assert new is not None
            self.ledger.lives.check_rotated(token, new)
            if by is not None and not itself:
                free, before = replace(rows, policies=[]), replace(self.rows, policies=[])  # it may have ended itself
                beyond = powers(free, new, self.reading.now) - powers(before, by, self.reading.now, new.catalogs)
                assert not beyond, f"{by} rotated {token}, which is beyond it: {sorted(beyond)}\n{self.context}"

    async def _rule(self, side: Side, ruling: Call, *, alone: bool) -> None:
        """A policy set, a request decided, a grant revoked: by an admin, who may not approve what is their own."""
        method, path, body = ruling
        before = (await read_all(self.pair.database)).rows
        answer = await side.call(method, path, self.pair.admin, body)
        self._note(f"{method} {path} {body}", answer, 200, 400, 403, 404, 409)
        if alone and method == "PUT":
            undone = undone_by_grandfathering(before, (await read_all(self.pair.database)).rows)
            assert not undone, f"{undone}\n{self.context}"

    async def _import(self, side: Side, lines: list[Any]) -> None:
        body = b"\n".join(json.dumps(line).encode() for line in lines)
        answer = await side.call("POST", "/v1/directory/import", self.pair.admin, body)
        self._note(f"import {lines}", answer, 200, 400)

    def _draw_issue(self, side: Side, *, alone: bool) -> Act:
        ours = [token for token in self._alive() if token.id in self.secrets and "authz" in token.catalogs]
        root = next(token for token in self.rows.tokens if self._is_admins(token))
        issuer = self.random.choice(ours) if ours and self.random.random() < 0.6 else root
        body = self.drawer.draw(self.rows, issuer, self._alive())
        if len(self._alive()) > MANY and issuer is root:
            return self._draw_revoke(side)
        if issuer is root:
            bodies = managers(self.rows)
            body = self.random.choice(bodies) if bodies and self.random.random() < 0.3 else body
            return lambda: self._issue(side, self.pair.admin, body)
        return lambda: (
            self._issue_at_most(side, issuer, body) if alone else self._issue(side, self.secrets[issuer.id], body)
        )

    def _is_admins(self, token: Token) -> bool:
        return any("token:create_any" in scope.permissions for scope in token.scopes) and token.id not in self.secrets

    def _alive(self) -> list[Token]:
        now = self.reading.now
        return [
            token
            for token in self.rows.tokens
            if token.id in self.secrets
            and token.revoked_at is None
            and (token.expires_at is None or token.expires_at > now)
        ]

    async def _issue(self, side: Side, secret: str, body: Any) -> TokenId | None:
        answer = await side.call("POST", "/v1/tokens", secret, body)
        self._note(f"issue {body}", answer, 201, 400, 401, 403, 409)
        if answer.status_code != 201:
            return None
        made = answer.json()
        self.secrets[made["id"]] = made["secret"]
        return TokenId(made["id"])

    async def _issue_at_most(self, side: Side, issuer: Token, body: Any) -> None:
        """Nobody without `token:create_any` makes a token that may do what their own may not (M2)."""
        made = await self._issue(side, self.secrets[issuer.id], body)
        if made is None:
            return
        self.counts["issued by others"] += 1
        reading = await read_all(self.pair.database)
        token = naive.token_of(reading.rows, made)
        assert token is not None
        # By what their scopes hold: which of two tokens a group approves first says nothing of that.
        free = replace(reading.rows, policies=[])
        beyond = powers(free, token, reading.now) - powers(free, issuer, reading.now, token.catalogs)
        assert not beyond, f"{issuer} issued {token}, which is beyond it: {sorted(beyond)}\n{self.context}"

    def _draw_revoke(self, side: Side) -> Act:
        alive = self._alive()
        if not alive:
            lines = self.upheaval.draw(self.rows)
            return lambda: self._import(side, lines)
        token = self.random.choice(alive)
        draw = self.random.random()
        if draw < 0.4:
            return lambda: self._revoke(side, token, self.pair.admin, f"/v1/tokens/{token.id}", 200)
        if draw < 0.7:
            return lambda: self._revoke(side, token, self.secrets[token.id], "/v1/self", 200, 401)
        other = self.random.choice(alive)
        return lambda: self._revoke(side, token, self.secrets[other.id], f"/v1/tokens/{token.id}", 200, 401, 403, 404)

    async def _revoke(self, side: Side, token: Token, secret: str, path: str, *statuses: int) -> None:
        answer = await side.call("DELETE", path, secret)
        self._note(f"revoke {token.id} by {path}", answer, *statuses)
        if answer.status_code == 200:
            self.told_to_revoke.add(token.id)

    async def _install(self) -> None:
        await install(self.pair.database, FORGE_2)
        self.log.append("install forge@2")

    async def _shift(self, hours: int) -> None:
        await self.pair.shift(timedelta(hours=hours))
        self.log.append(f"{hours} hours later")

    async def _new_epoch(self) -> None:
        await self.pair.new_epoch()
        self.log.append("a new epoch")

    def _note(self, what: str, answer: httpx.Response | None = None, *statuses: int) -> None:
        self.log.append(what if answer is None else f"{answer.status_code} {what}")
        if answer is None:
            self.counts[what.partition(":")[0]] += 1
            return
        self.counts[f"{what.partition(' ')[0]} {answer.status_code}"] += 1
        assert answer.status_code in statuses, f"{answer.text}\n{self.context}"

    # what is asked

    async def _settle(self) -> None:
        self.reading = await read_all(self.pair.database)
        self.ledger.check(self.reading, self.context)
        assert self.told_to_revoke | self.endings.leaked <= self.ledger.revoked, (
            f"a revoke was forgotten\n{self.context}"
        )

    async def ask(self) -> None:
        """New questions, those whose answer is another now, and some of which nothing should have changed."""
        interview = Interview(self.pair, self.secrets, self.reading, self.context, self.counts)
        fresh = self._questions(8)
        changed = self._changed(interview)
        alive = {token.id for token in self._alive()}
        living = [asked for asked in self.pool if asked.token in alive]
        others = [asked for asked in self.pool if asked.token not in alive]
        old = self.random.sample(living, min(len(living), 20)) + self.random.sample(others, min(len(others), 4))
        questions = list(dict.fromkeys([*changed, *fresh, *old]))
        bare = [asked for asked in questions if asked.bare]
        asked_alone = list(dict.fromkeys([*(asked for asked in changed if asked.bare), *bare[:3]]))
        batches = grouped(asked for asked in bare if asked.plain)[:5]
        for side in self.pair.sides:
            for asked in asked_alone:
                await interview.single(side, asked)
            for group in batches:
                await interview.batch(side, group)
            for asked in bare[:2]:
                await interview.itself(side, asked)
            for asked in bare[-1:]:
                await interview.consistent(side, asked)
            for group in grouped(asked for asked in questions if not asked.bare)[:8]:
                await interview.point(side.point, group, f"replica {self.pair.sides.index(side) + 1}")
        self.pool = list(dict.fromkeys([*self.pool, *fresh]))[-POOL:]
        self.answers = {asked: interview.expected(asked) for asked in self.pool}

    def _changed(self, interview: Interview) -> list[Asked]:
        found = [asked for asked in self.pool if compared(interview.expected(asked)) != compared(self.answers[asked])]
        self.counts["changed"] += len(found)
        return self.random.sample(found, min(len(found), 12))

    async def ask_a_newcomer(self) -> None:
        """What was remembered gives no other answers than what is read anew."""
        interview = Interview(self.pair, self.secrets, self.reading, self.context, self.counts)
        async with self.pair.newcomer() as one:
            for group in grouped(self.pool):
                await interview.point(one.point, group, "the newcomer")
        self.counts["newcomers"] += 1

    def _questions(self, count: int) -> list[Asked]:
        """About tokens of whichever catalog has operations; and some about management's own."""
        catalogs = {(catalog.name, catalog.version): catalog for catalog in self.rows.catalogs}
        known = [token for token in self.rows.tokens if token.id in self.secrets]
        tokens = [one for token in known if (one := _without_management(token)).catalogs]
        dead = [token for token in tokens if token.revoked_at is not None]
        kept = [token for token in tokens if token.revoked_at is None] + self.random.sample(dead, min(2, len(dead)))
        found: list[Asked] = []
        if kept:
            rows = replace(self.rows, tokens=kept)
            world = MemoryWorld(self.rows)
            drawn = Questioner(self.random, rows).ask(count, lambda *asked: decide_in(world, *asked).allowed)
            found += [self._plainly(askable(token, request)) for token, request in drawn]
        found += [self._about_management(catalogs["authz", 1]) for _ in range(2) if self.secrets]
        return found

    def _plainly(self, asked: Asked) -> Asked:
        """Bare questions mostly come without anything beside them: else the short way would never be asked."""
        if not asked.bare or self.random.random() < 0.3:
            return asked
        return replace(asked, request=replace(asked.request, attributes={}, client_address=None, version=None))

    def _about_management(self, catalog: Catalog) -> Asked:
        token = self.random.choice(list(self.secrets))
        permission = self.random.choice(catalog.permissions)
        places = [node for node in self.rows.nodes if node.kind in permission.boundaries]
        target = "instance"
        if places:
            node = self.random.choice(places)
            target = "instance" if node.kind is NodeKind.INSTANCE else f"{node.kind.value}:{node.external_id}"
        return Asked(token, Request("authz", PermissionRequest(permission.name, target), self.reading.now))


def _without_management(token: Token) -> Token:
    """For drawing questions: management has no operations to ask about."""
    named = {name: version for name, version in token.catalogs.items() if name != "authz"}
    return replace(token, catalogs=named, scopes=tuple(scope for scope in token.scopes if scope.catalog in named))
