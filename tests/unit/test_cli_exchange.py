"""`authz exchange` without a service: what it reads, what it leaves behind, what it never prints."""

from __future__ import annotations

import httpx
import pytest

from authz_service.cli import exchanging, exits
from authz_service.cli.printing import UsageFault
from authz_service.client import RefusedError, UnreachableError
from authz_service.client.exchange import exchange_job_token

GIVEN = {"access_token": "azt_secret", "expires_in": 600, "scope": "job:read job:run", "token_type": "Bearer"}


def serve(monkeypatch, answer: httpx.Response) -> list[httpx.Request]:
    """The service gives this answer; what it was asked."""
    seen: list[httpx.Request] = []

    def handle(request):
        seen.append(request)
        return answer

    def exchange(url, job_token, **given):
        return exchange_job_token(url, job_token, transport=httpx.MockTransport(handle), **given)

    monkeypatch.setattr(exchanging, "exchange_job_token", exchange)
    monkeypatch.setenv("AUTHZ_JOB_TOKEN", "a.b.c")
    return seen


def test_the_token_goes_to_a_file_that_nobody_else_reads(monkeypatch, tmp_path, capsys):
    seen = serve(monkeypatch, httpx.Response(200, json=GIVEN))
    file = tmp_path / "token"
    assert exchanging.exchange("http://authz.test/", file, None, "tru_1") == exits.OK
    assert file.read_text() == "azt_secret"
    assert file.stat().st_mode & 0o777 == 0o600
    assert str(seen[0].url) == "http://authz.test/v1/token-exchange"
    assert b"subject_token=a.b.c" in seen[0].content
    assert b"rule=tru_1" in seen[0].content
    said = capsys.readouterr()
    assert "600 seconds" in said.err
    assert "azt_secret" not in said.out + said.err


def test_a_refusal_is_one_and_leaves_no_file(monkeypatch, tmp_path, capsys):
    refused = {"error": "invalid_request", "error_description": "this token is not taken"}
    serve(monkeypatch, httpx.Response(400, json=refused))
    assert exchanging.exchange("http://authz.test", tmp_path / "token", None, None) == exits.DENIED
    assert "not taken" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answer", [httpx.Response(502), httpx.Response(400, text="no"), httpx.Response(200, text="")])
def test_what_this_service_would_not_say_leaves_no_file(monkeypatch, tmp_path, answer):
    serve(monkeypatch, answer)
    with pytest.raises((UnreachableError, RefusedError)):
        exchanging.exchange("http://authz.test", tmp_path / "token", None, None)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_left_alone_and_the_job_s_token_kept(monkeypatch, tmp_path):
    seen = serve(monkeypatch, httpx.Response(200, json=GIVEN))
    file = tmp_path / "token"
    file.write_text("mine")
    with pytest.raises(UsageFault, match="cannot be made"):
        exchanging.exchange("http://authz.test", file, None, None)
    assert file.read_text() == "mine"
    assert seen == []


def test_a_job_without_a_token_is_told_where_to_get_one(monkeypatch, tmp_path):
    for name in ("AUTHZ_JOB_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageFault, match="AUTHZ_JOB_TOKEN"):
        exchanging.exchange("http://authz.test", tmp_path / "token", None, None)


def test_github_is_asked_for_a_token_of_the_rule_s_audience(monkeypatch, tmp_path):
    seen = serve(monkeypatch, httpx.Response(200, json=GIVEN))
    monkeypatch.setenv("AUTHZ_JOB_TOKEN", "")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", "https://github.test/token?api=1")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ask")
    asked = []

    def get(url, **given):
        asked.append((str(url), given["headers"]["Authorization"]))
        return httpx.Response(200, json={"value": "x.y.z"})

    monkeypatch.setattr(exchanging.httpx, "get", get)
    assert exchanging.exchange("http://authz.test", tmp_path / "token", "https://authz.test", None) == exits.OK
    assert asked == [("https://github.test/token?api=1&audience=https%3A%2F%2Fauthz.test", "Bearer ask")]
    assert b"subject_token=x.y.z" in seen[0].content
