"""A newer version of a drawn catalog: most parts as they were, some as another drawing has them."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tests.property.catalogs import CatalogMaker

from authz_service.catalog.model import Catalog, Operation, Permission

VERSION = 100
SHARE = 0.12
"""Of the parts that change: with many more, every token would be both broken and widened, and nothing be shown."""


def newer(random: Random, old: Catalog) -> Catalog:
    """Compatible with the old one: the same owners, source and kind of owner."""
    other = CatalogMaker(random).make(old.name, source=old.source, upstream=old.upstream)

    def either(mine: object, others: object, share: float = SHARE) -> object:
        return others if random.random() < share else mine

    permissions = _permissions(random, old, other)
    known = {one.name: one for one in permissions}
    operations = [
        replace(one, id=id_)
        for id_, one in _operations(random, old, other).items()
        if _refers_to_what_is_there(one, known)
    ]
    changes = {
        name: either(getattr(old, name), getattr(other, name), SHARE / 3)
        for name in ("roles", "top_role", "bundles", "case_sensitive", "attribute_parameters")
    }
    names = {one.name: one for one in permissions}
    aliases = {
        alias: random.choice(list(names)) if random.random() < SHARE else name for alias, name in old.aliases.items()
    }
    return replace(
        old,
        version=VERSION,
        permissions=permissions,
        operations={one.id: one for one in operations},
        aliases=aliases,
        **changes,
    )


def _permissions(random: Random, old: Catalog, other: Catalog) -> tuple[Permission, ...]:
    """By name from either, in another order of numbers; none that the others imply is lost."""
    named = {one.name: one for one in old.permissions}
    for one in other.permissions:
        mine = named.get(one.name)
        if mine is None:
            if random.random() < SHARE:
                named[one.name] = one
        elif random.random() < SHARE:
            parts = ("boundaries", "implies", "public_read", "reviewed", "visitor", "when", "mutates")
            part = random.choice(parts)
            named[one.name] = replace(mine, **{part: getattr(one, part)})
    for name in list(named):
        if random.random() < SHARE / 3 and len(named) > 1:
            del named[name]
    found = list(named.values())
    random.shuffle(found)
    return tuple(
        replace(one, number=number, implies=tuple(name for name in one.implies if name in named))
        for number, one in enumerate(found)
    )


def _operations(random: Random, old: Catalog, other: Catalog) -> dict[str, Operation]:
    found = dict(old.operations)
    for id_, one in other.operations.items():
        mine = found.get(id_)
        if mine is None:
            if random.random() < SHARE:
                found[id_] = one
        elif random.random() < SHARE:
            part = random.choice(("sets", "open", "open_at", "public_read", "closed", "reviewed"))
            found[id_] = replace(mine, **{part: getattr(one, part)})
    for id_ in list(found):
        if random.random() < SHARE / 3:
            del found[id_]
    return found


def _refers_to_what_is_there(operation: Operation, known: dict[str, Permission]) -> bool:
    return all(
        item.permission in known and item.boundary in known[item.permission].boundaries
        for each in operation.sets
        for item in each.items
    )
