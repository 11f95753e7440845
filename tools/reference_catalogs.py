"""The pages of the shipped catalogs: every permission, and every operation with what it needs."""

from __future__ import annotations

from collections.abc import Iterable

from reference_tables import NOTE, table

from authz_service.catalog.model import Operation, Permission, RequirementSet
from authz_service.store.shipped import shipped_catalogs


def catalog_page(name: str) -> str:
    """The newest version that is shipped under this name."""
    catalog = max((one for one in shipped_catalogs() if one.name == name), key=lambda one: one.version)
    parts = [
        f"# The catalog `{name}`",
        NOTE,
        (
            f"Version {catalog.version}, with {len(catalog.permissions):,} permissions and"
            f" {len(catalog.operations):,} operations. The words are those of the"
            " [catalog format](../catalog-format.md); `authz catalog show`, `needs` and `unlocks` search the same."
        ),
        "## Permissions",
    ]
    groups: dict[str, list[Permission]] = {}
    for permission in sorted(catalog.permissions, key=lambda one: one.name):
        groups.setdefault(permission.category, []).append(permission)
    for category, permissions in sorted(groups.items()):
        if category:
            parts.append(f"### {category.replace('_', ' ').capitalize()}")
        parts.append(table(("permission", "exists at", "what it allows"), [_permission(one) for one in permissions]))
    if catalog.operations:
        parts.append("## Operations")
    for kind, operations in sorted(_by_kind(catalog.operations.values()).items()):
        parts.append(f"### {kind}")
        parts.append(table(("operation", "needs"), [(f"`{one.id}`", _needs(one)) for one in operations]))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _permission(one: Permission) -> tuple[str, str, str]:
    boundaries = ", ".join(
        kind.value if role is None else f"{kind.value} ({role})" for kind, role in one.boundaries.items()
    )
    said = [one.description] if one.description else []
    if one.implies:
        said.append("includes " + ", ".join(f"`{name}`" for name in one.implies))
    said += [
        word for word, holds in (("deprecated", one.deprecated), ("reads what is public", one.public_read)) if holds
    ]
    return f"`{one.name}`", boundaries, "; ".join(said)


def _by_kind(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    found: dict[str, list[Operation]] = {}
    for one in operations:
        found.setdefault(one.kind.value, []).append(one)
    return {kind: sorted(group, key=lambda one: (one.path or one.id, one.id)) for kind, group in found.items()}


def _needs(one: Operation) -> str:
    """Alternatives; the permissions of one are held together."""
    marks = [
        word
        for word, holds in (
            ("no fine-grained token", one.closed),
            ("nothing", one.open and one.open_at is None),
            ("nothing where the place may be seen", one.open and one.open_at is not None),
            ("or a public place", one.public_read),
        )
        if holds
    ]
    return "; ".join([*filter(None, [" or ".join(_set(alternative) for alternative in one.sets)]), *marks])


def _set(one: RequirementSet) -> str:
    text = " + ".join(dict.fromkeys(f"`{item.permission}` ({item.boundary.value})" for item in one.items))
    when = ", ".join(f"`{name}` is `{value}`" for name, value in one.when)
    return f"{text} when {when}" if when else text
