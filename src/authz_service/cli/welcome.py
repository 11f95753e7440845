"""What `authz dev` says once it answers: two questions to paste, and what to change in them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from authz_service.cli.demo.seed import ADMIN, SAMPLE_OWNER, SAMPLE_TARGET, SHOP, DemoTokens


def text(url: str, tokens: DemoTokens, data: Path, sign_in_url: str) -> str:
    """Everything that stands after a `$` works when it is pasted into a shell."""
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

  {sign_in_url}

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


def exports(url: str, tokens: DemoTokens) -> str:
    """Lines for a shell: where it answers, and the demo's tokens by what each is for. They hold secrets."""
    values = {
        "AUTHZ_URL": url,
        "AUTHZ_TOKEN": tokens.admin,
        "ADMIN": tokens.admin,
        "GATEWAY": tokens.gateway,
        "TOKEN": tokens.sample,
        "TILL": tokens.orders,
    }
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())


def _sourced(path: Path) -> str:
    """A shell looks for a name without a slash among its programs."""
    return shlex.quote(str(path) if path.is_absolute() or len(path.parts) > 1 else f"./{path}")


def _curl(url: str, caller: str, question: dict[str, str]) -> str:
    body = shlex.quote(json.dumps(question))
    return f"  curl -s {url}/check -H 'Authorization: Bearer {caller}' \\\n    -d {body}"
