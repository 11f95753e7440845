"""Places as the engine finds them: below a top, among groups with policies, and by their text alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests import builders
from tests.support.memory_world import MemoryWorld

from authz_service.catalog.model import Catalog, OwnerCheck
from authz_service.compiler.lookup import Lookup
from authz_service.directory.model import INSTANCE_ID, Node, NodeKind, Visibility
from authz_service.engine.case import open_case
from authz_service.engine.model import Reason, TracedItem
from authz_service.engine.places import DirectoryPlaces, UpstreamPlaces, node_text, upstream_chain

DANA = builders.account("dana")
ACME = builders.group("acme")
TEAM = builders.group("team", ACME)
OPS = builders.group("ops", TEAM)
WEB = builders.project("web", TEAM)
OWN = builders.project("dotfiles", DANA[1])
TOKEN = builders.token(DANA[0], builders.scope(on=(ACME,)))
WORLD = MemoryWorld(builders.rows(builders.catalog(), DANA, ACME, TEAM, OPS, WEB, OWN, TOKEN))


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (builders.instance(), "instance"),
        (DANA[1], "user:dana"),
        (ACME, "group:acme"),
        (OPS, "group:acme/team/ops"),
        (WEB, "project:acme/team/web"),
        (OWN, "project:dana/dotfiles"),
        (replace(WEB, parent=INSTANCE_ID), "project:web"),
        (replace(WEB, parent=999_999), "project:web"),
    ],
)
def test_a_node_has_a_canonical_text(node: Node, said: str):
    assert node_text(WORLD, node) == said


def directory() -> DirectoryPlaces:
    return DirectoryPlaces(builders.catalog(), TOKEN, WORLD)


def texts(found) -> list[str]:
    return sorted(place.text for place in found)


def test_the_instance_is_below_nothing_but_everything():
    places = directory()
    assert texts(places.below(None, NodeKind.INSTANCE)) == ["instance"]
    assert texts(places.below(places.parse("group:acme"), NodeKind.INSTANCE)) == []


def test_of_some_groups_those_below_are_found_and_not_the_top():
    places = directory()
    top = places.parse("group:acme/team")
    assert top is not None
    assert texts(places.groups_below(top, {ACME.id, TEAM.id, OPS.id})) == ["group:acme/team/ops"]
    assert texts(places.groups_below(top, {ACME.id, TEAM.id})) == []


UPSTREAM = builders.catalog(owner_check=OwnerCheck.UPSTREAM)


def upstream(*selected: str, owner: str | None = None) -> UpstreamPlaces:
    token = replace(TOKEN, owner=DANA[0].id if owner is None else owner)
    return UpstreamPlaces(UPSTREAM, token, Lookup(selected=dict.fromkeys(selected, 1)))


def test_by_text_what_a_token_speaks_of_is_there():
    places = upstream("group:acme", "project:acme/web", "user:erin", owner="dana")
    assert texts(places.below(None, NodeKind.PROJECT)) == ["project:acme/*", "project:acme/web", "project:dana/*"]
    assert texts(places.below(None, NodeKind.GROUP)) == ["group:acme", "group:acme/*", "group:dana/*"]
    assert texts(places.below(None, NodeKind.USER)) == ["user:dana", "user:erin"]
    assert texts(places.below(None, NodeKind.INSTANCE)) == ["instance"]


def test_by_text_a_top_takes_part_itself():
    places = upstream("project:acme/web", "project:other/app")
    top = places.parse("group:acme")
    assert texts(places.below(top, NodeKind.PROJECT)) == ["project:acme/*", "project:acme/web"]
    assert texts(places.below(top, NodeKind.GROUP)) == ["group:acme", "group:acme/*"]
    assert texts(places.below(top, NodeKind.INSTANCE)) == []


def test_by_text_groups_lie_below_by_their_paths():
    places = upstream()
    top = places.parse("group:acme")
    assert top is not None
    among = {"group:acme", "group:acme/team", "group:acme/team/ops", "group:acme-two", "project:acme/web", INSTANCE_ID}
    assert texts(places.groups_below(top, among)) == ["group:acme/team", "group:acme/team/ops"]


@pytest.mark.parametrize(
    ("kind", "path", "chain"),
    [
        (NodeKind.PROJECT, "a/b/c", ("project:a/b/c", "group:a/b", "group:a")),
        (NodeKind.GROUP, "acme", ("group:acme",)),
        (NodeKind.USER, "dana", ("user:dana",)),
    ],
)
def test_by_text_what_lies_above_is_in_the_path(kind: NodeKind, path: str, chain: tuple[str, ...]):
    assert upstream_chain(kind, path) == chain


@pytest.mark.parametrize(
    ("target", "node", "found"),
    [
        ("project:acme/team/web", WEB.id, "project:acme/team/web"),
        ("somebody else's name", DANA[1].id, "user:dana"),
        (None, None, None),
        ("project:acme/nothing", None, None),
    ],
)
def test_a_trace_names_a_place_that_is_found_again(target: str | None, node: int | None, found: str | None):
    case = open_case(TOKEN, builders.catalog(), WORLD, builders.ask())
    kind = builders.operation().sets[0].items[0].target.kind
    place = case.traced_place(TracedItem("issue:read", NodeKind.PROJECT, target, Reason.GRANTED, kind, node))
    assert (place and place.text) == found


def test_without_a_place_of_their_own_an_owner_is_no_place_of_a_trace():
    token = replace(TOKEN, owner=999_999)
    catalog: Catalog = builders.catalog()
    case = open_case(token, catalog, WORLD, builders.ask())
    kind = builders.operation().sets[0].items[0].target.kind
    assert case.traced_place(TracedItem("issue:read", NodeKind.USER, None, Reason.GRANTED, kind, None)) is None


def test_a_place_whose_way_up_breaks_off_is_itself():
    lost = builders.group("lost", None)
    lost = replace(lost, parent=999_999)
    places = DirectoryPlaces(builders.catalog(), TOKEN, MemoryWorld(builders.rows(builders.catalog(), lost)))
    found = places.parse("group:lost")
    assert found is not None
    assert (found.chain, found.text) == ((lost.id,), "group:lost")


def test_somebody_unknown_sees_no_private_place():
    place = directory().parse("group:acme")
    assert place is not None
    assert directory().seen(place) is False
    stranger = DirectoryPlaces(builders.catalog(), replace(TOKEN, owner=999_999), WORLD)
    assert stranger.seen(place) is False
    assert stranger.seen(replace(place, visibility=Visibility.PUBLIC)) is True
