"""How catalogs, and what their versions mean for tokens, are shown to people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from authz_service.cli.printing import print_note, print_table

_FEW: Final = 20
Document = Mapping[str, Any]

_COUNTS: Final = (
    ("total", "operations"),
    ("bare", "name their place themselves"),
    ("needs_target", "need a target from the asker"),
    ("open", "are open to any valid token"),
    ("closed", "no fine-grained token can call"),
    ("public_read", "need nothing where all is public"),
    ("idle_public_read", "are marked so without effect"),
    ("alternatives", "alternatives"),
    ("unusable", "alternatives that can never be used"),
    ("needs_schema", "are told by the API's GraphQL schema alone"),
)
_TURNS: Final = {"lost": "loses", "narrower": "has less of", "gained": "gains", "wider": "has more of"}
_REFUSALS: Final = {
    "version_unknown": "its version is not here",
    "incompatible": "it cannot be moved",
    "would_widen": "it would gain something: --allow-widening",
    "would_call_more": "it would gain new calls: --allow-new-calls",
}


def matching(categories: Sequence[Document], words: str) -> list[Document]:
    """The categories with those permissions alone whose name or description holds the words."""
    wanted = words.lower()
    found: list[Document] = []
    for category in categories:
        kept = [one for one in category["permissions"] if wanted in one["name"] or wanted in one["description"].lower()]
        found.append({**category, "permissions": kept})
    return found


def print_permissions(categories: Sequence[Document]) -> None:
    rows = [
        (
            *((category["name"].replace("_", " "),) if named else ()),
            permission["name"],
            ", ".join(map(_boundary, permission["boundaries"])),
            permission["description"] + (" (deprecated)" if permission["deprecated"] else ""),
        )
        for named in [any(category["name"] for category in categories)]
        for category in categories
        for permission in category["permissions"]
    ]
    columns = ("category", "permission", "where", "what for")
    print_table(columns if rows and len(rows[0]) == len(columns) else columns[1:], rows)


def _boundary(one: Document) -> str:
    return str(one["boundary"]) + (f" ({one['min_role']})" if one["min_role"] else "")


def print_found(categories: Sequence[Document], operations: Sequence[Document]) -> None:
    """What a search found of each, or that there is nothing."""
    if operations and not any(category["permissions"] for category in categories):
        print_operations(operations)
        return
    print_permissions(categories)
    if operations:
        print_operations(operations)


def print_operations(operations: Sequence[Document]) -> None:
    print_table(
        ("operation", "needs", "what it does"),
        [(one["id"], " or ".join(_short(one)) or _free(one), one["summary"]) for one in operations],
    )


def _short(operation: Document) -> list[str]:
    sets = (" + ".join(item["permission"] for item in one["all_of"]) for one in operation["needs"])
    return list(dict.fromkeys(sets))


def _free(operation: Document) -> str:
    if operation["closed"]:
        return "closed to fine-grained tokens"
    return "any valid token" if operation["open"] else ""


def print_coverage(found: Document) -> None:
    """Counts as rows, kinds of operations as columns."""
    permissions = (
        ("permissions", found["permissions"]),
        ("at their boundaries", found["pairs"]),
        ("that name a least role", found["with_min_role"]),
        ("beyond the published ones", found["extension_permissions"]),
        ("operations beyond the published ones", found["extension_operations"]),
        ("GraphQL schema (0: none)", found["schema_number"]),
    )
    print_table(("", ""), permissions)
    kinds = list(found["by_kind"])
    parts = [found["operations"], *(found["by_kind"][kind] for kind in kinds)]
    print_table(("", "all", *kinds), [(words, *(part[name] for part in parts)) for name, words in _COUNTS])


def print_need(found: Document) -> None:
    """The operation, then every way to satisfy it."""
    operation = found["operation"]
    summary = f"  {operation['summary']}" if operation["summary"] else ""
    print(f"{operation['id']}{summary}")
    for line in _needs(operation):
        print(f"  {line}")


def _needs(operation: Document) -> Iterator[str]:
    if operation["closed"]:
        yield "no fine-grained token may call it"
        return
    if operation["open"]:
        yield "any valid token may call it"
    if operation["public_read"]:
        yield "nothing, where every place it touches is public"
    for number, one in enumerate(operation["needs"]):
        text = " and ".join(f"{item['permission']} on {item['where']}" for item in one["all_of"])
        text += f"; the owner at least {one['min_role']}" if one["min_role"] else ""
        if one["when"]:
            text += f"; where {' and '.join(f'{name} is {value}' for name, value in one['when'].items())}"
        yield f"or {text}" if number else text


def print_unlocked(found: Sequence[Document]) -> None:
    print_table(
        ("operation", "held at", "beside", "what it does"),
        [
            (
                one["id"],
                ", ".join(one["boundaries"]),
                "" if one["alone"] else " or ".join(" + ".join(names) for names in one["beside"]),
                one["summary"],
            )
            for one in found
        ],
    )


# what a version changes


def print_comparison(found: Document, *, every: bool) -> None:
    """The catalogs first, then the tokens."""
    print(f"{found['from']} -> {found['to']}")
    difference = found["difference"]
    rows: list[tuple[str, ...]] = []
    for what in ("permissions", "operations", "roles", "bundles"):
        rows += _cut(list(_names(what.removesuffix("s"), difference[what])), every=every)
    settings = [("setting", change["aspect"], *_sides(change)) for change in difference["settings"]]
    rows += _cut(settings, every=every)
    if rows:
        print_table(("", "what", "before", "after"), rows)
    else:
        print_note("they mean the same")
    _print_report(found, every=every)
    if not found["installable"]:
        print_note(f"it cannot be installed as it is: {found['refusal']}")


def _names(what: str, names: Document) -> Iterator[tuple[str, ...]]:
    for name in names["removed"]:
        yield (what, name, "is there", "is gone")
    for one in names["changed"]:
        if one["former"]:
            yield (what, one["name"], f"was called {one['former']}", "")
        for change in one["changes"]:
            yield (what, f"{one['name']}: {change['aspect']}", *_sides(change))
    for name in names["added"]:
        yield (what, name, "", "is new")


def _sides(change: Document) -> tuple[str, str]:
    return (change["before"] or "-", change["after"] or "-")


def _cut(rows: Sequence[tuple[str, ...]], *, every: bool) -> Sequence[tuple[str, ...]]:
    if every or len(rows) <= _FEW:
        return rows
    more = len(rows) - _FEW
    return [*rows[:_FEW], (rows[0][0], f"… and {more} more lines: --all", "", "")]


def print_upgrade(found: Document, *, every: bool) -> None:
    """What was moved, or would be, and what was not."""
    _print_report(found, every=every)
    may = found["counts"]["tokens"] - found["counts"]["refused"]
    if found["dry_run"]:
        print_note(f"{_tokens(may)} would go to {found['to']}, {found['counts']['refused']} would be refused")
        return
    print_note(f"{_tokens(found['upgraded'])} went to {found['to']}, {found['counts']['refused']} refused")
    if found["meanwhile"]:
        print_note(f"{_tokens(found['meanwhile'])} changed meanwhile and stayed: run it again")


def _print_report(found: Document, *, every: bool) -> None:
    counts = found["counts"]
    for label, reasons in found["incompatible"].items():
        for reason in reasons:
            print_note(f"tokens of {label} cannot be moved: {reason}")
    if found["items"]:
        items = found["items"] if every else found["items"][:_FEW]
        rows = [row for item in items for row in _token_rows(item)]
        print_table(("token", "name", "owner", "made under", "what it means"), rows)
        more = found["total"] - len(items)
        if more:
            print_note(f"and {_tokens(more)} more: --all" if not every else f"and {_tokens(more)} more")
    print_note(
        f"{_tokens(counts['tokens'])} compared: {counts['broken']} broken, {counts['widened']} widened,"
        f" {counts['unchanged']} as before"
    )


def _token_rows(item: Document) -> Iterator[tuple[str, ...]]:
    """The token once, and a line for each thing that it means."""
    first = (item["id"], item["name"], item["owner"], str(item["version"]))
    for number, text in enumerate(_meanings(item)):
        yield (*(first if not number else ("", "", "", "")), text)


def _meanings(item: Document) -> Iterator[str]:
    if item["refusal"]:
        yield f"refused: {_REFUSALS.get(item['refusal'], item['refusal'])}"
    if item["lacking"]:
        yield f"holds names that are gone: {', '.join(item['lacking'])}"
    yield from _turned(item["permissions"], item["permissions_total"], _permission)
    known = [one for one in item["calls"] if not one["unknown"]]
    new = item["new_calls_total"]
    yield from _turned(known, item["calls_total"] - new, lambda one: one["operation"])
    if new:
        names = [one["operation"] for one in item["calls"] if one["unknown"]]
        yield f"gains {new} new calls: {_some(names, new)}" if new > 1 else f"gains a new call: {_some(names, new)}"
    yield from (shift["message"] for shift in item["shifts"])
    if item["above"]:
        yield f"changes with the tokens above it: {', '.join(item['above'])}"


def _turned(turned: Sequence[Document], total: int, name: Any) -> Iterator[str]:
    for turn, words in _TURNS.items():
        names = list(dict.fromkeys(name(one) for one in turned if one["turn"] == turn))
        if names:
            yield f"{words} {_some(names, len(names))}"
    if total > len(turned):
        yield f"and {total - len(turned)} more of these"


def _permission(one: Document) -> str:
    return f"{one['permission']} at {one['boundary']}" + (" (implied)" if one["implied"] else "")


def _some(names: Iterable[str], total: int) -> str:
    shown = list(names)[:5]
    return ", ".join(shown) + (f" and {total - len(shown)} more" if total > len(shown) else "")


def _tokens(count: int) -> str:
    return "1 token" if count == 1 else f"{count} tokens"
