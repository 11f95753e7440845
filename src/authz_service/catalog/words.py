"""Targets and requirements as text: in the words of the format, and in a sentence for people (C3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from authz_service.catalog.model import Catalog, Item, ParameterKind, RequirementSet, Target, TargetKind
from authz_service.directory.model import NodeKind, Scalar

_NAMESPACE: Final = "namespace"


def format_target_rule(target: Target) -> str:
    """As `parse_target_rule` reads it: `project {id}`, `below group {id}`, `self {username}`, `caller`."""
    parameters = "/".join(f"{{{name}}}" for name in target.parameters)
    named = f"{target.names.value} {parameters}" if target.names is not None else parameters
    match target.kind:
        case TargetKind.PARAMETER:
            return named
        case TargetKind.BELOW:
            return f"below {named or 'self'}"
        case TargetKind.SELF if target.owner_is is not None:
            return f"self {{{target.owner_is}}}"
        case kind:
            return kind.value


def say_target(catalog: Catalog, item: Item, parameters: Mapping[str, str] | None = None) -> str:
    """Where an item must hold, in the API's own words; with a request's parameters, the place that they name.

    `the repository that {owner}/{repo} names`, or `the repository acme/web`.
    """
    target, word = item.target, _word(catalog, item.boundary)
    match target.kind:
        case TargetKind.SELF if target.owner_is is not None:
            named = _named(_word(catalog, NodeKind.USER), (target.owner_is,), parameters)
            return f"the token's owner, who must be {named}"
        case TargetKind.SELF:
            return "the token's owner"
        case TargetKind.INSTANCE:
            return f"the {word}"
        case TargetKind.CALLER:
            return f"the {word} that the asker names as the target"
        case TargetKind.ANYWHERE:
            return f"some {word}, wherever it lies"
        case TargetKind.BELOW if not target.parameters:
            return f"some {word} in the namespace of the token's owner"
    above = _NAMESPACE if target.names is ParameterKind.NAMESPACE else _word(catalog, _kind(target, item))
    named = _named(above, target.parameters, parameters)
    return f"some {word} at or under {named}" if target.kind is TargetKind.BELOW else named


def format_set(one: RequirementSet) -> str:
    """An alternative on one line: `order:read@project -> project {shop} + …`, with its conditions."""
    text = " + ".join(
        f"{item.permission}@{item.boundary.value} -> {format_target_rule(item.target)}" for item in one.items
    )
    if one.min_role is not None:
        text += f", min_role {one.min_role}"
    if one.when:
        text += ", when " + " and ".join(f"{name} is {format_value(value)}" for name, value in one.when)
    return text


def format_value(value: Scalar) -> str:
    """A value of a `when` as a file writes it; texts that look like something else are in quotes."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) and (value.lstrip("-").isdigit() or value in _WORDS) else str(value)


_WORDS: Final = frozenset({"true", "false", "null", "~", ""})


def _kind(target: Target, item: Item) -> NodeKind:
    return item.boundary if target.names is None else NodeKind(target.names.value)


def _named(word: str, names: tuple[str, ...], parameters: Mapping[str, str] | None) -> str:
    values = [] if parameters is None else [parameters[name] for name in names if name in parameters]
    if values and len(values) == len(names):
        return f"the {word} {'/'.join(values)}"
    written = "/".join(f"{{{name}}}" for name in names)
    return f"the {word} that {written} names"


def _word(catalog: Catalog, boundary: NodeKind) -> str:
    return catalog.words.get(boundary, boundary.value)
