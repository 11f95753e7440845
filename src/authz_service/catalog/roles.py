"""Reads the roles of a catalog, and says where a role may be demanded (rule C6)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from authz_service.catalog.document import Section
from authz_service.catalog.faults import CatalogFault, Faults
from authz_service.catalog.model import ADMIN_ROLE, NO_ROLE_NEEDED, Role
from authz_service.catalog.reading import Word, flag_in, text_in, word_of, words_of
from authz_service.directory.model import NodeKind

_AT_INSTANCE: Final = (ADMIN_ROLE, NO_ROLE_NEEDED)


def read_roles(top: Section, faults: Faults) -> tuple[Mapping[str, Role], str | None]:
    """The roles by name, and the top role."""
    roles: dict[str, Role] = {}
    section = top.find("roles")
    entries = section.entries if isinstance(section, Section) else ()
    known = {entry.key for entry in entries}
    for entry in entries:
        if entry.key == NO_ROLE_NEEDED:
            message = f"`{entry.key}` means that no role is needed; give the role another name"
            faults.add(entry.line, CatalogFault.RESERVED_NAME, message)
        body = entry.value if isinstance(entry.value, Section) else None
        includes = words_of(body.find("includes") if body else entry.value)
        for word in includes:
            if word.text not in known:
                faults.add(word.line, CatalogFault.UNKNOWN_ROLE, f"there is no role `{word.text}` to include")
        inherits = body is None or flag_in(body, "inherits") is not False
        roles[entry.key] = Role(entry.key, tuple(word.text for word in includes), inherits=inherits)
    cycle = in_cycles({name: role.includes for name, role in roles.items()})
    for entry in entries:
        if entry.key in cycle:
            message = f"the role `{entry.key}` includes itself; take one of its `includes` out"
            faults.add(entry.line, CatalogFault.ROLE_CYCLE, message)
    return roles, _read_top_role(top, roles, faults)


def _read_top_role(top: Section, roles: Mapping[str, Role], faults: Faults) -> str | None:
    value = top.find("top_role")
    if value is None:
        section = top.find("roles")
        if roles and section is not None:
            message = "`roles` need a `top_role`: the role of users in their own namespace"
            faults.add(section.line, CatalogFault.MISSING_KEY, message)
        return None
    if text_in(top, "top_role") not in roles:
        word = word_of(value)
        faults.add(word.line, CatalogFault.UNKNOWN_ROLE, f"`top_role` names `{word.text}`, which is none of the roles")
        return None
    return text_in(top, "top_role")


def check_min_role(role: Word, boundary: NodeKind, roles: Mapping[str, Role], faults: Faults, *, on_set: bool) -> None:
    """The instance knows `admin`, and on a permission `none`; the other boundaries know the catalog's roles (A4)."""
    if boundary is NodeKind.INSTANCE:
        allowed = (ADMIN_ROLE,) if on_set else _AT_INSTANCE
        if role.text not in allowed:
            words = " or ".join(f"`{word}`" for word in allowed)
            message = f"`min_role` at the instance is {words}, not `{role.text}`"
            faults.add(role.line, CatalogFault.BAD_MIN_ROLE, message)
    elif role.text in _AT_INSTANCE and role.text not in roles:
        message = f"`min_role: {role.text}` exists at the instance alone; name a role for {boundary.value}, or none"
        faults.add(role.line, CatalogFault.BAD_MIN_ROLE, message)
    elif role.text not in roles:
        message = f"`min_role` names `{role.text}`, which is none of the roles"
        faults.add(role.line, CatalogFault.UNKNOWN_ROLE, message)


def in_cycles(graph: Mapping[str, Collection[str]]) -> frozenset[str]:
    """The names that lie on a cycle, or between two."""
    left = {name: {other for other in others if other in graph} for name, others in graph.items()}
    backwards: dict[str, set[str]] = {name: set() for name in left}
    for name, others in left.items():
        for other in others:
            backwards[other].add(name)
    return _without_ends(left, backwards) & _without_ends(backwards, left)


def _without_ends(graph: Mapping[str, Collection[str]], backwards: Mapping[str, Collection[str]]) -> frozenset[str]:
    """What is left when names that lead nowhere are taken away again and again."""
    open_ways = {name: len(others) for name, others in graph.items()}
    ends = [name for name, count in open_ways.items() if count == 0]
    while ends:
        name = ends.pop()
        del open_ways[name]
        for other in backwards[name]:
            open_ways[other] -= 1
            if open_ways[other] == 0:
                ends.append(other)
    return frozenset(open_ways)
