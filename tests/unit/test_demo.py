from __future__ import annotations

from pathlib import Path

from authz_service.catalog.loader import load_catalog
from authz_service.cli.demo import orders_catalog, organisation
from authz_service.directory.changes import parse_import
from authz_service.directory.lines import MembershipLine, PlaceLine, UserLine
from authz_service.directory.model import NodeKind, UserState, Visibility
from authz_service.store.shipped import shipped_catalogs

ROOT = Path(__file__).resolve().parents[2]


def test_the_demo_s_catalog_is_the_example_s():
    assert orders_catalog() == (ROOT / "examples" / "orders" / "catalog.yaml").read_text("utf-8")
    assert load_catalog(orders_catalog()).upstream


def test_the_organisation_has_one_of_everything_that_decisions_turn_on():
    lines = parse_import(organisation())
    users = [line for line in lines if isinstance(line, UserLine)]
    projects = [line for line in lines if isinstance(line, PlaceLine) and line.kind is NodeKind.PROJECT]
    assert {line.visibility for line in projects} == set(Visibility)
    assert any(line.path.count("/") == 3 for line in projects)
    for trait in ("admin", "external", "service_account"):
        assert any(getattr(user, trait) is True for user in users), trait
    assert any(user.state is UserState.BLOCKED for user in users)


def test_everybody_s_role_is_one_that_the_catalog_knows():
    roles = {role for catalog in shipped_catalogs() if catalog.name == "gitlab" for role in catalog.roles}
    given = {line.role for line in parse_import(organisation()) if isinstance(line, MembershipLine)}
    assert given <= roles
