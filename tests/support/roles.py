"""What each role gets of each operation of the OpenAPI document: the table, for questions about what is not theirs.

A role is a real token; that of `foreign` belongs to somebody who is known upstream alone (C9). Letters: `+` it may be
let in (whatever the status says of the question), `-` it is told that it may not (403) or that there is nothing (404),
`?` either, by what exactly is asked. Faults of the request itself (400, 409, 412, 413, 428) are for those alone who are
let in, or by `?`.
"""

from __future__ import annotations

from typing import Final

ROLES: Final = ("admin", "owner", "developer", "gateway", "nothing", "foreign")
_ALL: Final = "++++++"

TABLE: Final[dict[str, str]] = {
    # decisions: for whoever holds `decision:evaluate`
    "POST /check": "+--+--",
    "POST /check/http": "+--+--",
    "POST /check/batch": "+--+--",
    "POST /check/graphql": "+--+--",
    "POST /access/v1/evaluation": "+--+--",
    "POST /access/v1/evaluations": "+--+--",
    "POST /access/v1/search/subject": "+--+--",
    "POST /access/v1/search/resource": "+--+--",
    "POST /access/v1/search/action": "+--+--",
    "POST /oauth/introspect": "+--+--",
    # what everybody may, with a token or without
    "GET /.well-known/authzen-configuration": _ALL,
    "POST /oauth/revoke": _ALL,
    "GET /gateway/forward/{family}": "??????",
    "GET /gateway/envoy/{path}": "??????",
    "POST /v1/token-exchange": _ALL,
    "POST /v1/leaks": _ALL,
    "POST /v1/leaks/report": _ALL,
    "GET /livez": _ALL,
    "GET /readyz": _ALL,
    "GET /metrics": _ALL,
    "GET /v1/templates": _ALL,
    # about oneself, by rule M4
    "GET /v1/self": _ALL,
    "GET /v1/self/effective": _ALL,
    "POST /v1/self/check": _ALL,
    "POST /v1/self/check/batch": _ALL,
    # by the hundred: 200, and each by itself is refused
    "POST /v1/grant-requests": "++????",
    "POST /v1/grants": "++????",
    # what only an admin may
    "POST /v1/tokens/import": "+-----",
    "POST /v1/directory/import": "+-----",
    "POST /v1/catalogs": "+-----",
    "PUT /v1/catalogs/{name}/graphql-schema": "+-----",
    "POST /v1/catalogs/{name}/upgrade": "+-----",
}
"""Of every other operation: an admin may be let in, an owner of groups too, and who holds nothing of management not."""
OTHERS: Final = "++?---"
UNKNOWN: Final = {
    "POST /oauth/revoke": (200, 400, 401, 413),
    "GET /gateway/forward/{family}": (401, 403),
    "GET /gateway/envoy/{path}": (401, 403),
}
"""What somebody without a token that counts gets where it is not a 401: a secret is its own right to be revoked, and a
gateway that is not known learns nothing of its client."""
SPENT: Final = frozenset({"DELETE /v1/self", "POST /v1/self/rotate"})
"""They end the token that asks; what they answer to whom is told by tests of their own."""


def expected(label: str, role: str) -> str:
    return TABLE.get(label, OTHERS)[ROLES.index(role)]
