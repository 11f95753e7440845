"""Catalog text to a tree of values that know their lines. A small part of YAML, so that a file means what it shows.

Refused: tags, anchors and aliases (no text grows while it is read), several documents, directives, tabs. Plain `true`,
`false`, `null`, `~` and whole numbers are what they look like; `yes`, `no`, `on`, `off`, dates and fractions are text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from authz_service.catalog.faults import CatalogFault, Faults
from authz_service.directory.model import Scalar

MAX_BYTES: Final = 8 * 1024 * 1024
MAX_VALUES: Final = 200_000
MAX_DEPTH: Final = 12

_BAD_CHARACTER: Final = re.compile("[\x00-\x08\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_DIRECTIVE: Final = re.compile(r"^%", re.MULTILINE)
_WHOLE: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_WORDS: Final[dict[str, bool | None]] = {"": None, "~": None, "null": None, "true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A single value. `block` is a `|` text, whose own lines begin one below `line`; `plain` has no quotes."""

    value: Scalar | None
    line: int
    plain: bool = False
    block: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    items: tuple[Value, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Entry:
    key: str
    line: int
    value: Value


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping in the order of the file; no key stands in it twice."""

    entries: tuple[Entry, ...]
    line: int

    def find(self, key: str) -> Value | None:
        """The value of a key, or None."""
        return next((entry.value for entry in self.entries if entry.key == key), None)


Value: TypeAlias = Leaf | Listing | Section


class _Refused(Exception):  # noqa: N818 - not an error of ours: it ends one reading, whose fault is already noted
    """Reading cannot go on."""


def parse_document(text: str, faults: Faults) -> Section | None:
    """The file's top mapping, or None when it cannot be read; then the faults say why.

    Keys that are no text, and second uses of a key, are faults and left out of the tree.
    """
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        faults.add(1, CatalogFault.TOO_LARGE, f"a catalog is at most {MAX_BYTES // 1024 // 1024} MiB of text")
        return None
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    found = _BAD_CHARACTER.search(text)
    if found is not None:
        _note_characters(text, faults)
        return None
    found = _DIRECTIVE.search(text)
    if found is not None:  # they change what the rest means, and the library answers odd ones with errors of its own
        line = text.count("\n", 0, found.start()) + 1
        faults.add(line, CatalogFault.YAML_REFUSED, "directives (`%`) may not stand in a catalog")
        return None
    try:
        return _Builder(text, faults).document()
    except _Refused:
        return None
    except YAMLError as error:
        faults.add(_line_of(error), CatalogFault.BAD_SYNTAX, f"this is not YAML: {_reason_of(error)}")
        return None


def _note_characters(text: str, faults: Faults) -> None:
    for number, line in enumerate(text.split("\n"), start=1):
        found = _BAD_CHARACTER.search(line)
        if found is not None:
            name = "a tab" if found[0] == "\t" else f"the character U+{ord(found[0]):04X}"
            faults.add(number, CatalogFault.BAD_CHARACTER, f"{name} may not stand in a catalog; write spaces and text")


def _line_of(error: YAMLError) -> int:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return 1 if mark is None else int(mark.line) + 1


def _reason_of(error: YAMLError) -> str:
    problem = str(getattr(error, "problem", None) or error).partition("\n")[0]
    advice = "; inside `{…}` and `[…]` a path with `{…}` needs quotes" if "'}'" in problem or "']'" in problem else ""
    return problem.replace("`", "'").rstrip(".") + advice


class _Builder:
    """Turns parser events into values; stops at the first thing that would make the text mean more than it shows."""

    def __init__(self, text: str, faults: Faults) -> None:
        self._events: Iterator[Event] = YAML(typ="safe", pure=True).parse(text)
        self._faults = faults
        self._count = 0

    def document(self) -> Section | None:
        next(self._events)
        event = next(self._events)
        if not isinstance(event, DocumentStartEvent):
            self._faults.add(1, CatalogFault.BAD_TYPE, "the file is empty; begin with `catalog: NAME` and `version: 1`")
            return None
        if event.version is not None or event.tags:
            self._refuse(event, "directives (`%`)")
        value = self._value(next(self._events), 1)
        if not isinstance(next(self._events), DocumentEndEvent):
            raise _Refused
        after = next(self._events)
        if isinstance(after, DocumentStartEvent):
            self._refuse(after, "a second document (`---`)")
        if not isinstance(value, Section):
            self._faults.add(value.line, CatalogFault.BAD_TYPE, "a catalog is a mapping; begin with `catalog: NAME`")
            return None
        return value

    def _refuse(self, event: Event, what: str) -> None:
        self._faults.add(_line(event), CatalogFault.YAML_REFUSED, f"{what} may not stand in a catalog; write it out")
        raise _Refused

    def _value(self, event: Event, depth: int) -> Value:
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_VALUES:
            limit = f"nests to {MAX_DEPTH} levels" if depth > MAX_DEPTH else f"has at most {MAX_VALUES} values"
            self._faults.add(_line(event), CatalogFault.TOO_LARGE, f"a catalog {limit}")
            raise _Refused
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if isinstance(event, AliasEvent):
            self._refuse(event, f"the alias `*{anchor}`")
        if anchor is not None:
            self._refuse(event, f"the anchor `&{anchor}`")
        if tag is not None:
            self._refuse(event, f"the tag `{tag}`")
        if isinstance(event, MappingStartEvent):
            return self._section(event, depth)
        if isinstance(event, SequenceStartEvent):
            items = []
            while not isinstance(item := next(self._events), SequenceEndEvent):
                items.append(self._value(item, depth + 1))
            return Listing(tuple(items), _line(event))
        if not isinstance(event, ScalarEvent):
            raise _Refused
        return _leaf(event)

    def _section(self, start: Event, depth: int) -> Section:
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._value(event, depth + 1)
            value = self._value(next(self._events), depth + 1)
            if not isinstance(key, Leaf) or not isinstance(key.value, str):
                self._faults.add(key.line, CatalogFault.KEY_NOT_TEXT, "a key is text; put it in quotes")
            elif key.value in entries:
                first = entries[key.value].line
                message = f"`{key.value}` stands here already, in line {first}; keep one of the two"
                self._faults.add(key.line, CatalogFault.DUPLICATE_KEY, message)
            else:
                entries[key.value] = Entry(key.value, key.line, value)
        return Section(tuple(entries.values()), _line(start))


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _leaf(event: Any) -> Leaf:
    plain = event.style is None
    value: Scalar | None = event.value
    if plain and event.value in _WORDS:
        value = _WORDS[event.value]
    elif plain and _WHOLE.fullmatch(event.value):
        value = int(event.value)
    return Leaf(value, _line(event), plain, event.style == "|")
