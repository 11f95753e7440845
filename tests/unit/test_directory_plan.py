from __future__ import annotations

import json

import pytest

from authz_service.directory.changes import parse_import
from authz_service.directory.known import Known, Needs, Row
from authz_service.directory.model import NodeKind, UserState, Visibility
from authz_service.directory.plan import Plan, make_plan
from authz_service.errors import InvalidInputError

SOURCE = "default"


class Stored:
    """A directory in memory, wholly known. `acme/platform/api` and user `dana` are there from the start."""

    def __init__(self) -> None:
        self.known = Known(complete=True)
        self.ids: dict[str, int] = {}
        self.user("dana", external_id="7")
        self.group("acme", external_id="11")
        self.group("acme/platform", external_id="12")
        self.project("acme/platform/api", external_id="42")

    def user(self, name: str, **said) -> int:
        return self._add(NodeKind.USER, name, visibility=Visibility.PUBLIC, **said)

    def group(self, path: str, external_id: str | None = None, **said) -> int:
        return self._add(NodeKind.GROUP, path, external_id=external_id, namespace_id=external_id, **said)

    def project(self, path: str, **said) -> int:
        return self._add(NodeKind.PROJECT, path, **said)

    def _add(self, kind: NodeKind, path: str, **said) -> int:
        above, _, name = path.rpartition("/")
        own = len(self.ids) + 2
        self.known.add(Row(own, said.pop("source", SOURCE), kind, self.ids[above] if above else None, name, **said))
        self.ids[path] = own
        return own

    def plan(self, *lines: dict) -> Plan:
        body = b"\n".join(json.dumps(line).encode() for line in lines)
        plan = make_plan(parse_import(body), self.known, source=SOURCE)
        assert isinstance(plan, Plan)
        return plan

    def changed(self, *lines: dict) -> dict[int, Row]:
        return {row.id: row for _, row in self.plan(*lines).rows}

    def faults(self, *lines: dict) -> list[tuple[str, str]]:
        with pytest.raises(InvalidInputError) as caught:
            self.plan(*lines)
        return [(fault.where, fault.code) for fault in caught.value.faults]


@pytest.fixture
def stored() -> Stored:
    return Stored()


def user(username: str = "dana", **said) -> dict:
    return {"type": "user", "username": username, **said}


def group(path: str, **said) -> dict:
    return {"type": "group", "path": path, **said}


def project(path: str, **said) -> dict:
    return {"type": "project", "path": path, **said}


def member(user: str = "dana", node: str = "acme", role: str = "developer") -> dict:
    return {"type": "membership", "user": user, "node": node, "role": role}


def move(node: str, to: str | None) -> dict:
    return {"type": "move", "node": node, "to": to}


def delete(what: str, **which) -> dict:
    return {"type": "delete", "what": what, **which}


def test_a_line_that_says_what_is_stored_changes_nothing(stored: Stored):
    lines = [user(external_id="7"), group("acme/platform", external_id="12", visibility="private")]
    assert stored.plan(*lines).rows == []


def test_a_new_node_lies_under_its_parent_of_the_same_import(stored: Stored):
    plan = stored.plan(group("new", external_id="1"), group("new/sub"), project("new/sub/web"))
    top, sub, web = [row for _, row in plan.rows]
    assert (top.parent, sub.parent, web.parent) == (None, top.id, sub.id)
    assert (top.namespace_id, sub.namespace_id) == ("1", None)


def test_new_things_are_private_and_new_users_are_active_and_visible(stored: Stored):
    place, person = [row for _, row in stored.plan(group("new"), user("erin")).rows]
    assert place.visibility is Visibility.PRIVATE
    assert (person.visibility, person.state, person.admin) == (Visibility.PUBLIC, UserState.ACTIVE, False)


def test_what_a_line_leaves_out_stays(stored: Stored):
    own = stored.user("root", external_id="1", admin=True, state=UserState.BLOCKED, attributes={"team": "red"})
    (row,) = stored.changed(user("root", external_id="1", external=True)).values()
    assert (row.id, row.admin, row.state, row.attributes) == (own, True, UserState.BLOCKED, {"team": "red"})


def test_an_external_id_with_another_path_is_a_rename(stored: Stored):
    changed = stored.changed(group("acme/infra", external_id="12"))
    assert [(row.id, row.name) for row in changed.values()] == [(stored.ids["acme/platform"], "infra")]


def test_an_external_id_under_another_parent_is_a_transfer_of_one_row(stored: Stored):
    other = stored.group("other")
    changed = stored.changed(group("other/platform", external_id="12"))
    assert [(row.id, row.parent) for row in changed.values()] == [(stored.ids["acme/platform"], other)]


def test_a_move_keeps_the_name(stored: Stored):
    changed = stored.changed(move("acme/platform/api", "user:dana"), move("acme/platform", None))
    assert changed[stored.ids["acme/platform/api"]].parent == stored.ids["dana"]
    assert changed[stored.ids["acme/platform"]].parent is None
    assert changed[stored.ids["acme/platform"]].name == "platform"


def test_a_later_line_sees_what_an_earlier_one_did(stored: Stored):
    changed = stored.changed(group("corp", external_id="11"), project("corp/platform/api", archived=True))
    assert set(changed) == {stored.ids["acme"], stored.ids["acme/platform/api"]}


def test_a_name_in_another_case_is_the_same_name(stored: Stored):
    changed = stored.changed(group("ACME/Platform", visibility="public"))
    assert [(row.id, row.name) for row in changed.values()] == [(stored.ids["acme/platform"], "Platform")]


def test_a_path_held_by_another_external_id_is_taken_and_its_holder_loses_the_name(stored: Stored):
    plan = stored.plan(project("acme/platform/api", external_id="43"))
    rows = {row.id: row for _, row in plan.rows}
    old = rows.pop(stored.ids["acme/platform/api"])
    (new,) = rows.values()
    assert (old.name, old.external_id, old.parent) == (None, "42", stored.ids["acme/platform"])
    assert (new.id < 0, new.name, new.external_id) == (True, "api", "43")
    assert plan.names_lost == 1


def test_a_username_is_taken_like_a_path(stored: Stored):
    rows = stored.changed(user("dana", external_id="8"))
    assert rows[stored.ids["dana"]].name is None
    assert {row.external_id: row.name for row in rows.values()} == {"7": None, "8": "dana"}


def test_who_lost_a_name_gets_the_next_one_its_source_gives(stored: Stored):
    plan = stored.plan(user("dana", external_id="8"), user("dana2", external_id="7"))
    names = {row.external_id: row.name for _, row in plan.rows}
    assert (names, plan.names_lost) == ({"7": "dana2", "8": "dana"}, 0)


def test_two_names_are_swapped(stored: Stored):
    stored.user("erin", external_id="8")
    plan = stored.plan(user("erin", external_id="7"), user("dana", external_id="8"))
    assert {row.external_id: row.name for _, row in plan.rows} == {"7": "erin", "8": "dana"}


def test_a_node_without_an_external_id_is_its_name_and_takes_the_first_one_given(stored: Stored):
    own = stored.group("bare")
    (row,) = stored.changed(group("bare", external_id="77")).values()
    assert (row.id, row.external_id, row.namespace_id) == (own, "77", "77")


def test_a_line_without_an_external_id_means_who_has_the_name(stored: Stored):
    (row,) = stored.changed(project("acme/platform/api", visibility="public")).values()
    assert (row.id, row.external_id) == (stored.ids["acme/platform/api"], "42")


def test_without_an_external_id_no_name_of_another_kind_is_taken(stored: Stored):
    assert stored.faults(group("dana")) == [("line 1", "name_taken")]


def test_a_move_without_an_external_id_takes_no_name(stored: Stored):
    stored.project("acme/web")
    stored.group("other")
    stored.project("other/web", external_id="99")
    assert stored.faults(move("acme/web", "other")) == [("line 1", "name_taken")]


def test_a_move_with_an_external_id_takes_the_name(stored: Stored):
    other = stored.group("other")
    loser = stored.project("other/api", external_id="99")
    rows = stored.changed(move("acme/platform/api", "other"))
    assert rows[loser].name is None
    assert (rows[stored.ids["acme/platform/api"]].parent, rows[loser].parent) == (other, other)


def test_sources_share_no_names_and_no_ids(stored: Stored):
    (row,) = stored.changed(user("dana", external_id="7", source="github")).values()
    assert (row.id < 0, row.source) == (True, "github")


def test_people_are_linked_across_sources_by_name_or_id(stored: Stored):
    plan = stored.plan(
        user("dana9", external_id="9", source="github", same_as="default:dana"),
        user("dana8", external_id="8", source="github", same_as="default:7"),
    )
    assert {row.same_as for _, row in plan.rows} == {stored.ids["dana"]}


def test_a_link_to_nobody_or_oneself_is_a_fault(stored: Stored):
    assert stored.faults(user("dana", same_as="default:dana"), user("dana", same_as="github:dana")) == [
        ("line 1", "invalid_link"),
        ("line 2", "unknown_user"),
    ]


def test_only_service_accounts_have_a_home(stored: Stored):
    (bot,) = stored.changed(user("bot", service_account=True, home="acme")).values()
    assert bot.home == stored.ids["acme"]
    assert stored.faults(user("erin", home="acme")) == [("line 1", "invalid_home")]


def test_a_service_account_that_becomes_a_person_has_no_home_any_more(stored: Stored):
    stored.user("bot", service_account=True, home=stored.ids["acme"])
    (bot,) = stored.changed(user("bot", service_account=False)).values()
    assert (bot.service_account, bot.home) == (False, None)


def test_groups_and_users_namespaces_share_their_ids(stored: Stored):
    assert stored.faults(user(namespace_id="11"), group("new", external_id="12"), user("erin", namespace_id="12")) == [
        ("line 1", "namespace_id_taken"),
        ("line 3", "namespace_id_taken"),
    ]


def test_a_membership_is_one_role_for_each_user_and_node(stored: Stored):
    plan = stored.plan(member(role="owner"), member(role="guest"))
    assert plan.memberships == {(stored.ids["dana"], stored.ids["acme"]): "guest"}


def test_the_last_word_on_a_membership_counts(stored: Stored):
    gone = delete("membership", user="dana", node="acme")
    pair = (stored.ids["dana"], stored.ids["acme"])
    assert stored.plan(member(), gone).memberships == {pair: None}
    assert stored.plan(gone, member(role="guest")).memberships == {pair: "guest"}


def test_what_a_line_refers_to_must_be_there(stored: Stored):
    assert stored.faults(
        member(user="nobody"),
        member(node="nowhere"),
        member(node="project:acme/platform"),
        project("nowhere/web"),
        move("acme/platform", "nowhere"),
        delete("group", node="nowhere"),
        user("bot", service_account=True, home="nowhere"),
    ) == [
        ("line 1", "unknown_user"),
        ("line 2", "unknown_place"),
        ("line 3", "unknown_project"),
        ("line 4", "unknown_parent"),
        ("line 5", "unknown_place"),
        ("line 6", "unknown_group"),
        ("line 7", "unknown_group"),
    ]


def test_a_parent_comes_before_its_children(stored: Stored):
    assert stored.faults(group("new/sub"), group("new")) == [("line 1", "unknown_parent")]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (group("dana/sub"), "wrong_parent"),
        (group("acme/platform/api/sub"), "wrong_parent"),
        (project("acme/platform/api/web"), "wrong_parent"),
        (move("acme", "user:dana"), "wrong_parent"),
        (move("acme/platform/api", None), "wrong_parent"),
        (move("dana", "acme"), "wrong_parent"),
        (move("acme", "acme"), "cycle"),
        (move("acme", "acme/platform"), "cycle"),
        (group("acme/platform/acme", external_id="11"), "cycle"),
    ],
)
def test_a_place_lies_where_its_kind_may(stored: Stored, line: dict, code: str):
    assert stored.faults(line) == [("line 1", code)]


def test_groups_nest_twenty_deep_and_hold_projects_there(stored: Stored):
    paths = ["/".join(f"g{depth}" for depth in range(1, deep + 1)) for deep in range(1, 21)]
    lines = [group(path) for path in paths]
    assert len(stored.plan(*lines, project(paths[-1] + "/web")).rows) == 21
    assert stored.faults(*lines, group(paths[-1] + "/g21")) == [("line 21", "too_deep")]


def test_a_group_is_moved_with_the_depth_of_what_is_below_it(stored: Stored):
    deep = "/".join(["deep"] * 19)
    for end in range(1, 20):
        stored.group("/".join(["deep"] * end))
    assert stored.faults(move("acme", deep)) == [("line 1", "too_deep")]
    assert stored.changed(move("acme/platform", deep))[stored.ids["acme/platform"]].parent == stored.ids[deep]


def test_a_deleted_group_takes_all_below_it_along(stored: Stored):
    plan = stored.plan(delete("group", node="acme"))
    assert {row.id for _, row in plan.rows if row.deleted} == {
        stored.ids[path] for path in ("acme", "acme/platform", "acme/platform/api")
    }


def test_what_was_moved_out_before_is_not_deleted_and_what_was_moved_in_is(stored: Stored):
    stored.group("other")
    stored.project("other/web")
    rows = stored.changed(move("acme/platform", None), move("other", "acme"), delete("group", node="acme"))
    deleted = {own for own, row in rows.items() if row.deleted}
    assert deleted == {stored.ids["acme"], stored.ids["other"], stored.ids["other/web"]}


def test_a_deleted_user_takes_the_own_namespace_along(stored: Stored):
    notes = stored.project("dana/notes")
    rows = stored.changed(delete("user", user="dana"))
    assert rows[notes].deleted
    assert (rows[stored.ids["dana"]].state, rows[stored.ids["dana"]].deleted) == (UserState.DELETED, True)


@pytest.mark.parametrize(
    "line",
    [
        delete("user", external_id="7"),
        delete("user", user="user:7"),
        user("dana", state="deleted"),
        user("renamed", external_id="7", state="deleted"),
    ],
)
def test_a_user_is_deleted_by_name_by_id_or_by_state(stored: Stored, line: dict):
    assert stored.changed(line)[stored.ids["dana"]].deleted


def test_a_state_of_deleted_under_a_reused_name_deletes_nobody_else(stored: Stored):
    assert stored.plan(user("dana", external_id="99", state="deleted")).rows == []


def test_deletion_is_for_ever(stored: Stored):
    gone = stored.user("gone", external_id="66", deleted=True, state=UserState.DELETED)
    assert stored.faults(user("gone", external_id="66")) == [("line 1", "deleted")]
    assert stored.faults(delete("project", external_id="42"), project("acme/new", external_id="42")) == [
        ("line 2", "deleted")
    ]
    assert gone not in stored.changed(user("gone", external_id="67"))


def test_deleting_twice_by_id_is_one_deletion(stored: Stored):
    stored.user("gone", external_id="66", deleted=True, state=UserState.DELETED)
    again = [delete("user", external_id="66"), user("gone", external_id="66", state="deleted")]
    assert stored.plan(*again, delete("user", external_id="never-seen")).rows == []


def test_a_recreated_path_is_another_node(stored: Stored):
    stored.project("acme/web")
    rows = stored.changed(delete("project", node="acme/web"), project("acme/web"))
    assert rows.pop(stored.ids["acme/web"]).deleted
    assert [row.id < 0 for row in rows.values()] == [True]


def test_an_id_that_came_and_went_in_one_import_is_spent(stored: Stored):
    plan = stored.plan(project("acme/web", external_id="50"), delete("project", external_id="50"))
    assert [(before, row.external_id, row.deleted) for before, row in plan.rows] == [(None, "50", True)]


def test_memberships_of_what_is_deleted_are_not_written(stored: Stored):
    assert stored.plan(member(), member(node="acme/platform"), delete("group", node="acme")).memberships == {}


def test_a_nameless_node_cannot_be_moved_by_its_old_name(stored: Stored):
    assert stored.faults(project("acme/platform/api", external_id="43"), move("project:42", "user:dana")) == [
        ("line 2", "nameless")
    ]


def test_all_faults_of_all_lines_are_named(stored: Stored):
    assert stored.faults(group("dana"), group("new"), member(user="nobody")) == [
        ("line 1", "name_taken"),
        ("line 3", "unknown_user"),
    ]


def test_a_plan_asks_for_what_it_lacks_before_it_finds_fault():
    lines = parse_import(json.dumps(group("acme/platform", external_id="12")).encode())
    needs = make_plan(lines, Known(), source=SOURCE)
    assert isinstance(needs, Needs)
    assert needs.names == {(SOURCE, 0, "acme")}


def test_planning_leaves_what_is_known_as_it_was(stored: Stored):
    before = {own: row.copy() for own, row in stored.known.rows.items()}
    stored.plan(delete("group", node="acme"), user("erin", external_id="7"), user("dana", external_id="8"))
    assert stored.known.rows == before
