"""`/check/graphql` over HTTP, the schema it reads by, and documents that gateways pass on."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import grpc.aio
import httpx
import pytest
from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from graphql import build_schema, introspection_from_schema
from sqlalchemy import text
from tests.property.documents import CATALOG, SDL
from tests.support.api_schema import read_table, schema_for
from tests.support.managing import Stage, scope, staged
from tests.support.replica import replica

from authz_service.api.check.bodies import Document, GraphqlRequest
from authz_service.api.check.envoy_grpc import serving_grpc
from authz_service.api.check.gateway import GatewayTrust
from authz_service.api.check.reading import DOCUMENT_FIELDS, GRAPHQL_FIELDS
from authz_service.catalog.graphql_schema import format_schema, load_schema
from authz_service.catalog.model import Catalog
from authz_service.store import catalog_schemas
from authz_service.store.changes import ChangeSet, append, format_revision
from authz_service.store.shipped import shipped_catalogs

READ = 'query Read { project(fullPath: "acme/web") { name issues { nodes { title } } } }'
WRITE = 'mutation Write { createIssue(input: {projectPath: "acme/web"}) { errors } }'


@dataclass
class Desk:
    """A gateway's token, dana's and an admin's, before an API whose catalog is `forge`."""

    stage: Stage
    caller: str
    secret: str
    admin: str

    async def install(
        self, schema: str | bytes = SDL, name: str = "forge", secret: str | None = None
    ) -> httpx.Response:
        body = schema.encode() if isinstance(schema, str) else schema
        return await self.stage.call("PUT", f"/v1/catalogs/{name}/graphql-schema", secret or self.admin, body)

    async def post(self, **body: Any) -> httpx.Response:
        asked = {"token": self.secret, "catalog": "forge", **body}
        return await self.stage.call("POST", "/check/graphql", self.caller, asked)

    async def ask(self, query: str, **more: Any) -> dict[str, Any]:
        answer = await self.post(query=query, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def pass_on(
        self,
        body: bytes | str | dict[str, Any] | list[Any] | None,
        path: str = "/graphql",
        method: str = "POST",
        **headers: str,
    ) -> httpx.Response:
        """As Envoy asks over HTTP, with the request's body."""
        if isinstance(body, dict | list):
            body = json.dumps(body)
        sent = {
            "Authorization": f"Bearer {self.secret}",
            "X-Authz-Gateway": self.caller,
            "X-Authz-Catalog": "forge",
            "Content-Type": "application/json",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        content = body.encode() if isinstance(body, str) else body
        return await self.stage.client.request(method, f"/gateway/envoy{path}", content=content, headers=sent)


@pytest.fixture
async def desk(database_url):
    async with staged(database_url) as stage:
        await stage.install(CATALOG, "forge")
        caller = (await stage.give("root", scope("authz", "instance", "decision:evaluate"), evaluates=("*",)))[1]
        at = await stage.scope_at(
            "forge", ["project:acme/web"], "project:read", "issue:read", "note:read", "issue:create"
        )
        secret = (await stage.give("dana", at))[1]
        admin = (await stage.give("root", scope("authz", "instance", "catalog:install", "catalog:read")))[1]
        yield Desk(stage, caller, secret, admin)


def test_what_the_document_shows_is_what_is_read():
    assert set(GraphqlRequest.model_fields) == GRAPHQL_FIELDS
    assert set(Document.model_fields) == DOCUMENT_FIELDS


# the schema


async def test_a_schema_counts_from_the_moment_it_is_installed(desk):
    assert (await desk.ask(READ))["reason"] == "schema_required"
    assert (await desk.ask(WRITE))["decision"] == "allow"
    missing = await desk.stage.call("GET", "/v1/catalogs/forge/graphql-schema", desk.admin)
    assert missing.status_code == 404
    installed = await desk.install()
    assert installed.status_code == 201, installed.text
    told = installed.json()
    assert (told["catalog"], told["number"], told["new"], told["unknown"]) == ("forge@1", 1, True, [])
    answer = await desk.ask(READ, at_least=told["revision"])
    assert (answer["decision"], answer["reason"]) == ("allow", "granted")
    shown = await desk.stage.call("GET", "/v1/catalogs/forge/graphql-schema", desk.admin)
    assert shown.json() == told | {"new": False, "revision": shown.json()["revision"]}
    coverage = (await desk.stage.call("GET", "/v1/catalogs/forge/coverage", desk.admin)).json()
    assert (coverage["schema_number"], coverage["by_kind"]["graphql"]["needs_schema"]) == (1, 8)


async def test_the_same_schema_again_changes_nothing_and_another_takes_its_place(desk):
    first = (await desk.install()).json()
    again = await desk.install(json.dumps(introspection_from_schema(build_schema(SDL))))
    assert (again.status_code, again.json()["number"]) == (200, 1)
    older = "\n".join(line for line in SDL.splitlines() if "currentUser" not in line).replace(
        "title: String notes", "notes"
    )
    second = (await desk.install(older)).json()
    assert (second["number"], second["new"]) == (2, True)
    answer = await desk.ask(READ, at_least=second["revision"])
    assert answer["reason"] == "schema_required"
    assert first["fields"] > second["fields"]
    async with desk.stage.database.read() as conn:
        rows = await conn.execute(text("select subject from audit where action = 'catalog.schema'"))
        assert [row.subject for row in rows] == ["forge@1", "forge@1"]


async def test_a_schema_stored_before_defaults_were_kept_says_so_until_it_is_installed_again(desk):
    sdl = SDL.replace("issue(iid: ID): Issue", 'issue(iid: ID, projectPath: ID = "acme/api"): Issue')
    stored = json.loads(format_schema(load_schema(sdl)))
    before = json.dumps({name: stored[name] for name in ("roots", "types")})
    async with desk.stage.database.transaction() as conn:
        touched = ChangeSet()
        await catalog_schemas.install(conn, touched, name="forge", version=1, text=before, installed_by="test")
        at = format_revision(await append(conn, touched))
    query = '{ project(fullPath: "acme/web") { name issue(iid: 1) { title } } }'
    shown = (await desk.stage.call("GET", "/v1/catalogs/forge/graphql-schema", desk.admin)).json()
    assert (shown["number"], shown["defaults_known"]) == (1, False)
    assert (await desk.ask(query, at_least=at))["decision"] == "allow"
    again = await desk.install(sdl)
    told = again.json()
    assert (again.status_code, told["number"], told["defaults_known"]) == (201, 2, True)
    answer = await desk.ask(query, at_least=told["revision"])
    assert answer["decision"] == "deny"
    assert {part["target"] for part in answer["parts"] if part["decision"] == "deny"} == {"project:acme/api"}


async def test_every_replica_follows_a_new_schema(desk, database_url):
    async with replica(database_url) as other:

        async def known() -> int:
            found = await other.point._answer(lambda: other.facts.schema("forge", 1))
            return 0 if found is None else len(found.types)

        assert await known() == 0
        await desk.install()
        await other.follower.poll_now()
        whole = await known()
        assert whole > 10
        await desk.install("type Query { version: String }")
        await other.follower.poll_now()
        assert 0 < await known() < whole


async def test_a_schema_is_no_catalog(desk):
    await desk.install()
    names = [one["name"] for one in (await desk.stage.call("GET", "/v1/catalogs", desk.admin)).json()["items"]]
    assert "forge" in names
    assert [name for name in names if "#" in name or "@" in name] == []


async def test_who_may_not_install_catalogs_installs_no_schema(desk):
    reader = (await desk.stage.give("root", scope("authz", "instance", "catalog:read")))[1]
    dana = (await desk.stage.give("dana", scope("authz", "instance", "catalog:install")))[1]
    for secret in (reader, dana, desk.secret):
        assert (await desk.install("no schema at all", secret=secret)).status_code == 403
    assert (await desk.ask(READ))["reason"] == "schema_required"


NOT_INSTALLED = [
    ("forge", "type Query { a: Missing }", 400),
    ("forge", "", 400),
    ("forge", b"\xff\xfe", 400),
    ("forge", '{"__schema": ', 400),
    ("nothing", SDL, 404),
    ("forge@7", SDL, 404),
    ("authz", SDL, 409),
]


async def test_what_cannot_be_installed_says_why(desk):
    for name, schema, status in NOT_INSTALLED:
        answer = await desk.install(schema, name)
        assert answer.status_code == status, (name, schema, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


# decisions


async def test_an_answer_has_every_part_and_what_it_lacks(desk):
    await desk.install()
    other = (await desk.stage.give("dana", await desk.stage.scope_at("forge", ["project:acme/web"], "project:read")))[1]
    answer = await desk.ask(READ, token=other)
    assert (answer["decision"], answer["reason"], answer["hide"]) == ("deny", "permission_missing", False)
    assert [one["permission"] for one in answer["missing"]] == ["issue:read", "note:read"]
    assert "`issue:read`" in answer["message"]
    told = [(part["operation"], part["at"], part["decision"], part["target"]) for part in answer["parts"]]
    place = "project:acme/web"
    assert told == [
        ("Type.Project", "project", "allow", place),
        ("Type.Issue", "project.issues", "deny", place),
        ("Type.Noteable", "project.issues", "deny", place),
    ]
    assert [one["permission"] for one in answer["parts"][1]["missing"]] == ["issue:read"]
    assert answer == await desk.ask(READ, token=other)


async def test_a_batch_is_allowed_as_a_whole_only(desk):
    await desk.install()
    good = {"query": READ, "variables": None, "operation_name": "Read"}
    bad = {"query": WRITE.replace("acme/web", "acme/tools/lint")}
    allowed = (await desk.post(batch=[good, {"query": WRITE}])).json()
    assert allowed["decision"] == "allow"
    assert {part["document"] for part in allowed["parts"]} == {0, 1}
    denied = (await desk.post(batch=[good, bad])).json()
    assert (denied["decision"], denied["reason"]) == ("deny", "outside_reach")
    assert [part["document"] for part in denied["parts"] if part["decision"] == "deny"] == [1]
    broken = (await desk.post(batch=[good, {"query": "{"}])).json()
    assert (broken["reason"], broken["faults"][0]["code"]) == ("bad_document", "syntax_error")
    assert (await desk.post(batch=[good])).json()["parts"][0]["document"] == 0


async def test_explain_shows_the_sets_of_every_part(desk):
    await desk.install()
    answer = await desk.ask(READ, explain=True)
    needed = [item["permission"] for one in answer["explanation"] for s in one["sets"] for item in s["needs"]]
    assert needed == ["project:read", "issue:read", "note:read", "note:read"]


BAD_BODIES = [
    {"query": 7},
    {"query": None},
    {},
    {"query": READ, "variables": []},
    {"query": READ, "variables": "{}"},
    {"query": READ, "operation_name": 1},
    {"query": READ, "operationName": "Read"},
    {"query": READ, "batch": []},
    {"batch": []},
    {"batch": "x"},
    {"batch": [7]},
    {"batch": [{"query": READ, "target": "acme/web"}]},
    {"batch": [{}] * 2},
    {"batch": [{"query": READ}] * 21},
    {"query": READ, "target": 1},
    {"query": READ, "attributes": {"subject.role": "owner"}},
]


async def test_a_wrong_body_is_400_with_its_faults(desk):
    for body in BAD_BODIES:
        answer = await desk.post(**body)
        assert answer.status_code == 400, (body, answer.text)
        assert answer.json()["faults"], body


async def test_a_body_with_a_field_twice_is_refused(desk):
    body = b'{"token": "x", "catalog": "forge", "query": "{ a }", "variables": {"p": 1, "p": 2}}'
    answer = await desk.stage.call("POST", "/check/graphql", desk.caller, body)
    assert answer.status_code == 400
    assert "duplicate_field" in {fault["code"] for fault in answer.json()["faults"]}


HOSTILE = {
    "a cycle": ("{ ...A } fragment A on Query { ...A }", "fragment_cycle"),
    "a thousand aliases": ("{ " + " ".join(f"a{n}: version" for n in range(1000)) + " }", "too_many_aliases"),
    "a megabyte": ("{ version " + " " * (1 << 20) + "}", "too_large"),
    "fragments that multiply": (
        "{ ...F0 } "
        + " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(25))
        + " fragment F25 on Query { version }",
        "too_many_fields",
    ),
    "an unknown variable": ("{ project(fullPath: $no) { name } }", "variable_unknown"),
}


async def test_a_hostile_document_is_denied_with_a_code_in_bounded_time(desk):
    await desk.install()
    before = time.process_time()
    for name, (query, code) in HOSTILE.items():
        answer = await desk.ask(query)
        assert (answer["decision"], answer["reason"]) == ("deny", "bad_document"), name
        assert code in {fault["code"] for fault in answer["faults"]}, name
    assert time.process_time() - before < 10


async def test_a_caller_who_may_not_ask_learns_nothing(desk):
    for secret, status in ((None, 401), (desk.secret, 403), (desk.admin, 403)):
        answer = await desk.stage.call("POST", "/check/graphql", secret, b"{")
        assert answer.status_code == status
    only = (await desk.stage.give("root", scope("authz", "instance", "decision:evaluate"), evaluates=("gitlab",)))[1]
    body = {"token": desk.secret, "catalog": "forge", "query": READ}
    assert (await desk.stage.call("POST", "/check/graphql", only, body)).status_code == 403


async def test_a_caller_of_one_group_sees_no_further(desk):
    await desk.install()
    at = await desk.stage.scope_at("authz", ["group:acme/tools"], "decision:evaluate")
    near = (await desk.stage.give("olga", at, evaluates=("forge",)))[1]
    body = {"token": desk.secret, "catalog": "forge", "query": READ}
    told = (await desk.stage.call("POST", "/check/graphql", near, body)).json()
    nowhere = body | {"query": READ.replace("acme/web", "acme/nowhere")}
    other = (await desk.stage.call("POST", "/check/graphql", near, nowhere)).json()
    for answer in (told, other):
        assert (answer["decision"], answer["reason"], answer["hide"]) == ("deny", "target_unknown", True)
    assert [part["reason"] for part in told["parts"]] == ["target_unknown"] * len(told["parts"])


async def test_the_shipped_catalog_decides_documents_by_a_schema_of_its_api(desk):
    rows = read_table(1)
    installed = await desk.install(schema_for(rows), "gitlab@1")
    assert installed.json()["unknown"] == []
    at = await desk.stage.scope_at("gitlab", ["group:acme"], "pipeline:read")
    secret = (await desk.stage.give("dana", at))[1]
    query = 'query Q($id: ID) { give_Pipeline(fullPath: "acme/web") { id } __typename }'
    more = {"token": secret, "catalog": "gitlab@1", "at_least": installed.json()["revision"]}
    assert (await desk.ask(query, **more))["decision"] == "allow"
    denied = await desk.ask(query.replace("Pipeline", "Issue"), **more)
    assert [one["permission"] for one in denied["missing"]] == ["issue:read"] or denied["missing"]
    assert denied["reason"] == "permission_missing"


def test_the_shipped_catalogs_say_where_documents_go():
    found: list[Catalog] = [each for each in shipped_catalogs() if each.name == "gitlab"]
    for each in found:
        assert each.graphql is not None
        assert each.graphql.path == "/api/graphql"
        for id_ in ("Query.__schema", "Query.__type", "Query.__typename"):
            assert each.operations[id_].open


# gateways


async def test_envoy_passes_a_document_on_and_the_api_learns_what_it_needed(desk):
    await desk.install()
    answer = await desk.pass_on({"query": READ})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-authz-permission"] == "project:read issue:read note:read"
    denied = await desk.pass_on({"query": WRITE.replace("acme/web", "acme/tools/lint")})
    assert (denied.status_code, denied.json()["reason"]) == (403, "outside_reach")
    assert 'scope="issue:create"' in denied.headers["www-authenticate"]
    hidden = await desk.pass_on({"query": READ.replace("acme/web", "hidden/plan")})
    unknown = await desk.pass_on({"query": READ.replace("acme/web", "hidden/no")})
    assert (hidden.status_code, hidden.content) == (403, unknown.content)


ODD_REQUESTS = {
    "no body": (None, {}),
    "no json": ("{", {}),
    "a number": ("7", {}),
    "no query": ("{}", {}),
    "a stored document": ({"id": "abc", "query": READ}, {}),
    "a persisted one": ({"query": READ, "extensions": {"persistedQuery": {"sha256Hash": "x"}}}, {}),
    "extensions in a text": ({"query": READ, "extensions": '{"persistedQuery": {"sha256Hash": "x"}}'}, {}),
    "extensions in a list": ({"query": READ, "extensions": [{"persistedQuery": 1}]}, {}),
    "an operation by its id": ({"query": READ, "extensions": {"operationId": "x"}}, {}),
    "query twice": (f'{{"query": {json.dumps(READ)}, "query": {json.dumps(WRITE)}}}', {}),
    "a form": ("query=" + quote(READ), {"content_type": "application/x-www-form-urlencoded"}),
    "a plain document": (READ, {"content_type": "application/graphql"}),
    "an upload": ({"query": READ}, {"content_type": "multipart/form-data; boundary=x"}),
    "another charset": ({"query": READ}, {"content_type": "application/json; charset=utf-16"}),
    "compressed": ({"query": READ}, {"content_encoding": "gzip"}),
    "cut": ({"query": READ}, {"x_envoy_auth_partial_body": "true"}),
    "variables that are none": ({"query": READ, "variables": "{"}, {}),
    "variables in a list": ({"query": READ, "variables": [1]}, {}),
    "a name that is none": ({"query": READ, "operationName": 7}, {}),
    "a batch with a stranger": ([{"query": READ}, 7], {}),
    "an empty batch": ([], {}),
    "a large batch": ([{"query": READ}] * 21, {}),
}


async def test_what_two_readers_could_take_differently_is_denied(desk):
    await desk.install()
    for name, (body, headers) in ODD_REQUESTS.items():
        answer = await desk.pass_on(body, **headers)
        assert (answer.status_code, answer.json()["reason"]) == (403, "bad_document"), (name, answer.text)


async def test_extensions_that_name_no_document_pass(desk):
    await desk.install()
    for extensions in (None, {}, {"clientLibrary": {"name": "apollo", "version": "4"}}):
        assert (await desk.pass_on({"query": READ, "extensions": extensions})).status_code == 200, extensions


async def test_the_url_of_a_post_says_nothing(desk):
    await desk.install()
    for query in (
        f"query={quote(WRITE)}",
        "operationName=Write",
        "variables=%7B%7D",
        "x=1&query=",
        "x=1;query=a",
        "%71uery=a",
        "query[]=a",
        f"_json[][query]={quote(WRITE)}",
        "id=1",
        "documentId=1",
        "Query=a",
        "variables%00=a",
        "page=2",
        "&",
    ):
        answer = await desk.pass_on({"query": READ}, f"/graphql?{query}")
        assert (answer.status_code, answer.json()["reason"]) == (403, "bad_document"), query
    assert (await desk.pass_on({"query": READ}, "/graphql?")).status_code == 200


GIVEN = "query Read($path: ID!) { project(fullPath: $path) { name } }"
LEFT = 'query Read($path: ID = "acme/web") { project(fullPath: $path) { name } }'
WEB = quote('{"path": "acme/web"}')
NOWHERE = quote('{"path": "hidden/plan"}')


async def test_documents_are_read_by_get_and_mutations_are_not(desk):
    await desk.install()
    for query in (
        f"query={quote(READ)}",
        f"query={quote(GIVEN)}&variables={WEB}",
        f"variables={WEB}&operationName=Read&%71uery={quote(GIVEN)}",
    ):
        assert (await desk.pass_on(None, f"/graphql?{query}", "GET")).status_code == 200, query
    for query in (
        f"query={quote(WRITE)}",
        "",
        "query=",
        f"query={quote(READ)}&query={quote(READ)}",
        f"query={quote(READ)}&extensions=%7B%7D",
        f"query={quote(READ)}&variables=7",
    ):
        answer = await desk.pass_on(None, f"/graphql?{query}", "GET")
        assert (answer.status_code, answer.json()["reason"]) == (403, "bad_document"), query
    assert (await desk.pass_on({"query": READ}, method="PUT")).status_code == 403


async def test_the_url_of_a_get_holds_three_names_and_each_once(desk):
    await desk.install()
    for more in (
        "variables[path]=hidden/plan",
        "variables%5Bpath%5D=hidden/plan",
        f"+variables={NOWHERE}",
        f"variables%00={NOWHERE}",
        f"Variables={NOWHERE}",
        f"variables={WEB};variables={NOWHERE}",
        f"variables={WEB}&x=1;query={quote(WRITE)}",
        f"variables={WEB}&variables={NOWHERE}",
        f"variables={WEB}#&operationName=Read",
        f"variables={WEB}&query[]=%7Ba%7D",
        f"variables={WEB}&id=1",
        f"variables={WEB}&documentId=1",
        f"variables={WEB}&page=2",
        f"variables={WEB}%",
        f"variables={WEB}&operationName=caf\xe9",
    ):
        headers = {"Authorization": f"Bearer {desk.secret}", "X-Authz-Gateway": desk.caller}
        headers |= {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": f"/graphql?query={quote(GIVEN)}&{more}"}
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        answer = await desk.stage.client.get("/gateway/forward/x-forwarded?catalog=forge", headers=raw)
        assert (answer.status_code, answer.json()["reason"]) == (403, "bad_document"), more


async def test_a_get_leaves_nothing_for_a_body_to_fill(desk):
    await desk.install()
    url = f"/graphql?query={quote(LEFT)}"
    assert (await desk.pass_on(None, f"{url}&variables={WEB}", "GET")).status_code == 200
    two = f"/graphql?query={quote(READ + ' query Other { version }')}"
    assert (await desk.pass_on(None, f"{two}&operationName=Read", "GET")).status_code == 200
    for path, body in (
        (url, None),
        (f"{url}&variables=%7B%7D", None),
        (two, None),
        (f"{url}&variables={WEB}", {"variables": {"path": "hidden/plan"}}),
        (f"{url}&variables={WEB}", " "),
    ):
        answer = await desk.pass_on(body, path, "GET")
        assert (answer.status_code, answer.json()["reason"]) == (403, "bad_document"), path


async def test_other_spellings_of_the_path_are_no_way_around(desk):
    await desk.install()
    for path in ("/graphql/", "//graphql", "/GraphQL", "/%67raphql", "/graphql;x"):
        answer = await desk.pass_on({"query": WRITE}, path)
        assert answer.status_code == 403, path
        assert answer.json()["reason"] in ("bad_path", "operation_unknown"), path


async def test_a_gateway_that_sends_no_bodies_is_told_where_to_ask(desk):
    body = {"token": desk.secret, "catalog": "forge", "method": "POST", "path": "/graphql"}
    answer = (await desk.stage.call("POST", "/check/http", desk.caller, body)).json()
    assert (answer["decision"], answer["reason"]) == ("deny", "bad_document")


@asynccontextmanager
async def over_grpc(desk: Desk, path: str):
    """Envoy's protocol, over a socket of a file, from the gateway that this listener stands for."""
    desk.stage.app.state.gateways = GatewayTrust(desk.caller)
    async with (
        serving_grpc(desk.stage.app, f"unix:{path}", None, grace=0),
        grpc.aio.insecure_channel(f"unix:{path}") as channel,
    ):
        yield external_auth_pb2_grpc.AuthorizationStub(channel)


async def test_envoy_passes_documents_on_over_grpc_too(desk, tmp_path):
    await desk.install()

    def request(body: dict[str, Any], *, raw: bool, **headers: str) -> Any:
        found = external_auth_pb2.CheckRequest()
        http = found.attributes.request.http
        http.method, http.path = "POST", "/graphql"
        sent = {"authorization": f"Bearer {desk.secret}", "content-type": "application/json", **headers}
        for name, value in sent.items():
            http.headers[name.replace("_", "-")] = value
        encoded = json.dumps(body)
        if raw:
            http.raw_body = encoded.encode()
        else:
            http.body = encoded
        return found

    metadata = (("x-authz-catalog", "forge"),)
    async with over_grpc(desk, str(tmp_path / "g")) as stub:
        for raw in (False, True):
            allowed = await stub.Check(request({"query": READ}, raw=raw), metadata=metadata)
            assert allowed.status.code == 0, allowed
            denied = await stub.Check(
                request({"query": "mutation { resetAll { errors } }"}, raw=raw), metadata=metadata
            )
            assert denied.denied_response.status.code == 403
        cut = await stub.Check(request({"query": READ}, raw=True, x_envoy_auth_partial_body="true"), metadata=metadata)
        assert json.loads(cut.denied_response.body)["reason"] == "bad_document"


async def test_a_coarse_token_sends_no_document_past_the_gateway_unread(desk):
    await desk.install()
    coarse = (await desk.stage.give("dana", catalogs={"forge": 1}, legacy_scopes=("all",)))[1]
    body = {"token": coarse, "catalog": "forge", "method": "POST", "path": "/graphql", "target": "project:acme/web"}
    for path in ("/graphql", "/graphql?a=b"):
        answer = (await desk.stage.call("POST", "/check/http", desk.caller, body | {"path": path})).json()
        assert (answer["decision"], answer["reason"]) == ("deny", "bad_document")
    hot = httpx.AsyncClient(transport=httpx.ASGITransport(app=desk.stage.app.state.hot), base_url="http://service")
    async with hot:
        for _ in range(3):
            told = await hot.post("/check/http", json=body, headers={"Authorization": f"Bearer {desk.caller}"})
            assert told.json()["reason"] == "bad_document"
    answer = await desk.pass_on({"query": WRITE}, Authorization=f"Bearer {coarse}")
    assert answer.status_code == 200
