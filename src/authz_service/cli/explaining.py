"""`explain`: how an answer came about and the smallest fix; `suggest`: the smallest token for a list of calls."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from authz_service.cli import asking, exits
from authz_service.cli.options import CatalogName, OutputKind, TokenFile, Url
from authz_service.cli.printing import Output, UsageFault, print_json, print_note, print_table
from authz_service.client.wire import Call

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_SUGGEST_SECONDS: Final = 60.0


def explain(
    words: Annotated[
        list[str],
        typer.Argument(metavar="QUESTION", help="`job:read acme/web`, or a request: `GET /api/v4/projects/7/jobs`"),
    ],
    secret_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="ask about this token, as a gateway; without it about your own"),
    ] = None,
    catalog: CatalogName = None,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Say why a token may or may not, and the smallest change that would allow it. Exit status: 0 yes, 1 no."""
    body = {"catalog": catalog, **_question(words), "explain": True}
    path = "/check/http" if "method" in body else "/check"
    if secret_file is None:
        if "method" in body:
            raise UsageFault("about a request, name the token with `--secret-file`: only a gateway may ask that")
        path = "/v1/self/check"
    with asking.connect(url, token_file) as client:
        if secret_file is not None:
            body["token"] = asking.read_secret(secret_file)
        given = {name: value for name, value in body.items() if value is not None}
        found = client.document(Call("POST", path, msgspec.json.encode(given)))
    if output is Output.JSON:
        print_json(found)
    else:
        _tell(found)
    raise typer.Exit(exits.OK if found["decision"] == "allow" else exits.DENIED)


def _question(words: Sequence[str]) -> dict[str, Any]:
    """As a check takes it. Raises UsageFault."""
    if words and words[0] in _METHODS:
        if len(words) not in (2, 3):
            raise UsageFault("write `GET /api/v4/projects/7/jobs`, and a target where the path does not say")
        return {"method": words[0], "path": words[1], "target": words[2] if len(words) == 3 else None}
    asked = asking.parse_words(words)
    return {"resource": asked.resource, "action": asked.action, "target": asked.target}


def _tell(found: Mapping[str, Any]) -> None:
    print(found["decision"])
    print_note(f"{found['reason']}: {found['message']}" if found.get("message") else found["reason"])
    for token in found.get("explanation", ()):
        for number, one in enumerate(token["sets"], 1):
            print_note(f"\n{token['token_id']}, way {number}: {one['reason']}")
            needs = one["needs"]
            rows = [(need["permission"], need["target"] or "", need["reason"] or "not looked at") for need in needs]
            print_table(("needs", "at", "is"), rows)
    for number, fix in enumerate(found.get("fixes", ())):
        print_note(f"{'fix' if number == 0 else 'or'}: {fix['sentence']}")


def suggest(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="a call a line, `GET /api/v4/…` or `job:run acme/web`; `-` is stdin")
    ],
    catalog: Annotated[str, typer.Option(metavar="NAME", help="the API's catalog, as `gitlab`")],
    owner: Annotated[str | None, typer.Option(help="whose token it will be; yours by default")] = None,
    name: Annotated[str, typer.Option(help="the token's name")] = "suggested",
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Print the smallest token for a list of calls, as `authz token create --file` takes it.

    Exit status: 0 it makes them all, 1 some are denied even so, and why is said.
    """
    calls = _read_calls(file)
    body = {"catalog": catalog, "calls": [call for _, call in calls]} | ({} if owner is None else {"owner": owner})
    with asking.connect(url, token_file, timeout=_SUGGEST_SECONDS) as client:
        found = client.document(Call("POST", "/v1/simulate", msgspec.json.encode(body)))
    suggestion = found["suggestion"]
    token = suggestion["token"] | {"name": name}
    print_json(found | {"suggestion": suggestion | {"token": token}} if output is Output.JSON else token)
    answers = zip(calls, suggestion["decisions"], strict=True)
    denied = [(line, one) for (line, _), one in answers if one["decision"] == "deny"]
    for line, one in denied:
        fixes = one.get("fixes") or ()
        print_note(f"still denied: {line}\n  {one['message']}" + (f"\n  fix: {fixes[0]['sentence']}" if fixes else ""))
    if not suggestion["exact"]:
        size, least = suggestion["size"], suggestion["at_least"]
        print_note(f"there may be a smaller one: this gives {size} permissions at places, and none fewer than {least}")
    raise typer.Exit(exits.DENIED if denied else exits.OK)


def _read_calls(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """Lines and what they ask; empty ones and comments are passed over. Raises UsageFault for one that is no call."""
    if file == asking.STDIN:
        text = sys.stdin.read()
    else:
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = (getattr(error, "strerror", None) or "it is no text").lower()
            raise UsageFault(f"`{file}` cannot be read: {why}") from error
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        written = line.strip()
        if not written or written.startswith("#"):
            continue
        try:
            question = _question(written.split())
        except UsageFault as error:
            said = "write a call, as `GET /api/v4/projects/7/jobs` or `job:run acme/web`"
            raise UsageFault(f"`{file}`, line {number}: {said}") from error
        found.append((written, {name: value for name, value in question.items() if value is not None}))
    if not found:
        raise UsageFault(f"`{file}` names no call; write one a line, as `GET /api/v4/projects/7/jobs`")
    return found
