"""A database whose disk is full: what it cannot store it does not acknowledge, and what it acknowledged stays."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from tests.faults.fleet import Fleet
from tests.faults.postgres import Postgres
from tests.faults.traffic import Traffic

SIZE = 160 << 20


@pytest.fixture
def small_disk():
    folder = Path(tempfile.mkdtemp(prefix="authz-disk-"))
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0711", "authz-disk", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        folder.rmdir()
        pytest.skip(f"a small disk needs the right to mount one: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def test_a_full_disk_loses_nothing_that_was_acknowledged(small_disk):
    with Fleet(replicas=2, postgres=Postgres(folder=small_disk / "server")) as fleet:
        asyncio.run(fill(fleet, small_disk / "ballast"))


async def fill(fleet, ballast):
    traffic = Traffic(fleet)
    async with traffic.running() as ledger:
        await asyncio.sleep(0.5)
        with ballast.open("wb") as file:
            while True:
                try:
                    os.write(file.fileno(), bytes(1 << 16))
                except OSError:
                    break
        # Until the log, too, wants room: large writes that nobody needs.
        for _ in range(40):
            try:
                await fleet.postgres.fetch("create table if not exists waste (text text)")
                await fleet.postgres.fetch(
                    "insert into waste select repeat(md5(random()::text), 2000) from generate_series(1, 400)"
                )
            except Exception as error:  # noqa: BLE001 - whatever a full disk makes of it
                ledger.counts[f"waste: {type(error).__name__}"] += 1
            await asyncio.sleep(0.05)
        assert any(kind.startswith("waste") for kind in ledger.counts), "the disk was not full"
        await asyncio.sleep(fleet.staleness)
        for replica in fleet.replicas:
            assert replica.get("/livez")[0] == 200
        ballast.unlink()
        if fleet.postgres.server.pid is None:
            await asyncio.to_thread(fleet.postgres.restart)
        await asyncio.sleep(fleet.staleness * 2)
    await traffic.settle()
