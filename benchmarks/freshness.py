"""`make bench-freshness`: how soon four replicas deny what was revoked, healthy and under faults, and never after S."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import statistics
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.faults.client import Connection, check_request, now, request
from tests.faults.fleet import PROJECT, Fleet, Issued
from tests.faults.postgres import Postgres
from tests.faults.proxy import DEAD, DEAF, HOLE, REFUSE

from benchmarks.machine import describe_machine, versions

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "freshness.md"
RESULTS = DOCS / "performance" / "freshness.json"
STALENESS = 5.0
REPLICAS = 4


@dataclass(frozen=True, slots=True)
class Phase:
    """`rate` is revokes a second; `soak` how many connections ask in bulk about revoked tokens all the time."""

    name: str
    seconds: float
    rate: float
    soak: int
    batch: int
    faults: bool = False


PLAN = (
    Phase("healthy", 60, 5, soak=0, batch=0),
    Phase("healthy, 20 revokes a second", 30, 20, soak=0, batch=0),
    Phase("healthy, replicas busy", 60, 5, soak=1, batch=200),
    Phase("under faults", 240, 4, soak=1, batch=200, faults=True),
)
QUICK = (
    Phase("healthy", 3, 5, soak=1, batch=50),
    Phase("under faults", 8, 4, soak=1, batch=50, faults=True),
)
"""For a test: everything once; its figures mean nothing."""


@dataclass
class Seen:
    """What one phase saw. Times are seconds after the acknowledgement reached the client."""

    denied: list[float] = field(default_factory=list)
    """Until the first answer that was no allow came back, for each revoke and replica."""
    allowed: list[float] = field(default_factory=list)
    """Until the last check that was allowed was sent, for each revoke and replica; 0 when none was sent after it."""
    revokes: int = 0
    checks: int = 0
    requests: int = 0
    broken: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)


class Run:
    """One fleet, and all phases on it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.revoked: dict[str, float] = {}
        self._order: list[str] = []
        self._writers = itertools.cycle(fleet.writers)
        self._chance = random.Random(11)
        self._connections: dict[int, list[Connection]] = {number: [] for number in range(REPLICAS)}

    async def phase(self, phase: Phase) -> Seen:
        seen = Seen()
        tokens = await self._tokens(round(phase.seconds * phase.rate * 1.2) + 20)
        background = [
            asyncio.create_task(self._soak(number, phase.batch, seen))
            for number in range(REPLICAS)
            for _ in range(phase.soak)
        ]
        if phase.faults:
            background.append(
                asyncio.create_task(self._break(seen, now() + max(phase.seconds / 2, phase.seconds - 2 * STALENESS)))
            )
        probes: set[asyncio.Task[None]] = set()
        end = now() + phase.seconds
        due = now()
        for token in tokens:
            due += self._chance.expovariate(phase.rate)
            if due > end:
                break
            await asyncio.sleep(max(0.0, due - now()))
            probe = asyncio.create_task(self._revoke(token, seen))
            probes.add(probe)
            probe.add_done_callback(probes.discard)
        if probes:
            await asyncio.wait(probes, timeout=3 * STALENESS)
        for task in background:
            task.cancel()
        done = await asyncio.gather(*background, return_exceptions=True)
        for one in done:
            if isinstance(one, Exception) and not isinstance(one, asyncio.CancelledError):
                raise one
        await asyncio.to_thread(self._mend)
        return seen

    async def _tokens(self, count: int) -> list[Issued]:
        """Issued, and known to every replica."""
        made = await asyncio.gather(*(self._issue(number, count // REPLICAS) for number in range(REPLICAS)))
        tokens = [token for some in made for token in some]
        self._chance.shuffle(tokens)
        await asyncio.gather(*(self._warm(number, tokens) for number in range(REPLICAS)))
        return tokens

    async def _issue(self, number: int, count: int) -> list[Issued]:
        return await self.fleet.issue(count, replica=number)

    async def _warm(self, number: int, tokens: Sequence[Issued]) -> None:
        connection = self._take(number)
        for token in tokens:
            for _ in range(2):  # the second time from memory
                await connection.send(check_request(self.fleet.gateway, token.secret, PROJECT))
        self._give(number, connection)

    def _take(self, number: int) -> Connection:
        free = self._connections[number]
        return free.pop() if free else Connection(self.fleet.replicas[number].port)

    def _give(self, number: int, connection: Connection) -> None:
        self._connections[number].append(connection)

    async def _revoke(self, token: Issued, seen: Seen) -> None:
        """Once it is acknowledged, ask every replica about it until each has denied."""
        try:
            at = await self._until_acknowledged(token)
        except TimeoutError:
            return  # nobody said that it is revoked, so nothing was promised
        self.revoked[token.secret] = at
        self._order.append(token.secret)
        seen.revokes += 1
        await asyncio.gather(*(self._probe(number, token, at, seen) for number in range(REPLICAS)))

    async def _until_acknowledged(self, token: Issued) -> float:
        """By one replica after the other, as a client would: the first acknowledgement counts."""
        number = self._chance.randrange(REPLICAS)
        writer = next(self._writers)
        raw = request("DELETE", f"/v1/tokens/{token.id}", writer)
        async with asyncio.timeout(2 * STALENESS):
            while True:
                connection = Connection(self.fleet.replicas[number % REPLICAS].port)
                try:
                    async with asyncio.timeout(2.0):
                        answer = await connection.send(raw)
                    if answer.status == 200:
                        return now()
                except (OSError, EOFError, TimeoutError):
                    pass
                finally:
                    connection.close()
                number += 1
                await asyncio.sleep(0.05)

    async def _probe(self, number: int, token: Issued, at: float, seen: Seen) -> None:
        """Ask one replica, without a pause worth the name, until it denies."""
        raw = check_request(self.fleet.gateway, token.secret, PROJECT)
        connection = self._take(number)
        allowed_until = at
        for turn in itertools.count():
            sent_at = now()
            try:
                answer = await connection.send(raw)
            except (OSError, EOFError):
                await asyncio.sleep(0.02)
                continue
            came_at = now()
            seen.requests += 1
            seen.checks += 1
            if not answer.allows:
                seen.denied.append(came_at - at)
                seen.allowed.append(allowed_until - at)
                break
            allowed_until = sent_at
            if sent_at - at > STALENESS:
                seen.broken.append(f"replica {number} allowed {token.id} {sent_at - at:.3f} s after its revoke")
            await asyncio.sleep(0.001 if turn < 100 else 0.02)
        self._give(number, connection)

    async def _soak(self, number: int, batch: int, seen: Seen) -> None:
        """Ask about tokens that were revoked, the newest above all, many questions at once."""
        connection = Connection(self.fleet.replicas[number].port)
        items = [{"resource": "job", "action": "read", "target": PROJECT}] * batch
        try:
            while True:
                if not self._order:
                    await asyncio.sleep(0.05)
                    continue
                newest = min(len(self._order), 20)
                secret = self._order[-self._chance.randint(1, self._chance.choice((newest, len(self._order))))]
                body = json.dumps({"token": secret, "catalog": "gitlab", "items": items}).encode()
                raw = request("POST", "/check/batch", self.fleet.gateway, body)
                sent_at = now()
                try:
                    answer = await connection.send(raw)
                except (OSError, EOFError):
                    seen.answers["lost"] += 1
                    await asyncio.sleep(0.05)
                    continue
                seen.requests += 1
                seen.checks += batch
                seen.answers[str(answer.status)] += 1
                if b'"decision":"allow"' in answer.body and sent_at - self.revoked[secret] > STALENESS:
                    seen.broken.append(f"replica {number} allowed {secret[:12]}… in a batch")
                await asyncio.sleep(0.004 if answer.status == 200 else 0.05)
        finally:
            connection.close()

    # faults

    async def _break(self, seen: Seen, end: float) -> None:
        """One fault after the other, each on whatever chance takes, each mended before the next."""
        kinds: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("link swallows everything", lambda: self._link(HOLE)),
            ("link swallows everything", lambda: self._link(HOLE)),
            ("link reset", lambda: self._link(REFUSE)),
            ("link dead", lambda: self._link(DEAD)),
            ("bell deaf", lambda: self._link(DEAF)),
            ("link slow", self._slow),
            ("replica frozen", self._freeze_replica),
            ("database frozen", self._freeze_database),
            ("database killed", self._kill_database),
        ]
        while now() < end:
            name, fault = self._chance.choice(kinds)
            seen.faults[name] += 1
            await fault()
            await asyncio.sleep(self._chance.uniform(0.2, 1.5))

    async def _link(self, mode: str) -> None:
        name = self._chance.choice(self.fleet.names)
        self.fleet.proxies.set(name, mode)
        await asyncio.sleep(self._chance.uniform(0.1, 1.6) * STALENESS)
        self.fleet.proxies.heal(name)
        if mode == DEAD:
            self.fleet.proxies.cut(name)

    async def _slow(self) -> None:
        name = self._chance.choice(self.fleet.names)
        self.fleet.proxies.delay(name, self._chance.uniform(0.02, 0.2))
        await asyncio.sleep(self._chance.uniform(0.2, 1.0) * STALENESS)
        self.fleet.proxies.heal(name)

    async def _freeze_replica(self) -> None:
        replica = self._chance.choice(self.fleet.replicas)
        replica.freeze()
        await asyncio.sleep(self._chance.uniform(0.1, 1.6) * STALENESS)
        replica.thaw()

    async def _freeze_database(self) -> None:
        self.fleet.postgres.freeze()
        await asyncio.sleep(self._chance.uniform(0.1, 1.6) * STALENESS)
        self.fleet.postgres.thaw()

    async def _kill_database(self) -> None:
        self.fleet.postgres.kill()
        await asyncio.sleep(self._chance.uniform(0.0, 0.5) * STALENESS)
        await asyncio.to_thread(self.fleet.postgres.restart)

    def _mend(self) -> None:
        for replica in self.fleet.replicas:
            replica.thaw()
        self.fleet.postgres.thaw()
        self.fleet.heal()
        self.fleet.await_ready(60)

    def close(self) -> None:
        for some in self._connections.values():
            for connection in some:
                connection.close()


def summed_up(phase: Phase, seen: Seen) -> dict[str, Any]:
    """A row of the results, in milliseconds."""
    return {
        "name": phase.name,
        "seconds": phase.seconds,
        "revokes": seen.revokes,
        "pairs": len(seen.denied),
        "denied_ms": _three(seen.denied),
        "last_allow_ms": _three(seen.allowed),
        "checks_of_revoked": seen.checks,
        "requests": seen.requests,
        "later_than_s": len(seen.broken),
        "faults": dict(seen.faults),
        "answers": dict(seen.answers),
    }


def _three(seconds: Sequence[float]) -> dict[str, float]:
    found = sorted(seconds) or [0.0]
    return {
        "p50": round(statistics.median(found) * 1000, 1),
        "p99": round(found[min(len(found) - 1, int(len(found) * 0.99))] * 1000, 1),
        "worst": round(found[-1] * 1000, 1),
    }


def run(plan: Sequence[Phase]) -> dict[str, Any]:
    """All phases on one fleet. The database lies on a disk, and waits for it."""
    folder = Path(tempfile.gettempdir()) / f"authz-faults-{uuid.uuid4().hex[:12]}"
    postgres = Postgres(folder=folder, settings={"fsync": "on", "full_page_writes": "on"})
    rows: list[dict[str, Any]] = []
    broken: list[str] = []
    with Fleet(
        replicas=REPLICAS, staleness=STALENESS, poll_interval=1.0, poll_timeout=1.0, postgres=postgres, writers=16
    ) as fleet:

        async def everything() -> None:
            run = Run(fleet)
            for phase in plan:
                seen = await run.phase(phase)
                rows.append(summed_up(phase, seen))
                broken.extend(seen.broken)
                print(json.dumps(rows[-1]), flush=True)
            run.close()

        asyncio.run(everything())
        resets = sum(replica.figure("authz_cache_resets_total") for replica in fleet.replicas)
    return {
        "kind": "freshness",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": versions(),
        "staleness": STALENESS,
        "replicas": REPLICAS,
        "rows": rows,
        "resets": resets,
        "broken": broken,
    }


def table(result: dict[str, Any]) -> str:
    """For the page."""
    titles = ("", "revokes", "first deny after the acknowledgement: p50 · p99 · worst", "last allow: p50 · p99 · worst")
    titles += ("checks of revoked tokens", "allowed later than S")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in result["rows"]:
        denied, allow = row["denied_ms"], row["last_allow_ms"]
        lines.append(
            f"| {row['name']} | {row['revokes']:,} | {_cell(denied)} | {_cell(allow)}"
            f" | {row['checks_of_revoked']:,} | **{row['later_than_s']}** |"
        )
    faults = Counter({name: count for row in result["rows"] for name, count in row["faults"].items()})
    machine = result["machine"]
    about = ", ".join(f"{name} {count}" for name, count in sorted(faults.items()))
    where = (
        f"{machine['cores']} cores ({machine['processor']}) for the replicas, the database, the proxies and the client"
        f" together; load when it began {machine['load_before']:g}. {result['at'][:10]}."
    )
    lines += ["", f"S = {result['staleness']:g} s, {result['replicas']} replicas. Faults: {about or 'none'}."]
    lines += [f"{where} The same as [JSON](performance/freshness.json)."]
    return "\n".join(lines)


def _cell(figures: dict[str, float]) -> str:
    return f"{figures['p50']:,g} · {figures['p99']:,g} · {figures['worst']:,g} ms"


def write(result: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- freshness: begin -->", "<!-- freshness: end -->"
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    PAGE.write_text(f"{before}{begin}\n{table(result)}\n{end}{after}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="everything once; the figures mean nothing")
    parser.add_argument("--dry", action="store_true", help="do not write the page")
    chosen = parser.parse_args()
    began = time.monotonic()
    result = run(QUICK if chosen.quick else PLAN)
    print(table(result))
    print(f"{time.monotonic() - began:.0f} s")
    if not (chosen.quick or chosen.dry):
        write(result)
    for line in result["broken"]:
        print(line)
    return 1 if result["broken"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
