from __future__ import annotations

import pytest

from authz_service.cli.needs import find_missing, find_unneeded, one_line, parse_needs
from authz_service.client import Answer, Ask
from authz_service.errors import InvalidInputError

FILE = """\
catalog = "gitlab"

[[needs]]
permissions = ["job:read",
               "job:run"]
at = "${CI_PROJECT_PATH}"

[[needs]]
permissions = 'pipeline:read'
at = ["project:42", "group:acme"]
catalog = "gitlab@1"
"""


def codes(text, variables=None):
    with pytest.raises(InvalidInputError) as caught:
        parse_needs(text, variables or {})
    return {(fault.where, fault.code) for fault in caught.value.faults}


def test_each_permission_is_needed_at_each_place_of_its_table():
    needs = parse_needs(FILE, {"CI_PROJECT_PATH": "acme/web"})
    assert [(need.ask, need.catalog, need.line) for need in needs] == [
        (Ask("job", "read", "acme/web"), "gitlab", 4),
        (Ask("job", "run", "acme/web"), "gitlab", 5),
        (Ask("pipeline", "read", "project:42"), "gitlab@1", 9),
        (Ask("pipeline", "read", "group:acme"), "gitlab@1", 9),
    ]


def test_a_need_that_comes_twice_is_asked_once():
    table = '[[needs]]\npermissions = ["job:read", "job:read"]\n'
    assert len(parse_needs(table + table, {})) == 1


def test_a_place_is_taken_as_it_is_and_no_variable_is_read_in_a_variable():
    [need] = parse_needs('[[needs]]\npermissions = "job:read"\nat = "$HOME/${A}"\n', {"A": "${B}", "B": "no"})
    assert need.ask.target == "$HOME/${B}"


def test_all_faults_of_a_file_are_reported_at_once():
    text = """
        catalogue = "x"
        [[needs]]
        permissions = ["job", "job:read"]
        at = ["${NONE}", 7, ""]
        [[needs]]
        where = "x"
    """
    assert codes(text) == {
        ("/catalogue", "unknown_field"),
        ("/needs/0/permissions/0", "invalid_value"),
        ("/needs/0/at/0", "variable_unset"),
        ("/needs/0/at/1", "invalid_value"),
        ("/needs/0/at/2", "invalid_value"),
        ("/needs/1/where", "unknown_field"),
        ("/needs/1/permissions", "invalid_value"),
    }


@pytest.mark.parametrize("text", ["", "needs = 1", "needs = []", "needs = [1]", '[needs]\npermissions = "a:b"'])
def test_a_file_without_needs_is_no_empty_promise(text):
    assert codes(text) == {("/needs", "missing_field")}


def test_what_is_no_toml_is_a_fault():
    assert codes("[[needs]") == {("file", "invalid_toml")}


def test_what_is_missing_comes_with_the_service_s_words_on_one_line():
    needs = parse_needs('[[needs]]\npermissions = ["job:read", "job:run"]\nat = "acme/web"\n', {})
    deny = Answer("deny", "permission_missing", "the token lacks it;\n::error::hello\x1b[2J")
    [finding] = find_missing(needs, [Answer("allow", "granted"), deny])
    assert finding.message == "`job:run` at `acme/web`: the token lacks it; ::error::hello [2J"
    assert (finding.code, finding.permission, finding.target) == ("permission_missing", "job:run", "acme/web")


def token(*permissions, nodes=("group:acme",), catalog="gitlab"):
    return {"scopes": [{"catalog": catalog, "reach": {"kind": "selected", "nodes": nodes}, "permissions": permissions}]}


def unneeded(held, *, permission="job:read", at="acme/web", catalog="gitlab"):
    needs = parse_needs(f'catalog = "{catalog}"\n[[needs]]\npermissions = "{permission}"\nat = "{at}"\n', {})
    return {(one.code, one.permission or one.target) for one in find_unneeded(needs, held)}


def test_a_token_that_holds_what_is_needed_and_nothing_else_is_the_smallest():
    assert not unneeded(token("job:read"))
    assert not unneeded(token("job:read", nodes=["project:ACME/web"]), catalog="gitlab@1")


def test_a_permission_that_nothing_needs_is_unneeded():
    assert unneeded(token("job:read", "job:run")) == {("unneeded_permission", "job:run")}
    assert unneeded(token("job:read", catalog="github")) == {("unneeded_permission", "job:read")}


def test_a_place_where_nothing_is_needed_is_unneeded_and_a_path_is_no_mere_prefix():
    assert unneeded(token("job:read", nodes=["group:acme", "project:acme/we"])) == {
        ("unneeded_place", "project:acme/we")
    }


def test_what_cannot_be_told_from_a_path_is_not_called_unneeded():
    assert not unneeded(token("job:read"), at="project:42")
    assert not unneeded(token("job:read"), at="user:dana")


def test_a_coarse_scope_is_always_more_than_a_list_of_needs():
    assert unneeded({"scopes": [], "legacy_scopes": ["api"]}) == {("unneeded_legacy_scope", "api")}


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\x1b\x9bb", "a\u2028b", " a  b "])
def test_a_line_stays_one_line(text):
    assert one_line(text).split() == ["a", "b"]
