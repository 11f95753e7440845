"""`catalog`: what APIs have; and one's own, from a first draft to tokens on its newest version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
import typer

from authz_service.cli import catalog_reports as reports
from authz_service.cli import exits
from authz_service.cli.asking import STDIN, connect
from authz_service.cli.manage import cell, pages, read_bytes
from authz_service.cli.options import OutputKind, TokenFile, Url
from authz_service.cli.printing import Output, UsageFault, print_json, print_note, print_table
from authz_service.client import Client
from authz_service.client.wire import Call

catalogs: Final = typer.Typer(help="What each API's permissions are, and your own API's.", no_args_is_help=True)

_SECONDS: Final = 600.0
"""For what reads every live token."""
_PAGE: Final = 1000

File = Annotated[Path, typer.Argument(metavar="FILE", help="a catalog in YAML; `-` is standard input")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="`gitlab` for its newest version, or `gitlab@1`")]


# without a service


@catalogs.command("validate")
def validate(file: File) -> None:
    """Say what is wrong with a catalog's file, all of it, by line. Asks no service."""
    from authz_service.catalog.loader import load_catalog

    catalog = load_catalog(_read_text(file), file=str(file))
    print_note(
        f"{catalog.label}: {len(catalog.permissions)} permissions, {len(catalog.operations)} operations, no fault"
    )


@catalogs.command("from-openapi")
def from_openapi(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="OpenAPI 3 in JSON or YAML; `-` is standard input")],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="the catalog's; by the title when left out")] = None,
) -> None:
    """Draft a catalog, for you to edit: what the document does not say is left open and marked. Asks no service."""
    from authz_service.catalog.drafting import draft_catalog
    from authz_service.catalog.openapi import read_openapi

    api = read_openapi(_read_text(file), file=str(file))
    text = draft_catalog(api, name=name, source="an OpenAPI document" if file == STDIN else file.name)
    typer.echo(text, nl=False)
    left_out = text.count("\n# left out: ")
    print_note(f"{len(api.calls)} calls; decide names, boundaries and targets before you install it")
    if left_out:
        print_note(f"{left_out} of them could not be taken over: see the end of the draft")


@catalogs.command("schema")
def schema(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="`gitlab`, or `gitlab@1`")] = None,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="the API's GraphQL schema: SDL, or an introspection's answer")
    ] = None,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Install an API's GraphQL schema beside its catalog; without FILE show which one counts.

    Without NAME it shows the JSON Schema of catalog files, for an editor, and asks no service.
    """
    if name is None:
        from authz_service.catalog.schema import json_schema

        print_json(json_schema())
        return
    path = f"{_path(name)}/graphql-schema"
    if file is None:
        call = Call("GET", path)
    else:
        call = Call("PUT", path, _read_text(file).encode(), content_type="application/graphql")
    with connect(url, token_file, timeout=_SECONDS) as client:
        found = client.document(call)
    if output is Output.JSON:
        print_json(found)
        return
    what = "is installed" if found["new"] else "counts"
    print_note(f"{found['catalog']}: schema {found['number']} {what}: {found['types']} types, {found['fields']} fields")
    for operation in found["unknown"]:
        print_note(f"it has nothing for `{operation}`")
    if not found.get("defaults_known", True):
        print_note("it was installed before defaults of arguments were kept, and none counts: install it again")


def _read_text(file: Path) -> str:
    try:
        return read_bytes(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageFault(f"`{file}` is no text in UTF-8") from error


# what there is


@catalogs.command("list")
def list_catalogs(url: Url = None, token_file: TokenFile = None, output: OutputKind = Output.TABLE) -> None:
    """List the catalogs."""
    with connect(url, token_file) as client:
        found = list(pages(client, "/v1/catalogs", {}))
    if output is Output.JSON:
        print_json(found)
        return
    columns = ("name", "title", "versions", "permissions", "operations", "owner_check")
    rows = [[cell(one.get(key)) for key in columns] for one in found]
    print_table([column.replace("_", " ") for column in columns], rows)


@catalogs.command("show")
def show_catalog(name: Name, url: Url = None, token_file: TokenFile = None, output: OutputKind = Output.TABLE) -> None:
    """Show one catalog's permissions."""
    with connect(url, token_file) as client:
        found = client.document(Call("GET", _path(name)))
    if output is Output.JSON:
        print_json(found)
        return
    reports.print_permissions(found["categories"])


@catalogs.command("search")
def search(
    name: Name,
    words: Annotated[str, typer.Argument(metavar="TEXT", help="in names, paths and descriptions, without case")],
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Find permissions and operations of a catalog."""
    with connect(url, token_file) as client:
        found = client.document(Call("GET", _path(name)))
        operations = list(pages(client, f"{_path(name)}/operations", {"q": words}))
    categories = reports.matching(found["categories"], words)
    if output is Output.JSON:
        permissions = [one for category in categories for one in category["permissions"]]
        print_json({"permissions": permissions, "operations": operations})
        return
    reports.print_found(categories, operations)


@catalogs.command("coverage")
def coverage(name: Name, url: Url = None, token_file: TokenFile = None, output: OutputKind = Output.TABLE) -> None:
    """Count what a catalog covers: which operations can be decided, and from what."""
    with connect(url, token_file) as client:
        found = client.document(Call("GET", f"{_path(name)}/coverage"))
    if output is Output.JSON:
        print_json(found)
        return
    reports.print_coverage(found)


@catalogs.command("needs")
def needs(
    name: Name,
    call: Annotated[
        list[str], typer.Argument(metavar="METHOD PATH | OPERATION", help="`GET /api/v4/projects/7`, or an id")
    ],
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Say what a call needs: its path as a client sends it, or an operation's id, as `Mutation.createIssue`."""
    match [word for part in call for word in part.split()]:
        case [operation]:
            wanted = {"operation": operation}
        case [method, path]:
            wanted = {"method": method, "path": path}
        case _:
            raise UsageFault("write a method and a path, as `GET /api/v4/projects/7`, or an operation's id")
    with connect(url, token_file) as client:
        found = client.document(Call("GET", f"{_path(name)}/needs", params=wanted))
    if output is Output.JSON:
        print_json(found)
        return
    reports.print_need(found)


@catalogs.command("unlocks")
def unlocks(
    name: Name,
    permission: Annotated[str, typer.Argument(metavar="RESOURCE:ACTION")],
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Say which calls a permission unlocks, by itself or beside others."""
    path = f"{_path(name)}/permissions/{quote(permission, safe=':')}/operations"
    with connect(url, token_file) as client:
        found = list(pages(client, path, {}))
    if output is Output.JSON:
        print_json(found)
        return
    reports.print_unlocked(found)


# versions of one's own


@catalogs.command("install")
def install(file: File, url: Url = None, token_file: TokenFile = None, output: OutputKind = Output.TABLE) -> None:
    """Install a version of a catalog, for good. Tokens stay with the version that they were made under."""
    body = msgspec.json.encode({"text": _read_text(file), "file": file.name or "stdin"})
    with connect(url, token_file, timeout=_SECONDS) as client:
        done = client.document(Call("POST", "/v1/catalogs", body))
    if output is Output.JSON:
        print_json(done)
        return
    what = "is installed" if done["new"] else "was installed before, and nothing changed"
    print_note(f"{done['catalog']} {what}: {done['permissions']} permissions, {done['operations']} operations")


@catalogs.command("compare")
def compare(
    what: Annotated[
        str, typer.Argument(metavar="FILE | NAME@VERSION", help="a file not installed yet, or a version that is there")
    ],
    base: Annotated[
        str | None, typer.Option("--with", metavar="NAME@VERSION", help="in place of the newest version before it")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="exit status 1 when a live token is touched")] = False,
    every: Annotated[bool, typer.Option("--all", help="all lines, however many")] = False,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Say what a version changes, and which live tokens it would break or widen. Installs nothing."""
    name, body = _compared(what)
    with connect(url, token_file, timeout=_SECONDS) as client:
        found = _whole_report(client, f"{_path(base or name)}/compare", body)
    if output is Output.JSON:
        print_json(found)
    else:
        reports.print_comparison(found, every=every)
    touched = found["counts"]["broken"] or found["counts"]["widened"]
    raise typer.Exit(exits.DENIED if strict and touched else exits.OK)


def _compared(what: str) -> tuple[str, dict[str, Any]]:
    """The catalog's name, and what to send: a version where the text reads like one, else a file's text."""
    name, at, version = what.partition("@")
    if at and version.isascii() and version.isdigit() and not Path(what).exists():
        return name, {"version": int(version)}
    from authz_service.catalog.loader import load_catalog

    text = _read_text(Path(what))
    return load_catalog(text, file=what).name, {"text": text, "file": Path(what).name or "stdin"}


@catalogs.command("upgrade")
def upgrade(
    name: Annotated[str, typer.Argument(metavar="NAME", help="a catalog's name, without a version")],
    to: Annotated[int, typer.Option("--to", metavar="VERSION", min=1, help="the version that tokens go to")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would happen, and move nothing")] = False,
    allow_new_calls: Annotated[
        bool, typer.Option("--allow-new-calls", help="also tokens that gain calls which their version does not know")
    ] = False,
    allow_widening: Annotated[
        bool, typer.Option("--allow-widening", help="also tokens that gain anything else")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="all lines, however many")] = False,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Move live tokens of older versions to a newer one. Refuses those that would gain anything, and names them.

    Exit status 1 when a token was refused.
    """
    allow = "widening" if allow_widening else "new_calls" if allow_new_calls else "nothing"
    body = {"to": to, "dry_run": dry_run, "allow": allow}
    with connect(url, token_file, timeout=_SECONDS) as client:
        path = f"{_path(name)}/upgrade"
        if dry_run:
            found = _whole_report(client, path, body)
        else:
            found = client.document(Call("POST", path, msgspec.json.encode(body), {"limit": str(_PAGE)}))
    if output is Output.JSON:
        print_json(found)
    else:
        reports.print_upgrade(found, every=every)
    raise typer.Exit(exits.DENIED if found["counts"]["refused"] else exits.OK)


def _whole_report(client: Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The report with all its pages: never silently cut."""
    params = {"limit": str(_PAGE)}
    sent = msgspec.json.encode(body)
    report: dict[str, Any] = client.document(Call("POST", path, sent, params))
    items = list(report["items"])
    while report["next_cursor"]:
        report = client.document(Call("POST", path, sent, {**params, "cursor": report["next_cursor"]}))
        items += report["items"]
    return {**report, "items": items}


def _path(name: str) -> str:
    return f"/v1/catalogs/{quote(name, safe='@')}"
