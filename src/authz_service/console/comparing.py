"""What would be another about a token, in plain words: what it would gain, and what it would lose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from authz_service.console.rendering import plural
from authz_service.console.words import REACHES
from authz_service.tokens.model import ReachKind

_MOST: Final = 40


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing. `wider` says that the token could do something by it that it could not before; None is neither."""

    text: str
    wider: bool | None
    names: tuple[str, ...] = ()
    more: int = 0


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Of two tokens as the service shows them; by names, as a reader would. What implies what is the engine's."""
    return [*_scopes(before, after), *_ends(before, after), *_others(before, after)]


def _scopes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    old, new = _held(before), _held(after)
    for place in sorted(old | new):
        gained, lost = new.get(place, set()) - old.get(place, set()), old.get(place, set()) - new.get(place, set())
        if gained:
            yield _difference(f"It gains in {place}", gained, wider=True)
        if lost:
            yield _difference(f"It loses in {place}", lost, wider=False)
    for wider, names in (
        (True, set(after["legacy_scopes"]) - set(before["legacy_scopes"])),
        (False, set(before["legacy_scopes"]) - set(after["legacy_scopes"])),
    ):
        if names:
            yield _difference(f"It {'gains' if wider else 'loses'} legacy scopes", names, wider=wider)


def _difference(text: str, names: set[str], *, wider: bool) -> Difference:
    return Difference(text, wider, tuple(sorted(names)[:_MOST]), max(0, len(names) - _MOST))


def _held(token: Mapping[str, Any]) -> dict[str, set[str]]:
    """Permissions by place; of a token with several catalogs, by catalog too."""
    found: dict[str, set[str]] = {}
    several = len(token["catalogs"]) > 1
    for scope in token["scopes"]:
        kind = scope["reach"]["kind"]
        places = scope["reach"].get("nodes", ()) if kind == ReachKind.SELECTED else [REACHES[kind]]
        for place in places:
            named = f"{place} ({scope['catalog']})" if several else place
            found.setdefault(named, set()).update(scope["permissions"])
    return found


def _ends(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    old, new = before["expires_at"], after["expires_at"]
    if old == new:
        return
    if new is None:
        yield Difference("It never ends by itself any more", wider=True)
    else:
        later = old is not None and new > old
        yield Difference(f"It ends {'later' if later else 'sooner'}: {new[:10]}", wider=later)


def _others(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    if before["name"] != after["name"]:
        yield Difference(f"It is called “{after['name']}”", wider=None)
    if before["reason"] != after["reason"]:
        yield Difference("What it is for is said in other words", wider=None)
    old, new = set(before["conditions"]["networks"]), set(after["conditions"]["networks"])
    if old != new:
        if not new:
            yield Difference("It works from every network", wider=True)
        else:
            narrower = not old or new < old
            yield Difference(f"It works from {plural(len(new), 'network')} alone", not narrower, tuple(sorted(new)))
    if before["may_rotate_self"] != after["may_rotate_self"]:
        may = after["may_rotate_self"]
        yield Difference("It may rotate itself" if may else "It may not rotate itself any more", wider=may)
    if before["evaluates"] != after["evaluates"]:
        gained = set(after["evaluates"]) - set(before["evaluates"])
        yield Difference("It may ask about other catalogs", bool(gained), tuple(after["evaluates"]))
