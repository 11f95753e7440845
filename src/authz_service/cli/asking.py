"""`whoami`, `can-i`, `check`: what a CI job or a gateway asks. Works on the base install, and asks nothing else."""

from __future__ import annotations

import getpass
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from authz_service.cli import exits
from authz_service.cli.printing import Output, UsageFault, complain, print_json, print_note, print_table
from authz_service.client import Answer, Ask, Client, ClientError, RefusedError, UndecidedError, UnreachableError

URL_VARIABLE: Final = "AUTHZ_URL"
TOKEN_VARIABLE: Final = "AUTHZ_TOKEN"
TOKEN_FILE_VARIABLE: Final = "AUTHZ_TOKEN_FILE"
STDIN: Final = Path("-")
_FOR_PROGRAMS: Final = frozenset({"scopes", "approvals", "etag", "partial", "revision"})
"""Of a token's document what its table leaves out: the scopes have one of their own."""
_METHOD: Final = re.compile(r"[A-Z]{3,7}")
_OF_CATALOGS: Final = frozenset({"permission_unknown", "catalog_mismatch"})
_HINT: Final = "set AUTHZ_URL to where the service answers, as `http://127.0.0.1:8080`"


def connect(url: str | None, token_file: Path | None, *, timeout: float = 10.0) -> Client:
    """A client for AUTHZ_URL and AUTHZ_TOKEN, or what the options say. Raises UsageFault for what is missing.

    A token never comes as an argument: other users of the machine see those. AUTHZ_TOKEN_FILE names a file that holds
    it, and counts where AUTHZ_TOKEN is not set.
    """
    url = url or os.environ.get(URL_VARIABLE)
    if not url:
        raise UsageFault(_HINT)
    if not url.startswith(("http://", "https://")):
        raise UsageFault(f"`{url}` is no URL of the service; {_HINT}")
    token = _own_token(token_file)
    if not token:
        raise UsageFault(
            "set AUTHZ_TOKEN to your token, or name a file that holds it with AUTHZ_TOKEN_FILE or `--token-file`"
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UsageFault("that is no token: it holds spaces or other characters that no token has")
    return Client(url, token, timeout=timeout)


def _own_token(token_file: Path | None) -> str:
    token = "" if token_file is not None else os.environ.get(TOKEN_VARIABLE, "").strip()
    if token:
        return token
    named = os.environ.get(TOKEN_FILE_VARIABLE, "")
    source = token_file or (Path(named) if named else None)
    return "" if source is None else read_secret(source)


def read_secret(source: Path) -> str:
    """A secret from a file, or from standard input for `-`. Raises UsageFault."""
    if source == STDIN:
        return (getpass.getpass("token: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    try:
        return source.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = (getattr(error, "strerror", None) or "it is no text").lower()
        raise UsageFault(f"`{source}` cannot be read: {why}") from error


def whoami(client: Client, output: Output) -> int:
    """The token in use: what it is, whose, until when, and what it holds."""
    print_token(client.whoami().document, output)
    return exits.OK


def print_token(document: Mapping[str, Any], output: Output) -> None:
    """A token as management shows it: what it is, then what it holds."""
    if output is Output.JSON:
        print_json(document)
        return
    shown = {key: _cell(value) for key, value in document.items() if key not in _FOR_PROGRAMS}
    if "expires_at" in document:
        shown["expires_at"] = shown["expires_at"] or "never"
    if not document.get("unseen_nodes"):
        shown.pop("unseen_nodes", None)
    print_table(("", ""), [(key.replace("_", " "), value) for key, value in shown.items() if value])
    _print_scopes(document)
    print_waiting(document)


def print_waiting(document: Mapping[str, Any]) -> None:
    """What the token may not do before a group approves it, on standard error."""
    for one in document.get("approvals") or ():
        if one["state"] == "pending":
            what = f"{', '.join(one['permissions'])} of {one['catalog']}"
            print_note(f"it waits for {one['group']} to approve {what}: request {one['request_id']}")


def can_i_list(client: Client, words: Sequence[str], output: Output) -> int:
    """What the token in use holds. Whether it may use it somewhere is another question: ask `can-i`."""
    if words:
        raise UsageFault("`can-i --list` shows everything; to ask about one permission, leave `--list` out")
    document = client.whoami().document
    if output is Output.JSON:
        print_json({"scopes": document.get("scopes", []), "legacy_scopes": document.get("legacy_scopes", [])})
    else:
        _print_scopes(document)
    return exits.OK


def can_i(client: Client, words: Sequence[str], catalog: str | None, output: Output) -> int:
    """`resource:action [target]` or `action resource [target]`."""
    ask = parse_words(words)
    answer = client.can(f"{ask.resource}:{ask.action}", ask.target, catalog=catalog)
    status = _tell(answer, output)
    if answer.reason in _OF_CATALOGS and output is Output.TABLE:
        own = client.whoami().document.get("catalogs") or ()
        print_note(f"the token is for {', '.join(f'`{_cell(one)}`' for one in own) or 'no catalog'}")
    return status


def check(client: Client, words: Sequence[str], catalog: str | None, secret: str, output: Output) -> int:
    """The same about another token, as a gateway asks."""
    return _tell(client.check(secret, parse_words(words), catalog=catalog), output)


def parse_words(words: Sequence[str]) -> Ask:
    """`job:read acme/web`, or `read job acme/web`; the target may be left out. Raises UsageFault."""
    if len(words) > 1 and _METHOD.fullmatch(words[0]) and words[1].startswith(("/", "http")):
        raise UsageFault(
            "a permission and a place are asked about here: `can-i job:read acme/web`; about a request ask"
            f" `authz explain {words[0]} {words[1]} --secret-file FILE`, as a gateway"
        )
    match list(words):
        case [permission] if ":" in permission:
            return _ask(permission, None)
        case [permission, target] if _is_permission(permission):
            return _ask(permission, target)
        case [action, resource]:
            return _ask(f"{resource}:{action}", None)
        case [action, resource, target] if ":" not in action and ":" not in resource:
            return _ask(f"{resource}:{action}", target)
    raise UsageFault("write `can-i job:read acme/web`, or `can-i read job acme/web`")


def _is_permission(word: str) -> bool:
    # `read user:dana` is an action and a target without its resource, and no permission.
    return ":" in word


def _ask(permission: str, target: str | None) -> Ask:
    try:
        return Ask.of(permission, target)
    except ValueError as error:
        raise UsageFault(str(error)) from error


def _tell(answer: Answer, output: Output) -> int:
    if output is Output.JSON:
        print_json(answer)
    else:
        print(answer.decision)
        if not answer.allowed:
            print_note(f"{answer.reason}: {answer.message}" if answer.message else answer.reason)
    return exits.OK if answer.allowed else exits.DENIED


def failed(error: ClientError | UsageFault) -> int:
    """Say what went wrong; the exit status that goes with it."""
    match error:
        case RefusedError(status=401) if "public id" in error.message:
            complain(f"{error.message}; it was shown when the token was made, and belongs into AUTHZ_TOKEN")
            return exits.DENIED
        case RefusedError(status=401):
            complain("the token is not accepted: it may be over, revoked or not copied whole; set AUTHZ_TOKEN anew")
            return exits.DENIED
        case RefusedError():
            complain(error.message, error.faults)
            return exits.USAGE if error.status in (400, 404, 413) else exits.DENIED
        case UndecidedError():
            complain(f"no decision: {error.message}")
            return exits.UNREACHABLE
        case UnreachableError():
            complain(error.message)
            return exits.UNREACHABLE
        case UsageFault():
            complain(error.message)
            return exits.USAGE
    complain(error.message)
    return exits.DENIED


def _print_scopes(document: Mapping[str, Any]) -> None:
    rows = [
        (scope.get("catalog", ""), _reach(scope.get("reach")), ", ".join(scope.get("permissions", ())))
        for scope in document.get("scopes") or ()
    ]
    rows += [("", "legacy", name) for name in document.get("legacy_scopes") or ()]
    print_table(("catalog", "where", "permissions"), rows)


def _reach(reach: object) -> str:
    if not isinstance(reach, Mapping):
        return "" if reach is None else str(reach)
    nodes = reach.get("nodes") or ()
    return ", ".join(map(_cell, nodes)) or str(reach.get("kind", ""))


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case Mapping():
            return ", ".join(f"{key} {_cell(inner)}" for key, inner in value.items() if _cell(inner))
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(_cell, value))
    return str(value)
