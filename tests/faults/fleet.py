"""A database, faulty links, and several replicas of the service: what the faults happen to."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.faults.client import Answer, Connection, request
from tests.faults.mutants import prepare
from tests.faults.postgres import Postgres, roomy
from tests.faults.proxy import Proxies
from tests.faults.service import ROOT, Service

from authz_service.store.schema import migrate

PROJECT = "project:acme/web"
ORGANISATION = (
    {"type": "user", "username": "dana", "external_id": "7"},
    {"type": "group", "path": "acme", "external_id": "11", "visibility": "private"},
    {"type": "project", "path": "acme/web", "external_id": "43", "visibility": "private"},
    {"type": "membership", "user": "dana", "node": "acme", "role": "maintainer"},
)
POOL = 6


@dataclass(frozen=True, slots=True)
class Issued:
    id: str
    secret: str


class Fleet:
    """Replica `i` reaches the database by proxy `i` alone; with `split`, its pool goes by proxy `pool-i`.

    Settings are small, so that faults are over soon: S is 1.5 s unless the test is about something else.
    """

    def __init__(
        self,
        *,
        replicas: int = 4,
        staleness: float = 1.5,
        poll_interval: float = 0.3,
        poll_timeout: float = 0.4,
        mutant: str = "none",
        split: bool = False,
        postgres: Postgres | None = None,
        env: Mapping[str, str] | None = None,
        env_of: Mapping[str, Mapping[str, str]] | None = None,
        pool_at: Callable[[Postgres], str] | None = None,
        writers: int | None = None,
    ) -> None:
        """`env_of` are the settings of single replicas; `pool_at` says what the proxies of pools lead to."""
        self._writers = replicas if writers is None else writers
        self._env_of = env_of or {}
        self._pool_at = pool_at or (lambda server: server.socket)
        self.staleness = staleness
        self.postgres = postgres or Postgres()
        self._former: list[Postgres] = []
        self.names = [str(number) for number in range(replicas)]
        self._split = split
        self._mutant = mutant
        self._settings = {
            "AUTHZ_PEPPERS": "k1:" + base64.b64encode(secrets.token_bytes(32)).decode(),
            "AUTHZ_MAX_STALENESS": str(staleness),
            "AUTHZ_POLL_INTERVAL": str(poll_interval),
            "AUTHZ_POLL_TIMEOUT": str(poll_timeout),
            "AUTHZ_POOL_SIZE": str(POOL),
            "AUTHZ_LOADS_RUNNING": "4",
            "AUTHZ_DRAIN": "0",
            **(env or {}),
        }
        self.folder = Path(tempfile.mkdtemp(prefix="authz-fleet-", dir=roomy()))
        self.proxies = Proxies()
        self.replicas: list[Service] = []
        self.admin = self.gateway = ""
        self.writers: list[str] = []
        """One token for each writer: writes by the same token wait for each other."""

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Self:
        if self.postgres.server.pid is None:
            self.postgres.start()
        asyncio.run(migrate(self.postgres.server.dsn))
        self.admin = self._bootstrap()
        asyncio.run(self._prepare())
        for name in self.names:
            self.replicas.append(self.service(name, env=self._env_of.get(name)).launch())
        for replica in self.replicas:
            replica.await_answering()
        asyncio.run(self._seed())
        return self

    def service(
        self, name: str, *, mutant: str | None = None, env: Mapping[str, str] | None = None, files: int | None = None
    ) -> Service:
        """A replica behind proxies of its own, not started."""
        settings = dict(self._settings)
        port = self.proxies.add(name, self.postgres.socket)
        settings["AUTHZ_DATABASE_URL"] = self.postgres.url(port)
        if self._split:
            pool = self.proxies.add(f"pool-{name}", self._pool_at(self.postgres))
            settings |= {
                "AUTHZ_DATABASE_URL": self.postgres.url(pool),
                "AUTHZ_DATABASE_DIRECT_URL": self.postgres.url(port),
            }
        settings |= env or {}
        return Service(self.folder / f"service-{name}.log", settings, mutant=mutant or self._mutant, files=files)

    def close(self) -> None:
        for replica in self.replicas:
            replica.thaw()
            if replica.runs:
                replica.terminate()
        for replica in self.replicas:
            replica.stop()
        self.proxies.close()
        for server in (self.postgres, *self._former):
            server.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def move_to(self, postgres: Postgres) -> None:
        """Every link leads to another server from here on, as after a failover; what was open breaks."""
        self._former.append(self.postgres)
        self.postgres = postgres
        for name in self.names:
            for proxy in (name, f"pool-{name}") if self._split else (name,):
                self.proxies.aim(proxy, postgres.socket)
                self.proxies.cut(proxy)

    def authz(
        self, *arguments: str, postgres: Postgres | None = None, secret: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command of an operator, beside the database; or by `secret`, a client's."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AUTHZ_", "DATABASE_URL"))}
        env = {**kept, **self._settings, "AUTHZ_DATABASE_URL": (postgres or self.postgres).server.dsn}
        if secret is not None:
            env["AUTHZ_TOKEN"] = secret
        command = [sys.executable, "-m", "authz_service", *arguments]
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)

    def _bootstrap(self) -> str:
        done = self.authz("bootstrap", "--output", "json")
        if done.returncode:
            raise AssertionError(f"`authz bootstrap` failed: {done.stderr}")
        secret: str = json.loads(done.stdout)["secret"]
        return secret

    async def _prepare(self) -> None:
        connection = await self.postgres.connect()
        try:
            await prepare(connection, self._mutant)
        finally:
            await connection.close()

    async def _seed(self) -> None:
        lines = b"\n".join(json.dumps(line).encode() for line in ORGANISATION)
        await self.manage("POST", "/v1/directory/import", lines, kind="application/x-ndjson", expected=200)
        body = {
            "name": "gateway",
            "catalog": "authz",
            "scopes": [{"reach": {"kind": "instance"}, "permissions": ["decision:evaluate"]}],
            "evaluates": ["*"],
        }
        made = await self.manage("POST", "/v1/tokens", json.dumps(body).encode(), expected=201)
        self.gateway = made.document["secret"]
        manages = [
            "token:create",
            "token:create_any",
            "token:read",
            "token:revoke",
            "directory:import",
            "token:edit",
            "token:rotate",
            "policy:edit",
        ]
        body = {
            "name": "writer",
            "catalog": "authz",
            "scopes": [{"reach": {"kind": "instance"}, "permissions": manages}],
        }
        for _ in range(self._writers):
            made = await self.manage("POST", "/v1/tokens", json.dumps(body).encode(), expected=201)
            self.writers.append(made.document["secret"])

    async def manage(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        replica: int = 0,
        expected: int,
        kind: str = "application/json",
    ) -> Answer:
        """One management request that has to work; again while a busy machine makes the replica stale."""
        connection = Connection(self.replicas[replica].port)
        try:
            for _ in range(200):
                answer = await connection.send(request(method, path, self.admin, body, kind=kind))
                if answer.status != 503:
                    break
                await asyncio.sleep(0.1)
        finally:
            connection.close()
        if answer.status != expected:
            raise AssertionError(f"{method} {path} was answered {answer.status}: {answer.body.decode()}")
        return answer

    async def issue(self, count: int, *, replica: int = 0, **changes: Any) -> list[Issued]:
        """Tokens of dana for PROJECT."""
        found: list[Issued] = []
        for number in range(count):
            answer = await self.manage(
                "POST", "/v1/tokens", token_body(number, **changes), replica=replica, expected=201
            )
            found.append(Issued(answer.document["id"], answer.document["secret"]))
        return found

    # how it is

    def await_ready(self, seconds: float = 30.0) -> None:
        for replica in self.replicas:
            replica.await_ready(seconds=seconds)

    def heal(self) -> None:
        for name in self.names:
            self.proxies.heal(name)
            if self._split:
                self.proxies.heal(f"pool-{name}")


def token_body(number: int, **changes: Any) -> bytes:
    """The body of a `POST /v1/tokens`."""
    scope = {"reach": {"kind": "selected", "nodes": [PROJECT]}, "permissions": ["job:read"]}
    body = {"name": f"job {number}", "owner": "dana", "catalog": "gitlab", "scopes": [scope], **changes}
    return json.dumps(body).encode()


def wait_until(condition: Any, seconds: float = 20.0, what: str = "it") -> None:
    """For what another process does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.02)
