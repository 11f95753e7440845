"""The `graphql` section of a catalog: what it says, and what is wrong with it."""

from __future__ import annotations

import pytest

from authz_service.catalog.faults import CatalogFault
from authz_service.catalog.loader import load_catalog
from authz_service.catalog.model import ArgumentKind, FieldPlace, GraphqlRules, ParameterKind, TargetKind
from authz_service.errors import CatalogInvalidError

HEAD = """\
catalog: forge
version: 1
permissions:
  issue: {read: {project: Type.Issue}}
graphql:
"""


def faults_of(section: str) -> list[tuple[str, str]]:
    with pytest.raises(CatalogInvalidError) as caught:
        load_catalog(HEAD + section)
    return [(fault.where.rpartition(":")[2], fault.code) for fault in caught.value.faults]


def test_every_key_is_read():
    found = load_catalog(
        HEAD
        + """\
  path: /api/graphql
  arguments: {fullPath: place, input.projectPath: project, id: id}
  fields:
    Query.me: self
    Mutation.move: [project input.from, place input.to, caller]
  places: [Project]
  stays: Group.projects
  leaves: |
    Issue.linked
  global_ids: {"gid://forge/Project/": project}
"""
    ).graphql
    assert found == GraphqlRules(
        path="/api/graphql",
        arguments={
            "fullPath": ArgumentKind.PLACE,
            "input.projectPath": ArgumentKind.PROJECT,
            "id": ArgumentKind.ID,
        },
        fields={
            "Query.me": (FieldPlace(TargetKind.SELF),),
            "Mutation.move": (
                FieldPlace(names=ArgumentKind.PROJECT, argument="input.from"),
                FieldPlace(names=ArgumentKind.PLACE, argument="input.to"),
                FieldPlace(TargetKind.CALLER),
            ),
        },
        places=frozenset({"Project"}),
        stays=frozenset({"Group.projects"}),
        leaves=frozenset({"Issue.linked"}),
        global_ids={"gid://forge/Project/": ParameterKind.PROJECT},
    )


def test_a_catalog_without_the_section_has_no_rules():
    assert load_catalog(HEAD.removesuffix("graphql:\n")).graphql is None


WRONG = [
    ("  path: graphql\n", CatalogFault.BAD_VALUE),
    ("  arguments: {fullPath: somewhere}\n", CatalogFault.BAD_TARGET),
    ("  arguments: {Full.path: place}\n", CatalogFault.BAD_NAME),
    ("  fields: {Query.me: myself}\n", CatalogFault.BAD_TARGET),
    ("  fields: {Query.me: below self}\n", CatalogFault.BAD_TARGET),
    ("  fields: {Query.me: project Full}\n", CatalogFault.BAD_TARGET),
    ("  fields: {me: self}\n", CatalogFault.BAD_NAME),
    ("  places: [project]\n", CatalogFault.BAD_NAME),
    ("  stays: [projects]\n", CatalogFault.BAD_NAME),
    ("  global_ids: {x: place}\n", CatalogFault.BAD_VALUE),
    ("  schema: x\n", CatalogFault.UNKNOWN_KEY),
]


@pytest.mark.parametrize(("section", "code"), WRONG, ids=[section.strip() for section, _ in WRONG])
def test_a_fault_is_reported_at_its_line(section: str, code: CatalogFault):
    assert faults_of(section) == [("6", code.value)]


def test_no_operation_lies_where_documents_are_sent():
    text = HEAD.replace("Type.Issue}", "POST /:any}").replace("version: 1", "version: 1\ntargets: {/:any: project}")
    with pytest.raises(CatalogInvalidError) as caught:
        load_catalog(text + "  path: /graphql\n")
    assert [fault.code for fault in caught.value.faults] == [CatalogFault.ROUTE_CLASH.value]


def test_a_field_cannot_stay_and_leave():
    assert [code for _, code in faults_of("  stays: [A.b]\n  leaves: [A.b]\n")] == [CatalogFault.FLAGS_CONFLICT.value]
