"""`token`, `directory`: what the HTTP surface manages, by AUTHZ_URL and AUTHZ_TOKEN."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
import typer

from authz_service.cli.asking import connect, print_token, print_waiting
from authz_service.cli.options import OutputKind, TokenFile, Url
from authz_service.cli.printing import Output, UsageFault, print_json, print_note, print_table
from authz_service.cli.syncing import sync
from authz_service.client import Client
from authz_service.client.wire import Call

tokens: Final = typer.Typer(help="Issue, list, show and revoke tokens.", no_args_is_help=True)
directory: Final = typer.Typer(help="Groups, projects, users, memberships.", no_args_is_help=True)
directory.add_typer(sync, name="sync")

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DAYS: Final = re.compile(r"([0-9]{1,5})d")
EXPIRES: Final = "`30d`, a day as `2027-01-31`, which counts to its end in UTC, or a time as `2027-01-31T12:00:00Z`"
_PAGE: Final = 100
_IMPORT_SECONDS: Final = 600.0


@tokens.command("create")
def create_token(
    name: Annotated[str | None, typer.Option(help="what it is for, in a word or two")] = None,
    catalog: Annotated[str | None, typer.Option(metavar="NAME", help="the API's catalog, as `gitlab`")] = None,
    permission: Annotated[
        list[str] | None, typer.Option(metavar="RESOURCE:ACTION", help="a permission; may come several times")
    ] = None,
    node: Annotated[
        list[str] | None, typer.Option(metavar="TARGET", help="where: `project:acme/web`, `group:acme`; may come often")
    ] = None,
    reach: Annotated[
        str | None,
        typer.Option(help="in place of `--node`: all_memberships, personal_projects, user or instance"),
    ] = None,
    owner: Annotated[str | None, typer.Option(help="whom it acts for; yourself by default")] = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help=f"{EXPIRES}, or `never`; a template's own days where there is one"),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="why, for whoever approves it")] = None,
    evaluates: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="of one with `decision:evaluate`: a catalog it may ask about, or `*`"),
    ] = None,
    template: Annotated[
        str | None, typer.Option(metavar="ID", help="in place of `--permission`: one that `token templates` lists")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="the whole request as JSON, in place of the options")
    ] = None,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Issue a token. Its secret is shown this one time."""
    given = {"name": name, "catalog": catalog, "owner": owner, "reason": reason, "evaluates": evaluates}
    if file is None and (not name or not catalog):
        raise UsageFault("say `--name` and `--catalog`, or give the whole request with `--file`")
    if file is not None:
        body = read_json(file)
    elif template is not None:
        if permission or reach:
            raise UsageFault("a template says the permissions and reaches itself; give it `--node` alone")
        body = given | {"template": template, "nodes": node}
    else:
        body = given | {"scopes": [_scope(permission or [], node or [], reach)]}
    with connect(url, token_file) as client:
        if file is None:
            if template is not None and expires is None:
                expires = _days_of(client, catalog or "", template)
            body["expires_at"] = None if expires in (None, "never") else moment(str(expires))
            body = {key: value for key, value in body.items() if value is not None}
        made = client.document(Call("POST", "/v1/tokens", msgspec.json.encode(body)))
    if output is Output.JSON:
        print_json(made)
        return
    print_note(f"token {made['id']} is {made.get('state', 'made')}; its secret is shown this one time:")
    print_waiting(made)
    print(made["secret"])


def _scope(permissions: list[str], nodes: list[str], reach: str | None) -> dict[str, Any]:
    if bool(nodes) == bool(reach):
        raise UsageFault("say where it holds: either `--node` or `--reach`")
    where: dict[str, Any] = {"kind": "selected", "nodes": nodes} if nodes else {"kind": reach}
    return {"reach": where, "permissions": permissions}


def _days_of(client: Client, catalog: str, template: str) -> str:
    """How long a token for this job should live, as `90d`. Raises UsageFault where there is no such template."""
    found = client.document(Call("GET", "/v1/templates", params={"catalog": catalog}))["items"]
    days = [one["days"] for one in found if one["id"] == template]
    if not days:
        known = ", ".join(f"`{one['id']}`" for one in found)
        raise UsageFault(f"`{catalog}` has no template `{template}`; write one of {known}")
    return f"{days[0]}d"


def moment(text: str) -> str:
    """An end as the service takes it: of `30d`, a day (its end in UTC), a time with its zone. Raises UsageFault."""
    days = _DAYS.fullmatch(text)
    try:
        if days:
            found = datetime.now(UTC) + timedelta(days=int(days[1]))
        elif _DAY.fullmatch(text):
            found = datetime.combine(date.fromisoformat(text), time(), UTC) + timedelta(days=1)
        else:
            found = datetime.fromisoformat(text)
        if found.tzinfo is not None:
            return found.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError) as error:
        message = f"`{text}` is no time; write `30d`, `2027-01-31` for that whole day in UTC, or `2027-01-31T12:00:00Z`"
        raise UsageFault(message) from error
    raise UsageFault(f"`{text}` has no time zone; write `{found.isoformat()}Z` for UTC")


@tokens.command("list")
def list_tokens(
    owner: Annotated[str | None, typer.Option(help="only tokens that act for this user")] = None,
    state: Annotated[str | None, typer.Option(help="only active, early, expired or revoked ones")] = None,
    search: Annotated[str | None, typer.Option(help="only tokens whose name holds this")] = None,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """List the tokens that you may see, all of them."""
    with connect(url, token_file) as client:
        found = list(pages(client, "/v1/tokens", {"owner": owner, "state": state, "search": search}))
    if output is Output.JSON:
        print_json(found)
        return
    columns = ("id", "name", "owner", "kind", "state", "expires_at", "last_used_at")
    print_table(
        [column.replace("_", " ") for column in columns], [[cell(one.get(key)) for key in columns] for one in found]
    )


@tokens.command("show")
def show_token(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="the public id, `tok_…`")],
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Show one token, without its secret."""
    with connect(url, token_file) as client:
        found = client.document(Call("GET", f"/v1/tokens/{quote(token_id, safe='')}"))
    print_token(found, output)


@tokens.command("revoke")
def revoke_token(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="the public id, `tok_…`")],
    reason: Annotated[str, typer.Option(help="why: its owner, admins and the audit are told")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="until no replica can allow it any more")] = False,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Revoke a token for good."""
    params = {"wait": "true"} if wait else None
    with connect(url, token_file, timeout=60.0 if wait else 10.0) as client:
        path = f"/v1/tokens/{quote(token_id, safe='')}"
        said = msgspec.json.encode({"reason": reason}) if reason else None
        client.document(Call("DELETE", path, said, params=params))
    print_note(f"{token_id} is revoked" + (" everywhere" if wait else ""))


@directory.command("import")
def import_directory(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="one change a line, as JSON; `-` is standard input")],
    source: Annotated[str | None, typer.Option(help="the directory source of lines that name none")] = None,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Bring groups, projects, users and memberships up to date: the whole file, or nothing of it."""
    body = read_bytes(file)
    call = Call(
        "POST",
        "/v1/directory/import",
        body,
        {"source": source} if source is not None else None,
        content_type="application/x-ndjson",
    )
    with connect(url, token_file, timeout=_IMPORT_SECONDS) as client:
        done = client.document(call)
    if output is Output.JSON:
        print_json(done)
        return
    counts = done.get("counts", {})
    print_table(("what", "how many"), [(what.replace("_", " "), many) for what, many in counts.items()])


def pages(client: Client, path: str, wanted: Mapping[str, str | None]) -> Iterator[dict[str, Any]]:
    """Every item of a list, page by page: never silently cut."""
    params = {key: value for key, value in wanted.items() if value is not None} | {"limit": str(_PAGE)}
    while True:
        page = client.document(Call("GET", path, params=params))
        yield from page["items"]
        cursor = page.get("next_cursor")
        if not cursor:
            return
        params["cursor"] = cursor


def cell(value: object) -> str:
    """A value of a document as a table shows it."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "yes" if value else "no"
        case Mapping() if "username" in value:
            return str(value["username"])
        case Mapping() | list():
            return msgspec.json.encode(value).decode()
    return str(value)


def read_json(file: Path) -> Any:
    """A document. Raises UsageFault for what is none."""
    try:
        return msgspec.json.decode(read_bytes(file))
    except msgspec.DecodeError as error:
        raise UsageFault(f"`{file}` is no JSON: {error}") from error


def read_bytes(file: Path) -> bytes:
    """A file, or standard input for `-`. Raises UsageFault."""
    if file == Path("-"):
        return typer.get_binary_stream("stdin").read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageFault(f"`{file}` cannot be read: {(error.strerror or 'no such file').lower()}") from error
