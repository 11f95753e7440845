"""A first catalog from an API's OpenAPI document, for a person to edit: what the document does not say is left open.

No target is guessed: until somebody decides, whoever asks must name the place with each question, and what the paths
look like stands in comments. What comes out is a catalog without a fault.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from authz_service.catalog.faults import MOST_FAULTS
from authz_service.catalog.format import NAME_PATTERN
from authz_service.catalog.loader import load_catalog
from authz_service.catalog.openapi import Api, Call, one_line, singular, slug
from authz_service.catalog.paths import METHODS, OperationTextError, parse_operation
from authz_service.errors import CatalogInvalidError, Fault, InvalidInputError

SCHEMA_FILE: Final = "catalog.schema.json"
_ACTIONS: Final[Mapping[str, str]] = {
    "GET": "read",
    "HEAD": "read",
    "OPTIONS": "read",
    "POST": "create",
    "PUT": "update",
    "PATCH": "update",
    "DELETE": "delete",
}
_ROUNDS: Final = 20
_PARAMETER: Final = re.compile(r"\{([^{}]*)\}")
_VERSION: Final = re.compile(r"v\d+([a-z]+\d*)?|api|rest")
_BASE: Final = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
_NO_TEXTS: Final = frozenset({"null", "true", "false"})
"""Names that YAML takes for something else unless they are in quotes."""
_OURSELVES: Final = frozenset({"me", "self", "profile"})
_KINDS: Final[Mapping[str, str]] = dict.fromkeys(
    ("group", "org", "organization", "organisation", "team", "tenant", "workspace", "account", "company"), "group"
) | dict.fromkeys(("user", "member", "person", "people"), "user")

_HEAD: Final = """\
# yaml-language-server: $schema={schema}
# A draft from {source}: read it line by line, it decides what tokens may do.
#   1. Names. Resources come from tags and paths, actions from methods: rename and join them until they are what
#      somebody would want to give or keep. Calls that belong together belong under one permission.
#   2. Boundaries. Every permission stands at `project` for now: a project is whatever of yours a token is given for,
#      as a shop or a repository. Write `group`, `user` or `instance` where that is what a call touches.
#   3. Targets. `/: caller` leaves open what paths name, so whoever asks must say it with each question. Replace it by
#      lines like those below; what they guess is a guess.
# Then: authz catalog validate FILE. The format: docs/catalog-format.md.
"""


@dataclass(frozen=True, slots=True)
class _Drafted:
    """A call, and the permission that it is put under."""

    call: Call
    text: str
    permission: tuple[str, str]


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """A call that no catalog can hold as the document has it."""

    call: Call
    why: str


def draft_catalog(api: Api, *, name: str | None = None, source: str = "an OpenAPI document") -> str:
    """The text of a catalog that holds every call it can, and tells in comments of those that it cannot.

    Raises InvalidInputError for a bad name and where nothing can be drafted, CatalogInvalidError for what is too large.
    """
    name = name or slug(api.title) or "api"
    if not NAME_PATTERN.fullmatch(name):
        raise InvalidInputError(f"`{one_line(name)}` is no name of a catalog; take small letters, digits and `_`")
    kept, left_out = _prepare(api.calls)
    if not kept:
        faults = [Fault(one_line(each.call.id), "left_out", each.why) for each in left_out[:MOST_FAULTS]]
        raise InvalidInputError("no call of the document can stand in a catalog", faults=faults)
    writer = _Writer(api, name, one_line(source))
    for _ in range(_ROUNDS):
        text, lines = writer.write(kept, left_out)
        try:
            load_catalog(text, file="draft")
        except CatalogInvalidError as error:
            blamed = {lines[line]: fault.message for fault in error.faults if (line := _line(fault.where)) in lines}
            if not blamed or len(blamed) == len(kept):
                raise
            left_out = [*left_out, *(_LeftOut(kept[position].call, why) for position, why in sorted(blamed.items()))]
            kept = [each for position, each in enumerate(kept) if position not in blamed]
        else:
            return text
    raise CatalogInvalidError("the document's paths clash too often for a draft; write the catalog by hand")


def _line(where: str) -> int:
    return int(where.rpartition(":")[2])


def _prepare(calls: Iterable[Call]) -> tuple[list[_Drafted], list[_LeftOut]]:
    kept: list[_Drafted] = []
    left_out: list[_LeftOut] = []
    have = {call.id for call in calls}
    for call in calls:
        if call.method == "HEAD" and f"GET {call.path}" in have:
            continue  # a HEAD without an operation of its own is a GET
        why = _impossible(call)
        if why is None:
            try:
                text = parse_operation(f"{call.method} {_template(call.path)}").id
            except OperationTextError as error:
                why = str(error)
            else:
                kept.append(_Drafted(call, text, (_resource(call), _ACTIONS[call.method])))
                continue
        left_out.append(_LeftOut(call, why))
    return kept, left_out


def _impossible(call: Call) -> str | None:
    """What would read as something else in a catalog, rather than as a fault."""
    if call.method not in METHODS:
        return f"a catalog has no operations with {call.method}"
    plain = _PARAMETER.sub("", call.path)
    odd = next((mark for mark in (":", "*", "?", "#") if mark in plain), None)
    return None if odd is None else f"a catalog's path cannot hold `{odd}` as text"


def _template(path: str) -> str:
    """The path with parameter names that a catalog can have, and parentheses that are text."""
    names = Counter[str]()

    def rename(found: re.Match[str]) -> str:
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", found[1]).strip("_-") or "parameter"
        name = name if not name[0].isdigit() else f"_{name}"
        names[name] += 1
        return f"{{{name}}}" if names[name] == 1 else f"{{{name}_{names[name]}}}"

    return _PARAMETER.sub(rename, path.replace("(", "\\(").replace(")", "\\)"))


def _resource(call: Call) -> str:
    """By the first tag, else by the path: what stands first, or behind `/shops/{shop}` what stands next."""
    named = [slug(tag) for tag in call.tags[:1]] + [slug(text) for text in _collections(call.path)]
    name = singular(next((each for each in named if each), "api"))
    return name if NAME_PATTERN.fullmatch(name) else "api"


def _collections(path: str) -> list[str]:
    segments = [part for part in path.split("/") if part]
    while segments and _VERSION.fullmatch(segments[0].lower()):
        segments = segments[1:]
    literal = [position for position, part in enumerate(segments) if "{" not in part]
    if len(segments) > 2 and literal[:1] == [0] and 1 not in literal and len(literal) > 1:
        literal = literal[1:]
    return [segments[position] for position in literal[:1]]


class _Writer:
    """Writes the draft, and knows at which line each call came to stand."""

    def __init__(self, api: Api, name: str, source: str) -> None:
        self._api = api
        self._name = name
        self._source = source

    def write(self, kept: list[_Drafted], left_out: list[_LeftOut]) -> tuple[str, dict[int, int]]:
        """The text, and which of the kept calls stands at each line."""
        lines = [*_HEAD.format(schema=SCHEMA_FILE, source=self._source).splitlines(), *self._top(), *_targets(kept)]
        at: dict[int, int] = {}
        lines.append("permissions:")
        by_permission: dict[str, dict[str, list[int]]] = {}
        for position, each in enumerate(kept):
            resource, action = each.permission
            by_permission.setdefault(resource, {}).setdefault(action, []).append(position)
        for resource, actions in by_permission.items():
            lines.append(f'  "{resource}":' if resource in _NO_TEXTS else f"  {resource}:")
            for action, positions in actions.items():
                lines += [f"    {action}:", "      project: |"]
                width = min(60, max(len(kept[position].text) for position in positions))
                for position in positions:
                    lines.append(f"        {kept[position].text.ljust(width)}{_remark(kept[position].call)}")
                    at[len(lines)] = position
        lines += [f"# left out: {one_line(each.call.id)}: {one_line(each.why, 300)}" for each in left_out]
        return "\n".join(line.rstrip() for line in lines) + "\n", at

    def _top(self) -> Iterator[str]:
        yield f'catalog: "{self._name}"' if self._name in _NO_TEXTS else f"catalog: {self._name}"
        yield "version: 1"
        if self._api.title:
            yield f"title: {json.dumps(self._api.title, ensure_ascii=False)}"
        yield "owner_check: upstream".ljust(34) + "# the API knows its owners and places itself: no directory is needed"
        yield (
            "case_sensitive: true".ljust(34)
            + "# `Acme` and `acme` are two; take this out only if the API has them as one"
        )
        server = self._api.server
        if server is None:
            yield "# base_path: /api".ljust(34) + "# undecided: the document's server has variables"
        elif server and _BASE.fullmatch(server):
            yield f"base_path: {server}"
        elif server:
            yield "# base_path: /api".ljust(34) + f"# undecided: `{one_line(server)}` cannot be written as one"


def _targets(kept: Iterable[_Drafted]) -> Iterator[str]:
    yield "targets:"
    yield "  /: caller".ljust(34) + "# undecided: whoever asks names the project, the group, or what it is"
    guesses: Counter[tuple[str, str]] = Counter(_guess(each.text.partition(" ")[2]) for each in kept)
    for (prefix, guess), count in guesses.items():
        calls = "1 call" if count == 1 else f"{count} calls"
        yield f"  # {prefix}: {guess}".ljust(34) + f"# a guess, for {calls}"


def _guess(path: str) -> tuple[str, str]:
    """A prefix of the path, and what it may name."""
    segments = [part for part in path.split("/") if part]
    start = next((at for at, part in enumerate(segments) if not _VERSION.fullmatch(part.lower())), len(segments))
    for position, part in enumerate(segments[start:], start):
        if part.startswith("{") and position > start:
            above = singular(slug(segments[position - 1]))
            return "/" + "/".join(segments[: position + 1]), _KINDS.get(above.rpartition("_")[2], "project")
        if part.lower() in _OURSELVES:
            return "/" + "/".join(segments[: position + 1]), "self"
    return "/" + "/".join(segments[: start + 1]), "instance"


def _remark(call: Call) -> str:
    said = [call.summary] if call.summary else []
    said += ["deprecated"] if call.deprecated else []
    said += ["no credentials are asked for: perhaps `open`"] if call.public else []
    return f"  # {'; '.join(said)}" if said else ""
