"""Reads the permissions of a catalog: where each exists, what it includes, which operations are under it (C1, C2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import pairwise
from typing import Final

from authz_service.catalog.document import Entry, Section, Value
from authz_service.catalog.faults import CatalogFault, Faults
from authz_service.catalog.format import MAX_PERMISSIONS
from authz_service.catalog.model import BOUNDARIES, Permission, Role
from authz_service.catalog.reading import Word, condition_in, entries_in, flag_in, text_in, word_of, words_of
from authz_service.catalog.roles import check_min_role, in_cycles
from authz_service.directory.model import NodeKind

_READING: Final = ("read",)


@dataclass(frozen=True, slots=True)
class Listed:
    """An operation listed under a permission and boundary, as written."""

    operation: Word
    permission: str
    boundary: NodeKind


@dataclass(frozen=True, slots=True)
class Permissions:
    """What the file says of permissions. `lines` holds the line of each, `aliases` former name to today's."""

    all: tuple[Permission, ...]
    aliases: Mapping[str, str]
    listed: tuple[Listed, ...]
    lines: Mapping[str, int]
    by_name: Mapping[str, Permission] = field(default_factory=dict)

    def find(self, word: Word, faults: Faults) -> Permission | None:
        """The permission of this name; an unknown one is a fault that says the nearest known name."""
        permission = self.by_name.get(word.text)
        if permission is not None:
            return permission
        if word.text in self.aliases:
            advice = f"it is a former name; write `{self.aliases[word.text]}`"
        else:
            close = get_close_matches(word.text, self.by_name, n=1) if faults.few else []
            advice = f"did you mean `{close[0]}`?" if close else "list it under `permissions`"
        faults.add(word.line, CatalogFault.UNKNOWN_PERMISSION, f"there is no permission `{word.text}`; {advice}")
        return None


@dataclass(slots=True)
class _Draft:
    """One permission with the lines of what it refers to."""

    permission: Permission
    line: int
    implies: list[Word]
    aliases: tuple[Word, ...]


def read_permissions(top: Section, roles: Mapping[str, Role], faults: Faults) -> Permissions:
    """Reads both trees, `permissions` and `categories`, in the order of the file: that order gives the numbers."""
    listed: list[Listed] = []
    drafts: dict[str, _Draft] = {}
    reading = tuple(word.text for word in words_of(top.find("reading_actions"))) or _READING
    for name, category, entry in _actions(top):
        if name in drafts:
            message = f"`{name}` stands in line {drafts[name].line} already; a permission has one place"
            faults.add(entry.line, CatalogFault.DUPLICATE_PERMISSION, message)
            continue
        boundaries = _read_boundaries(name, entry, roles, listed, faults)
        drafts[name] = _read_permission(name, len(drafts), category, entry, boundaries, reading)
    if len(drafts) > MAX_PERMISSIONS:
        faults.add(top.line, CatalogFault.TOO_LARGE, f"a catalog has at most {MAX_PERMISSIONS} permissions")
        drafts = dict(list(drafts.items())[:MAX_PERMISSIONS])
    _check_actions(top, drafts, faults)
    _imply_levels(top, drafts)
    _imply_for_boundaries(top, drafts, faults)
    aliases = _read_aliases(drafts, faults)
    permissions = _link(drafts, aliases, faults)
    lines = {name: draft.line for name, draft in drafts.items()}
    return Permissions(permissions, aliases, tuple(listed), lines, {each.name: each for each in permissions})


def _actions(top: Section) -> Iterator[tuple[str, str, Entry]]:
    """Every permission's name, category and entry."""
    for part in top.entries:
        groups: list[tuple[str, Value]] = []
        if part.key == "permissions":
            groups = [("", part.value)]
        elif part.key == "categories" and isinstance(part.value, Section):
            groups = [(entry.key, entry.value) for entry in part.value.entries]
        for category, resources in groups:
            for resource in resources.entries if isinstance(resources, Section) else ():
                for action in resource.value.entries if isinstance(resource.value, Section) else ():
                    yield f"{resource.key}:{action.key}", category, action


def _read_boundaries(
    name: str, entry: Entry, roles: Mapping[str, Role], listed: list[Listed], faults: Faults
) -> Mapping[NodeKind, str | None]:
    found: dict[NodeKind, str | None] = {}
    if not isinstance(entry.value, Section):
        for word in words_of(entry.value):
            found[NodeKind(word.text)] = None
    else:
        for boundary in BOUNDARIES:
            value = entry.value.find(boundary.value)
            if value is None:
                continue
            found[boundary] = None
            operations = words_of(value)
            if isinstance(value, Section):
                operations = words_of(value.find("operations"))
                role = value.find("min_role")
                if role is not None:
                    found[boundary] = word_of(role).text
                    check_min_role(word_of(role), boundary, roles, faults, on_set=False)
            listed.extend(Listed(operation, name, boundary) for operation in operations)
    # A misspelt boundary has its own fault.
    if not found and not faults.has(CatalogFault.UNKNOWN_BOUNDARY, CatalogFault.UNKNOWN_KEY):
        message = f"`{name}` exists nowhere; name a boundary: project, group, user or instance"
        faults.add(entry.line, CatalogFault.NO_BOUNDARY, message)
    return found


def _read_permission(
    name: str,
    number: int,
    category: str,
    entry: Entry,
    boundaries: Mapping[NodeKind, str | None],
    reading: tuple[str, ...],
) -> _Draft:
    body = entry.value if isinstance(entry.value, Section) else Section((), entry.line)
    mutates = flag_in(body, "mutates")
    permission = Permission(
        name,
        number,
        boundaries,
        mutates=name.partition(":")[2] not in reading if mutates is None else mutates,
        public_read=flag_in(body, "public_read") is True,
        reviewed=flag_in(body, "reviewed") is True,
        visitor=flag_in(body, "visitor") is True,
        when=condition_in(body, "when"),
        category=category,
        description=text_in(body, "description") or "",
        deprecated=flag_in(body, "deprecated") is True,
        extension=flag_in(body, "extension") is True,
    )
    return _Draft(permission, entry.line, list(words_of(body.find("implies"))), words_of(body.find("aliases")))


def _check_actions(top: Section, drafts: Mapping[str, _Draft], faults: Faults) -> None:
    """A misspelt action in `levels` or `reading_actions` would silently do nothing."""
    actions = {draft.permission.action for draft in drafts.values()}
    for key in ("levels", "reading_actions"):
        for word in words_of(top.find(key)):
            if word.text not in actions:
                message = f"`{key}` names the action `{word.text}`, which no permission has"
                faults.add(word.line, CatalogFault.UNKNOWN_PERMISSION, message)


def _imply_levels(top: Section, drafts: Mapping[str, _Draft]) -> None:
    levels = words_of(top.find("levels"))
    for resource in {draft.permission.resource: None for draft in drafts.values()}:
        there = [draft for level in levels if (draft := drafts.get(f"{resource}:{level.text}"))]
        for lower, higher in pairwise(there):
            if lower.permission.boundaries.keys() & higher.permission.boundaries.keys():
                higher.implies.append(Word(lower.permission.name, higher.line))


def _imply_for_boundaries(top: Section, drafts: Mapping[str, _Draft], faults: Faults) -> None:
    for entry in entries_in(top, "implies"):
        boundary = NodeKind(entry.key)
        common = words_of(entry.value)
        for word in common:
            implied = drafts.get(word.text)
            if implied is not None and boundary not in implied.permission.boundaries:
                message = f"`{word.text}` does not exist at {boundary.value}, so nothing there can include it"
                faults.add(word.line, CatalogFault.NOT_AT_BOUNDARY, message)
        known = [
            word for word in common if word.text not in drafts or boundary in drafts[word.text].permission.boundaries
        ]
        names = {word.text for word in common}
        for name, draft in drafts.items():
            if boundary in draft.permission.boundaries and name not in names:
                draft.implies.extend(known)


def _link(drafts: Mapping[str, _Draft], aliases: Mapping[str, str], faults: Faults) -> tuple[Permission, ...]:
    """The permissions with what they imply, once it is known that all of it exists and nothing goes in a circle."""
    known = {name: draft.permission for name, draft in drafts.items()}
    every = Permissions(tuple(known.values()), aliases, (), {}, known)
    linked: list[Permission] = []
    for name, draft in drafts.items():
        names: dict[str, None] = {}
        for word in draft.implies:
            implied = every.find(word, faults)
            if implied is None:
                continue
            names[implied.name] = None
            if not implied.boundaries.keys() & draft.permission.boundaries.keys():
                message = f"`{name}` and `{implied.name}` exist at no boundary together, so `implies` says nothing"
                faults.add(word.line, CatalogFault.NOT_AT_BOUNDARY, message)
        linked.append(replace(draft.permission, implies=tuple(names)))
    for name in sorted(in_cycles({permission.name: permission.implies for permission in linked})):
        message = f"`{name}` includes itself by way of what it implies; take one `implies` out"
        faults.add(drafts[name].line, CatalogFault.IMPLICATION_CYCLE, message)
    return tuple(linked)


def _read_aliases(drafts: Mapping[str, _Draft], faults: Faults) -> Mapping[str, str]:
    aliases: dict[str, str] = {}
    for name, draft in drafts.items():
        for word in draft.aliases:
            taken = word.text if word.text in drafts else aliases.get(word.text)
            if taken is not None:
                message = f"the former name `{word.text}` means `{taken}` already; names never change their meaning"
                faults.add(word.line, CatalogFault.DUPLICATE_PERMISSION, message)
            else:
                aliases[word.text] = name
    return aliases
