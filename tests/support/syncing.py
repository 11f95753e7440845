"""`authz directory sync` as tests run it: in this process, against a running service and a stand-in."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.processes import DevService
from tests.support.upstream import TOKEN, StandIn

from authz_service.cli import main

_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def counts(self) -> Mapping[str, int]:
        return self.document["counts"]


@dataclass
class Syncing:
    """Into a source of the service that is this test's alone."""

    dev: DevService
    upstream: StandIn
    flavour: str
    scope: tuple[str, ...]
    state: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: Any
    source: str = field(default_factory=lambda: f"s{next(_NUMBERS)}")

    def run(self, *arguments: str, token: str | None = TOKEN, output: str = "json", **env: str) -> Ran:
        for name, value in (self.dev.as_token("admin_token") | env).items():
            self.monkeypatch.setenv(name, value)
        name = f"{self.flavour.upper()}_TOKEN"
        self.monkeypatch.delenv(name, raising=False)
        if token is not None:
            self.monkeypatch.setenv(name, token)
        given = ("--upstream", self.upstream.url, "--source", self.source, "--state", str(self.state))
        command = ("directory", "sync", self.flavour, *given, "--output", output, *self.scope, *arguments)
        self.capsys.readouterr()
        status = main(command)
        said = self.capsys.readouterr()
        assert TOKEN not in said.out + said.err
        assert "Traceback" not in said.err
        return Ran(status, said.out, said.err)

    def done(self, *arguments: str, **more: Any) -> Mapping[str, int]:
        """The counts of a run that has to work."""
        ran = self.run(*arguments, **more)
        assert ran.status == 0, ran.err
        return ran.counts

    def lines(self) -> list[dict[str, Any]]:
        """The directory here, as its export says it."""
        return export_lines(self.dev, self.source)

    def places(self) -> dict[str, str]:
        """Paths by kind and external id."""
        return {
            f"{one['type']}:{one['external_id']}": one["path"]
            for one in self.lines()
            if one["type"] in ("group", "project")
        }

    def roles(self) -> dict[tuple[str, str], str]:
        return {(one["user"], one["node"]): one["role"] for one in self.lines() if one["type"] == "membership"}

    def users(self) -> dict[str, dict[str, Any]]:
        return {one["username"]: one for one in self.lines() if one["type"] == "user" and "state" in one}


def export_lines(dev: DevService, source: str) -> list[dict[str, Any]]:
    with dev.client(dev.ready["admin_token"]) as http:
        answer: httpx.Response = http.get("/v1/directory/export", params={"source": source})
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.content.splitlines()]
