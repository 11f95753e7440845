"""`webhook`: who is told what, kept from the command line."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
import typer

from authz_service.cli.asking import connect
from authz_service.cli.manage import cell, pages
from authz_service.cli.options import OutputKind, TokenFile, Url
from authz_service.cli.printing import Output, print_json, print_note, print_table
from authz_service.client.wire import Call

webhooks: Final = typer.Typer(help="Who is told what happens, by signed requests.", no_args_is_help=True)

_WEBHOOKS: Final = "/v1/webhooks"
_COLUMNS: Final = ("id", "node", "name", "url", "events", "active")
_DELIVERY_COLUMNS: Final = ("id", "kind", "state", "attempts", "created_at", "ended_at")

WebhookId = Annotated[str, typer.Argument(metavar="ID", help="the webhook, `whk_…`")]


@webhooks.command("create")
def create_webhook(
    receiver: Annotated[str, typer.Argument(metavar="RECEIVER", help="`https://hooks.example.com/authz`")],
    node: Annotated[
        str, typer.Option(metavar="TARGET", help="where it listens: `instance`, or `group:acme` with all below it")
    ] = "instance",
    event: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="as `token.leaked`; may come several times; all by default")
    ] = None,
    name: Annotated[str, typer.Option(help="what it is for")] = "",
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Add a webhook. The secret that signs what it is sent is shown this one time."""
    body = {"url": receiver, "node": node, "name": name, "events": event or []}
    with connect(url, token_file) as client:
        made = client.document(Call("POST", _WEBHOOKS, msgspec.json.encode(body)))
    if output is Output.JSON:
        print_json(made)
        return
    print_note(f"webhook {made['id']} is made; its secret is shown this one time:")
    print(made["secret"])


@webhooks.command("list")
def list_webhooks(
    node: Annotated[
        str | None, typer.Option(metavar="TARGET", help="those at this group or below it; without it all there are")
    ] = None,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """List webhooks, all of them. Owners of a group name it with `--node`."""
    with connect(url, token_file) as client:
        found = list(pages(client, _WEBHOOKS, {"node": node}))
    _print(found, _COLUMNS, output)


@webhooks.command("delete")
def delete_webhook(webhook_id: WebhookId, url: Url = None, token_file: TokenFile = None) -> None:
    """Remove a webhook, with what waits to be delivered and the record of what was."""
    with connect(url, token_file) as client:
        client.document(Call("DELETE", _path(webhook_id)))
    print_note(f"webhook {webhook_id} is removed")


@webhooks.command("test")
def send_test(
    webhook_id: WebhookId, url: Url = None, token_file: TokenFile = None, output: OutputKind = Output.TABLE
) -> None:
    """Send it an event `webhook.tested`; `webhook deliveries` shows what became of it."""
    with connect(url, token_file) as client:
        sent = client.document(Call("POST", f"{_path(webhook_id)}/test", b"{}"))
    if output is Output.JSON:
        print_json(sent)
        return
    print_note(f"delivery {sent['id']} is on its way; `authz webhook deliveries {webhook_id}` shows what became of it")


@webhooks.command("deliveries")
def list_deliveries(
    webhook_id: WebhookId,
    state: Annotated[str | None, typer.Option(help="only those that are waiting, delivered or failed")] = None,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """What was sent in the last 30 days, newest first."""
    with connect(url, token_file) as client:
        found = list(pages(client, f"{_path(webhook_id)}/deliveries", {"state": state}))
    _print(found, _DELIVERY_COLUMNS, output)


def _print(found: list[dict[str, Any]], columns: tuple[str, ...], output: Output) -> None:
    if output is Output.JSON:
        print_json(found)
        return
    heads = [column.replace("_", " ") for column in columns]
    print_table(heads, [[cell(one.get(key)) for key in columns] for one in found])


def _path(webhook_id: str) -> str:
    return f"{_WEBHOOKS}/{quote(webhook_id, safe='')}"
