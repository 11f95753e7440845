"""What a `when` is tested against: attributes of target, owner and request, present or assumed (rule C5)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Final, TypeAlias

from authz_service.catalog.model import Condition, RequirementSet
from authz_service.directory.model import Scalar


class _Another:
    """A value that no `when` names."""

    def __repr__(self) -> str:
        return "another"


ANOTHER: Final = _Another()
Value: TypeAlias = Scalar | _Another
Values: TypeAlias = tuple[Value, ...] | None
"""An attribute's values (several for roles), or None when it is absent."""
Reader: TypeAlias = Callable[[str], Values]

RESERVED: Final = frozenset(
    {
        "subject.role",
        "subject.admin",
        "subject.state",
        "subject.external",
        "subject.service_account",
        "resource.visibility",
        "resource.archived",
    }
)
"""Facts of the directory alone: nobody gives them with a request (C5)."""


def matches(condition: Condition, read: Reader) -> bool:
    """Whether every (attribute, value) of a `when` holds; an absent attribute matches nothing.

    Values compare with their types: `true` is not 1 and `"1"` is not 1.
    """
    return all(_any_equal(read(name), wanted) for name, wanted in condition)


def _any_equal(values: Values, wanted: Scalar) -> bool:
    return values is not None and any(type(value) is type(wanted) and value == wanted for value in values)


def applicable(sets: Sequence[RequirementSet], reader_of: Callable[[RequirementSet], Reader]) -> list[RequirementSet]:
    """The sets that count: those whose `when` matches, or, where none does, those without one (C5)."""
    conditional = [candidate for candidate in sets if candidate.when and matches(candidate.when, reader_of(candidate))]
    return conditional or [candidate for candidate in sets if not candidate.when]


@dataclass(frozen=True, slots=True)
class Assumption:
    """Values taken for absent attributes during one trial."""

    values: Mapping[str, Value] = field(default_factory=dict)

    def over(self, read: Reader) -> Reader:
        """The reader with assumed values where the attribute is absent."""

        def reading(name: str) -> Values:
            known = read(name)
            if known is not None or name not in self.values:
                return known
            return (self.values[name],)

        return reading


def trials(named: Mapping[str, Collection[Scalar]]) -> Iterator[Assumption]:
    """Every assignment of the absent attributes, "another" everywhere first (C5).

    `named` maps an absent attribute to the values that some `when` names for it. The loader bounds their product.
    """
    names = sorted(named)
    choices = [(ANOTHER, *sorted(named[name], key=lambda value: (type(value).__name__, value))) for name in names]
    for values in product(*choices):
        yield Assumption(dict(zip(names, values, strict=True)))
