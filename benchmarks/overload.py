"""`make bench-overload`: what a known token's check takes while one worker is flooded, idled at, and asked slowly."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.faults.client import Connection, check_request, now, request
from tests.faults.fleet import PROJECT, Fleet

from authz_service.tokens.secret import new_secret
from benchmarks.machine import describe_machine, versions

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "freshness.md"
RESULTS = DOCS / "performance" / "overload.json"
ASK_EVERY = 0.005
FLOODS = 64


class Load:
    """Known tokens asked about at a steady rate, whatever else goes on; times count from when a check was due."""

    def __init__(self, fleet: Fleet, known: bytes) -> None:
        self.fleet = fleet
        self._known = known
        self.answers: Counter[str] = Counter()

    @property
    def port(self) -> int:
        return self.fleet.replicas[0].port

    async def measure(
        self, name: str, seconds: float, pressure: Callable[[], Awaitable[None]] | None
    ) -> dict[str, Any]:
        self.answers = Counter()
        pressing = None if pressure is None else asyncio.create_task(self._press(pressure))
        if pressing is not None:
            await asyncio.sleep(min(2.0, seconds / 2))
        times, shed = await self._ask(seconds)
        if pressing is not None:
            pressing.cancel()
            await asyncio.gather(pressing, return_exceptions=True)
        return {
            "name": name,
            "checks": len(times),
            "p50_ms": round(statistics.median(times) * 1000, 2),
            "p99_ms": round(sorted(times)[int(len(times) * 0.99)] * 1000, 2),
            "not_answered": shed,
            "others": dict(self.answers),
            "memory_mib": self.fleet.replicas[0].memory() >> 20,
        }

    async def _press(self, pressure: Callable[[], Awaitable[None]]) -> None:
        await pressure()

    async def _ask(self, seconds: float) -> tuple[list[float], int]:
        """On a connection that is free: a slow answer must not hold up the next question."""
        free: list[Connection] = []
        times: list[float] = []
        shed = 0

        async def one(due: float) -> None:
            nonlocal shed
            connection = free.pop() if free else Connection(self.port)
            answer = await connection.send(self._known)
            times.append(now() - due)
            shed += answer.status != 200
            free.append(connection)

        asking: set[asyncio.Task[None]] = set()
        due, end = now(), now() + seconds
        while due < end:
            due += ASK_EVERY
            await asyncio.sleep(max(0.0, due - now()))
            task = asyncio.create_task(one(due))
            asking.add(task)
            task.add_done_callback(asking.discard)
        await asyncio.gather(*asking)
        for connection in free:
            connection.close()
        return times, shed

    async def flood(self, rate: float) -> None:
        """Tokens of nobody, with a right checksum, at a rate; 0 is as many as 64 connections carry."""

        async def one(number: int) -> None:
            connection = Connection(self.port)
            due = now() + (number / rate if rate else 0.0)  # one after the other, not all at once
            try:
                while True:
                    if rate:
                        due += FLOODS / rate
                        await asyncio.sleep(max(0.0, due - now()))
                    secret = new_secret("azt", "k1").reveal()
                    answer = await connection.send(check_request(self.fleet.gateway, secret, PROJECT))
                    said = answer.document["reason"]
                    self.answers[said] += 1
            finally:
                connection.close()

        await asyncio.gather(*(one(number) for number in range(FLOODS)))

    async def idle(self, count: int) -> None:
        """Connections that ask nothing."""
        opened = []
        try:
            for _ in range(count // 100):
                some = (asyncio.open_connection("127.0.0.1", self.port) for _ in range(100))
                opened += await asyncio.gather(*some)
            self.answers["idle connections"] = len(opened)
            await asyncio.sleep(3600)
        finally:
            for _, writer in opened:
                writer.transport.abort()

    async def slow(self, count: int) -> None:
        """Clients that begin a request and do not go on; given up by the server, they begin anew."""
        raw = request("POST", "/check", self.fleet.gateway, b"x" * 1000)[:-500]

        async def one() -> None:
            while True:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    writer.write(raw)
                    await reader.read()
                    self.answers["slow clients given up"] += 1
                except OSError:
                    self.answers["slow clients given up"] += 1
                finally:
                    writer.transport.abort()

        await asyncio.gather(*(one() for _ in range(count)))


async def everything(fleet: Fleet, seconds: float, idle: int) -> list[dict[str, Any]]:
    [token] = await fleet.issue(1)
    known = check_request(fleet.gateway, token.secret, PROJECT)
    connection = Connection(fleet.replicas[0].port)
    for _ in range(50):
        await connection.send(known)
    connection.close()
    load = Load(fleet, known)
    rows = [
        await load.measure("nothing else", seconds, None),
        await load.measure("100 unknown tokens a second", seconds, lambda: load.flood(100)),
        await load.measure("300 unknown tokens a second", seconds, lambda: load.flood(300)),
        await load.measure("64 connections of unknown tokens without a pause", seconds, lambda: load.flood(0)),
        await load.measure(f"{idle:,} idle connections", seconds, lambda: load.idle(idle)),
        await load.measure("400 clients that never finish a request", seconds, lambda: load.slow(400)),
    ]
    for row in rows:
        print(json.dumps(row), flush=True)
    return rows


def table(result: dict[str, Any]) -> str:
    lines = ["| beside | p50 | p99 | not answered | memory |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['name']} | {row['p50_ms']:g} ms | {row['p99_ms']:g} ms | {row['not_answered']} of {row['checks']:,}"
        f" | {row['memory_mib']} MiB |"
        for row in result["rows"]
    ]
    machine = result["machine"]
    where = f"{machine['cores']} cores ({machine['processor']}), load when it began {machine['load_before']:g}."
    lines += ["", f"One worker. {where} {result['at'][:10]}. The same as [JSON](performance/overload.json)."]
    return "\n".join(lines)


def write(result: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- overload: begin -->", "<!-- overload: end -->"
    before, _, rest = text.partition(begin)
    PAGE.write_text(f"{before}{begin}\n{table(result)}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="everything once; the figures mean nothing")
    parser.add_argument("--dry", action="store_true", help="do not write the page")
    chosen = parser.parse_args(arguments)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    idle = min(1000 if chosen.quick else 10_000, hard - 600)
    result: dict[str, Any] = {"kind": "overload", "at": datetime.now(UTC).isoformat(timespec="seconds")}
    result |= {"machine": describe_machine(), "versions": versions()}
    env = {"AUTHZ_POOL_SIZE": "10", "AUTHZ_LOADS_RUNNING": "8"}
    with Fleet(replicas=1, staleness=5.0, poll_interval=1.0, poll_timeout=1.0, env=env) as fleet:
        result["rows"] = asyncio.run(everything(fleet, 3.0 if chosen.quick else 15.0, idle))
    print(table(result))
    if not (chosen.quick or chosen.dry):
        write(result)
    return 1 if any(row["not_answered"] for row in result["rows"]) else 0


if __name__ == "__main__":
    raise SystemExit(main())
