"""PostgreSQL servers that freeze, die, follow each other and are restored."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import asyncpg

from authz_service.embedded import EmbeddedPostgres, EmbeddedPostgresError, find_binaries

SETTINGS: Mapping[str, str] = {
    "fsync": "off",  # processes die here, never the machine
    "full_page_writes": "off",
    "max_connections": "120",
    "dynamic_shared_memory_type": "mmap",  # goes with the folder, when nobody is left to remove it
    "shared_buffers": "32MB",
    "wal_level": "replica",
    "max_wal_senders": "5",
    "wal_keep_size": "64MB",
    "min_wal_size": "32MB",
    "max_wal_size": "64MB",
    "wal_receiver_status_interval": "1s",
    "authentication_timeout": "5s",
}


def roomy() -> Path:
    """Memory where there is enough: disks make these tests slow, and none of them needs one."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 << 30:
        return memory
    return Path(tempfile.gettempdir())


class Postgres:
    """One server in a folder of its own, which goes with it."""

    def __init__(self, *, folder: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder or roomy() / f"authz-faults-{uuid.uuid4().hex[:12]}"
        self._settings = {**SETTINGS, **(settings or {})}
        self.server = EmbeddedPostgres(self.folder, settings=self._settings)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.remove()

    def start(self) -> Self:
        self.server.start()
        return self

    def stop(self) -> None:
        self.thaw()
        self.server.stop()

    def remove(self) -> None:
        """End it, and take away its folder; and what a server that was killed left in the system's memory."""
        note = self._note()
        self.stop()
        if len(note) > 6 and self._note():
            ctypes.CDLL(None).shmctl(int(note[6].split()[1]), 0, None)  # IPC_RMID
        for folder in {self.folder, self.server.folder}:
            shutil.rmtree(folder, ignore_errors=True)

    def _note(self) -> list[str]:
        """What a server writes about itself, and removes when it ends in order."""
        try:
            return (self.server.folder / "postgres" / "postmaster.pid").read_text().splitlines()
        except (OSError, EmbeddedPostgresError):
            return []

    @property
    def socket(self) -> str:
        return str(self.server.sockets / ".s.PGSQL.5432")

    @property
    def password(self) -> str:
        return (self.server.folder / "password").read_text()

    def url(self, port: int) -> str:
        """The address by way of a proxy."""
        return f"postgresql://authz:{quote(self.password, safe='')}@127.0.0.1:{port}/authz"

    # what happens to servers

    def pids(self) -> list[int]:
        """The server and everything that it started."""
        main = self.server.pid
        return [] if main is None else [main, *children(main)]

    def freeze(self) -> None:
        stopped: set[int] = set()
        while new := set(self.pids()) - stopped:  # a backend may start while we stop the others
            for pid in new:
                _signal(pid, signal.SIGSTOP)
            stopped |= new

    def thaw(self) -> None:
        for pid in self.pids():
            _signal(pid, signal.SIGCONT)

    def kill(self) -> None:
        """All of it at once, as when the machine goes."""
        pids = self.pids()
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        end = time.monotonic() + 10
        while any(_runs(pid) for pid in pids) and time.monotonic() < end:
            time.sleep(0.01)

    def restart(self) -> None:
        """After it was killed."""
        self.server.stop()
        self.server.start()

    # copies

    def copy(self, *, standby: bool, settings: Mapping[str, str] | None = None) -> Postgres:
        """A base backup taken now, not started: a hot standby of this server, or a backup to be restored later."""
        folder = roomy() / f"authz-faults-{uuid.uuid4().hex[:12]}"
        folder.mkdir(mode=0o711)
        folder.chmod(0o711)
        programs = find_binaries().folder
        command = [
            *(str(programs / "pg_basebackup"), "--pgdata", str(folder / "postgres")),
            *("--host", str(self.server.sockets), "--port", "5432", "--username", "authz"),
            *("--checkpoint", "fast", "--wal-method", "stream", "--no-sync"),
        ]
        if standby:
            command.append("--write-recovery-conf")
        subprocess.run(command, env={**os.environ, "PGPASSWORD": self.password}, check=True, capture_output=True)
        shutil.copy(self.server.folder / "password", folder / "password")
        owner = (self.server.folder / "postgres").stat()
        for path in (folder / "password", *_walk(folder / "postgres")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        return Postgres(folder=folder, settings={**self._settings, **(settings or {})})

    def dump(self, file: Path) -> None:
        """A logical backup taken now."""
        self._run("pg_dump", "--format", "custom", "--file", str(file), "authz")

    def load(self, file: Path) -> Postgres:
        """A new server with what a logical backup holds, running, and the same password."""
        folder = roomy() / f"authz-faults-{uuid.uuid4().hex[:12]}"
        folder.mkdir(mode=0o711)
        folder.chmod(0o711)
        shutil.copy(self.server.folder / "password", folder / "password")
        owner = (self.server.folder / "password").stat()
        os.chown(folder / "password", owner.st_uid, owner.st_gid)
        loaded = Postgres(folder=folder, settings=self._settings).start()
        try:
            loaded._run("pg_restore", "--dbname", "authz", "--exit-on-error", str(file))
        except BaseException:
            loaded.remove()
            raise
        return loaded

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(find_binaries().folder / program), "--host", str(self.server.sockets), "--port", "5432"]
        env = {**os.environ, "PGPASSWORD": self.password}
        done = subprocess.run(
            [*command, "--username", "authz", *arguments], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"`{program}` failed: {done.stderr}"

    # asking it

    async def connect(self) -> asyncpg.Connection[Any]:
        return await asyncpg.connect(self.server.dsn, timeout=10)

    async def fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        conn = await self.connect()
        try:
            return await conn.fetch(statement, *values)
        finally:
            await conn.close()

    async def require_standbys(self, names: str) -> None:
        """Acknowledge nothing that a standby of these does not have; empty requires none."""
        conn = await self.connect()
        try:
            await conn.execute(f"alter system set synchronous_standby_names = '{names}'")
            await conn.execute("select pg_reload_conf()")
        finally:
            await conn.close()

    async def part(self) -> None:
        """A standby follows nobody from here on. Freezing it is not enough: what was sent lies in its socket."""
        conn = await self.connect()
        try:
            await conn.execute("alter system set primary_conninfo = ''")
            await conn.execute("select pg_reload_conf()")
            async with asyncio.timeout(20):
                while await conn.fetchval("select count(*) from pg_stat_wal_receiver"):
                    await asyncio.sleep(0.02)
        finally:
            await conn.close()

    async def promote(self) -> None:
        await self.fetch("select pg_promote(true, 30)")


def _walk(folder: Path) -> list[Path]:
    return [folder, *folder.rglob("*")]


def children(parent: int) -> list[int]:
    """The processes that a process started and that still run."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(entry.name))
    return found


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
