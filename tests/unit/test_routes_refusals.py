"""Every spelling of a path but the canonical one is refused, and the ways in which others were once passed."""

from __future__ import annotations

import pytest

from authz_service.catalog.canonical import MAX_SEGMENTS, MAX_TARGET
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


def operation(id_: str) -> Operation:
    """Where `:id` follows, it names a project or a group by its full path."""
    method, _, path = id_.partition(" ")
    kinds = {"projects": ParameterKind.PROJECT, "groups": ParameterKind.GROUP}
    kind = kinds.get(path.split("/")[1]) if ":id" in path else None
    item = Item("thing:read", NodeKind.PROJECT, Target(TargetKind.PARAMETER, ("id",), kind))
    return Operation(id_, OperationKind.REST, (RequirementSet((item,)),) if kind else (), method=method, path=path)


IDS = (
    "GET /version",
    "GET /public/:name",
    "GET /admin/secrets",
    "DELETE /admin/users/:user",
    "GET /projects/:id",
    "GET /projects/:id/issues",
    "GET /projects/:id/labels/:name",
    "GET /projects/:id/repository/files/:file_path/raw",
    "GET /projects/:id/packages/maven/*path/:file_name",
    "GET /projects/:id/packages/go/*module/@v/:version.zip",
    "GET /groups/:id/-/search",
    "GET /repos/{owner}/{repo}/compare/{base}...{head}",
    "GET /catchall/*path",
)
ROUTES = Router([operation(each) for each in IDS], encoded=("file_path",))


def refused(target: str, method: str = "GET", routes: Router = ROUTES) -> RouteFault | None:
    found = routes.resolve(method, target)
    return found.fault if isinstance(found, PathFault) else None


@pytest.mark.parametrize(
    "target",
    [
        "",
        "*",
        "version",
        "projects/7",
        "example.com:443",
        "http://example.com/version",
        "https://example.com",
        "//version",
        "//example.com/version",
        "/version/",
        "/version//",
        "/projects//7",
        "/projects/7/",
        "/projects/7//issues",
        "/./version",
        "/../version",
        "/version/.",
        "/version/..",
        "/projects/./7",
        "/x/../version",
        "/%2e/version",
        "/%2E%2e/version",
        "/.%2e/version",
        "/projects/%2e%2E/version",
        "/public/%2e",
        "/%2fversion",
        "/version%2f",
        "/public%2Fname",
        "/public/a%2Fb",
        "/public/a%5cb",
        "/public/a%5Cb",
        "/public/a%3bb",
        "/public/a%3Fb",
        "/public/a%23b",
        "/public/a%252fb",
        "/public/100%25",
        "/public\\name",
        "/public/a\\..\\b",
        "/version;",
        "/version;v=1",
        "/;/version",
        "/public/..;/admin/secrets",
        "/version%00",
        "/public/a%00",
        "/public/a%0a",
        "/public/a%0D%0AX",
        "/public/a%7f",
        "/public/a%C2%85",
        "/public/a\x00",
        "/public/a\n",
        "/public/a\tb",
        "/public/a b",
        "/public/\x7f",
        "/public/é",
        "/public/\uff0f",
        "/public/\ud800",
        "/public/%",
        "/public/%2",
        "/public/%zz",
        "/public/%u002f",
        "/public/%C3",
        "/public/%ff",
        "/public/%c0%af",
        "/public/%c0%ae%c0%ae",
        "/public/%ed%a0%80",
        "/public/a#b",
        "/version#",
        "/version?a#b",
        "/version?a\nb",
        "/version?é",
        '/public/"a"',
        "/public/<a>",
        "/public/[a]",
        "/public/{a}",
        "/public/a|b",
        "/public/a^b",
        "/public/a`b",
        "/vers%69on",
        "/%76ersion",
        "/projects/7/%69ssues",
        "/projects/7/issue%73",
        "/projects/7%2Fissues%2F",
        "/projects/%2F7",
        "/projects/acme%2F%2Fweb",
        "/projects/acme%2F..%2Fother",
        "/projects/acme%2f%2e%2e%2fother",
        "/projects/acme%2F.%2Fweb/issues",
        "/projects/acme%5c..%5cother",
        "/projects/acme%2Fweb%00",
        "/projects/7/repository/files/..%2F..%2Fissues/raw",
        "/projects/7/repository/files/%2Fetc%2Fpasswd/raw",
        "/projects/7/packages/maven/a/../b/c.jar",
        "/projects/7/packages/maven/a%2fb/c.jar",
        "/catchall/a/%2e%2e/b",
        "/catchall/a%2fb",
        "/catchall/a%5Cb",
        "/nothing/a%2Fb",
        "/nothing%2Fa",
        "/nothing/a%252e",
    ],
)
def test_a_path_that_others_may_read_otherwise_is_refused(target):
    assert refused(target) is RouteFault.BAD_PATH


@pytest.mark.parametrize(
    ("target", "parameters"),
    [
        ("/public/...", {"name": "..."}),
        ("/public/..a", {"name": "..a"}),
        ("/public/.git", {"name": ".git"}),
        ("/public/a%2Eb", {"name": "a.b"}),
        ("/public/%E2%9C%93", {"name": "✓"}),
        ("/public/a%20b", {"name": "a b"}),
        ("/public/a:b@c!$&'()*+,=~", {"name": "a:b@c!$&'()*+,=~"}),
        ("/projects/7/labels/and%2Bor", {"id": "7", "name": "and+or"}),
    ],
)
def test_what_can_be_read_in_one_way_only_is_not_refused(target, parameters):
    found = ROUTES.resolve("GET", target)
    assert isinstance(found, Match)
    assert found.parameters == parameters


def test_the_length_of_a_target_is_bounded():
    name = "a" * (MAX_TARGET - len("/public/"))
    assert refused(f"/public/{name}") is None
    assert refused(f"/public/{name}a") is RouteFault.BAD_PATH
    assert refused(f"/version?{'q' * MAX_TARGET}") is RouteFault.BAD_PATH


def test_the_number_of_segments_is_bounded():
    assert refused("/catchall" + "/a" * (MAX_SEGMENTS - 1)) is None
    assert refused("/catchall" + "/a" * MAX_SEGMENTS) is RouteFault.BAD_PATH


def test_a_bad_path_is_named_before_an_unknown_method():
    assert refused("/projects//7", "BREW") is RouteFault.BAD_PATH
    assert refused("/projects/7", "BREW") is RouteFault.OPERATION_UNKNOWN


def test_text_that_only_some_readers_would_see_in_a_parameter_is_refused():
    routes = Router([operation(each) for each in ("GET /a/import", "GET /a/:x", "GET /a/:x/:y", "GET /b/:x.zip")])
    assert refused("/a/%69mport", routes=routes) is RouteFault.BAD_PATH
    assert refused("/a/Import", routes=routes) is RouteFault.BAD_PATH
    assert refused("/a/%C4%B1mport", routes=routes) is None  # a dotless i is another letter everywhere
    assert refused("/b/x%2Ezip", routes=routes) is RouteFault.BAD_PATH
    assert refused("/b/x.ZIP", routes=routes) is RouteFault.BAD_PATH
    # Where the text leads to no operation there is nothing to mistake it for.
    assert refused("/a/%69mport/y", routes=routes) is None


def test_letters_that_fold_to_ascii_are_no_way_around_a_text():
    routes = Router([operation(each) for each in ("GET /a/tokens", "GET /a/:x")])
    assert refused("/a/to%E2%84%AAens", routes=routes) is RouteFault.BAD_PATH  # the Kelvin sign folds to k
    assert refused("/a/token%C5%BF", routes=routes) is RouteFault.BAD_PATH  # and the long s to s


def test_an_escape_is_never_cut_in_two():
    routes = Router([operation("GET /x/{a}2{b}")], encoded=("a", "b"))
    assert refused("/x/p%2fq", routes=routes) is RouteFault.BAD_PATH
    assert refused("/x/p%20q", routes=routes) is RouteFault.OPERATION_UNKNOWN
    assert routes.resolve("GET", "/x/p%2fq2r") == Match("GET /x/{a}2{b}", {"a": "p/q", "b": "r"})


def test_each_message_says_what_is_wrong():
    def message(target: str) -> str:
        found = ROUTES.resolve("GET", target)
        assert isinstance(found, PathFault)
        return found.message

    assert "`..`" in message("/a/../b")
    assert "empty segment" in message("//a")
    assert "whole URL" in message("http://example.com/")
    assert "hexadecimal" in message("/a%2")
    assert "UTF-8" in message("/a%ff")
    assert "control" in message("/a%01")
    assert "fragment" in message("/a#b")
    assert "percent-encoded" in message("/a;b")
    assert "percent-encoded" in message("/é")
    assert "no encoded separator" in message("/public/a%2fb")
    assert "no operation" in message("/nothing")


PRECEDENTS = {
    # Envoy matched rules before it resolved dot segments.
    "CVE-2019-9901": ["/public/../admin/secrets", "/public/./../admin/secrets", "/public/%2e%2e/admin/secrets"],
    # Envoy matched rules on encoded slashes that the service behind it decoded.
    "CVE-2021-29492": ["/public%2f..%2fadmin%2fsecrets", "/admin%2fsecrets", "/admin%5csecrets", "/admin%5Csecrets"],
    # Traefik matched its routers on encoded characters that it decoded later.
    "CVE-2025-66490": [f"/admin{escape}secrets" for escape in ("%2F", "%5C", "%00", "%3B", "%3F", "%23")],
    # Traefik cut a prefix by the length of the decoded path, and left a dot segment behind.
    "CVE-2026-40912": ["/./admin/secrets", "/%2e/admin/secrets", "/admin/./secrets"],
    # The Envoy plugin of OPA read what follows two slashes as a host.
    "CVE-2026-26205": ["//public/admin/secrets", "//public/name", "///admin/secrets", "//example.com/admin/secrets"],
    # Oathkeeper chose the rule by the path as it came, and the service got the resolved one.
    "GHSA-p224-6x5r-fjpm": ["/public/name/../../admin/secrets", "/public/..%2fadmin%2fsecrets", "/public/..;/admin"],
    # SciTokens let dot segments inside a scope's own path lead out of it.
    "GHSA-3x2w-63fp-3qvw": ["/projects/acme%2F..%2Fother", "/projects/acme%2Fweb%2F..", "/projects/..%2Facme"],
}


@pytest.mark.parametrize(("name", "target"), [(name, each) for name, found in PRECEDENTS.items() for each in found])
def test_a_trick_that_once_worked_elsewhere_is_refused(name, target):
    assert refused(target) is RouteFault.BAD_PATH
    assert refused(target.replace("secrets", "users/7"), "DELETE") is RouteFault.BAD_PATH


def test_a_prefix_that_is_cut_off_by_its_length_is_no_way_in():
    routes = Router([operation("GET /admin/secrets"), operation("GET /:anything")], base_path="/api")
    for target in (
        "/api%2e/admin/secrets",
        "/api%20/admin/secrets",
        "/api../admin/secrets",
        "/api%2e%2e/admin/secrets",
    ):
        assert refused(target, routes=routes) is RouteFault.OPERATION_UNKNOWN


CANONICAL = {
    "/version": "GET",
    "/admin/users/dana": "DELETE",
    "/projects/7/issues": "GET",
    "/projects/acme%2Fweb/labels/bug": "GET",
    "/projects/acme%2Fweb/repository/files/src%2Fmain.py/raw": "GET",
    "/projects/7/packages/maven/a/b/c.jar": "GET",
    "/projects/7/packages/go/example.com/m/@v/v1.0.zip": "GET",
    "/groups/acme/-/search": "GET",
    "/repos/acme/web/compare/main...next": "GET",
}


EVERYWHERE = (";", ";x", "\\", "%00", "%0a", "%7f", "%ff", "%c0%af", "%u002f", "%", " ", "\t", "\u00e9", "#")
AT_EDGES = (
    *("/", "/.", "/..", "/x/..", "/%2e", "/%2E%2e", "/.%2e", "/..;", "/..%00", "/%2e%2e%2f", "/%20%2e%2e/..", "/."),
    *("%2f", "%2F..", "%2f.", "%5c..", "%5C.%5c", "%2f%2f", "%252f", "%255c", "%252e%252e%252f", "%2500"),
)
DATA_ELSEWHERE = ("%5c", "%3b", "%3f", "%23", "%25", "%252f")


def variants(target: str) -> set[str]:
    """The same path as somebody else might spell it: at every place, everything that some reader takes away."""
    found = {target.replace("/", each) for each in ("//", "\\", "/./", "/%2e/", "/;/", "%2f", "%5c")}
    found |= {f"/{target}", f"http://example.com{target}", target.upper(), target.swapcase(), target[1:]}
    for place in range(len(target) + 1):
        here = target[place : place + 1]
        if "%" in target[max(place - 2, 0) : place]:
            continue  # inside an escape
        texts = [*EVERYWHERE, *DATA_ELSEWHERE, *(AT_EDGES if here in ("/", "") else ())]
        found |= {target[:place] + text + target[place:] for text in texts}
        if here and here != "%":
            found |= {
                f"{target[:place]}%{code}{target[place + 1 :]}" for code in (f"{ord(here):02x}", f"25{ord(here):02X}")
            }
            found |= {target[:place] + here.swapcase() + target[place + 1 :]}
    return found - {target}


@pytest.mark.parametrize(("target", "method"), CANONICAL.items())
def test_no_variant_of_a_path_means_anything_else(target, method):
    expected = ROUTES.resolve(method, target)
    assert isinstance(expected, Match)
    assert len(variants(target)) > 200
    for variant in variants(target):
        found = ROUTES.resolve(method, variant)
        if isinstance(found, PathFault) or found == expected:
            continue
        # What is left are other data: another case, or encoded text where it is data, as in `/projects/7%2Fissues`.
        if found.operation_id != expected.operation_id:
            assert "issues" in found.parameters["id"], variant
            continue
        folded = {name: value.casefold() for name, value in expected.parameters.items()}
        changed = {name for name, value in found.parameters.items() if value.casefold() != folded[name]}
        assert changed <= {"id", "file_path"}, variant
