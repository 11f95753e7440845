"""What `authz dev` says once it answers: two questions to paste, and what to change in them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authz_service.cli.demo.seed import ADMIN, SAMPLE_OWNER, SAMPLE_TARGET, SHOP, DemoTokens

OTHERS: Final = {SAMPLE_OWNER: "a developer, whose token the first question is about", "priya": "who owns `bakery`"}
"""Whom the console may be seen as besides the admin."""
OWN_DATABASE: Final = "AUTHZ_OWN_DATABASE"
"""The variable by which `authz dev` knows a database that it started itself, in whichever folder, for another's."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What commands that ask the database need. `own` is a server that `authz dev` started itself."""

    database_url: str
    peppers_file: Path | None
    own: bool


def text(url: str, tokens: DemoTokens, data: Path, links: Mapping[str, str]) -> str:
    """Everything that stands after a `$` works when it is pasted into a shell."""
    others = "\n".join(f"  `{name}`, {who}:\n  {links[name]}" for name, who in OTHERS.items())
    gitlab = _curl(
        url,
        tokens.gateway,
        {"token": tokens.sample, "catalog": "gitlab", "resource": "job", "action": "read", "target": SAMPLE_TARGET},
    )
    orders = _curl(
        url,
        tokens.gateway,
        {"token": tokens.orders, "catalog": "orders", "resource": "order", "action": "create", "target": SHOP},
    )
    return f"""
authz-service answers at {url}

The console, in a browser (this link signs you in once, as `{ADMIN}`):

  {links[ADMIN]}

And as others, each once, in a window of its own:

{others}

May {SAMPLE_OWNER}'s token read the jobs of {SAMPLE_TARGET}?

{gitlab}

It may: "allow". Write `run` in place of `read`: "deny", and what the token lacks.

An API of your own needs no more than a catalog. May the till of a shop create an order?

{orders}

It may. Write `cancel` in place of `create`, or another shop, and it may not.

Secrets are kept in {data / "tokens.json"}; Ctrl-C stops everything, and the next start goes on from here.
To manage, and to try what the documentation shows, in another terminal in this folder:

  . {_sourced(data / "env")}
  authz token list
"""


def exports(url: str, tokens: DemoTokens, database: Exported) -> str:
    """Lines for a shell: where it answers, the demo's tokens by what each is for, its database. They hold secrets."""
    values = {
        "AUTHZ_URL": url,
        "AUTHZ_TOKEN": tokens.admin,
        "ADMIN": tokens.admin,
        "GATEWAY": tokens.gateway,
        "TOKEN": tokens.sample,
        "TILL": tokens.orders,
        "AUTHZ_DATABASE_URL": database.database_url,
    }
    if database.peppers_file is not None:
        values["AUTHZ_PEPPERS_FILE"] = str(database.peppers_file.resolve())
    if database.own:
        values[OWN_DATABASE] = database.database_url
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())


def _sourced(path: Path) -> str:
    """A shell looks for a name without a slash among its programs."""
    return shlex.quote(str(path) if path.is_absolute() or len(path.parts) > 1 else f"./{path}")


def _curl(url: str, caller: str, question: dict[str, str]) -> str:
    body = shlex.quote(json.dumps(question))
    return f"  curl -s {url}/check -H 'Authorization: Bearer {caller}' \\\n    -d {body}"
