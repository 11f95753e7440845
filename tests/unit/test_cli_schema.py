"""`authz catalog schema` without a service: what it says of a schema that is not all there."""

from __future__ import annotations

import httpx
import pytest

from authz_service.cli import catalog
from authz_service.client import Client

ANSWER = {"catalog": "forge@1", "number": 2, "new": False, "types": 9, "fields": 20, "unknown": ["Type.Epic"]}


@pytest.mark.parametrize(("told", "again"), [({"defaults_known": False}, True), ({"defaults_known": True}, False)])
def test_a_schema_stored_before_defaults_were_kept_is_to_be_installed_again(monkeypatch, capsys, told, again):
    def connect(url, token_file, *, timeout):
        answer = httpx.Response(200, json=ANSWER | told)
        return Client("http://authz.test", "azt_x", timeout=timeout, transport=httpx.MockTransport(lambda _: answer))

    monkeypatch.setattr(catalog, "connect", connect)
    catalog.schema("forge")
    said = capsys.readouterr().err
    assert "forge@1: schema 2 counts: 9 types, 20 fields" in said
    assert "it has nothing for `Type.Epic`" in said
    assert ("install it again" in said) is again
