"""`make oracles`: times of answers about dead tokens, class against class, on this machine and with its noise."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from tests.integration.test_check_http import FORGE
from tests.integration.test_oracles import CLASSES, DOORS, Scene
from tests.support.managing import scope, staged

from authz_service.embedded import EmbeddedPostgres
from authz_service.store import database

PAGE = Path(__file__).resolve().parents[2] / "docs" / "security.md"
ROUNDS = 1500
DOORS_ASKED = DOORS[:5]  # reports are limited, so they cannot be asked often


async def measure(url: str, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds by door and class, asked in a drawn order so that no drift of the machine is one class's alone."""
    await database.migrate(url)
    found: dict[str, dict[str, list[float]]] = {door.__name__: {kind: [] for kind in CLASSES} for door in DOORS_ASKED}
    async with staged(url) as stage:
        await stage.install(FORGE, "forge")
        caller = (await stage.give("root", scope("authz", "instance", "decision:evaluate"), evaluates=("forge",)))[1]
        scene = Scene(stage, caller, caller, [])
        secrets = {kind: [await scene.make(kind) for _ in range(20)] for kind in CLASSES}
        draw = random.Random(1)
        for number in range(rounds + 50):
            for door in DOORS_ASKED:
                for kind in draw.sample(CLASSES, len(CLASSES)):
                    secret = secrets[kind][number % 20]
                    started = perf_counter()
                    await door(scene, secret)
                    spent = perf_counter() - started
                    if number >= 50:
                        found[door.__name__][kind].append(spent)
    return found


def above(first: list[float], second: list[float]) -> float:
    """How often a time of the first is above one of the second: 0.5 where nothing tells them apart."""
    ranked = sorted([(one, 0) for one in first] + [(one, 1) for one in second])
    ranks = sum(place for place, (_, which) in enumerate(ranked, start=1) if which == 0)
    return (ranks - len(first) * (len(first) + 1) / 2) / (len(first) * len(second))


def table(found: dict[str, dict[str, list[float]]]) -> str:
    lines = [
        f"{ROUNDS:,} rounds, in process, warm; the widest of the ten pairs of classes at each door.",
        "",
        "| asked | median µs, least and most of the classes | widest pair | how often one is above the other |",
        "|---|---|---|---|",
    ]
    for door, by_kind in found.items():
        medians = [statistics.median(times) * 1e6 for times in by_kind.values()]
        pairs = {(a, b): above(by_kind[a], by_kind[b]) for a, b in itertools.combinations(CLASSES, 2)}
        (first, second), share = max(pairs.items(), key=lambda one: abs(one[1] - 0.5))
        name = door.replace("_", " ")
        lines.append(f"| {name} | {min(medians):.0f} to {max(medians):.0f} | {first}, {second} | {share:.2f} |")
    return "\n".join(lines)


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="authz-oracles-"))
    folder.chmod(0o755)
    try:
        with EmbeddedPostgres(folder / "data", settings={"fsync": "off"}) as server:
            found = asyncio.run(measure(server.create_database("oracles"), ROUNDS))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = table(found)
    print(text)  # noqa: T201 - a command
    (Path("build")).mkdir(exist_ok=True)
    (Path("build") / "oracles.json").write_text(json.dumps(found), "utf-8")
    page = PAGE.read_text("utf-8")
    marked = re.sub(
        r"(<!-- oracles -->\n).*?(\n<!-- /oracles -->)", lambda m: m[1] + text + m[2], page, flags=re.DOTALL
    )
    PAGE.write_text(marked, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
