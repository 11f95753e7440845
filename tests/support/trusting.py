"""Trust rules as tests make them, and exchanges by them."""

from __future__ import annotations

import httpx
from tests.support.issuer import AUDIENCE, Issuer
from tests.support.managing import Stage, scope

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"


async def keeper(stage: Stage) -> str:
    """The secret of the group's owner: may issue for the group's bot what she holds herself."""
    authz = await stage.scope_at("authz", ["group:acme"], "token:create", "token:read")
    return (await stage.give("olga", authz, await stage.scope_at("gitlab", ["group:acme"], "job:read", "job:run")))[1]


async def admin(stage: Stage) -> str:
    """The secret of who may issue anywhere: exchanges need not name the rules made by it."""
    return (await stage.give("root", scope("authz", "instance", "token:create", "token:create_any")))[1]


def wanted(issuer: Issuer, /, **given) -> dict:
    usual = {
        "node": "group:acme",
        "name": "deploy",
        "issuer": issuer.url,
        "audience": AUDIENCE,
        "claims": {"project_path": "acme/web", "ref": {"like": "ma*"}},
        "owner": "bot",
        "catalog": "gitlab@1",
        "scopes": [{"reach": {"kind": "selected", "nodes": ["project:acme/web"]}, "permissions": ["job:read"]}],
        "lifetime_seconds": 600,
    }
    return {name: value for name, value in (usual | given).items() if value is not None}


async def rule(stage: Stage, issuer: Issuer, secret: str | None = None, /, **given) -> dict:
    """Made by the group's owner unless another's secret is given: then exchanges have to name it."""
    answer = await stage.call("POST", "/v1/trust-rules", secret or await keeper(stage), wanted(issuer, **given))
    assert answer.status_code == 201, answer.text
    return answer.json()


async def exchange(stage: Stage, token: str, **given) -> httpx.Response:
    fields = {"grant_type": GRANT, "subject_token": token, "subject_token_type": JWT} | given
    return await stage.client.post("/v1/token-exchange", data=fields)
