"""`authz catalog` against a running service: what it prints, and its exit statuses."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.processes import DevService, dev_service, run

SHOPS = """\
catalog: shops
version: 1
owner_check: upstream
base_path: /api
words: {project: shop}
targets: {/shops/:shop: project}
permissions:
  order:
    read: {description: See orders, project: "GET /shops/:shop/orders"}
    cancel: {project: "DELETE /shops/:shop/orders/:order"}
  refund:
    create: project
operations:
  POST /shops/:shop/refunds: order:read + refund:create
  GET /version: {open: true}
"""


@pytest.fixture(scope="module")
def dev() -> Iterator[DevService]:
    folder = Path(tempfile.mkdtemp(prefix="authz-cli-"))
    folder.chmod(0o755)  # the database's user must pass through
    with dev_service(folder) as found:
        admin = found.as_token("admin_token")
        (folder / "shops.yaml").write_text(SHOPS)
        assert run("catalog", "install", str(folder / "shops.yaml"), env=admin).returncode == 0
        scope = ("--catalog", "shops@1", "--owner", "dana", "--node", "project:corner")
        for name, permission in (("reader", "order:read"), ("canceller", "order:cancel")):
            made = run("token", "create", "--name", name, *scope, "--permission", permission, env=admin)
            assert made.returncode == 0, made.stderr
        yield found
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def catalog(dev):
    def asking(*arguments: str, given: str | None = None, token: str = "admin_token"):
        done = run("catalog", *arguments, env=dev.as_token(token), given=given)
        assert "Traceback" not in done.stderr
        return done

    return asking


def plain(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.strip().splitlines()]


def version_2(*changes: tuple[str, str]) -> str:
    text = SHOPS.replace("version: 1", "version: 2")
    for before, after in changes:
        text = text.replace(before, after)
    return text


WITHOUT_CANCEL = ('    cancel: {project: "DELETE /shops/:shop/orders/:order"}\n', "")
EXPORT = ('project: "GET /shops/:shop/orders"', 'project: ["GET /shops/:shop/orders", "GET /shops/:shop/export"]')


def test_a_file_is_validated_without_a_service(tmp_path):
    nowhere = {"AUTHZ_URL": "", "AUTHZ_TOKEN": ""}
    good = run("catalog", "validate", "-", env=nowhere, given=SHOPS)
    assert (good.returncode, plain(good.stderr)) == (0, ["shops@1: 3 permissions, 4 operations, no fault"])
    file = tmp_path / "bad.yaml"
    file.write_text(SHOPS.replace("refund:create", "refund:pay").replace("  order:", "  Order:"))
    bad = run("catalog", "validate", str(file), env=nowhere)
    assert bad.returncode == 1
    assert [line.partition(": ")[0] for line in plain(bad.stderr)[1:]] == [f"{file}:{n}" for n in (8, 14, 14)]
    assert run("catalog", "validate", str(tmp_path / "none"), env=nowhere).returncode == 2
    assert run("catalog", "validate", "-", env=nowhere, given="\x00").returncode == 1


def test_the_schema_is_json(tmp_path):
    done = run("catalog", "schema")
    assert json.loads(done.stdout)["title"] == "A catalog"


def test_a_draft_validates_and_faults_of_the_document_are_listed(tmp_path):
    file = tmp_path / "openapi.json"
    file.write_text(
        '{"openapi": "3.1.0", "info": {"title": "My API"}, "paths": {"/a": {"get": {}}, "/a:b": {"get": {}}}}'
    )
    done = run("catalog", "from-openapi", str(file))
    assert done.returncode == 0
    assert "1 of them could not be taken over" in done.stderr
    assert run("catalog", "validate", "-", given=done.stdout).returncode == 0
    assert "catalog: other" in run("catalog", "from-openapi", "--name", "other", "-", given=file.read_text()).stdout
    file.write_text('{"openapi": "3.1.0", "paths": {"a": {}, "/b": []}}')
    done = run("catalog", "from-openapi", str(file))
    assert done.returncode == 1
    assert [line.partition("#")[2].partition(":")[0] for line in plain(done.stderr)[1:]] == ["/paths/a", "/paths/~1b"]
    assert run("catalog", "from-openapi", "--name", "No Name", str(file)).returncode == 1


def test_catalogs_are_listed_shown_searched_and_counted(catalog):
    assert [line.split()[0] for line in plain(catalog("list").stdout)[1:]] == [
        *("authz", "github", "gitlab", "orders", "shops"),
    ]
    assert plain(catalog("show", "shops").stdout) == [
        "permission where what for",
        "order:read project See orders",
        "order:cancel project",
        "refund:create project",
    ]
    found = catalog("search", "shops", "REFUND").stdout
    assert "refund:create" in found
    assert "POST /shops/:shop/refunds order:read + refund:create" in plain(found)
    assert json.loads(catalog("search", "shops", "refund", "--output", "json").stdout)["operations"]
    counted = plain(catalog("coverage", "shops").stdout)
    assert "operations 4 4" in counted
    assert "are open to any valid token 1 1" in counted
    assert catalog("show", "nothing").returncode == 2


def test_a_call_says_what_it_needs_and_a_permission_what_it_unlocks(catalog):
    assert plain(catalog("needs", "shops", "POST", "/api/shops/corner/refunds").stdout) == [
        "POST /shops/:shop/refunds",
        "order:read on the shop corner and refund:create on the shop corner",
    ]
    assert plain(catalog("needs", "shops", "GET /api/version").stdout)[1:] == ["any valid token may call it"]
    assert catalog("needs", "shops", "GET", "/version").returncode == 2
    assert catalog("needs", "shops", "a", "b", "c").returncode == 2
    assert plain(catalog("unlocks", "shops", "order:read").stdout)[1:] == [
        "GET /shops/:shop/orders project",
        "POST /shops/:shop/refunds project refund:create@project",
    ]
    assert "did you mean" in catalog("unlocks", "shops", "orders:read").stderr


def test_a_faulty_file_is_not_installed_and_its_faults_carry_its_name(catalog, tmp_path):
    file = tmp_path / "faulty.yaml"
    file.write_text(version_2(('project: "GET', 'planet: "GET')))
    done = catalog("install", str(file))
    assert done.returncode == 2
    assert "faulty.yaml:9" in done.stderr
    assert json.loads(catalog("list", "--output", "json").stdout)[-1]["versions"] == [1]
    file.write_text(SHOPS)
    assert "nothing changed" in catalog("install", str(file)).stderr
    file.write_text(SHOPS.replace("refund", "repay"))
    done = catalog("install", str(file))
    assert (done.returncode, "version: 2" in done.stderr) == (1, True)
    assert catalog("install", str(file), token="gateway_token").returncode == 1


def test_a_comparison_names_the_tokens_and_strict_makes_it_a_gate(catalog, tmp_path):
    file = tmp_path / "next.yaml"
    file.write_text(version_2(WITHOUT_CANCEL, EXPORT))
    done = catalog("compare", str(file))
    assert done.returncode == 0, done.stderr
    said = "\n".join(plain(re.sub(r"tok_\w+", "tok", done.stdout)))
    assert "permission order:cancel is there is gone" in said
    assert "operation GET /shops/:shop/export is new" in said
    assert "tok canceller dana 1 holds names that are gone: order:cancel" in said
    assert "tok reader dana 1 gains a new call: GET /shops/:shop/export" in said
    assert plain(done.stderr) == ["2 tokens compared: 1 broken, 1 widened, 0 as before"]
    assert catalog("compare", str(file), "--strict").returncode == 1
    found = json.loads(catalog("compare", str(file), "--output", "json").stdout)
    assert {item["name"] for item in found["items"]} == {"reader", "canceller"}
    file.write_text(version_2())
    same = catalog("compare", str(file), "--strict")
    assert (same.returncode, "they mean the same" in same.stderr) == (0, True)
    assert catalog("compare", "gitlab@2", "--with", "gitlab@1").returncode == 0
    assert catalog("compare", "gitlab@77").returncode == 2


def test_tokens_are_upgraded_and_those_that_would_gain_are_refused(catalog, tmp_path):
    file = tmp_path / "next.yaml"
    file.write_text(version_2(WITHOUT_CANCEL, EXPORT))
    assert catalog("install", str(file)).returncode == 0
    dry = catalog("upgrade", "shops", "--to", "2", "--dry-run")
    assert dry.returncode == 1
    assert plain(dry.stderr)[-1] == "1 token would go to shops@2, 1 would be refused"
    done = catalog("upgrade", "shops", "--to", "2")
    assert done.returncode == 1
    assert plain(done.stderr)[-1] == "1 token went to shops@2, 1 refused"
    assert "refused: it would gain new calls: --allow-new-calls" in done.stdout
    last = catalog("upgrade", "shops", "--to", "2", "--allow-new-calls", "--output", "json")
    assert last.returncode == 0
    assert json.loads(last.stdout)["upgraded"] == 1
    assert json.loads(catalog("upgrade", "shops", "--to", "2", "--output", "json").stdout)["counts"]["tokens"] == 0
    assert catalog("upgrade", "shops", "--to", "9").returncode == 2
    assert catalog("upgrade", "shops", "--to", "2", token="gateway_token").returncode == 1


def test_a_schema_is_installed_shown_and_refused_with_its_lines(catalog, tmp_path):
    assert "has no GraphQL schema" in catalog("schema", "gitlab@1").stderr
    file = tmp_path / "schema.graphql"
    file.write_text("type Query { project(fullPath: ID): Project }\ntype Project { name: String }\n")
    done = catalog("schema", "gitlab@1", str(file))
    assert done.returncode == 0, done.stderr
    assert "gitlab@1: schema 1 is installed" in done.stderr
    assert "it has nothing for `Type.Pipeline`" in done.stderr
    shown = json.loads(catalog("schema", "gitlab@1", "--output", "json").stdout)
    assert (shown["number"], shown["new"]) == (1, False)
    assert "Type.Project" not in shown["unknown"]
    assert "GraphQL schema (0: none)  1" in re.sub(r" {2,}", "  ", catalog("coverage", "gitlab@1").stdout)
    file.write_text("type Query {\n  project: Missing\n}\n")
    refused = catalog("schema", "gitlab@1", str(file))
    assert refused.returncode != 0
    assert ":2" in refused.stderr
    assert catalog("schema", "gitlab@1", str(tmp_path / "nothing")).returncode != 0
    assert catalog("schema", "gitlab@1", str(file), token="sample_token").returncode != 0
    assert json.loads(catalog("schema").stdout)["title"] == "A catalog"
