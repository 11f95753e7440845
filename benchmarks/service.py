"""This service as it is deployed: `authz serve` on a database of its own that holds the workload."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authz_service.embedded import EmbeddedPostgres
from authz_service.pdp.secrets import Peppers
from authz_service.store.database import migrate
from benchmarks.bulk import Issued, Nodes, gateway_row, issue, loading, scopes_of, token_row
from benchmarks.oracle import Ask
from benchmarks.pressure import Post
from benchmarks.servers import HOST, Server, free_port
from benchmarks.workload import CATALOG, Batch, Workload

GATEWAY = "gateway"
"""The user who owns the caller's token."""
_KID = "k1"
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
}
"""Nothing here has to survive a crash, and decisions read only."""


@contextmanager
def scratch(*, gigabytes: float = 1.0) -> Iterator[Path]:
    """A folder in memory where there is room, else on disk; gone at the end. Its database server's user may pass."""
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > gigabytes * 2**30
    folder = Path(tempfile.mkdtemp(prefix="authz-bench-", dir=memory if roomy else None))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres(folder: Path) -> Iterator[EmbeddedPostgres]:
    """A database server on the cores that this process has now."""
    with EmbeddedPostgres(folder / "postgres", settings=_SETTINGS) as server:
        yield server


def new_database(server: EmbeddedPostgres, name: str) -> str:
    """The URL of a migrated, empty database."""
    url = server.create_database(name)
    asyncio.run(migrate(url))
    return url


class Keys:
    """The peppers of one run."""

    def __init__(self) -> None:
        pepper = secrets.token_bytes(32)
        self.peppers = Peppers({_KID: pepper}, _KID)
        self.setting = f"{_KID}:{base64.b64encode(pepper).decode()}"

    def environment(self, url: str, **settings: object) -> dict[str, str]:
        """What `authz serve` reads."""
        given = {"database_url": url, "peppers": self.setting, "log_level": "warning", **settings}
        return {f"AUTHZ_{name.upper()}": str(value) for name, value in given.items()}


@dataclass(frozen=True, slots=True)
class Stored:
    """The workload in a database: its tokens in their order, and the caller's own."""

    url: str
    keys: Keys
    tokens: tuple[Issued, ...]
    gateway: Issued


async def store(url: str, keys: Keys, workload: Workload) -> Stored:
    nodes = Nodes()
    for group in workload.groups:
        nodes.add(group, "group")
    for project in workload.projects:
        nodes.add(project, "project")
    users = {name: nodes.add(name, "user") for name in (*workload.memberships, GATEWAY)}
    members = [(users[name], nodes.numbers[group]) for name, groups in workload.memberships.items() for group in groups]
    tokens = tuple(issue(keys.peppers) for _ in workload.tokens)
    gateway = issue(keys.peppers)
    rows = [
        token_row(issued, keys.peppers, users[holder.owner], scopes_of(holder.grants, nodes.numbers), name=holder.name)
        for issued, holder in zip(tokens, workload.tokens, strict=True)
    ]
    async with loading(url) as load:
        await load.nodes(nodes.rows)
        await load.users(users.values())
        await load.memberships(members)
        await load.tokens([*rows, gateway_row(gateway, keys.peppers, users[GATEWAY])])
    return Stored(url, keys, tokens, gateway)


def serve(
    name: str, environment: Mapping[str, str], *, cores: Sequence[int], folder: Path, workers: int = 1
) -> tuple[Server, int]:
    """`authz serve`, not started yet, and its port."""
    port = free_port()
    ours = {key: value for key, value in os.environ.items() if not key.startswith("AUTHZ_")}
    given = {**ours, **environment, "AUTHZ_HOST": HOST, "AUTHZ_PORT": str(port), "AUTHZ_WORKERS": str(workers)}
    command = [str(Path(sys.executable).with_name("authz")), "serve"]
    server = Server(name, command, ready=port, path="/readyz", cores=cores, folder=folder, environment=given)
    return server, port


# questions and answers


def headers(gateway: Issued) -> tuple[tuple[str, str], ...]:
    return (("Content-Type", "application/json"), ("Authorization", f"Bearer {gateway.secret}"))


def check_requests(workload: Workload, stored: Stored) -> list[Post]:
    return ask_requests(workload.asks, stored.tokens, stored.gateway)


def ask_requests(asks: Sequence[Ask], tokens: Sequence[Issued], gateway: Issued) -> list[Post]:
    """`/check` for each; `tokens` are those that the questions count by position."""
    common = headers(gateway)
    found = []
    for ask in asks:
        resource, _, action = ask.permission.partition(":")
        body = {"token": tokens[ask.token].secret, "catalog": CATALOG}
        body |= {"resource": resource, "action": action, "target": ask.target}
        found.append(Post("/check", common, _json(body)))
    return found


def call_requests(calls: Sequence[tuple[int, tuple[str, str]]], stored: Stored) -> list[Post]:
    """`/check/http` for (position of a token, (method, path))."""
    common = headers(stored.gateway)
    found = []
    for number, (method, path) in calls:
        body = {"token": stored.tokens[number].secret, "catalog": CATALOG, "method": method, "path": path}
        found.append(Post("/check/http", common, _json(body)))
    return found


def batch_requests(batches: Sequence[Batch], stored: Stored) -> list[Post]:
    common = headers(stored.gateway)
    found = []
    for batch in batches:
        items = []
        for ask in batch.asks:
            resource, _, action = ask.permission.partition(":")
            items.append({"resource": resource, "action": action, "target": ask.target})
        body = {"token": stored.tokens[batch.token].secret, "catalog": CATALOG, "items": items}
        found.append(Post("/check/batch", common, _json(body)))
    return found


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def read_check(body: bytes) -> list[str]:
    """The reason; an answer whose decision and reason do not go together is no answer."""
    return [_reason(json.loads(body))]


def read_batch(body: bytes) -> list[str]:
    return [_reason(each) for each in json.loads(body)["decisions"]]


def _reason(decision: Mapping[str, Any]) -> str:
    fits = (decision["decision"] == "allow") == decision["reason"].startswith("granted")
    return str(decision["reason"]) if fits else "contradiction"
