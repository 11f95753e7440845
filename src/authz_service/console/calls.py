"""From a list of calls to the smallest set of permissions that makes them, in one catalog."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from authz_service.admin.catalog_questions import NeedQuery, show_need
from authz_service.admin.management import Actor, Management
from authz_service.catalog.model import BOUNDARIES, Catalog
from authz_service.engine.minimal import Weights, choose
from authz_service.errors import AuthzError, Fault, InvalidInputError

_MOST: Final = 50


@dataclass(frozen=True, slots=True)
class Smallest:
    """Permissions for the calls that are known, and why others are not. `open` need no permission at all."""

    permissions: Sequence[str]
    understood: Sequence[str]
    open: Sequence[str]
    unknown: Sequence[tuple[str, str]]


async def find_smallest(management: Management, actor: Actor, catalog: Catalog, text: str) -> Smallest:
    """One call a line, `GET /projects/7/jobs`. Raises InvalidInputError for none, and for more than fifty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or len(lines) > _MOST:
        message = f"write one call a line, as `GET /projects/7/jobs`; {_MOST} at most"
        raise InvalidInputError("the calls cannot be read", faults=[Fault("calls", "invalid_value", message)])
    choices: list[list[frozenset[str]]] = []
    understood: list[str] = []
    free: list[str] = []
    unknown: list[tuple[str, str]] = []
    for line in lines:
        method, _, path = line.partition(" ")
        query = NeedQuery(method=method, path=_with_base(catalog, path.strip())) if path else NeedQuery(operation=line)
        try:
            needed = (await show_need(management, actor, catalog.label, query))["operation"]
        except AuthzError as error:
            unknown.append((line, error.faults[0].message if error.faults else error.message))
            continue
        if needed["closed"]:
            unknown.append((line, "no fine-grained token may make this call"))
            continue
        if needed["open"] or not needed["needs"]:
            free.append(line)
            continue
        understood.append(line)
        choices.append([frozenset(item["permission"] for item in one["all_of"]) for one in needed["needs"]])
    return Smallest(_cover(catalog, choices), understood, free, unknown)


def _with_base(catalog: Catalog, path: str) -> str:
    """People leave out the base path, or paste a whole address."""
    if "://" in path:
        path = "/" + path.split("://", 1)[1].partition("/")[2]
    path = path if path.startswith("/") else f"/{path}"
    return path if path.startswith(f"{catalog.base_path}/") else f"{catalog.base_path}{path}"


def _cover(catalog: Catalog, calls: Sequence[Sequence[frozenset[str]]]) -> list[str]:
    """One alternative of each call, so that all together allow as little as can be, changes least of all."""
    given = [[_mask(catalog, names) for names in one] for one in calls]
    changing = sum(1 << permission.number for permission in catalog.permissions if permission.mutates)
    taken = choose(given, Weights(changing=changing)).taken
    names = frozenset[str]().union(*(one[index] for one, index in zip(calls, taken, strict=True)))
    # What another one includes need not be asked for.
    return sorted(
        name
        for name in names
        if not any(name != one and _mask(catalog, [name]) & ~_mask(catalog, [one]) == 0 for one in names)
    )


def _mask(catalog: Catalog, names: Iterable[str]) -> int:
    """The permissions and all that they include, at some boundary."""
    mask = 0
    for name in names:
        number = catalog.by_name[name].number
        mask |= 1 << number
        for boundary in BOUNDARIES:
            mask |= catalog.confers[boundary][number]
    return mask
