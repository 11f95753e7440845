"""How readers take values out of a checked tree. Only for trees that `format.CATALOG` has checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter

from authz_service.catalog.document import Entry, Leaf, Listing, Section, Value
from authz_service.catalog.model import Condition


@dataclass(frozen=True, slots=True)
class Word:
    """A text and its line."""

    text: str
    line: int


def word_of(value: Value) -> Word:
    return Word(str(value.value) if isinstance(value, Leaf) else "", value.line)


def words_of(value: Value | None) -> tuple[Word, ...]:
    """The texts of a list; nothing when the key is absent."""
    return tuple(word_of(item) for item in value.items) if isinstance(value, Listing) else ()


def text_in(section: Section, key: str) -> str | None:
    value = section.find(key)
    return str(value.value) if isinstance(value, Leaf) else None


def flag_in(section: Section, key: str) -> bool | None:
    value = section.find(key)
    return value.value if isinstance(value, Leaf) and isinstance(value.value, bool) else None


def section_in(section: Section, key: str) -> Section | None:
    value = section.find(key)
    return value if isinstance(value, Section) else None


def entries_in(section: Section, key: str) -> Iterator[Entry]:
    """The entries of a mapping; nothing when the key is absent."""
    inner = section_in(section, key)
    return iter(inner.entries if inner else ())


def condition_in(section: Section, key: str) -> Condition:
    """A `when`, its attributes in the order of their names."""
    leaves = [(entry.key, entry.value) for entry in entries_in(section, key)]
    pairs = [(name, leaf.value) for name, leaf in leaves if isinstance(leaf, Leaf) and leaf.value is not None]
    return tuple(sorted(pairs, key=itemgetter(0)))
