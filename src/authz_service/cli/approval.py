"""`policy`, `grant`: what tokens may be at a group, what they ask of it and what it granted."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from authz_service.cli import exits
from authz_service.cli.asking import connect
from authz_service.cli.manage import cell, pages, read_json
from authz_service.cli.options import OutputKind, TokenFile, Url
from authz_service.cli.printing import Output, UsageFault, print_json, print_note, print_table
from authz_service.client import Client, RefusedError
from authz_service.client.wire import Call

policies: Final = typer.Typer(help="What tokens may be at a group, or everywhere.", no_args_is_help=True)
grants: Final = typer.Typer(help="What tokens ask of a group, and what it granted.", no_args_is_help=True)
_LOOSENS: Final = "policy_loosens"

Node = Annotated[str, typer.Argument(metavar="NODE", help="`group:acme`, or `instance`")]
CatalogOption = Annotated[str | None, typer.Option("--catalog", metavar="NAME", help="of this catalog alone")]
Numbers = Annotated[list[int], typer.Argument(metavar="NUMBER...", help="1 to 100 numbers, as the lists show them")]
Reason = Annotated[str, typer.Option(help="why, for whoever asked")]


@policies.command("show")
def show_policy(
    node: Node,
    catalog: CatalogOption = None,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Show what is in force at a place, and whose policy says so."""
    params = {"node": node} | ({} if catalog is None else {"catalog": catalog})
    with connect(url, token_file) as client:
        found = client.document(Call("GET", "/v1/policies", params=params))
    if output is Output.JSON:
        print_json(found)
        return
    rows = [
        (one["catalog"], setting, cell(value["value"]), cell(value["by"]))
        for one in found["policies"]
        for setting, value in one["in_force"].items()
    ]
    print_table(("catalog", "setting", "value", "by"), rows)


@policies.command("set")
def set_policy(
    node: Node,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="the policy as JSON; `-` is standard input")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="change nothing; name the tokens it would turn")] = False,
    grandfather: Annotated[
        bool,
        typer.Option("--grandfather/--no-grandfather", help="live tokens keep what they hold where approval begins"),
    ] = True,
    allow_loosening: Annotated[
        bool, typer.Option("--allow-loosening", help="take a file that says less strictly what the place says now")
    ] = False,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Set a policy: the file replaces the whole of it. One that names a catalog and nothing else takes it away."""
    said = read_json(file)
    params = {
        "node": node,
        "dry_run": str(dry_run).lower(),
        "grandfather": str(grandfather).lower(),
        "allow_loosening": str(allow_loosening).lower(),
    }
    with connect(url, token_file) as client:
        read = None if dry_run else _tag_of(client, node, said)
        try:
            done = client.document(Call("PUT", "/v1/policies", msgspec.json.encode(said), params, if_match=read))
        except RefusedError as error:
            if any(fault.code == _LOOSENS for fault in error.faults):
                print_note("a file replaces the whole policy: complete it, or say `--allow-loosening` if that is meant")
            raise
    if output is Output.JSON:
        print_json(done)
        return
    for one in done["looser"]:
        print_note(f"looser: {one['setting']}, from {_said(one['before'])} to {_said(one['after'])}")
    if not dry_run:
        print_note(f"set; {done['grants_carried_over']} grants were carried over")
        return
    stop, start = done["would_stop_count"], done["would_start_count"]
    print_note(f"{stop} live tokens would stop, {start} would start to work; nothing was changed")
    turned = [("stops", one) for one in done["would_stop"]] + [("starts", one) for one in done["would_start"]]
    rows = [(one["id"], one["name"], one["owner"], what, one["reason"], one["node"]) for what, one in turned]
    print_table(("id", "name", "owner", "then", "reason", "where"), rows)


def _tag_of(client: Client, node: str, said: Any) -> str | None:
    """The tag of what is there now; None for whoever may set a policy and not read one."""
    named = said.get("catalog") if isinstance(said, dict) else None
    params = {"node": node} | ({"catalog": named} if isinstance(named, str) else {})
    try:
        found = client.document(Call("GET", "/v1/policies", params=params))
    except RefusedError as error:
        if error.status == HTTPStatus.FORBIDDEN:
            return None
        raise
    tag: str | None = found["policies"][0]["etag"] if named else None
    return tag


def _said(value: Any) -> str:
    return "nothing" if value is None else msgspec.json.encode(value).decode()


@grants.command("requests")
def list_requests(
    node: Annotated[str | None, typer.Option(help="a group with all below it")] = None,
    state: Annotated[str | None, typer.Option(help="pending, approved, denied or cancelled")] = None,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """List what was asked, newest first."""
    with connect(url, token_file) as client:
        _print(pages(client, "/v1/grant-requests", {"node": node, "state": state}), "asked", output)


@grants.command("list")
def list_grants(
    node: Annotated[str | None, typer.Option(help="a group with all below it")] = None,
    state: Annotated[str | None, typer.Option(help="active or revoked")] = None,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """List what was granted, newest first."""
    with connect(url, token_file) as client:
        _print(pages(client, "/v1/grants", {"node": node, "state": state}), "granted", output)


def _print(items: Iterator[dict[str, Any]], what: str, output: Output) -> None:
    found = list(items)
    if output is Output.JSON:
        print_json(found)
        return
    rows = [
        (one["id"], one["state"], one["node"], one["token"]["name"], one["token"]["owner"], _pairs(one[what]))
        for one in found
    ]
    print_table(("number", "state", "group", "token", "owner", what), rows)


def _pairs(places: list[dict[str, Any]]) -> str:
    return "; ".join(f"{', '.join(one['permissions'])} on {one['node']}" for one in places)


@grants.command("approve")
def approve(
    numbers: Numbers,
    permission: Annotated[list[str] | None, typer.Option(help="of one request: these alone")] = None,
    node: Annotated[list[str] | None, typer.Option(help="of one request: on these places alone")] = None,
    reason: Reason = "",
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Approve requests, or a part of one."""
    if not permission and not node:
        _act("/v1/grant-requests", numbers, {"action": "approve", "reason": reason}, (url, token_file), output)
        return
    if len(numbers) != 1:
        raise UsageFault("`--permission` and `--node` approve a part of one request: give one number")
    body = {"action": "approve", "reason": reason, "permissions": permission or None, "nodes": node or None}
    given = msgspec.json.encode({key: value for key, value in body.items() if value is not None})
    with connect(url, token_file) as client:
        done = client.document(Call("POST", f"/v1/grant-requests/{numbers[0]}", given))
    if output is Output.JSON:
        print_json(done)
    else:
        print_note(f"request {done['id']} is approved for {_pairs(done['given'])}")


@grants.command("deny")
def deny(
    numbers: Numbers,
    reason: Reason = "",
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Deny requests."""
    _act("/v1/grant-requests", numbers, {"action": "deny", "reason": reason}, (url, token_file), output)


@grants.command("revoke")
def revoke(
    numbers: Numbers,
    reason: Reason = "",
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """End grants; the tokens live on elsewhere."""
    _act("/v1/grants", numbers, {"reason": reason}, (url, token_file), output)


def _act(
    path: str, numbers: list[int], said: dict[str, Any], where: tuple[str | None, Path | None], output: Output
) -> None:
    """Exit status 1 where one of them could not be done."""
    with connect(*where) as client:
        done = client.document(Call("POST", path, msgspec.json.encode({"ids": numbers, **said})))
    if output is Output.JSON:
        print_json(done)
    else:
        rows = [
            (one["id"], one["problem"]["detail"] if one["done"] is None else one["done"]["state"])
            for one in done["results"]
        ]
        print_table(("number", "what became of it"), rows)
        for one in done["results"]:
            if one["done"] is not None and one["done"].get("still_granted"):
                still = _pairs(one["done"]["still_granted"])
                print_note(f"request {one['id']}: a grant still allows {still}; revoke it to end that")
    if any(one["done"] is None for one in done["results"]):
        raise typer.Exit(exits.DENIED)
