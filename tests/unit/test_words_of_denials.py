"""What a denial says of the question that it answers: which permission, which catalog, what is wrong with the path."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.builders import account, ask, catalog, group, permission, rows, token
from tests.support.memory_world import MemoryWorld

from authz_service.api.wire import parse_json
from authz_service.catalog.canonical import PathFault, read_target
from authz_service.catalog.near import no_such_permission
from authz_service.cli.asking import parse_words
from authz_service.cli.health import health
from authz_service.cli.printing import UsageFault
from authz_service.engine.decide import decide
from authz_service.engine.explain import describe
from authz_service.engine.model import OperationRequest, Reason
from authz_service.errors import InvalidBodyError

FORGE = catalog(permission("job:read", 0), permission("job:run", 1), permission("issue:read", 2))


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("job:rnu", "job:run"),
        ("run:job", "job:run"),
        ("jobs:run", "job:run"),
        ("job:reed", "job:read"),
        ("Job:Read", "job:read"),
        ("isue:read", "issue:read"),
    ],
)
def test_a_slip_of_the_pen_is_told_what_was_meant(asked, meant):
    assert no_such_permission(FORGE, asked) == f"`{FORGE.label}` has no permission `{asked}`; did you mean `{meant}`"


@pytest.mark.parametrize("asked", ["deploy:everything", "x", ":", "job"])
def test_nothing_is_guessed_of_what_is_far_from_everything(asked):
    assert no_such_permission(FORGE, asked).endswith(f"`{asked}`; `GET /v1/catalogs/forge` lists those it has")


@pytest.mark.parametrize("asked", ["", "job`: x", "job:\nread", "a" * 500, "\ud800"])
def test_what_could_be_no_name_is_not_repeated(asked):
    assert no_such_permission(FORGE, asked) == "`forge@1` has no permission of that name; write it as `resource:action`"


def test_a_denial_says_which_permission_and_which_catalog_there_is_not():
    dana, acme = account(), group()
    holder = token(dana[0])
    world = MemoryWorld(rows(FORGE, dana, acme, holder, members=[]))
    unknown = decide(holder, world, ask("job:rnu", "group:acme"))
    assert unknown.reason is Reason.PERMISSION_UNKNOWN
    assert describe(unknown) == "`forge@1` has no permission `job:rnu`; did you mean `job:run`"
    for asked, named in (
        (replace(ask("job:run", "group:acme"), catalog="frge"), "`frge`"),
        (replace(ask("job:run", "group:acme"), version=9), "`forge@9`"),
    ):
        other = decide(holder, world, asked)
        assert other.reason is Reason.CATALOG_MISMATCH
        assert named in describe(other)
    path = OperationRequest("", bad_path=True, path_fault="the path ends with `/`; leave that out")
    bad = decide(holder, world, replace(ask("job:run"), ask=path))
    assert (bad.reason, describe(bad)) == (Reason.BAD_PATH, path.path_fault)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("/projects/", "ends with `/`"),
        ("projects", "does not begin with `/`"),
        ("https://git.example.com/projects", "a whole URL"),
        ("/projects//jobs", "two `/` in a row"),
        ("/projects/a%zz", "without two hexadecimal digits"),
        ("/projects/../x", "`.` or `..` segment"),
        ("/projects/a b", "percent-encoded"),
    ],
)
def test_a_path_is_told_what_is_wrong_with_it(target, said):
    found = read_target(target)
    assert isinstance(found, PathFault)
    assert said in found.message


def test_a_health_check_says_whom_it_asked(capsys):
    assert health(ready=False, environ={"AUTHZ_PORT": "1"}) == 3
    assert "no answer from /livez at 127.0.0.1:1 (" in capsys.readouterr().err
    assert health(ready=True, environ={"AUTHZ_UDS": "/nowhere/authz.sock"}) == 3
    assert "no answer from /readyz at unix:/nowhere/authz.sock (" in capsys.readouterr().err


@pytest.mark.parametrize("body", [b"", b" \n"])
def test_an_empty_body_is_called_empty(body):
    with pytest.raises(InvalidBodyError, match="the body is empty"):
        parse_json(body)


def test_a_request_is_told_what_can_i_takes():
    with pytest.raises(UsageFault, match="about a request ask `authz explain GET /api/v4/jobs --secret-file"):
        parse_words(["GET", "/api/v4/jobs"])
