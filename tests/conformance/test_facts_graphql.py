"""Every row of both published GraphQL tables, decided both ways from a document, by a schema of our own."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from tests.builders import DAY, NOW, account, group, project, rows
from tests.support.api_schema import Row, document_of, read_table, schema_for, variables_of
from tests.support.judged import judge_parts
from tests.support.memory_world import MemoryWorld

from authz_service.catalog.graphql_documents import parse_document
from authz_service.catalog.graphql_reach import Reacher
from authz_service.catalog.graphql_schema import load_schema
from authz_service.catalog.model import Catalog
from authz_service.directory.model import NodeKind
from authz_service.engine.documents import DecidedPart
from authz_service.engine.model import Decision, Missing, PermissionRequest, Reason, Request
from authz_service.store.shipped import shipped_catalogs
from authz_service.tokens.model import Reach, ReachKind, Scope, Token, TokenId

OWNER, OWN_NODE = account("dana", admin=True)
ACME = group("acme", external_id="12")
WEB = project("web", ACME, external_id="42")
PLACES = {
    "project": ("project:acme/web", Reach(ReachKind.SELECTED, (WEB.id,))),
    "group": ("group:acme", Reach(ReachKind.SELECTED, (ACME.id,))),
    "user": ("user:dana", Reach(ReachKind.USER)),
    "instance": ("instance", Reach(ReachKind.INSTANCE)),
}
ROWS = [(version, row) for version in (1, 2) for row in read_table(version)]


@cache
def catalog_of(version: int) -> Catalog:
    return next(each for each in shipped_catalogs() if each.label == f"gitlab@{version}")


@cache
def reacher_of(version: int, *, schema: bool) -> Reacher:
    return Reacher(catalog_of(version), load_schema(schema_for(read_table(version))) if schema else None)


def needed(version: int, row: Row) -> list[str]:
    """What the row's document needs besides, at the same place: the type that a declared field is on."""
    found = {one.permission for one in read_table(version) if row.kind == "field" and one.name == row.owner}
    return sorted(found - {row.permission})


def ask(version: int, row: Row, *scopes: Scope, schema: bool = True) -> tuple[Decision, tuple[DecidedPart, ...]]:
    token = Token(TokenId("tok_a"), OWNER.id, {"gitlab": version}, scopes=scopes, created_at=NOW - DAY)
    world = rows((OWNER, OWN_NODE), ACME, WEB, token, members=[(OWNER, ACME, "owner")])
    world.catalogs.append(catalog_of(version))
    target = PLACES[row.boundary][0] if row.boundary in ("instance", "user") else None
    document = parse_document(document_of(row))
    parts = reacher_of(version, schema=schema).reach(document, variables=variables_of(row), target=target)
    request = Request("gitlab", PermissionRequest(""), NOW)
    return judge_parts(token, MemoryWorld(world), request, parts, target)


def holding(version: int, row: Row) -> list[Scope]:
    """The row's permission at its boundary, and what else its document needs."""
    rest = tuple(needed(version, row))
    others = [Scope("gitlab", reach, rest) for _, reach in PLACES.values()] if rest else []
    return [Scope("gitlab", PLACES[row.boundary][1], (row.permission,)), *others]


def placed(row: Row) -> Row:
    """A field that is decided at users lies on an object that is somewhere else."""
    if row.kind != "field" or row.boundary != "user" or row.owner == "Query":
        return row
    return replace(row, boundary="project" if row.owner in ("Project", "Note") else "group")


def test_the_tables_are_whole():
    assert [sum(version == one for one, _ in ROWS) for version in (1, 2)] == [251, 889]


@pytest.mark.parametrize(("version", "row"), ROWS, ids=lambda value: getattr(value, "operation", value))
def test_a_row_is_decided_both_ways_from_a_document(version: int, row: Row):
    allowed, parts = ask(version, placed(row), *holding(version, row))
    assert allowed.reason is Reason.GRANTED, allowed
    assert row.operation in {part.part.operation for part in parts}

    others = tuple(one.name for one in catalog_of(version).permissions if one.name != row.permission)
    denied, parts = ask(version, placed(row), *[Scope("gitlab", reach, others) for _, reach in PLACES.values()])
    own = [part for part in parts if part.part.operation == row.operation]
    assert own
    missing = Missing(row.permission, NodeKind(row.boundary), PLACES[row.boundary][0])
    assert {part.decision.reason for part in own} == {Reason.PERMISSION_MISSING}
    assert denied.reason is Reason.PERMISSION_MISSING
    assert missing in denied.missing


@pytest.mark.parametrize(("version", "row"), ROWS, ids=lambda value: getattr(value, "operation", value))
def test_without_a_schema_roots_are_decided_and_types_are_not_guessed(version: int, row: Row):
    told, _ = ask(version, row, *holding(version, row), schema=False)
    root = row.kind == "mutation" or row.owner == "Query"
    assert told.reason is (Reason.GRANTED if root else Reason.SCHEMA_REQUIRED)


ELSEWHERE = """
type Query { project(fullPath: ID): Project currentUser: CurrentUser }
type Project { issue: Issue pipeline: Pipeline runner: CiRunner }
type Issue { author: UserCore epic: Epic relatedMergeRequests: MergeRequestConnection }
type Epic { title: String issues: [EpicIssue] }
type EpicIssue { title: String }
type Pipeline { downstream: [Pipeline] upstream: Pipeline status: String jobs: [CiJob] }
type CiJob { name: String downstreamPipeline: Pipeline }
type CiRunner { jobs: [CiJob] }
interface User { authoredMergeRequests: MergeRequestConnection groups: [Group] todos: [Todo] }
type UserCore implements User { authoredMergeRequests: MergeRequestConnection groups: [Group] todos: [Todo] }
type CurrentUser implements User { authoredMergeRequests: MergeRequestConnection groups: [Group] todos: [Todo] }
type Todo { body: String target: Issue }
type Group { name: String }
type MergeRequestConnection { edges: [MergeRequestEdge] nodes: [MergeRequest] pageInfo: PageInfo count: Int }
type MergeRequestEdge { node: MergeRequest }
type MergeRequest { title: String }
type PageInfo { hasNextPage: Boolean }
"""


@pytest.mark.parametrize(
    ("inside", "reached"),
    [
        ("issue { author { authoredMergeRequests { nodes { title } } } }", "Type.MergeRequest"),
        ("issue { author { authoredMergeRequests { count } } }", "Type.MergeRequest"),
        ("issue { author { groups { name } } }", "Type.Group"),
        ("issue { relatedMergeRequests { nodes { title } } }", "Type.MergeRequest"),
        ("issue { epic { title } }", "Type.Epic"),
        ("pipeline { downstream { status } }", "Type.Pipeline"),
        ("pipeline { jobs { downstreamPipeline { upstream { status } } } }", "Type.Pipeline"),
        ("runner { jobs { name } }", "Type.CiJob"),
    ],
)
def test_what_may_lie_anywhere_is_not_taken_to_be_where_its_way_began(inside: str, reached: str):
    """By somebody's name, or by a link, one leaves the project that the document names."""
    parts = Reacher(catalog_of(2), load_schema(ELSEWHERE)).reach(
        parse_document(f'{{ project(fullPath: "acme/web") {{ {inside} }} }}'), target="project:acme/web"
    )
    assert None in {part.spot for part in parts if part.operation == reached}
