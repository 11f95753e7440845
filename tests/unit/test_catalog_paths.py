"""Operation ids and path templates."""

from __future__ import annotations

import pytest

from authz_service.catalog.model import OperationKind
from authz_service.catalog.paths import OperationTextError, parse_operation, parse_path


@pytest.mark.parametrize(
    ("text", "kind", "mutates"),
    [
        ("GET /projects/:id", OperationKind.REST, False),
        ("HEAD /projects/:id", OperationKind.REST, False),
        ("POST /projects", OperationKind.REST, True),
        ("OPTIONS /", OperationKind.REST, True),
        ("Mutation.createIssue", OperationKind.GRAPHQL, True),
        ("Query.project", OperationKind.GRAPHQL, False),
        ("Type.Issue", OperationKind.GRAPHQL, False),
        ("git.push", OperationKind.GIT, True),
        ("git.fetch", OperationKind.GIT, True),
        ("registry.pull", OperationKind.REGISTRY, True),
        ("record.write", OperationKind.ACTION, True),
    ],
)
def test_an_operation_says_its_kind_and_whether_it_mutates(text, kind, mutates):
    operation = parse_operation(text)
    assert (operation.id, operation.kind, operation.mutates) == (text, kind, mutates)


def test_spaces_between_method_and_path_do_not_make_another_operation():
    assert parse_operation("GET   /a").id == "GET /a"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/projects",
        "GET",
        "GET projects",
        "get /a",
        "FETCH /a",
        "GET  ",
        "GET /a b",
        "mutation.createIssue",
        "Type.",
        "git.Push",
        "git.",
        "GET /a/",
        "GET //a",
        "GET /a//b",
        "GET /a/../b",
        "GET /a/.",
        "GET /a%2fb",
        "GET /a;b",
        "GET /a?b",
        "GET /a#b",
        r"GET /a\b",
        "GET /é",
        "GET /{a}{b}",
        "GET /:a:b",
        "GET /*a*b",
        "GET /{id}/x/{id}",
        "GET /:",
        "GET /{}",
        "GET /{a b}",
        "GET /(a",
        "GET /a)",
        "GET /((a))",
        "GET /(a)(b)(c)(d)(e)",
        "GET /a/(/)",
    ],
)
def test_text_that_names_no_operation_is_refused(text):
    with pytest.raises(OperationTextError):
        parse_operation(text)


@pytest.mark.parametrize(
    ("path", "parameters", "variants"),
    [
        ("/", (), 1),
        ("/projects/:id/issues", ("id",), 1),
        ("/repos/{owner}/{repo}/contents/{path*}", ("owner", "repo", "path"), 1),
        ("/groups/:id/(-/)epics", ("id",), 2),
        ("/files/(*path/):file_name", ("path", "file_name"), 2),
        ("/latest(/)(*suffix)", ("suffix",), 3),
        ("/binary-:architecture/Packages", ("architecture",), 1),
        (r"/v2/FindPackagesById\(\)", (), 1),
        ("/compare/{base}...{head}", ("base", "head"), 1),
        ("/go/@v/:version.info", ("version",), 1),
    ],
)
def test_a_template_says_its_parameters_and_the_paths_it_stands_for(path, parameters, variants):
    template = parse_path(path)
    assert template.parameters == parameters
    assert len(template.variants) == variants


def test_both_ways_to_write_a_parameter_match_the_same_requests():
    colon, brace = parse_path("/projects/:id").variants[0], parse_path("/projects/{project}").variants[0]
    assert [segment.pattern for segment in colon] == [segment.pattern for segment in brace]
