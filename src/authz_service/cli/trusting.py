"""`trust-rule`: which CI jobs get which tokens without a stored secret, kept from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
import typer

from authz_service.cli.asking import connect
from authz_service.cli.manage import cell, pages, read_json
from authz_service.cli.options import OutputKind, TokenFile, Url
from authz_service.cli.printing import Output, UsageFault, print_json, print_note, print_table
from authz_service.client import Client
from authz_service.client.wire import Call

rules: Final = typer.Typer(help="Which CI jobs get which tokens, without a stored secret.", no_args_is_help=True)

_RULES: Final = "/v1/trust-rules"
_COLUMNS: Final = ("id", "node", "name", "issuer", "claims", "owner", "catalog", "lifetime_seconds", "made_by_token")

RuleId = Annotated[str, typer.Argument(metavar="ID", help="the rule, `tru_…`")]
File = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="as JSON, in place of the options; `-` is standard input")
]
Name = Annotated[str | None, typer.Option(help="what it is for; its tokens are called by it")]
Issuer = Annotated[str | None, typer.Option(metavar="URL", help="as the jobs' tokens say it: `https://gitlab.com`")]
Audience = Annotated[str | None, typer.Option(help="as the jobs' tokens say it: a name of your service's own")]
Claim = Annotated[
    list[str] | None, typer.Option(metavar="NAME=TEXT", help="a claim that is this very text; may come several times")
]
ClaimLike = Annotated[
    list[str] | None, typer.Option(metavar="NAME=PATTERN", help="a claim like this, where `*` stands for all but `/`")
]
Owner = Annotated[str | None, typer.Option(help="the service account that acts")]
Catalog = Annotated[str | None, typer.Option(metavar="NAME", help="the API's catalog, as `gitlab`")]
Permission = Annotated[
    list[str] | None, typer.Option(metavar="RESOURCE:ACTION", help="a permission; may come several times")
]
Node = Annotated[
    list[str] | None, typer.Option(metavar="TARGET", help="where it holds: `project:acme/web`; may come several times")
]
Lifetime = Annotated[int | None, typer.Option(metavar="SECONDS", help="of a token, 60 to 3600")]
Keys = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="the issuer's public keys (a JWK set); then nobody is asked for them"),
]


@rules.command("create")
def create_rule(
    group: Annotated[str | None, typer.Option(metavar="TARGET", help="the group that keeps it, `group:acme`")] = None,
    name: Name = None,
    issuer: Issuer = None,
    audience: Audience = None,
    claim: Claim = None,
    claim_like: ClaimLike = None,
    owner: Owner = None,
    catalog: Catalog = None,
    permission: Permission = None,
    node: Node = None,
    lifetime: Lifetime = None,
    keys_file: Keys = None,
    file: File = None,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Trust a CI system's jobs. The rule lives by the token in AUTHZ_TOKEN, and ends with it."""
    if file is not None:
        body = _read_object(file)
    else:
        body = _said(name, issuer, audience, claim, claim_like, owner, catalog, permission, node, lifetime, keys_file)
        body |= {} if group is None else {"node": group}
        needed = {"node": "--group", "name": "--name", "issuer": "--issuer", "audience": "--audience"}
        needed |= {"claims": "--claim", "owner": "--owner", "catalog": "--catalog", "scopes": "--permission"}
        lacking = [option for field, option in needed.items() if field not in body]
        if lacking:
            raise UsageFault(f"say {', '.join(f'`{option}`' for option in lacking)}, or give it all with `--file`")
    with connect(url, token_file) as client:
        made = client.document(Call("POST", _RULES, msgspec.json.encode(body)))
    _tell(made, output, f"trust rule {made['id']} is made")


@rules.command("list")
def list_rules(
    group: Annotated[
        str | None, typer.Argument(metavar="GROUP", help="the group that keeps them, `group:acme`; without it all")
    ] = None,
    below: Annotated[bool, typer.Option("--below", help="also those of groups under it")] = False,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """List the rules of one group, or with all groups below it; for an admin without a group all there are."""
    with connect(url, token_file) as client:
        found = list(pages(client, _RULES, {"node": group, "below": "true" if below else None}))
    if output is Output.JSON:
        print_json(found)
        return
    heads = [column.replace("_", " ") for column in _COLUMNS]
    print_table(heads, [[cell(one.get(key)) for key in _COLUMNS] for one in found])


@rules.command("show")
def show_rule(
    rule_id: RuleId, url: Url = None, token_file: TokenFile = None, output: OutputKind = Output.TABLE
) -> None:
    """Show one rule."""
    with connect(url, token_file) as client:
        _tell(_show(client, rule_id), output)


@rules.command("edit")
def edit_rule(
    rule_id: RuleId,
    name: Name = None,
    issuer: Issuer = None,
    audience: Audience = None,
    claim: Claim = None,
    claim_like: ClaimLike = None,
    owner: Owner = None,
    catalog: Catalog = None,
    permission: Permission = None,
    node: Node = None,
    lifetime: Lifetime = None,
    keys_file: Keys = None,
    ask_issuer: Annotated[bool, typer.Option("--ask-issuer", help="drop pinned keys: the issuer is asked")] = False,
    file: File = None,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Change what is said, and leave the rest. Claims and permissions that are said replace all there were.

    The rule lives by the token in AUTHZ_TOKEN from then on. Unless only its name or lifetime change, what it gave
    before is revoked.
    """
    with connect(url, token_file) as client:
        known = _show(client, rule_id)
        if file is not None:
            body = _read_object(file)
        else:
            # Said alone, either half of a scope keeps the other.
            scopes = known["scopes"]
            if (permission is None) != (node is None) and len(scopes) == 1:
                permission = permission or scopes[0]["permissions"]
                node = node or scopes[0]["reach"]["nodes"]
            body = _said(
                name, issuer, audience, claim, claim_like, owner, catalog, permission, node, lifetime, keys_file
            )
            body |= {"keys": None} if ask_issuer else {}
        if not body:
            raise UsageFault("say what to change, as `--claim ref=main`, or give it with `--file`")
        call = Call("PATCH", _path(rule_id), msgspec.json.encode(body), if_match=known["etag"])
        _tell(client.document(call), output, f"trust rule {rule_id} is changed")


@rules.command("delete")
def delete_rule(rule_id: RuleId, url: Url = None, token_file: TokenFile = None) -> None:
    """Remove a rule, and revoke what it gave."""
    with connect(url, token_file) as client:
        client.document(Call("DELETE", _path(rule_id)))
    print_note(f"trust rule {rule_id} is removed, and what it gave is revoked")


def _said(
    name: str | None,
    issuer: str | None,
    audience: str | None,
    claim: Sequence[str] | None,
    claim_like: Sequence[str] | None,
    owner: str | None,
    catalog: str | None,
    permission: Sequence[str] | None,
    node: Sequence[str] | None,
    lifetime: int | None,
    keys_file: Path | None,
) -> dict[str, Any]:
    """A request with what the options say, and nothing else. Raises UsageFault."""
    claims: dict[str, Any] = {}
    for one, like in [*((one, False) for one in claim or ()), *((one, True) for one in claim_like or ())]:
        key, value = _pair(one)
        if key in claims:
            raise UsageFault(f"the claim `{key}` is said twice")
        claims[key] = {"like": value} if like else value
    if bool(permission) != bool(node):
        raise UsageFault("say both `--permission` and `--node`, or give the scopes with `--file`")
    scopes = [{"reach": {"kind": "selected", "nodes": list(node or ())}, "permissions": list(permission or ())}]
    body = {
        "name": name,
        "issuer": issuer,
        "audience": audience,
        "claims": claims or None,
        "owner": owner,
        "catalog": catalog,
        "scopes": scopes if permission else None,
        "lifetime_seconds": lifetime,
        "keys": None if keys_file is None else _read_object(keys_file),
    }
    return {key: value for key, value in body.items() if value is not None}


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise UsageFault(f"`{text}` is no claim; write it as `ref=main`")
    return name, value


def _read_object(file: Path) -> dict[str, Any]:
    found = read_json(file)
    if not isinstance(found, dict):
        raise UsageFault(f"`{file}` holds no JSON object")
    return found


def _path(rule_id: str) -> str:
    return f"{_RULES}/{quote(rule_id, safe='')}"


def _show(client: Client, rule_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.document(Call("GET", _path(rule_id)))
    return found


def _tell(rule: dict[str, Any], output: Output, note: str | None = None) -> None:
    if output is Output.JSON:
        print_json(rule)
        return
    if note is not None:
        print_note(note)
    print_table(("", ""), [(key.replace("_", " "), cell(value)) for key, value in rule.items() if value is not None])
