"""Where a requirement must hold, as text, and what a catalog says once about its paths (rule C3)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from operator import itemgetter
from typing import Final, TypeAlias

from authz_service.catalog.document import Section
from authz_service.catalog.faults import CatalogFault, Faults
from authz_service.catalog.model import ParameterKind, Target, TargetKind
from authz_service.catalog.paths import (
    OperationText,
    OperationTextError,
    PathTemplate,
    PieceKind,
    Segment,
    parse_path,
)
from authz_service.catalog.reading import word_of

_PARAMETER: Final = re.compile(r":([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_-]*)\*?\}|\*([A-Za-z_][A-Za-z0-9_]*)")
_KINDS: Final = "|".join(kind.value for kind in ParameterKind)
_NAMED: Final = re.compile(rf"(below )?({_KINDS}) (\S+)")
_WORDS: Final = {
    kind.value: Target(kind) for kind in (TargetKind.SELF, TargetKind.INSTANCE, TargetKind.ANYWHERE, TargetKind.CALLER)
} | {"below self": Target(TargetKind.BELOW)}


def parse_target_rule(text: str) -> Target | None:
    """Reads `project {owner}/{repo}`, `below group :id`, `self` and the other texts of a target.

    None when it is none of these, or nothing lies below what it names.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text.startswith("self "):
        names = _parameters(text.removeprefix("self "))
        return Target(TargetKind.SELF, owner_is=names[0]) if len(names) == 1 else None
    found = _NAMED.fullmatch(text)
    if found is None:
        return None
    below, kind, written = found.groups()
    names = _parameters(written)
    if not names or (below and kind == ParameterKind.PROJECT.value):
        return None
    return Target(TargetKind.BELOW if below else TargetKind.PARAMETER, names, ParameterKind(kind))


def _parameters(text: str) -> tuple[str, ...]:
    """`{owner}/{repo}` as names, or nothing when one part is no parameter."""
    names = []
    for part in text.split("/"):
        found = _PARAMETER.fullmatch(part)
        if found is None:
            return ()
        names.append(found[1] or found[2] or found[3])
    return tuple(names)


_Pattern: TypeAlias = tuple[tuple[tuple[PieceKind, str], ...], ...]


class TargetRules:
    """The `targets` of a catalog: what an operation's path names unless the operation says otherwise.

    A rule speaks of a path prefix, whose parameters count by their place, or of parameters by name, wherever they are.
    """

    def __init__(self) -> None:
        self._prefixes: dict[_Pattern, tuple[tuple[Segment, ...], Target]] = {}
        self._named: dict[tuple[str, ...], Target] = {}

    def add_prefix(self, segments: tuple[Segment, ...], target: Target) -> bool:
        """False when the same prefix has a rule already."""
        pattern = tuple(segment.pattern for segment in segments)
        return self._prefixes.setdefault(pattern, (segments, target)) == (segments, target)

    def add_named(self, target: Target) -> bool:
        """False when these parameters have a rule already."""
        return self._named.setdefault(target.parameters, target) == target

    def find(self, operation: OperationText) -> Target | None:
        """The longest prefix that fits, else the one parameter that is known. None where it would be a guess.

        Outside REST there is no path, and the caller says the target.
        """
        if operation.path is None:
            return Target(TargetKind.CALLER)
        prefixed = max(self._by_prefix(operation.path), key=itemgetter(0), default=None)
        if prefixed is not None:
            return prefixed[1]
        found = list(self._by_name(operation.path))
        places = [target for target in found if target.names is not ParameterKind.USER] or found
        return places[0] if len(places) == 1 else None

    def users_in(self, operation: OperationText) -> tuple[str, ...]:
        """The parameters of the path that name a user."""
        if operation.path is None:
            return ()
        found = [*(target for _, target in self._by_prefix(operation.path)), *self._by_name(operation.path)]
        users = [target.parameters[0] for target in found if target.names is ParameterKind.USER]
        users += [target.owner_is for target in found if target.owner_is is not None]
        return tuple(dict.fromkeys(users))

    def _by_prefix(self, path: PathTemplate) -> Iterator[tuple[int, Target]]:
        """Every rule whose prefix fits, with the prefix's length."""
        for variant in path.variants:
            patterns = tuple(segment.pattern for segment in variant)
            for length in range(len(variant) + 1):
                rule = self._prefixes.get(patterns[:length])
                if rule is not None:
                    yield length, _renamed(rule[1], rule[0], variant)

    def _by_name(self, path: PathTemplate) -> Iterator[Target]:
        names = [segment.parameter for segment in path.variants[0]]
        for start in range(len(names)):
            run: list[str] = []
            for name in names[start:]:
                if name is None:
                    break
                run.append(name)
                if tuple(run) in self._named:
                    yield self._named[tuple(run)]


def _renamed(target: Target, segments: tuple[Segment, ...], path: tuple[Segment, ...]) -> Target:
    """A prefix's target under the names that this path gives to the same places."""
    own = {
        rule.parameter: here.parameter
        for rule, here in zip(segments, path, strict=False)
        if rule.parameter is not None and here.parameter is not None
    }
    parameters = tuple(own.get(name, name) for name in target.parameters)
    owner_is = None if target.owner_is is None else own.get(target.owner_is, target.owner_is)
    return Target(target.kind, parameters, target.names, owner_is)


def read_target_rules(section: Section | None, faults: Faults) -> TargetRules:
    """Reads `targets`: a path prefix or a parameter, and the kind of thing it names, or a whole target."""
    rules = TargetRules()
    for entry in section.entries if section else ():
        wrong = _read_rule(rules, entry.key, word_of(entry.value).text)
        if wrong is not None:
            faults.add(entry.line, CatalogFault.BAD_TARGET, wrong)
    return rules


def _read_rule(rules: TargetRules, key: str, text: str) -> str | None:
    """Adds one rule; what is wrong with it comes back."""
    kind = ParameterKind(text) if text in list(ParameterKind) else None
    if not key.startswith("/"):
        names = _parameters(key)
        if not names or kind is None:
            return f"`{key}` is neither a path prefix nor a parameter with `project`, `group`, `user` or `namespace`"
        known = rules.add_named(Target(TargetKind.PARAMETER, names, kind))
        return None if known else f"`{key}` has a rule already; keep one of the two"
    try:
        path = parse_path(key)
    except OperationTextError as error:
        return f"`{key}` is no path prefix: {error}"
    if len(path.variants) > 1:
        return f"`{key}` has an optional part; write one line for each prefix"
    target = parse_target_rule(text) if kind is None else _last_parameters(path, kind)
    if target is None:
        if kind is not None:
            return f"`{key}` ends with no parameter that could name a {kind.value}"
        return f"`{text}` is no target; write `project`, `group {{id}}`, `below group {{id}}`, `self` or `caller`"
    unknown = [name for name in parameters_of(target) if name not in path.parameters]
    if unknown:
        return f"`{key}` has no parameter `{unknown[0]}`"
    return None if rules.add_prefix(path.variants[0], target) else f"`{key}` has a rule already; keep one of the two"


def _last_parameters(path: PathTemplate, kind: ParameterKind) -> Target | None:
    """The parameters at the end of a prefix, joined: `/repos/{owner}/{repo}` ends with two."""
    last = list(takewhile(lambda name: name is not None, (part.parameter for part in reversed(path.variants[0]))))
    names = tuple(name for name in reversed(last) if name is not None)
    return Target(TargetKind.PARAMETER, names, kind) if names else None


def parameters_of(target: Target) -> tuple[str, ...]:
    """Every path parameter that a target speaks of."""
    return (*target.parameters, target.owner_is) if target.owner_is else target.parameters
