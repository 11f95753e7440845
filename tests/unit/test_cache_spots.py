"""What is remembered of tokens at places: bounded, gone for everybody at once, and its uses counted once."""

from __future__ import annotations

from tests import builders
from tests.support.memory_world import MemoryWorld

from authz_service.cache.spots import YES, KnownSpot, Spots
from authz_service.engine.case import open_case
from authz_service.engine.spot import spot_at

DANA = builders.account("dana")
ACME = builders.group("acme")
CATALOG = builders.catalog(*(builders.permission(f"thing{number}:read", number) for number in range(70)))
HELD = (0, 3, 69)
TOKEN = builders.token(DANA[0], builders.scope(*(f"thing{number}:read" for number in HELD), on=(ACME,)))


def known(told: list[KnownSpot] | None = None) -> KnownSpot:
    world = MemoryWorld(builders.rows(CATALOG, DANA, ACME, TOKEN, members=((DANA[0], ACME, "member"),)))
    case = open_case(TOKEN, CATALOG, world, builders.ask())
    place = case.places.parse("group:acme")
    assert place is not None
    return KnownSpot(spot_at(case, place), None if told is None else told.append)


def test_each_permission_has_a_byte():
    spot = known()
    assert [number for number in range(70) if spot.allowed[number] == YES] == list(HELD)
    assert len(spot.allowed) == 70


def test_no_permission_is_the_last_one_before_one_was_used():
    spot = known()
    assert (spot.resource, spot.action) == (None, None)
    spot.count(3)  # by a request, whose permission nobody named
    assert (spot.resource, spot.action) == (None, None)
    spot.count(3, "thing3", "read")
    assert (spot.resource, spot.action, spot.calls) == ("thing3", "read", 2)
    spot.take_uses()
    assert (spot.resource, spot.action, spot.calls) == (None, None, 0)


def test_the_name_that_is_kept_is_the_permission_that_is_counted_with_it():
    spot = known()
    spot.count(0)
    spot.count(3, "thing3", "read")
    assert (spot.resource, spot.action) == (None, None)
    spot.count(0, "thing0", "read")
    spot.calls += 1  # as a check does that asks for it again
    spot.count(69, "thing69", "read")
    assert (spot.resource, spot.action) == ("thing0", "read")
    assert spot.take_uses() == {0: 3, 3: 1, 69: 1}
    assert spot.take_uses() == {}


def test_uses_are_told_of_once_until_they_are_taken():
    told: list[KnownSpot] = []
    spot = known(told)
    assert told == []
    for number in (0, 0, 3):
        spot.count(number)
    assert told == [spot]
    spot.take_uses()
    spot.count(3)
    assert told == [spot, spot]


def test_what_is_dropped_is_gone_for_whoever_holds_it():
    spots = Spots(10)
    spots.put(1, "forge", "group:acme", known())
    held = spots.of(1, "forge")
    assert held is not None
    assert list(held) == ["group:acme"]
    spots.clear()
    assert not held
    assert len(spots) == 0
    assert spots.of(1, "forge") is None
    spots.put(1, "forge", "group:acme", known())
    assert not held


def test_without_room_the_token_that_came_first_loses_its_places():
    spots = Spots(3)
    for target in ("a", "b"):
        spots.put(1, "forge", target, known())
    spots.put(2, "forge", "a", known())
    spots.put(2, "forge", "a", known())
    first = spots.of(1, "forge")
    assert len(spots) == 3
    spots.put(3, "forge", "a", known())
    assert not first
    assert spots.of(1, "forge") is None
    assert len(spots) == 2
    spots.put(3, "forge", "b", known())
    spots.put(3, "forge", "c", known())
    assert [spots.of(number, "forge") is not None for number in (1, 2, 3)] == [False, False, True]


def test_a_token_alone_takes_no_more_than_there_is_room_for():
    spots = Spots(2)
    for number in range(5):
        spots.put(1, "forge", f"group:g{number}", known())
        assert len(spots) <= 2
    found = spots.of(1, "forge")
    assert found is not None
    assert "group:g4" in found
