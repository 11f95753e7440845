"""Tokens in words: where they reach, what they may do, and what about them deserves a second look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from authz_service.catalog.model import Catalog, Permission
from authz_service.console.rendering import humanize, parse_moment, plural
from authz_service.tokens.model import ReachKind

_LONG_LIFE: Final = timedelta(days=366)
_UNUSED: Final = timedelta(days=90)
_SOON: Final = timedelta(days=7)
_MANY: Final = 40
"""Permissions of a token from which on it is worth asking whether all are needed."""

REACHES: Final[Mapping[str, str]] = {
    ReachKind.ALL_MEMBERSHIPS: "everything its owner is a member of",
    ReachKind.PERSONAL_PROJECTS: "its owner's personal projects",
    ReachKind.USER: "its owner's account",
    ReachKind.INSTANCE: "the whole instance",
}


@dataclass(frozen=True, slots=True)
class Mark:
    """Something to look at twice. `tone` is a CSS class: `warn` or `note`."""

    label: str
    why: str
    tone: str = "warn"


def marks_of(item: Mapping[str, Any], now: datetime, *, waiting: bool = False) -> list[Mark]:
    """What stands out about a token as a list shows it; nothing of tokens that have ended."""
    if item["state"] in ("revoked", "expired"):
        return []
    found: list[Mark] = []
    if waiting:
        found.append(Mark("waits", "A group has not approved it yet; there it does not work"))
    created, expires = parse_moment(item["created_at"]), parse_moment(item["expires_at"])
    used = parse_moment(item["last_used_at"])
    if item["kind"] == "legacy":
        found.append(Mark("coarse", "A legacy token reaches all that its owner reaches; a fine-grained one is safer"))
    broad = broadness(item["scopes"])
    if broad is not None:
        found.append(Mark("broad", broad))
    privilege = item.get("privilege") or {}
    if privilege.get("wide"):
        said = f"{privilege['unused']} of its {plural(privilege['permissions'], 'permission')}"
        found.append(Mark("too wide", f"{said} were not used within 30 days; narrow it to those it uses"))
    if expires is not None and now < expires < now + _SOON:
        found.append(Mark("ends soon", "It ends within a week; rotate or replace it if it is still needed", "note"))
    if expires is None:
        found.append(Mark("no end", "It never expires by itself; give tokens an end"))
    elif created is not None and expires - created > _LONG_LIFE:
        found.append(Mark("long life", "It lives for more than a year"))
    if (used or created or now) < now - _UNUSED:
        found.append(Mark("unused", "Nobody used it for 90 days; revoke it if nobody needs it", "note"))
    return found


def broadness(scopes: Iterable[Mapping[str, Any]]) -> str | None:
    """Why scopes are broad, in one sentence; None when they are not."""
    total = 0
    for scope in scopes:
        total += len(scope["permissions"])
        kind = scope["reach"]["kind"]
        changing = [name for name in scope["permissions"] if not name.endswith((":read", ":evaluate"))]
        if kind == ReachKind.INSTANCE and changing:
            return "It may change things on the whole instance"
        if kind == ReachKind.ALL_MEMBERSHIPS and changing:
            return "It may change things wherever its owner is a member, in places to come as well"
    return f"It holds {plural(total, 'permission')}; look whether all are needed" if total >= _MANY else None


def reach_words(item: Mapping[str, Any]) -> str:
    """`2 projects, 1 group`, in the order of the scopes; legacy tokens go by their owner."""
    if item["kind"] == "legacy":
        return "all that its owner reaches"
    if not item["scopes"]:
        return "what is public"
    found: list[str] = []
    selected: dict[str, dict[str, None]] = {}
    for scope in item["scopes"]:
        kind = scope["reach"]["kind"]
        if kind != ReachKind.SELECTED:
            found.append(REACHES[kind])
            continue
        for target in scope["reach"].get("nodes", ()):
            selected.setdefault(target.partition(":")[0], {})[target] = None
    for kind, many in (("group", "groups"), ("project", "projects"), ("user", "users' projects")):
        targets = list(selected.get(kind, ()))
        if len(targets) == 1:
            found.insert(0, targets[0].partition(":")[2])
        elif targets:
            found.insert(0, f"{len(targets):,} {many}")
    return ", ".join(dict.fromkeys(found)) or "places that are gone"


@dataclass(frozen=True, slots=True)
class Folded:
    """One resource with its actions."""

    resource: str
    label: str
    actions: tuple[str, ...]


def fold(permissions: Iterable[str]) -> list[Folded]:
    """Permissions by resource, both in order."""
    found: dict[str, list[str]] = {}
    for name in sorted(permissions):
        resource, _, action = name.partition(":")
        found.setdefault(resource, []).append(action)
    return [Folded(resource, humanize(resource), tuple(actions)) for resource, actions in found.items()]


def fold_many(scopes: Iterable[Mapping[str, Any]]) -> list[Folded]:
    """Those of all scopes together, for a line in a table."""
    return fold({name for scope in scopes for name in scope["permissions"]})


def place_words(target: str) -> str:
    """`project:acme/web` as people say it: `acme/web`; a group is said to hold what lies below it."""
    kind, _, path = target.partition(":")
    if kind == "group":
        return f"{path} and everything below it, now and later"
    if kind == "user":
        return f"the personal projects of {path}"
    return path or target


@dataclass(frozen=True, slots=True)
class Summary:
    """A scope in plain words. `changes` are the sentences of what it may change, `reads` of what it may see."""

    where: list[str]
    reads: list[str]
    changes: list[str]
    warnings: list[str]


def summarize(catalog: Catalog, reach: ReachKind, nodes: Sequence[str], permissions: Iterable[str]) -> Summary:
    """What a scope would mean; unknown names are left out, for the form says what is wrong with them."""
    known = [catalog.by_name[name] for name in permissions if name in catalog.by_name]
    where = [place_words(target) for target in nodes] if reach is ReachKind.SELECTED else [_own(reach)]
    reads = [_sentence(one) for one in known if not one.mutates]
    changes = [_sentence(one) for one in known if one.mutates]
    return Summary(where, reads, changes, list(_warnings(catalog, reach, nodes, known)))


def _own(reach: ReachKind) -> str:
    return REACHES[reach].replace("its owner's", "your").replace("its owner is", "you are")


def _sentence(permission: Permission) -> str:
    text = permission.description or f"{humanize(permission.action)} {humanize(permission.resource).lower()}"
    return text[:1].lower() + text[1:]


def _warnings(
    catalog: Catalog, reach: ReachKind, nodes: Sequence[str], permissions: Sequence[Permission]
) -> Iterable[str]:
    changing = [one for one in permissions if one.mutates]
    if reach is ReachKind.INSTANCE and permissions:
        yield "This holds for the whole instance: every group, project and user. Choose places if you can."
    if reach is ReachKind.ALL_MEMBERSHIPS and permissions:
        yield "This follows your memberships: what you join later is reached as well. Choose places if you can."
    groups = [target for target in nodes if target.startswith("group:")]
    if reach is ReachKind.SELECTED and groups and changing:
        word = catalog.words.get(next(iter(catalog.words)), "project") if catalog.words else "project"
        yield f"It may change things in whole groups. Where single {word}s will do, choose those."
    if len(changing) >= _MANY:
        yield f"It may make {plural(len(changing), 'kind')} of changes. Take away what the job does not need."
    implied = _implied(catalog, permissions)
    if implied:
        yield f"What you chose includes {', '.join(f'`{name}`' for name in implied[:6])} as well."


def _implied(catalog: Catalog, permissions: Sequence[Permission]) -> list[str]:
    chosen = {one.name for one in permissions}
    found: dict[str, None] = {}
    waiting = [name for one in permissions for name in one.implies]
    while waiting:
        one = catalog.by_name[waiting.pop(0)]
        if one.name not in chosen and one.name not in found:
            found[one.name] = None
            waiting += one.implies
    return list(found)
