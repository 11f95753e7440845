"""What tokens of `gitlab@1` and `gitlab@2` are told, side by side."""

from __future__ import annotations

import pytest
from tests.builders import DAY, NOW, account, group, project, rows
from tests.support.memory_world import MemoryWorld, decide_in

from authz_service.directory.model import Visibility
from authz_service.engine.model import Missing, OperationRequest, PermissionRequest, Reason, Request
from authz_service.store.shipped import shipped_catalogs
from authz_service.tokens.model import Reach, ReachKind, Scope, Token, TokenId, TokenKind

OWNER, OWN_NODE = account("dana")
OTHER, OTHER_NODE = account("erin")
ACME = group("acme", external_id="12")
WEB = project("web", ACME, external_id="42")
SITE = group("site", visibility=Visibility.PUBLIC)
DOCS = project("docs", SITE, visibility=Visibility.PUBLIC, external_id="77")
VAULT = project("vault", SITE, external_id="99")
ON_ACME = Reach(ReachKind.SELECTED, (ACME.id,))


def told(ask, *, version=2, may=(), reach=ON_ACME, legacy=()):
    """The decision for dana, maintainer of `acme` and of nothing else."""
    token = Token(
        TokenId("tok_a"),
        OWNER.id,
        {"gitlab": version},
        TokenKind.LEGACY if legacy else TokenKind.FINE_GRAINED,
        (Scope("gitlab", reach, tuple(may)),) if may else (),
        tuple(legacy),
        created_at=NOW - DAY,
    )
    world = rows(
        (OWNER, OWN_NODE),
        (OTHER, OTHER_NODE),
        ACME,
        WEB,
        SITE,
        DOCS,
        VAULT,
        token,
        members=[(OWNER, ACME, "maintainer")],
    )
    world.catalogs.extend(each for each in shipped_catalogs() if each.name == "gitlab")
    return decide_in(MemoryWorld(world), token.id, Request("gitlab", ask, NOW))


def call(id_, target=None, **parameters):
    return OperationRequest(id_, parameters, target, mutates=not id_.startswith(("GET", "HEAD")))


@pytest.mark.parametrize("permission", ["cd_application:read", "cd_environment:create"])
def test_a_token_of_the_beta_keeps_what_the_newer_tables_took_away(permission):
    ask = PermissionRequest(permission, "group:acme")
    assert told(ask, version=1, may=[permission]).reason is Reason.GRANTED
    assert told(ask, version=2, may=[permission]).reason is Reason.BOUNDARY_MISMATCH


def test_the_one_permission_that_was_renamed_goes_on_under_its_former_name():
    ask = call("Mutation.updateTerraformStateProtectionRule", "project:acme/web")
    for version in (1, 2):
        assert told(ask, version=version, may=["terraform_state:update"]).reason is Reason.GRANTED
    assert told(ask, version=1, may=["terraform_state_protection_rule:update"]).reason is Reason.PERMISSION_MISSING


def test_a_token_of_the_beta_knows_no_routes():
    ask = call("GET /projects/:id/labels", id="42")
    assert told(ask, version=1, may=["label:read"]).reason is Reason.OPERATION_UNKNOWN
    assert told(ask, version=2, may=["label:read"]).reason is Reason.GRANTED


def test_a_group_permission_never_opens_a_route_of_projects():
    ask = call("POST /projects/:id/labels", id="12")
    assert told(ask, may=["label:create"]).reason is Reason.TARGET_UNKNOWN
    assert told(call("POST /groups/:id/labels", id="12"), may=["label:create"]).reason is Reason.GRANTED


def test_both_permissions_of_a_route_are_needed_and_both_are_named():
    ask = call("GET /projects/:id/resource_groups/:key/current_job", id="42")
    assert told(ask, may=["resource_group:read", "job:read"]).reason is Reason.GRANTED
    assert [item.permission for item in told(ask, may=["resource_group:read"]).missing] == ["job:read"]
    assert [item.permission for item in told(ask, may=["label:read"]).missing] == ["resource_group:read", "job:read"]


def test_public_routes_need_nothing_where_the_project_is_public():
    for id_ in ("GET /projects/:id/issues", "HEAD /projects/:id/repository/files/:file_path"):
        assert told(call(id_, id="77"), may=["label:read"]).reason is Reason.GRANTED_PUBLIC_READ
        assert told(call(id_, id="42"), may=["label:read"]).reason is Reason.PERMISSION_MISSING
    batch = call("POST /projects/:id/repository/blobs/batch", id="77")
    assert told(batch, may=["label:read"]).reason is Reason.PERMISSION_MISSING


def test_open_routes_need_nothing_but_membership_where_they_name_a_private_project():
    assert told(call("GET /topics")).reason is Reason.GRANTED_OPEN
    for project_id, reason in (
        ("77", Reason.GRANTED_OPEN),
        ("42", Reason.GRANTED_OPEN),
        ("99", Reason.OWNER_NOT_MEMBER),
    ):
        assert told(call("GET /projects/:id/packages/nuget/index", id=project_id)).reason is reason


def test_what_a_runner_belongs_to_only_the_caller_can_say():
    ask = call("GET /runners/:id", id="5")
    assert told(ask, may=["runner:read"]).reason is Reason.TARGET_REQUIRED
    assert told(call("GET /runners/:id", "project:acme/web", id="5"), may=["runner:read"]).reason is Reason.GRANTED


def test_a_route_of_users_is_for_the_owner_of_the_token_alone():
    own, other = call("GET /users/:id/gpg_keys", id="dana"), call("GET /users/:id/gpg_keys", id="erin")
    reach = Reach(ReachKind.USER)
    assert told(own, may=["gpg_key:read"], reach=reach).reason is Reason.GRANTED
    assert told(other, may=["gpg_key:read"], reach=reach).reason is Reason.OUTSIDE_REACH


def test_cloning_and_pushing_need_permissions_on_the_code():
    clone, push = call("git.clone", "project:acme/web"), call("git.push", "project:acme/web")
    assert told(clone, may=["code:read"]).reason is Reason.GRANTED
    denied = told(push, may=["code:read"])
    assert denied.missing == (Missing("code:push", WEB.kind, "project:acme/web"),)
    assert told(call("git.clone", "project:site/docs"), may=["label:read"]).reason is Reason.PERMISSION_MISSING


def test_pushing_to_a_wiki_needs_all_that_a_push_can_do():
    for target in ("project:acme/web", "group:acme"):
        ask = call("git.wiki_push", target)
        assert told(ask, may=["wiki:create", "wiki:update", "wiki:delete"]).reason is Reason.GRANTED
        assert told(ask, may=["wiki:create", "wiki:update"]).reason is Reason.PERMISSION_MISSING


def test_pushing_an_image_needs_the_extension_and_pulling_one_does_not():
    assert told(call("registry.push", "project:acme/web"), may=["container_repository:create"]).allowed
    assert told(call("registry.pull", "project:acme/web"), may=["container_repository:read"]).allowed
    assert not told(call("registry.push", "project:acme/web"), may=["container_repository:read"]).allowed


@pytest.mark.parametrize(
    ("scope", "id_", "target", "reason"),
    [
        ("read_api", "git.clone", "project:acme/web", Reason.GRANTED),
        ("read_api", "git.push", "project:acme/web", Reason.PERMISSION_MISSING),
        ("read_api", "GET /in/no/table", "project:acme/web", Reason.GRANTED),
        ("read_api", "POST /in/no/table", "project:acme/web", Reason.OPERATION_UNKNOWN),
        ("read_repository", "git.clone", "project:acme/web", Reason.GRANTED),
        ("read_repository", "git.clone", "project:site/docs", Reason.GRANTED),
        ("read_repository", "git.push", "project:acme/web", Reason.PERMISSION_MISSING),
        ("write_repository", "git.push", "project:acme/web", Reason.GRANTED),
        ("write_repository", "git.push", "project:site/docs", Reason.OUTSIDE_REACH),
        ("read_registry", "registry.pull", "project:acme/web", Reason.GRANTED),
        ("write_registry", "registry.pull", "project:acme/web", Reason.PERMISSION_MISSING),
        ("write_registry", "registry.push", "project:acme/web", Reason.GRANTED),
        ("manage_runner", "PUT /runners/:id", "project:acme/web", Reason.GRANTED),
        ("create_runner", "PUT /runners/:id", "project:acme/web", Reason.PERMISSION_MISSING),
        ("sudo", "git.clone", "project:acme/web", Reason.PERMISSION_MISSING),
    ],
)
def test_legacy_scopes_carry_their_operations_and_no_others(scope, id_, target, reason):
    assert told(call(id_, target), legacy=[scope]).reason is reason


@pytest.mark.parametrize(
    ("scope", "id_", "reason"),
    [
        ("read_user", "GET /user", Reason.GRANTED),
        ("read_user", "GET /user/preferences", Reason.GRANTED),
        ("read_user", "PUT /user/preferences", Reason.PERMISSION_MISSING),
        ("create_runner", "POST /user/runners", Reason.GRANTED),
        ("self_rotate", "POST /personal_access_tokens/self/rotate", Reason.GRANTED),
        ("self_rotate", "DELETE /personal_access_tokens/self", Reason.PERMISSION_MISSING),
        ("read_api", "POST /ai/duo_workflows/workflows/:workflow_id/execute", Reason.PERMISSION_MISSING),
        ("api", "POST /ai/duo_workflows/workflows/:workflow_id/execute", Reason.GRANTED),
        ("k8s_proxy", "GET /user", Reason.PERMISSION_MISSING),
        ("admin_mode", "GET /user", Reason.PERMISSION_MISSING),
    ],
)
def test_legacy_scopes_reach_the_own_account(scope, id_, reason):
    assert told(call(id_), legacy=[scope]).reason is reason


def test_a_legacy_token_visits_public_projects_for_reading_only():
    assert told(PermissionRequest("work_item:read", "project:site/docs"), legacy=["api"]).reason is Reason.GRANTED
    assert told(PermissionRequest("job:read", "project:site/docs"), legacy=["api"]).reason is Reason.OUTSIDE_REACH
    assert (
        told(PermissionRequest("work_item:create", "project:site/docs"), legacy=["api"]).reason is Reason.OUTSIDE_REACH
    )
