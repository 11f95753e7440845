"""What tokens of `github@1` are told: one owner, places that only the caller knows, workflow files, classic scopes."""

from __future__ import annotations

import pytest
from tests.builders import DAY, NOW, account, group, project, rows
from tests.support.memory_world import MemoryWorld, decide_in

from authz_service.directory.model import Visibility
from authz_service.engine.model import OperationRequest, PermissionRequest, Reason, Request
from authz_service.store.shipped import shipped_catalogs
from authz_service.tokens.model import Reach, ReachKind, Scope, Token, TokenId, TokenKind

PUBLIC = Visibility.PUBLIC
DANA, DANA_NODE = account("dana")
ERIN, ERIN_NODE = account("erin")
ACME = group("acme", visibility=PUBLIC)
WEB = project("web", ACME, external_id="42")
SITE = project("site", ACME, visibility=PUBLIC, external_id="43")
OTHER = group("other", visibility=PUBLIC)
TOOL = project("tool", OTHER, visibility=PUBLIC, external_id="77")
VAULT = project("vault", OTHER, external_id="99")
NOTES = project("notes", DANA_NODE)

ON_ACME = Reach(ReachKind.SELECTED, (ACME.id,))
ON_WEB = Reach(ReachKind.SELECTED, (WEB.id,))
ACCOUNT = Reach(ReachKind.USER)
OWN = Reach(ReachKind.PERSONAL_PROJECTS)


def told(ask, *scopes, classic=(), owner=DANA, resource_owner=ACME, role="write", **attributes):
    """The reason for dana's token, who has a role in `acme` and none in `other`; a scope is (reach, *permissions)."""
    token = Token(
        TokenId("tok_a"),
        owner.id,
        {"github": 1},
        TokenKind.LEGACY if classic else TokenKind.FINE_GRAINED,
        tuple(Scope("github", reach, tuple(may)) for reach, *may in scopes),
        tuple(classic),
        resource_owner=None if classic else resource_owner.id,
        created_at=NOW - DAY,
    )
    world = rows(
        (DANA, DANA_NODE), (ERIN, ERIN_NODE), ACME, WEB, SITE, OTHER, TOOL, VAULT, NOTES, token,
        members=[(DANA, ACME, role)],
    )  # fmt: skip
    world.catalogs.extend(each for each in shipped_catalogs() if each.name == "github")
    request = Request("github", ask, NOW, attributes={f"context.{name}": value for name, value in attributes.items()})
    return decide_in(MemoryWorld(world), token.id, request).reason


def call(id_, target=None, **parameters):
    return OperationRequest(id_, parameters, target)


def on(repository, id_):
    owner, name = repository.split("/")
    return call(id_, owner=owner, repo=name)


ISSUES = "GET /repos/{owner}/{repo}/issues"
WRITE_FILE = "PUT /repos/{owner}/{repo}/contents/{path}"
STAR = "PUT /user/starred/{owner}/{repo}"
BEYOND = Reason.OUTSIDE_REACH
MISSING = Reason.PERMISSION_MISSING


def test_write_includes_read_and_any_repository_permission_the_metadata():
    scope = (ON_WEB, "issues:write")
    assert told(on("acme/web", ISSUES), scope) is Reason.GRANTED
    assert told(PermissionRequest("metadata:read", "project:acme/web"), scope) is Reason.GRANTED
    assert told(on("acme/web", ISSUES), (ON_WEB, "pull_requests:write")) is MISSING


def test_a_repository_of_another_owner_is_out_of_reach_but_for_what_is_public():
    reach = Reach(ReachKind.SELECTED, (TOOL.id, VAULT.id))
    assert told(on("other/vault", ISSUES), (reach, "issues:read")) is BEYOND
    assert told(on("other/tool", ISSUES), (reach, "issues:read")) is Reason.GRANTED_PUBLIC_READ


@pytest.mark.parametrize(
    ("held", "attributes", "reason"),
    [
        (["contents:write"], {"touches_workflows": False}, Reason.GRANTED),
        (["contents:write"], {"touches_workflows": True}, MISSING),
        (["contents:write"], {}, Reason.ATTRIBUTE_MISSING),
        (["contents:write", "workflows:write"], {"touches_workflows": True}, Reason.GRANTED),
        (["contents:write", "workflows:write"], {}, Reason.GRANTED),
        (["workflows:write"], {"touches_workflows": True}, MISSING),
    ],
)
def test_changing_workflow_files_needs_both_permissions_and_somebody_has_to_say_so(held, attributes, reason):
    ask = call(WRITE_FILE, owner="acme", repo="web", path=".github/workflows/ci.yml")
    assert told(ask, (ON_WEB, *held), **attributes) is reason


def test_anybody_may_star_what_is_public_and_nobody_what_they_do_not_see():
    scope = (ACCOUNT, "starring:write")
    assert told(on("other/tool", STAR), scope, resource_owner=DANA) is Reason.GRANTED_PUBLIC_READ
    assert told(on("other/vault", STAR), scope, resource_owner=DANA) is MISSING
    assert told(on("other/tool", STAR), scope, resource_owner=ACME) is BEYOND


def test_an_organization_secret_is_given_to_repositories_that_the_token_sees():
    ask = "PUT /orgs/{org}/actions/secrets/{secret_name}/repositories/{repository_id}"
    scope = (ON_ACME, "organization_secrets:write", "metadata:read")
    assert told(call(ask, org="acme", secret_name="KEY", repository_id="42"), scope) is Reason.GRANTED
    assert told(call(ask, org="acme", secret_name="KEY", repository_id="99"), scope) is BEYOND
    assert told(call(ask, org="acme", secret_name="KEY", repository_id="12"), scope) is Reason.TARGET_UNKNOWN


def test_lists_of_an_organization_need_one_repository_and_changes_need_all():
    alerts = call("GET /orgs/{org}/dependabot/alerts", org="acme")
    assert told(alerts, (ON_WEB, "vulnerability_alerts:read")) is Reason.GRANTED
    create = call("POST /orgs/{org}/repos", org="acme")
    assert told(create, (ON_WEB, "administration:write")) is BEYOND
    assert told(create, (ON_ACME, "administration:write")) is Reason.GRANTED


def test_the_first_own_repository_can_be_made_by_who_holds_all_of_them():
    create = call("POST /user/repos")
    scope = (OWN, "administration:write")
    assert told(create, scope, resource_owner=DANA) is Reason.GRANTED
    assert told(create, scope, owner=ERIN, resource_owner=ERIN) is Reason.GRANTED
    one = Reach(ReachKind.SELECTED, (NOTES.id,))
    assert told(create, (one, "administration:write"), resource_owner=DANA) is BEYOND
    assert told(create, (ON_ACME, "administration:write"), resource_owner=ACME) is BEYOND


def test_the_caller_says_which_organization_a_team_is_of():
    ask = "GET /teams/{team_id}"
    assert told(call(ask, team_id="5"), (ON_ACME, "members:read")) is Reason.TARGET_REQUIRED
    assert told(call(ask, "group:acme", team_id="5"), (ON_ACME, "members:read")) is Reason.GRANTED
    assert told(call(ask, "group:other", team_id="5"), (ON_ACME, "members:read")) is BEYOND


def test_a_member_of_an_organization_without_base_permission_is_nobody_in_its_repositories():
    scope = (ON_ACME, "issues:read", "members:read")
    teams = call("GET /orgs/{org}/teams", org="acme")
    assert told(teams, scope, role="member") is Reason.GRANTED
    assert told(on("acme/web", ISSUES), scope, role="member") is Reason.OWNER_NOT_MEMBER


def test_open_operations_ask_for_nothing_but_a_place_that_is_in_sight():
    assert told(call("GET /rate_limit")) is Reason.GRANTED_OPEN
    assert told(call("GET /users/{username}", username="erin")) is Reason.GRANTED_OPEN
    events = "GET /networks/{owner}/{repo}/events"
    assert told(on("other/tool", events)) is Reason.GRANTED_OPEN
    assert told(on("other/vault", events)) is Reason.OWNER_NOT_MEMBER
    assert told(on("other/tool", "POST /repos/{owner}/{repo}/releases/{release_id}/reactions")) is MISSING


def test_closed_operations_are_for_classic_tokens_alone():
    ask = call("GET /notifications", "user:dana")
    assert told(ask, (ACCOUNT, "watching:write"), resource_owner=DANA) is Reason.OPERATION_CLOSED
    assert told(ask, classic=["notifications"]) is Reason.GRANTED
    assert told(ask, classic=["repo"]) is Reason.OPERATION_CLOSED


@pytest.mark.parametrize(
    ("id_", "repository", "classic", "reason"),
    [
        ("DELETE /repos/{owner}/{repo}", "acme/web", ["repo"], MISSING),
        ("DELETE /repos/{owner}/{repo}", "acme/web", ["delete_repo"], Reason.GRANTED),
        ("PATCH /repos/{owner}/{repo}", "acme/web", ["repo"], Reason.GRANTED),
        ("PATCH /repos/{owner}/{repo}", "other/tool", ["repo"], BEYOND),
        ("POST /repos/{owner}/{repo}/issues", "acme/web", ["public_repo"], BEYOND),
        ("POST /repos/{owner}/{repo}/issues", "acme/site", ["public_repo"], Reason.GRANTED),
        ("POST /repos/{owner}/{repo}/issues", "other/tool", ["public_repo"], BEYOND),
        (ISSUES, "other/tool", ["gist"], Reason.GRANTED_PUBLIC_READ),
        (ISSUES, "acme/web", ["gist"], MISSING),
        ("PUT /user/starred/{owner}/{repo}", "other/tool", ["public_repo"], Reason.GRANTED),
    ],
)
def test_classic_scopes_go_as_far_as_their_owner_and_no_further_than_their_name(id_, repository, classic, reason):
    assert told(on(repository, id_), classic=classic) is reason
