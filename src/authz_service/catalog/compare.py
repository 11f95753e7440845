"""Two versions of a catalog side by side, for people: what is new, what is gone, what means something else (C8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from authz_service.catalog.model import BOUNDARIES, Bundle, Catalog, Condition, Operation, Permission, Role
from authz_service.catalog.words import format_set, format_target_rule, format_value

T = TypeVar("T")
Aspects: TypeAlias = Mapping[str, str | None]
"""What a thing is, part by part; None is "not so"."""

_SETTINGS: Final = (
    "title",
    "source",
    "owner_check",
    "single_owner",
    "case_sensitive",
    "base_path",
    "top_role",
    "forbidding_legacy_ends_public_reads",
)


@dataclass(frozen=True, slots=True)
class Change:
    """One aspect of a thing, before and after; None is "not there"."""

    aspect: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Changed:
    """A thing that both versions have, and what of it differs. `name` is today's; `former` where it had another."""

    name: str
    changes: tuple[Change, ...]
    former: str | None = None


@dataclass(frozen=True, slots=True)
class Names:
    """What is new, what is gone, and what changed, in the order of the catalogs."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[Changed, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything by which two versions differ. Descriptions and summaries are no difference: they decide nothing."""

    old: str
    new: str
    settings: tuple[Change, ...]
    roles: Names
    permissions: Names
    operations: Names
    bundles: Names

    def __bool__(self) -> bool:
        return bool(self.settings or self.roles or self.permissions or self.operations or self.bundles)


def compare_catalogs(old: Catalog, new: Catalog) -> Difference:
    """From the older version to the newer one. A permission that keeps its former name as an alias is no new one."""
    return Difference(
        old=old.label,
        new=new.label,
        settings=tuple(_differing(_settings(old), _settings(new))),
        roles=_names(_aspects(old.roles, _role), _aspects(new.roles, _role)),
        permissions=_permissions(old, new),
        operations=_names(_aspects(old.operations, _operation), _aspects(new.operations, _operation)),
        bundles=_names(_aspects(old.bundles, _bundle), _aspects(new.bundles, _bundle)),
    )


def _aspects(things: Mapping[str, T], aspects: Callable[[T], Aspects]) -> dict[str, Aspects]:
    return {name: aspects(thing) for name, thing in things.items()}


def _differing(before: Aspects, after: Aspects) -> Iterator[Change]:
    for aspect in dict.fromkeys((*before, *after)):
        if before.get(aspect) != after.get(aspect):
            yield Change(aspect, before.get(aspect), after.get(aspect))


def _names(
    before: Mapping[str, Aspects], after: Mapping[str, Aspects], former: Mapping[str, str] | None = None
) -> Names:
    """`former` maps a new name to the one that the older version has for the same thing."""
    known = {name: (former or {}).get(name, name) for name in after}
    kept = {name: was for name, was in known.items() if was in before}
    changed = (
        Changed(name, tuple(_differing(before[was], after[name])), None if was == name else was)
        for name, was in kept.items()
    )
    return Names(
        added=tuple(name for name in after if name not in kept),
        removed=tuple(name for name in before if name not in kept.values()),
        changed=tuple(each for each in changed if each.changes or each.former),
    )


def _permissions(old: Catalog, new: Catalog) -> Names:
    former = {}
    for permission in old.permissions:
        today = new.by_name.get(permission.name)
        if today is not None and today.name not in old.by_name:
            former[today.name] = permission.name
    return _names(
        {each.name: _permission(each) for each in old.permissions},
        {each.name: _permission(each) for each in new.permissions},
        former,
    )


def _settings(catalog: Catalog) -> Aspects:
    found: dict[str, str | None] = {name: _text(getattr(catalog, name)) for name in _SETTINGS}
    for boundary in BOUNDARIES:
        found[f"word for {boundary.value}"] = catalog.words.get(boundary)
    for name, parameter in catalog.attribute_parameters.items():
        found[f"attribute {name}"] = f"{{{parameter}}}"
    for kind, parameters in (("encoded", catalog.encoded_parameters), ("spanning", catalog.spanning_parameters)):
        found |= {f"{kind} parameter {{{name}}}": "yes" for name in sorted(parameters)}
    return found


def _role(role: Role) -> Aspects:
    return {"includes": _list(sorted(role.includes)), "inherits": _text(role.inherits)}


def _permission(permission: Permission) -> Aspects:
    return {
        **{
            f"at {boundary.value}": "yes" if role is None else f"min_role {role}"
            for boundary in BOUNDARIES
            for role in [permission.boundaries.get(boundary)]
            if boundary in permission.boundaries
        },
        "implies": _list(sorted(permission.implies)),
        "when": _condition(permission.when),
        **{name: _flag(getattr(permission, name)) for name in _PERMISSION_FLAGS},
    }


_PERMISSION_FLAGS: Final = ("mutates", "public_read", "reviewed", "visitor", "deprecated", "extension")
_OPERATION_FLAGS: Final = ("mutates", "public_read", "closed", "reviewed", "extension")


def _operation(operation: Operation) -> Aspects:
    where = "" if operation.open_at is None else f" at {format_target_rule(operation.open_at)}"
    return {
        "needs": "; or ".join(format_set(each) for each in operation.sets) or None,
        "open": f"yes{where}" if operation.open else None,
        **{name: _flag(getattr(operation, name)) for name in _OPERATION_FLAGS},
    }


def _bundle(bundle: Bundle) -> Aspects:
    return {
        **{f"permission {name}": "yes" for name in sorted(bundle.permissions)},
        **{f"operation {name}": "yes" for name in sorted(bundle.operations)},
        "any_operation": bundle.any_operation.value,
        "public_only": _flag(bundle.public_only),
    }


def _condition(condition: Condition) -> str | None:
    return " and ".join(f"{name} is {format_value(value)}" for name, value in condition) or None


def _list(names: Iterable[str]) -> str | None:
    return ", ".join(names) or None


def _flag(value: bool) -> str | None:  # noqa: FBT001 - it is what is shown
    return "yes" if value else None


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return None if value is None or value == "" else str(value)
