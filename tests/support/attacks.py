"""What an attacker tries against somebody else's things, and the same against things that are not there.

Whoever may see nothing gets one answer for both: what differs tells of the thing, and what changes the database got in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from sqlalchemy import text
from tests.support.managing import COMPANY, Stage, scope

from authz_service.tokens.secret import new_secret, new_token_id

HIDDEN: Final[Sequence[Mapping[str, Any]]] = (
    *COMPANY,
    {"type": "user", "username": "mallory", "external_id": "66"},
    {"type": "group", "path": "rival", "external_id": "69", "visibility": "private"},
    {"type": "project", "path": "rival/den", "external_id": "70", "visibility": "private"},
    {"type": "user", "username": "puppet", "external_id": "67", "service_account": True, "home": "rival"},
    {"type": "user", "username": "keeper", "external_id": "68", "service_account": True, "home": "hidden"},
    {"type": "membership", "user": "mallory", "node": "rival", "role": "owner"},
    {"type": "membership", "user": "puppet", "node": "rival", "role": "maintainer"},
    {"type": "membership", "user": "olga", "node": "hidden", "role": "owner"},
    {"type": "membership", "user": "dana", "node": "hidden", "role": "developer"},
    {"type": "membership", "user": "keeper", "node": "hidden", "role": "maintainer"},
)
"""olga's group `hidden`, which nobody sees but its members, and mallory's own group beside it."""
OWNERS: Final = (
    "token:create",
    "token:read",
    "token:edit",
    "token:rotate",
    "token:revoke",
    "policy:read",
    "policy:edit",
    "grant:read",
    "grant:decide",
    "grant:revoke",
    "directory:read",
    "audit:read",
    "webhook:read",
    "webhook:edit",
)
"""All that the owner of a group may hold there."""
_NOISE: Final = (
    "audit",
    "audit_checkpoint",
    "change_log",
    "clock_shift",
    "idempotency",
    "replica",
    "revision",
    "sweep",
    "event",
    "delivery",
)
"""What is written although nothing was done to anything; refusals write none of the rest."""


@dataclass(frozen=True)
class Things:
    """By what things are called in requests."""

    token: str
    secret: str
    hook: str
    rule: str
    request: str
    grant: str
    delivery: str
    group: str
    project: str

    def hide(self, answer: httpx.Response) -> tuple[int, str]:
        """An answer in which nothing says any more which thing was asked for."""
        said = answer.text
        names = vars(self) | {"path": self.project.partition(":")[2], "name": self.group.partition(":")[2]}
        for name, written in sorted(names.items(), key=lambda pair: -len(str(pair[1]))):
            plain = str(written)
            said = said.replace(f'"id":{plain},', f'"id":<{name}>,') if plain.isdigit() else said.replace(plain, name)
        return answer.status_code, said


@dataclass
class Scene:
    """The stage with olga's things on it, and things of the same shape that are not there."""

    stage: Stage
    real: Things
    absent: Things
    owner: str
    """The secret of olga's token for her groups."""
    secrets: dict[str, str] = field(default_factory=dict)

    async def call(self, method: str, path: str, secret: str | None, body: Any = None, **more: Any) -> httpx.Response:
        return await self.stage.call(method, path, secret, body, **more)

    async def made(self, method: str, path: str, secret: str, body: Any = None, status: int = 201) -> Any:
        answer = await self.call(method, path, secret, body)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def state(self) -> dict[str, str]:
        """A digest of each table that says who may do what."""
        found: dict[str, str] = {}
        async with self.stage.database.read() as conn:
            names = await conn.execute(text("select tablename from pg_tables where schemaname = current_schema()"))
            for name in sorted(row.tablename for row in names):
                if name not in (*_NOISE, "alembic_version"):
                    order = f"select md5(coalesce(string_agg(t::text, '|' order by t::text), '')) from {name} t"
                    found[name] = (await conn.execute(text(order))).scalar_one()
        return found


async def set_scene(stage: Stage) -> Scene:
    authz = await stage.scope_at("authz", ["group:hidden", "group:acme"], *OWNERS)
    reads = await stage.scope_at("gitlab", ["group:hidden", "group:acme"], "job:read", "job:run")
    _, owner = await stage.give("olga", authz, scope("authz", "user", "token:create", "token:read"), reads)
    scene = Scene(stage, real=None, absent=None, owner=owner)  # type: ignore[arg-type]
    await scene.made(
        "PUT", "/v1/policies?node=group:hidden", owner, {"catalog": "gitlab", "approval": {"value": "required"}}, 200
    )
    victim, secret = await stage.give("olga", await stage.scope_at("gitlab", ["project:hidden/plan"], "job:read"))
    wanted = {"reach": {"kind": "selected", "nodes": ["project:hidden/plan"]}, "permissions": ["job:read"]}
    maker = (await stage.give("dana", scope("authz", "user", "token:create", "token:edit"), reads))[1]
    await scene.made("POST", "/v1/tokens", maker, {"name": "asks", "catalog": "gitlab@1", "scopes": [wanted]})
    await scene.made("POST", "/v1/tokens", maker, {"name": "waits", "catalog": "gitlab@1", "scopes": [wanted]})
    asked = (await scene.made("GET", "/v1/grant-requests?node=group:hidden", owner, status=200))["items"]
    assert len(asked) == 2, asked
    await scene.made("POST", f"/v1/grant-requests/{asked[0]['id']}", owner, {"action": "approve"}, 200)
    grants = (await scene.made("GET", "/v1/grants?node=group:hidden", owner, status=200))["items"]
    hook = await scene.made(
        "POST", "/v1/webhooks", owner, {"url": "https://localhost:9/hook", "node": "group:hidden", "events": []}
    )
    rule = await scene.made(
        "POST", "/v1/trust-rules", owner, rule_body("group:hidden", "keeper", "project:hidden/plan")
    )
    scene.real = Things(
        token=victim,
        secret=secret,
        hook=hook["id"],
        rule=rule["id"],
        request=str(asked[1]["id"]),
        grant=str(grants[0]["id"]),
        delivery="1",
        group="group:hidden",
        project="project:hidden/plan",
    )
    scene.absent = Things(
        token=new_token_id(),
        secret=new_secret("azt", "k1").reveal(),
        hook="whk_" + new_token_id().removeprefix("tok_"),
        rule="tru_" + "0" * 20,
        request="987654",
        grant="876543",
        delivery="2",
        group="group:absent",
        project="project:absent/plan",
    )
    scene.secrets = {"owner": owner, "victim": secret, "hook": hook["secret"], "maker": maker}
    return scene


def rule_body(group: str, account: str, project: str, **given: Any) -> dict[str, Any]:
    usual = {
        "node": group,
        "name": "deploy",
        "issuer": "https://ci.example.com",
        "audience": "authz",
        "claims": {"project_path": project.partition(":")[2]},
        "owner": account,
        "catalog": "gitlab@1",
        "scopes": [{"reach": {"kind": "selected", "nodes": [project]}, "permissions": ["job:read"]}],
        "lifetime_seconds": 600,
    }
    return usual | given


Try = tuple[str, str, Any, dict[str, str]]
"""Method, path, body, headers."""
_ANY: Final = {"If-Match": "*"}


def tries(at: Things) -> Iterator[Try]:
    """Everything that management has about somebody's things."""
    yield from _tokens(at)
    yield from _groups(at)
    yield from _hooks_and_rules(at)
    yield from _instance(at)


def _scopes(*nodes: str, permissions: Sequence[str] = ("job:read",)) -> list[dict[str, Any]]:
    return [{"reach": {"kind": "selected", "nodes": list(nodes)}, "permissions": list(permissions)}]


def _tokens(at: Things) -> Iterator[Try]:
    token = f"/v1/tokens/{at.token}"
    for method in ("GET", "DELETE"):
        yield method, token, None, {}
    yield "DELETE", f"{token}?wait=true", None, {}
    yield "PATCH", token, {"name": "mine"}, _ANY
    yield "PATCH", token, {"scopes": _scopes("group:rival")}, _ANY
    yield "PATCH", token, {"expires_at": None, "may_rotate_self": True}, _ANY
    yield "PATCH", token, {"name": "mine"}, {"If-Match": '"0"'}
    yield "POST", f"{token}/rotate", {}, {}
    yield "POST", f"{token}/rotate", {"overlap_seconds": 604_800}, {}
    yield "POST", f"{token}/clone", {}, {}
    yield "POST", f"{token}/clone", {"owner": "mallory", "expires_at": None}, {}
    for page in ("effective", "effective?permission=job:read", "usage", "suggestion", "blast-radius"):
        yield "GET", f"{token}/{page}", None, {}
    yield "GET", f"{token}/effective?target={at.project}", None, {}
    yield "POST", f"{token}/suggestion/apply", {}, _ANY
    yield "POST", f"{token}/grant-requests", {"node": at.group, "catalog": "gitlab", "reason": "please"}, {}
    yield "GET", f"/v1/tokens?parent={at.token}", None, {}
    yield "GET", f"/v1/tokens?node={at.group}", None, {}
    yield "GET", f"/v1/tokens?node={at.project}&permission=job:read", None, {}
    yield "GET", f"/v1/token-export?node={at.group}", None, {}
    yield "GET", f"/v1/search/tokens?catalog=gitlab&permission=job:read&target={at.project}", None, {}
    call = {"resource": "job", "action": "read", "target": at.project}
    yield "POST", "/v1/simulate", {"catalog": "gitlab", "token_id": at.token, "calls": [call]}, {}
    for owner in ("olga", "keeper", "root"):
        yield "POST", "/v1/simulate", {"catalog": "gitlab", "owner": owner, "calls": [call]}, {}
    yield "POST", "/v1/simulate/change", {"catalog": "gitlab", "permission": "job:read"}, {}
    yield "POST", "/v1/simulate/change", {"catalog": "gitlab", "user": "olga", "node": at.group, "role": None}, {}
    for given in (
        {"parent": at.token, "scopes": _scopes(at.project)},
        {"owner": "olga", "scopes": _scopes(at.project)},
        {"owner": "keeper", "scopes": _scopes(at.project)},
        {"scopes": _scopes(at.group)},
        {"scopes": _scopes(at.project), "catalog": "gitlab"},
        {"catalog": "authz", "scopes": _scopes(at.group, permissions=["token:create"])},
        {"catalog": "authz", "evaluates": ["*"], "scopes": _scopes(at.group, permissions=["decision:evaluate"])},
    ):
        yield "POST", "/v1/tokens", {"name": "mine", "catalog": "gitlab@1"} | given, {}


def _groups(at: Things) -> Iterator[Try]:
    policy = f"/v1/policies?node={at.group}"
    yield "GET", policy, None, {}
    yield "GET", f"{policy}&catalog=gitlab", None, {}
    for setting in ({"approval": {"value": "off"}}, {"legacy": {"value": "allow", "force": True}}, {}):
        yield "PUT", policy, {"catalog": "gitlab"} | setting, {}
    yield "PUT", f"{policy}&dry_run=true", {"catalog": "gitlab", "fine_grained": {"value": "forbid"}}, {}
    for noun, one in (("grant-requests", at.request), ("grants", at.grant)):
        yield "GET", f"/v1/{noun}?node={at.group}", None, {}
        yield "GET", f"/v1/{noun}?token={at.token}", None, {}
        yield "DELETE", f"/v1/{noun}/{one}", None, {}
    for action in ("approve", "deny", "cancel"):
        yield "POST", f"/v1/grant-requests/{at.request}", {"action": action, "reason": "mine"}, {}
        yield "POST", "/v1/grant-requests", {"ids": [int(at.request)], "action": action, "reason": "mine"}, {}
    yield "POST", "/v1/grants", {"ids": [int(at.grant)], "reason": "mine"}, {}
    for place in (at.group, at.project):
        yield "GET", f"/v1/directory/node?target={place}", None, {}
        yield "GET", f"/v1/directory/nodes?under={place}", None, {}
        yield "GET", f"/v1/audit?node={place}", None, {}
        yield "GET", f"/v1/audit/export?node={place}", None, {}
    yield "GET", f"/v1/audit?subject={at.token}", None, {}


def _hooks_and_rules(at: Things) -> Iterator[Try]:
    hook, rule = f"/v1/webhooks/{at.hook}", f"/v1/trust-rules/{at.rule}"
    yield "GET", f"/v1/webhooks?node={at.group}", None, {}
    yield "POST", "/v1/webhooks", {"url": "https://localhost:9/mine", "node": at.group}, {}
    yield "GET", hook, None, {}
    yield "PATCH", hook, {"url": "https://localhost:9/mine"}, _ANY
    yield "POST", f"{hook}/secret", None, {}
    yield "POST", f"{hook}/test", None, {}
    yield "GET", f"{hook}/deliveries", None, {}
    yield "POST", f"{hook}/deliveries/{at.delivery}/redeliver", None, {}
    yield "DELETE", hook, None, {}
    yield "GET", f"/v1/trust-rules?node={at.group}", None, {}
    yield "POST", "/v1/trust-rules", rule_body(at.group, "keeper", at.project), {}
    yield "POST", "/v1/trust-rules", rule_body(at.group, "puppet", at.project), {}
    yield "POST", "/v1/trust-rules", rule_body("group:rival", "puppet", at.project), {}
    yield "GET", rule, None, {}
    yield "DELETE", rule, None, {}


def _instance(at: Things) -> Iterator[Try]:
    line = {"type": "membership", "user": "mallory", "node": at.group.partition(":")[2], "role": "owner"}
    admin = {"type": "user", "username": "mallory", "external_id": "66", "admin": True}
    move = {"type": "move", "node": at.project.partition(":")[2], "to": "rival"}
    for change in (line, admin, move):
        yield "POST", "/v1/directory/import", json.dumps(change).encode(), {"Content-Type": "application/x-ndjson"}
    imported = {"name": "mine", "owner": "root", "catalog": "gitlab", "scopes": _scopes(at.project), "sha256": "0" * 64}
    yield "POST", "/v1/tokens/import", json.dumps(imported).encode(), {"Content-Type": "application/x-ndjson"}
    catalog = b"catalog: authz\nversion: 2\npermissions: {token: {create: [instance]}}\n"
    yield "POST", "/v1/catalogs", catalog, {"Content-Type": "application/yaml"}
    yield "POST", "/v1/catalogs/gitlab/upgrade", {"from": 1, "to": 2}, {}
    yield "PUT", "/v1/catalogs/gitlab/graphql-schema", b"type Query { a: Int }", {"Content-Type": "text/plain"}
    yield "POST", "/v1/catalogs/gitlab/compare", catalog, {"Content-Type": "application/yaml"}
    for path in (
        "/v1/audit",
        "/v1/audit/export",
        "/v1/audit/checkpoints",
        "/v1/webhooks",
        "/v1/policies?node=instance",
    ):
        yield "GET", path, None, {}
    for name in ("root", "olga"):
        yield "GET", f"/v1/directory/users/{name}", None, {}
    yield "GET", "/v1/tokens?owner=olga", None, {}
    yield "PUT", "/v1/policies?node=instance", {"catalog": "authz", "fine_grained": {"value": "forbid"}}, {}
    asked = {"catalog": "gitlab", "resource": "job", "action": "read", "target": at.project}
    yield "POST", "/check", {"token": at.secret} | asked, {}
    yield "POST", "/check", {"token": at.secret, "explain": True} | asked, {}
    yield "POST", "/check/batch", {"token": at.secret, "catalog": "gitlab", "items": []}, {}
    path = f"/api/v4/projects/{at.project.partition(':')[2].replace('/', '%2F')}/pipelines"
    yield "POST", "/check/http", {"token": at.secret, "catalog": "gitlab", "method": "GET", "path": path}, {}
    subject = {"type": "token", "id": at.token}
    resource = {"type": "job", "id": at.project}
    about = {"context": {"authz": {"catalog": "gitlab"}}}
    question = {"subject": subject, "action": {"name": "read"}, "resource": resource, **about}
    yield "POST", "/access/v1/evaluation", question, {"Content-Type": "application/json"}
    person = question | {"subject": {"type": "user", "id": "olga"}}
    yield "POST", "/access/v1/evaluation", person, {"Content-Type": "application/json"}
    for noun, open_part in (
        ("subject", {"subject": {"type": "token"}}),
        ("resource", {"resource": {"type": "job"}}),
        ("action", {}),
    ):
        asked = {name: part for name, part in question.items() if name != noun} | open_part
        yield "POST", f"/access/v1/search/{noun}", asked, {"Content-Type": "application/json"}
    form = f"token={at.secret}".encode()
    yield "POST", "/oauth/introspect", form, {"Content-Type": "application/x-www-form-urlencoded"}
