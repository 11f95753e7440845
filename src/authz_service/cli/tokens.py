"""`token rotate`, `edit`, `clone`, `import` and `templates`: a token's life after it was issued."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
import typer

from authz_service.cli.asking import connect, print_token
from authz_service.cli.manage import EXPIRES, moment, read_bytes, read_json, tokens
from authz_service.cli.options import OutputKind, TokenFile, Url
from authz_service.cli.printing import Output, UsageFault, print_json, print_note, print_table
from authz_service.client.wire import Call

_IMPORT_SECONDS: Final = 600.0

TokenName = Annotated[str, typer.Argument(metavar="ID", help="the public id, `tok_…`")]


commands: Final = tokens
"""All commands about tokens: those of `manage`, and these."""


@tokens.command("rotate")
def rotate_token(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="the public id, `tok_…`, or `self`")],
    overlap: Annotated[
        int, typer.Option(metavar="SECONDS", min=0, max=604_800, help="how long the old secret still works")
    ] = 0,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Replace a token's secret. The new one is shown this one time; its id is new too."""
    path = "/v1/self/rotate" if token_id == "self" else f"/v1/tokens/{quote(token_id, safe='')}/rotate"
    with connect(url, token_file) as client:
        made = client.document(Call("POST", path, msgspec.json.encode({"overlap_seconds": overlap})))
    _print_made(made, output, f"{token_id} is replaced by {made['id']}; its secret is shown this one time:")


@tokens.command("clone")
def clone_token(
    token_id: TokenName,
    name: Annotated[str | None, typer.Option(help="what the new one is for; as the other by default")] = None,
    owner: Annotated[str | None, typer.Option(help="whom it acts for; as the other by default")] = None,
    expires: Annotated[str | None, typer.Option(metavar="WHEN", help=EXPIRES)] = None,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Issue a token like another one."""
    given = {"name": name, "owner": owner, "expires_at": None if expires is None else moment(expires)}
    body = {key: value for key, value in given.items() if value is not None}
    with connect(url, token_file) as client:
        call = Call("POST", f"/v1/tokens/{quote(token_id, safe='')}/clone", msgspec.json.encode(body))
        made = client.document(call)
    _print_made(made, output, f"token {made['id']} is {made.get('state', 'made')}; its secret is shown this one time:")


def _print_made(made: dict[str, Any], output: Output, note: str) -> None:
    if output is Output.JSON:
        print_json(made)
        return
    print_note(note)
    print(made["secret"])


@tokens.command("edit")
def edit_token(
    token_id: TokenName,
    name: Annotated[str | None, typer.Option(help="what it is for")] = None,
    reason: Annotated[str | None, typer.Option(help="why it is needed")] = None,
    expires: Annotated[str | None, typer.Option(metavar="WHEN", help=f"{EXPIRES}, or `never`")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="what is to change as JSON: scopes, conditions, …")
    ] = None,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Change a token: what is not named stays. Nobody else's edit is undone."""
    body: Any = {} if file is None else read_json(file)
    if not isinstance(body, dict):
        raise UsageFault(f"`{file}` holds no JSON object")
    if name is not None:
        body["name"] = name
    if reason is not None:
        body["reason"] = reason
    if expires is not None:
        body["expires_at"] = None if expires == "never" else moment(expires)
    if not body:
        raise UsageFault("say what is to change: `--name`, `--reason`, `--expires` or `--file`")
    path = f"/v1/tokens/{quote(token_id, safe='')}"
    with connect(url, token_file) as client:
        tag = client.document(Call("GET", path)).get("etag")
        call = Call("PATCH", path, msgspec.json.encode(body), if_match=tag or "*")
        found = client.document(call)
    print_token(found, output)


@tokens.command("import")
def import_tokens(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="one token a line, as JSON; `-` is standard input")],
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Bring in tokens of another system by the SHA-256 of their secrets: the whole file, or nothing of it."""
    call = Call("POST", "/v1/tokens/import", read_bytes(file), content_type="application/x-ndjson")
    with connect(url, token_file, timeout=_IMPORT_SECONDS) as client:
        done = client.document(call)
    if output is Output.JSON:
        print_json(done)
        return
    print_note(f"{done['imported']} tokens are imported")
    print_table(("line", "id"), [(one["line"], one["id"]) for one in done["tokens"]])


@tokens.command("templates")
def list_templates(
    catalog: Annotated[str | None, typer.Option(metavar="NAME", help="`gitlab`, or `gitlab@1`")] = None,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """What tokens for the usual jobs need."""
    params = None if catalog is None else {"catalog": catalog}
    with connect(url, token_file) as client:
        found = client.document(Call("GET", "/v1/templates", params=params))["items"]
    if output is Output.JSON:
        print_json(found)
        return
    print_table(
        ("catalog", "template", "what for", "permissions"),
        [
            (one["catalog"], one["id"], one["about"], sum(len(scope["permissions"]) for scope in one["scopes"]))
            for one in found
        ],
    )
