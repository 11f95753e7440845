"""Requests to operations: which template wins, what its parameters hold, methods, case, the base path (C3, A2)."""

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
from authz_service.catalog.routes import Match, PathFault, RouteFault, Router
from authz_service.directory.model import NodeKind
from authz_service.engine.model import Reason


def operation(id_: str, kind: ParameterKind | None = None, *names: str) -> Operation:
    """`GET /projects/:id`; with a kind, its target is what these parameters name."""
    method, _, path = id_.partition(" ")
    sets = ()
    if kind is not None:
        item = Item("thing:read", NodeKind.PROJECT, Target(TargetKind.PARAMETER, names, kind))
        sets = (RequirementSet((item,)),)
    return Operation(id_, OperationKind.REST, sets, method=method, path=path)


def router(*ids: str | Operation, **settings) -> Router:
    return Router([operation(each) if isinstance(each, str) else each for each in ids], **settings)


def fault(found: Match | PathFault) -> RouteFault | None:
    return found.fault if isinstance(found, PathFault) else None


PROJECT_ISSUES = operation("GET /projects/:id/issues", ParameterKind.PROJECT, "id")


def test_a_request_resolves_to_its_operation_and_parameters():
    routes = router("GET /projects/:id/issues", "GET /projects/:id/issues/:issue_iid", "GET /projects")
    assert routes.resolve("GET", "/projects/7/issues/3") == Match(
        "GET /projects/:id/issues/:issue_iid", {"id": "7", "issue_iid": "3"}
    )
    assert routes.resolve("GET", "/projects") == Match("GET /projects", {})


def test_the_query_is_no_part_of_the_path():
    routes = router("GET /projects/:id/issues")
    expected = Match("GET /projects/:id/issues", {"id": "7"})
    assert routes.resolve("GET", "/projects/7/issues?state=opened&in=/../admin%2f;x?y") == expected
    assert routes.resolve("GET", "/projects/7/issues?") == expected


def test_the_root_is_a_path():
    assert router("GET /").resolve("GET", "/") == Match("GET /", {})
    assert router("GET /", base_path="/api/v4").resolve("GET", "/api/v4/?x=1") == Match("GET /", {})
    assert fault(router("GET /", base_path="/api/v4").resolve("GET", "/")) is RouteFault.OPERATION_UNKNOWN


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/api/v4/version", None),
        ("/version", RouteFault.OPERATION_UNKNOWN),
        ("/api/v4", RouteFault.OPERATION_UNKNOWN),
        ("/api/v40/version", RouteFault.OPERATION_UNKNOWN),
        ("/api/v3/version", RouteFault.OPERATION_UNKNOWN),
        ("/x/api/v4/version", RouteFault.OPERATION_UNKNOWN),
        ("/API/v4/version", RouteFault.BAD_PATH),
        ("/api/%764/version", RouteFault.BAD_PATH),
        ("/api%2fv4/version", RouteFault.BAD_PATH),
    ],
)
@pytest.mark.parametrize("case_sensitive", [True, False])
def test_the_base_path_matches_exactly_or_not_at_all(target, expected, case_sensitive):
    routes = router("GET /version", base_path="/api/v4", case_sensitive=case_sensitive)
    assert fault(routes.resolve("GET", target)) is expected


def test_a_base_path_with_capitals_is_no_other():
    routes = router("GET /version", base_path="/Api")
    assert routes.resolve("GET", "/Api/version") == Match("GET /version", {})
    assert fault(routes.resolve("GET", "/api/version")) is RouteFault.BAD_PATH


@pytest.mark.parametrize("base_path", ["/", "api", "/api/", "/api//v4", "/api/../v4", "/.hidden", "/a%20b", "/a?b"])
def test_a_base_path_that_could_never_compare_is_refused(base_path):
    with pytest.raises(ValueError, match="is no base path"):
        router("GET /version", base_path=base_path)


def test_text_beats_a_parameter():
    routes = router("GET /projects/:id", "GET /projects/import", "GET /projects/:id/issues", "GET /projects/import/:x")
    assert routes.resolve("GET", "/projects/import") == Match("GET /projects/import", {})
    assert routes.resolve("GET", "/projects/imports") == Match("GET /projects/:id", {"id": "imports"})
    assert routes.resolve("GET", "/projects/import/issues") == Match("GET /projects/import/:x", {"x": "issues"})


def test_where_text_leads_nowhere_the_parameter_takes_it():
    routes = router("GET /a/b/d", "GET /a/:x/c")
    assert routes.resolve("GET", "/a/b/c") == Match("GET /a/:x/c", {"x": "b"})
    assert fault(routes.resolve("GET", "/a/b/e")) is RouteFault.OPERATION_UNKNOWN


def test_text_beside_a_parameter_beats_a_parameter_alone():
    routes = router("GET /mod/:name", "GET /mod/:name.zip", "GET /mod/:name.src.zip", "GET /mod/list")
    assert routes.resolve("GET", "/mod/v1.0.zip") == Match("GET /mod/:name.zip", {"name": "v1.0"})
    assert routes.resolve("GET", "/mod/v1.src.zip") == Match("GET /mod/:name.src.zip", {"name": "v1"})
    assert routes.resolve("GET", "/mod/v1.tar") == Match("GET /mod/:name", {"name": "v1.tar"})
    assert routes.resolve("GET", "/mod/.zip") == Match("GET /mod/:name", {"name": ".zip"})
    assert routes.resolve("GET", "/mod/list") == Match("GET /mod/list", {})


def test_a_segment_may_hold_several_parameters_as_long_as_they_part_in_one_way():
    routes = router("GET /compare/{base}...{head}", "GET /v2/Packages\\(Id='*name',Version='*version'\\)")
    assert routes.resolve("GET", "/compare/main...next") == Match(
        "GET /compare/{base}...{head}", {"base": "main", "head": "next"}
    )
    assert fault(routes.resolve("GET", "/compare/a...b...c")) is RouteFault.BAD_PATH
    assert fault(routes.resolve("GET", "/compare/a....b")) is RouteFault.BAD_PATH
    assert fault(router("GET /{a}x{b}").resolve("GET", "/1x2X3")) is RouteFault.BAD_PATH
    assert router("GET /{a}x{b}").resolve("GET", "/1x2") == Match("GET /{a}x{b}", {"a": "1", "b": "2"})
    assert fault(routes.resolve("GET", "/compare/...b")) is RouteFault.OPERATION_UNKNOWN
    found = routes.resolve("GET", "/v2/Packages(Id='O'Neil',Version='1.0')")
    assert isinstance(found, Match)
    assert found.parameters == {"name": "O'Neil", "version": "1.0"}
    assert fault(routes.resolve("GET", "/v2/Packages(Id=%27Foo%27,Version='1.0')")) is RouteFault.BAD_PATH


def test_a_parameter_that_spans_segments_leaves_the_rest_of_its_template():
    routes = router(
        "GET /npm/*package_name", "GET /npm/*package_name/-/*file_name", "GET /npm/-/package/*package_name/dist-tags"
    )
    assert routes.resolve("GET", "/npm/@acme/web") == Match("GET /npm/*package_name", {"package_name": "@acme/web"})
    assert routes.resolve("GET", "/npm/@acme/web/-/web-1.tgz") == Match(
        "GET /npm/*package_name/-/*file_name", {"package_name": "@acme/web", "file_name": "web-1.tgz"}
    )
    assert routes.resolve("GET", "/npm/-/package/@acme/web/dist-tags") == Match(
        "GET /npm/-/package/*package_name/dist-tags", {"package_name": "@acme/web"}
    )
    assert fault(routes.resolve("GET", "/npm")) is RouteFault.OPERATION_UNKNOWN


def test_of_two_that_span_segments_the_last_takes_one():
    routes = router("GET /nuget/*name/index", "GET /nuget/*name/*version", "GET /maven/*path/:file_name")
    assert routes.resolve("GET", "/nuget/a/b/1.0") == Match(
        "GET /nuget/*name/*version", {"name": "a/b", "version": "1.0"}
    )
    assert routes.resolve("GET", "/nuget/a/b/index") == Match("GET /nuget/*name/index", {"name": "a/b"})
    assert routes.resolve("GET", "/maven/a/b/c.jar") == Match(
        "GET /maven/*path/:file_name", {"path": "a/b", "file_name": "c.jar"}
    )
    assert fault(routes.resolve("GET", "/maven/c.jar")) is RouteFault.OPERATION_UNKNOWN


def test_what_spans_segments_spans_one_at_least():
    routes = router("GET /contents/*path", "GET /a/*x/*y/z")
    assert fault(routes.resolve("GET", "/contents")) is RouteFault.OPERATION_UNKNOWN
    assert routes.resolve("GET", "/a/1/2/z") == Match("GET /a/*x/*y/z", {"x": "1", "y": "2"})
    assert fault(routes.resolve("GET", "/a/1/z")) is RouteFault.OPERATION_UNKNOWN


def test_many_ways_to_span_are_not_all_tried():
    """Without a memory of what failed this takes years."""
    routes = router("GET /*a/*b/*c/*d/*e/*f/q", "GET /*a/x/*b/x/*c/x/*d/x/*e/q")
    assert fault(routes.resolve("GET", "/x" * 127)) is RouteFault.OPERATION_UNKNOWN
    assert isinstance(routes.resolve("GET", "/x" * 127 + "/q"), Match)


def test_an_optional_part_may_be_there_or_not():
    routes = router("GET /groups/:id/(-/)epics", "GET /latest(/)(*rest)", "GET /issues(.:format)")
    both = Match("GET /groups/:id/(-/)epics", {"id": "7"})
    assert routes.resolve("GET", "/groups/7/epics") == routes.resolve("GET", "/groups/7/-/epics") == both
    assert routes.resolve("GET", "/latest") == Match("GET /latest(/)(*rest)", {})
    assert routes.resolve("GET", "/latest/a/b") == Match("GET /latest(/)(*rest)", {"rest": "a/b"})
    assert routes.resolve("GET", "/issues.json") == Match("GET /issues(.:format)", {"format": "json"})
    assert fault(routes.resolve("GET", "/latest/")) is RouteFault.BAD_PATH


def test_parameters_have_the_names_of_the_template_that_won():
    routes = router("GET /projects/:id/hooks", "GET /projects/:project_id/badges", "PUT /projects/:owned/hooks")
    assert routes.resolve("GET", "/projects/7/badges") == Match("GET /projects/:project_id/badges", {"project_id": "7"})
    assert routes.resolve("PUT", "/projects/7/hooks") == Match("PUT /projects/:owned/hooks", {"owned": "7"})


def test_methods_come_from_a_closed_list_and_compare_exactly():
    routes = router("GET /a", "POST /a")
    assert routes.resolve("POST", "/a") == Match("POST /a", {})
    for method in ("get", "PUT", "TRACE", "CONNECT", "GET ", "", "GET\r\nX: y", "*"):
        assert fault(routes.resolve(method, "/a")) is RouteFault.OPERATION_UNKNOWN


def test_a_path_of_another_method_hides_no_operation():
    routes = router("POST /projects/import", "PUT /projects/:id")
    assert routes.resolve("PUT", "/projects/import") == Match("PUT /projects/:id", {"id": "import"})


def test_head_is_its_own_operation_or_that_of_get():
    routes = router("GET /a/:x", "HEAD /a/:y", "GET /b", "POST /c")
    assert routes.resolve("HEAD", "/a/1") == Match("HEAD /a/:y", {"y": "1"})
    assert routes.resolve("HEAD", "/b") == Match("GET /b", {})
    assert fault(routes.resolve("HEAD", "/c")) is RouteFault.OPERATION_UNKNOWN


def test_head_prefers_the_path_before_the_method():
    routes = router("GET /a/b", "HEAD /a/:x")
    assert routes.resolve("HEAD", "/a/b") == Match("GET /a/b", {})


def test_case_counts_in_text_when_the_catalog_says_so():
    routes = router("GET /projects/:id/Import", "GET /projects/:id/:other")
    assert routes.resolve("GET", "/projects/Web/Import") == Match("GET /projects/:id/Import", {"id": "Web"})
    # An API that does not look at case would serve the first operation, ours would be the second.
    assert fault(routes.resolve("GET", "/projects/Web/import")) is RouteFault.BAD_PATH
    assert fault(router("GET /a/b").resolve("GET", "/a/B")) is RouteFault.BAD_PATH


def test_case_does_not_count_in_text_when_the_catalog_says_so():
    routes = router("GET /projects/:id/Import", "GET /projects/:id/:other", "GET /x/:name.Zip", case_sensitive=False)
    for spelling in ("Import", "import", "IMPORT"):
        assert routes.resolve("GET", f"/Projects/Web/{spelling}") == Match("GET /projects/:id/Import", {"id": "Web"})
    assert routes.resolve("GET", "/X/A.zIP") == Match("GET /x/:name.Zip", {"name": "A"})


def test_two_spellings_of_a_text_are_two_routes_where_case_counts():
    routes = router("GET /x/Foo", "GET /x/foo", "GET /y/A-:p", "GET /y/a-:p")
    assert routes.resolve("GET", "/x/Foo") == Match("GET /x/Foo", {})
    assert routes.resolve("GET", "/x/foo") == Match("GET /x/foo", {})
    assert fault(routes.resolve("GET", "/x/FOO")) is RouteFault.BAD_PATH
    assert routes.resolve("GET", "/y/a-1") == Match("GET /y/a-:p", {"p": "1"})
    assert routes.resolve("GET", "/y/A-1") == Match("GET /y/A-:p", {"p": "1"})


def test_the_full_path_of_a_project_is_one_parameter():
    assert router(PROJECT_ISSUES).resolve("GET", "/projects/acme%2Fsub%2fweb/issues") == Match(
        "GET /projects/:id/issues", {"id": "acme/sub/web"}
    )


@pytest.mark.parametrize("kind", [ParameterKind.PROJECT, ParameterKind.GROUP, ParameterKind.NAMESPACE])
def test_what_names_a_project_a_group_or_a_namespace_may_be_a_full_path(kind):
    routes = router(operation("GET /places/:id", kind, "id"))
    assert routes.resolve("GET", "/places/a%2Fb") == Match("GET /places/:id", {"id": "a/b"})


def test_a_full_path_may_stand_beside_text():
    routes = router(operation("GET /projects/:id.json", ParameterKind.PROJECT, "id"))
    assert routes.resolve("GET", "/projects/acme%2Fweb.json") == Match("GET /projects/:id.json", {"id": "acme/web"})


def test_what_an_open_operation_names_may_be_a_full_path():
    target = Target(TargetKind.PARAMETER, ("id",), ParameterKind.PROJECT)
    badge = Operation(
        "GET /badges/:id", OperationKind.REST, open=True, open_at=target, method="GET", path="/badges/:id"
    )
    assert router(badge).resolve("GET", "/badges/acme%2Fweb") == Match(badge.id, {"id": "acme/web"})


def test_the_name_of_a_user_has_no_slash():
    routes = router(operation("GET /users/:id", ParameterKind.USER, "id"))
    assert fault(routes.resolve("GET", "/users/acme%2Fdana")) is RouteFault.BAD_PATH


def test_parts_that_are_joined_bring_no_slashes_of_their_own():
    joined = operation("GET /repos/{owner}/{repo}", ParameterKind.PROJECT, "owner", "repo")
    routes = router(joined, encoded=("owner", "repo"))
    assert routes.resolve("GET", "/repos/acme/web") == Match(joined.id, {"owner": "acme", "repo": "web"})
    for target in ("/repos/acme%2Fsub/web", "/repos/acme/sub%2Fweb"):
        assert fault(routes.resolve("GET", target)) is RouteFault.BAD_PATH


def test_an_operation_without_a_target_takes_the_full_path_where_its_neighbours_do():
    closed = operation("POST /projects/:id/secrets")
    routes = router(PROJECT_ISSUES, closed, "GET /things/:id")
    assert routes.resolve("POST", "/projects/acme%2Fweb/secrets") == Match(closed.id, {"id": "acme/web"})
    assert fault(routes.resolve("GET", "/things/acme%2Fweb")) is RouteFault.BAD_PATH


def test_parameters_named_as_encoded_hold_what_was_encoded():
    routes = router("GET /files/:file_path/raw", "GET /tags/:tag", encoded=("file_path",))
    found = routes.resolve("GET", "/files/src%2Fa%20b%3B%5Cc%3Fd%23e%25f%C3%A9.py/raw")
    assert found == Match("GET /files/:file_path/raw", {"file_path": "src/a b;\\c?d#e%fé.py"})
    assert fault(routes.resolve("GET", "/tags/a%2Fb")) is RouteFault.BAD_PATH


def test_parameters_are_decoded_once():
    routes = router("GET /files/:file_path", encoded=("file_path",))
    assert routes.resolve("GET", "/files/a%252fb") == Match("GET /files/:file_path", {"file_path": "a%2fb"})
    assert routes.resolve("GET", "/files/a%25252fb") == Match("GET /files/:file_path", {"file_path": "a%252fb"})


def test_plain_parameters_are_decoded_too():
    routes = router("GET /tags/:tag")
    assert routes.resolve("GET", "/tags/v1%2E0%20r%C3%A9+x@y") == Match("GET /tags/:tag", {"tag": "v1.0 ré+x@y"})


def test_parameters_named_as_spanning_take_slashes_as_they_are():
    routes = router("GET /contents/{path}", "GET /commits/{ref}/status", spanning=("path", "ref"))
    assert routes.resolve("GET", "/contents/src/app/main.py") == Match(
        "GET /contents/{path}", {"path": "src/app/main.py"}
    )
    assert routes.resolve("GET", "/commits/heads/main/status") == Match(
        "GET /commits/{ref}/status", {"ref": "heads/main"}
    )
    assert fault(routes.resolve("GET", "/contents/src%2Fmain.py")) is RouteFault.BAD_PATH


def test_slashes_of_one_parameter_are_all_encoded_or_none_is():
    routes = router("GET /npm/*name", encoded=("name",))
    assert routes.resolve("GET", "/npm/@a%2Fb%2Fc") == Match("GET /npm/*name", {"name": "@a/b/c"})
    assert routes.resolve("GET", "/npm/@a/b/c") == Match("GET /npm/*name", {"name": "@a/b/c"})
    assert fault(routes.resolve("GET", "/npm/@a%2Fb/c")) is RouteFault.BAD_PATH


def test_only_rest_operations_have_routes():
    query = Operation("Query.project", OperationKind.GRAPHQL)
    push = Operation("git.push", OperationKind.GIT)
    assert fault(router(query, push).resolve("GET", "/Query.project")) is RouteFault.OPERATION_UNKNOWN


def test_a_match_can_be_written_as_a_path_again():
    routes = router(
        PROJECT_ISSUES,
        "GET /files/*path/:name.zip",
        "GET /groups/:id/(-/)epics",
        base_path="/api/v4",
        encoded=("path",),
    )
    assert routes.format_target(PROJECT_ISSUES.id, {"id": "acme/web"}) == "/api/v4/projects/acme%2Fweb/issues"
    assert routes.format_target("GET /files/*path/:name.zip", {"path": "a/é", "name": "x y"}) == (
        "/api/v4/files/a/%C3%A9/x%20y.zip"
    )
    assert routes.format_target("GET /groups/:id/(-/)epics", {"id": "7"}) == "/api/v4/groups/7/-/epics"


def test_a_value_is_written_so_that_no_other_operation_takes_it():
    routes = router("GET /npm/*name", "GET /npm/*name/-/:file", encoded=("name",))
    assert routes.format_target("GET /npm/*name", {"name": "@a/b"}) == "/npm/@a/b"
    assert routes.format_target("GET /npm/*name", {"name": "a/-/b"}) == "/npm/a%2F-%2Fb"


@pytest.mark.parametrize(
    ("id_", "parameters"),
    [
        ("GET /nothing", {}),
        ("GET /tags/:tag", {}),
        ("GET /tags/:tag", {"tag": "v1", "other": "x"}),
        ("GET /tags/:tag", {"tag": "a/b"}),
        ("GET /tags/:tag", {"tag": ".."}),
        ("GET /tags/:tag", {"tag": ""}),
        ("GET /tags/:tag", {"tag": "latest"}),
        ("GET /tags/:tag", {"tag": "\ud800"}),
    ],
)
def test_a_path_that_would_not_resolve_is_not_written(id_, parameters):
    with pytest.raises(ValueError):  # noqa: PT011 - of surrogates Python says so in its own words
        router("GET /tags/:tag", "GET /tags/latest").format_target(id_, parameters)


def test_the_codes_are_those_of_the_decision():
    assert {RouteFault.BAD_PATH.value, RouteFault.OPERATION_UNKNOWN.value} == {
        Reason.BAD_PATH.value,
        Reason.OPERATION_UNKNOWN.value,
    }
    assert len(RouteFault) == 2
