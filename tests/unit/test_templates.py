from __future__ import annotations

import pytest

from authz_service.admin.reaches import boundaries_of
from authz_service.admin.templates import list_templates, shipped_templates
from authz_service.catalog.model import Catalog
from authz_service.directory.model import NodeKind
from authz_service.store.shipped import shipped_catalogs
from authz_service.tokens.model import ReachKind

CATALOGS = {(catalog.name, catalog.version): catalog for catalog in shipped_catalogs()}
TEMPLATES = [template for of_one in shipped_templates().values() for template in of_one.values()]


def test_every_shipped_catalog_has_templates():
    assert set(shipped_templates()) == set(CATALOGS)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda one: f"{one.label} {one.id}")
def test_every_permission_of_a_template_exists_at_its_reach(template):
    catalog: Catalog = CATALOGS[template.catalog, template.version]
    assert template.scopes
    for scope in template.scopes:
        # A template is for a single project as well as for a group; management's is for a group.
        boundaries = boundaries_of(scope.reach, ())
        if scope.reach is ReachKind.SELECTED:
            boundaries = frozenset({NodeKind.GROUP if template.catalog == "authz" else NodeKind.PROJECT})
        for name in scope.permissions:
            assert catalog.by_name[name].name == name
            assert not boundaries.isdisjoint(catalog.by_name[name].boundaries), name
        assert len(set(scope.permissions)) == len(scope.permissions)


def test_the_usual_jobs_are_there_for_the_large_apis():
    for catalog in ("gitlab", "github"):
        found = {template.id for template in list_templates(catalog)}
        assert {"read-only-code", "ci-pipeline", "release", "dependency-bot"} <= found
    assert {"container-registry", "packages"} <= {template.id for template in list_templates("gitlab@1")}


@pytest.mark.parametrize("catalog", ["nothing", "gitlab@", "gitlab@x", "gitlab@99", "@1", ""])
def test_no_other_catalog_has_any(catalog):
    assert list_templates(catalog) == []


def test_a_template_that_only_reads_holds_nothing_that_changes_anything():
    for template in TEMPLATES:
        if template.id in ("read-only-code", "reporting", "auditor"):
            catalog = CATALOGS[template.catalog, template.version]
            for scope in template.scopes:
                assert not [name for name in scope.permissions if catalog.by_name[name].mutates]
