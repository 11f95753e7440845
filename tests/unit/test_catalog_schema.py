"""The JSON Schema for editors: what it takes, the loader's table takes, and the other way round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from ruamel.yaml import YAML

from authz_service.catalog.document import parse_document
from authz_service.catalog.faults import Faults
from authz_service.catalog.format import CATALOG
from authz_service.catalog.loader import load_catalog
from authz_service.catalog.schema import json_schema
from authz_service.errors import CatalogInvalidError
from authz_service.store.shipped import shipped_texts

ROOT = Path(__file__).resolve().parents[2]
VALIDATOR = jsonschema_rs.validator_for(json_schema())
HEAD = "catalog: shop\nversion: 1\n"
PERMISSIONS = "permissions: {issue: {read: project}}\n"


def values(text: str) -> Any:
    """As an editor reads YAML 1.2."""
    return YAML(typ="safe", pure=True).load(text)


def fits_the_table(text: str) -> bool:
    faults = Faults("catalog.yaml")
    document = parse_document(text, faults)
    assert document is not None
    CATALOG.check(document, faults, "the catalog")
    return not faults.count


@pytest.mark.parametrize("label", [label for label, _ in shipped_texts()])
def test_every_shipped_catalog_fits_it(label):
    VALIDATOR.validate(values(dict(shipped_texts())[label]))


def test_the_example_fits_it_and_names_it_where_an_editor_looks():
    path = ROOT / "examples" / "orders" / "catalog.yaml"
    text = path.read_text("utf-8")
    VALIDATOR.validate(values(text))
    first = text.partition("\n")[0]
    named = path.parent / first.removeprefix("# yaml-language-server: $schema=")
    assert named.resolve() == ROOT / "docs" / "catalog.schema.json"


def test_the_kept_schema_is_the_formats():
    assert json.loads((ROOT / "docs" / "catalog.schema.json").read_text("utf-8")) == json_schema()


@pytest.mark.parametrize(
    "more",
    [
        "",
        "title: Shop\nsource: main\nowner_check: upstream\nsingle_owner: true\ncase_sensitive: false\n",
        "base_path: /api/v4\nwords: {project: shop}\n",
        "roles: {guest: , member: [guest], owner: {includes: member, inherits: false}}\ntop_role: owner\n",
        "levels: [read]\nreading_actions: read\nimplies: {project: [issue:read]}\n",
        "targets: {/projects/:id: project}\nattribute_parameters: {resource.status: status}\n",
        "operations: {GET /a: issue:read, GET /b: [issue:read], GET /c: {needs: [{all_of: [issue:read@project]}]}}\n",
        "operations: {GET /c: {needs: [{all_of: [{permission: a:b, target: self}], when: {context.x: 1}}]}}\n",
        "flags: {open: GET /version, closed: [GET /a]}\n",
        "flags:\n  open: |\n    GET /a   # one\n    GET /b\n",
        "bundles: {api: {permissions: all, any_operation: read}, 'user:email': {public_only: true}}\n",
        "categories: {one: {thing: {act: {project: {min_role: member, operations: GET /a}, aliases: a:b}}}}\n",
    ],
)
def test_what_the_format_takes_it_takes(more):
    text = HEAD + PERMISSIONS + more
    assert fits_the_table(text)
    VALIDATOR.validate(values(text))


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\n" + PERMISSIONS,
        "catalog: SHOP\nversion: 1\n",
        "catalog: shop\nversion: 0\n",
        "catalog: shop\nversion: one\n",
        HEAD + "colour: red\n",
        HEAD + "owner_check: nobody\n",
        HEAD + "single_owner: 1\n",
        HEAD + "base_path: api\n",
        HEAD + "base_path: /..\n",
        HEAD + "words: {house: home}\n",
        HEAD + "permissions: {issue: {read: nowhere}}\n",
        HEAD + "permissions: {Issue: {read: project}}\n",
        HEAD + "permissions: {issue: {read: {project: {role: x}}}}\n",
        HEAD + "permissions: {issue: {read: {when: {weather: 1}}}}\n",
        HEAD + "permissions: {issue: {read: {implies: issue}}}\n",
        HEAD + "operations: {GET /a: {needs: {permission: a:b}}}\n",
        HEAD + "operations: {GET /a: {open: [GET /b]}}\n",
        HEAD + "operations: {GET /c: {needs: {all_of: a:b}}}\n",
        HEAD + "flags: {ajar: GET /a}\n",
        HEAD + "bundles: {a b: {}}\n",
        HEAD + "bundles: {api: {any_operation: some}}\n",
        HEAD + "roles: {owner: {inherits: never}}\n",
        "[]\n",
    ],
)
def test_what_the_format_refuses_by_its_shape_it_refuses(text):
    assert not VALIDATOR.is_valid(values(text))
    with pytest.raises(CatalogInvalidError):
        load_catalog(text)


def test_every_key_says_what_it_is_for():
    def keys(schema: Any) -> list[str]:
        if isinstance(schema, list):
            return [name for each in schema for name in keys(each)]
        if not isinstance(schema, dict):
            return []
        own = [name for name, each in schema.get("properties", {}).items() if not each.get("description")]
        return own + [name for each in schema.values() for name in keys(each)]

    assert keys(json_schema()) == []
