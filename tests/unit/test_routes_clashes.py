"""Operations that one request could mean: found when the catalog is compiled, all at once."""

from __future__ import annotations

import pytest

from authz_service.catalog.model import (
    Item,
    Operation,
    OperationKind,
    ParameterKind,
    RequirementSet,
    Target,
    TargetKind,
)
from authz_service.catalog.route_tree import MAX_MIXED
from authz_service.catalog.routes import Match, RouteClashError, Router
from authz_service.directory.model import NodeKind


def operation(id_: str, *names: str) -> Operation:
    """`GET /projects/:id`; with names, these parameters name a project."""
    method, _, path = id_.partition(" ")
    item = Item("thing:read", NodeKind.PROJECT, Target(TargetKind.PARAMETER, names, ParameterKind.PROJECT))
    return Operation(id_, OperationKind.REST, (RequirementSet((item,)),) if names else (), method=method, path=path)


def clashes(*ids: str, **settings) -> list[tuple[str, ...]]:
    try:
        Router([operation(each) for each in ids], **settings)
    except RouteClashError as error:
        return [clash.operation_ids for clash in error.clashes]
    return []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("GET /a/:x", "GET /a/{y}"),
        ("GET /a/*x", "GET /a/{y*}"),
        ("GET /a/:x.zip", "GET /a/{y}.zip"),
        ("GET /a/:x/(-/)b", "GET /a/:y/b"),
        ("GET /a/x-:y", "GET /a/:y.zip"),
        ("GET /a/x-:y/b", "GET /a/:y.zip/:z"),
        ("GET /a/x-:y/b", "GET /a/:y.zip/*z"),
        ("GET /a/:x.:y", "GET /a/:x.zip"),
    ],
)
def test_two_operations_that_the_same_request_fits_equally_well_clash(one, other):
    assert clashes(one, other) == [(one, other)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("GET /a/:x", "POST /a/:y"),
        ("GET /a/:x", "HEAD /a/:y"),
        ("GET /a/:x", "GET /a/b"),
        ("GET /a/:x", "GET /a/*y"),
        ("GET /a/:x", "GET /a/:y.zip"),
        ("GET /a/:x.zip", "GET /a/:x.tar"),
        ("GET /a/:x.zip", "GET /a/:x.tar.zip"),
        ("GET /a/x-:y", "GET /a/x-:y.zip"),
        ("GET /a/x-:y/b", "GET /a/:y.zip/c"),
        ("GET /a/x-:y/b", "GET /a/:y.zip/b/c"),
        ("GET /a/x-:y", "POST /a/:y.zip"),
        ("GET /a/b", "GET /a/B"),
    ],
)
def test_operations_of_which_one_is_the_special_case_do_not_clash(one, other):
    assert clashes(one, other) == []


def test_spellings_clash_where_case_does_not_count():
    assert clashes("GET /a/b", "GET /A/B", case_sensitive=False) == [("GET /a/b", "GET /A/B")]
    assert clashes("GET /a/X-:b", "GET /a/x-:c", case_sensitive=False) == [("GET /a/X-:b", "GET /a/x-:c")]


def test_a_spanning_parameter_clashes_as_what_it_is():
    assert clashes("GET /a/{path}", "GET /a/*rest") == []
    assert clashes("GET /a/{path}", "GET /a/*rest", spanning=("path",)) == [("GET /a/{path}", "GET /a/*rest")]


def test_all_clashes_are_reported_at_once_and_each_once():
    found = clashes("GET /a/:x(/b)", "GET /a/:y(/b)", "PUT /c/:x", "PUT /c/:y", "PUT /c/:z")
    assert found == [
        ("GET /a/:x(/b)", "GET /a/:y(/b)"),
        ("PUT /c/:x", "PUT /c/:y"),
        ("PUT /c/:x", "PUT /c/:z"),
    ]


def test_the_error_names_both_operations():
    with pytest.raises(RouteClashError, match="`GET /a/:x` and `GET /a/:y` can be the same request"):
        Router([operation("GET /a/:x"), operation("GET /a/:y")])


def test_the_paths_of_one_operation_do_not_clash_with_each_other():
    routes = Router([operation("GET /a(/:x)(/:y)")])
    assert routes.resolve("GET", "/a/1") == Match("GET /a(/:x)(/:y)", {"x": "1"})


@pytest.mark.parametrize("path", ["/a/*id/*rest", "/a/*rest/*id", "/a/*rest/:id/x/*more"])
def test_a_target_between_parameters_that_span_segments_is_refused(path):
    with pytest.raises(RouteClashError, match="has no certain extent"):
        Router([operation(f"GET {path}", "id")])


def test_whose_account_it_is_has_one_extent_too():
    item = Item("thing:read", NodeKind.USER, Target(TargetKind.SELF, owner_is="id"))
    path = "/a/*rest/*id"
    with pytest.raises(RouteClashError, match="has no certain extent"):
        Router([Operation(f"GET {path}", OperationKind.REST, (RequirementSet((item,)),), method="GET", path=path)])


@pytest.mark.parametrize("path", ["/a/:id/*more/*rest", "/a/*more/*rest/x/:id", "/a/*id", "/a/*more/:id"])
def test_a_target_beside_them_has_one_extent(path):
    Router([operation(f"GET {path}", "id")])


def test_a_place_has_only_so_many_segments_to_try():
    ids = [f"GET /a/:x.e{number:03}" for number in range(MAX_MIXED + 1)]
    assert clashes(*ids[:-1]) == []
    assert clashes(*ids) == [(ids[-1],)]
