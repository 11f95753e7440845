"""The snippets of docs/client.md, docs/ci.md and the shipped CI files are what the code takes."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from authz_service import client
from authz_service.cli.needs import parse_needs

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


@pytest.mark.parametrize("number", range(len(blocks("client.md", "python"))))
def test_a_snippet_of_the_client_s_page_runs(number, monkeypatch, capsys):
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"decision": "allow", "reason": "granted"})

    class Answered(client.Client):
        def __init__(self, url: str, token: str) -> None:
            super().__init__(url, token, transport=httpx.MockTransport(answer))

    monkeypatch.setattr(client, "Client", Answered)
    found: dict[str, object] = {}
    exec(blocks("client.md", "python")[number], found)
    assert len(found) > 1


def test_the_client_s_page_has_a_snippet_for_each_part():
    assert len(blocks("client.md", "python")) == 5


def test_the_example_of_needs_is_read_as_it_stands():
    [text] = blocks("ci.md", "toml")
    needs = parse_needs(text, {"CI_PROJECT_PATH": "acme/web"})
    assert [(need.permission, need.ask.target, need.catalog) for need in needs] == [
        ("job:read", "acme/web", "gitlab"),
        ("job:run", "acme/web", "gitlab"),
        ("package:read", "project:42", "gitlab@1"),
        ("package:read", "group:acme/libs", "gitlab@1"),
    ]
