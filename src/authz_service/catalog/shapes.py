"""Shapes of values in a catalog file: each can check a value, so that one table serves loader, docs and editors.

`check` returns the part of a value that has its shape, and notes a fault for each part that has not. Readers then walk
a tree that holds nothing unexpected, and one bad value hides no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Protocol

from authz_service.catalog.document import Entry, Leaf, Listing, Section, Value
from authz_service.catalog.faults import CatalogFault, Faults

MAX_TEXT: Final = 1024
_FRACTION: Final = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?")


class Shape(Protocol):
    """What a value must look like. `what` completes "`key` is …" in messages and in the format's page."""

    @property
    def what(self) -> str: ...

    def fits(self, value: Value) -> bool:
        """Whether the value is of the right YAML kind, so that `check` speaks of its content."""
        ...

    def check(self, value: Value, faults: Faults, name: str) -> Value | None:
        """The well-shaped part of the value, or None when nothing of it can be used."""
        ...


def shown(value: Value) -> str:
    """A value as a message shows it."""
    if isinstance(value, Listing):
        return "a list"
    if isinstance(value, Section):
        return "a mapping"
    if value.value is None:
        return "nothing"
    if isinstance(value.value, bool):
        return f"`{str(value.value).lower()}`"
    text = str(value.value)
    return f"`{text[:60]}…`" if len(text) > 60 else f"`{text}`"


def _wrong(value: Value, faults: Faults, name: str, what: str, code: CatalogFault = CatalogFault.BAD_TYPE) -> None:
    faults.add(value.line, code, f"`{name}` is {what}, not {shown(value)}")


@dataclass(frozen=True, slots=True)
class Text:
    """One text. With a `pattern` it must match whole."""

    what: str
    pattern: re.Pattern[str] | None = None
    code: CatalogFault = CatalogFault.BAD_VALUE
    longest: int = MAX_TEXT

    def fits(self, value: Value) -> bool:
        return isinstance(value, Leaf) and value.value is not None

    def check(self, value: Value, faults: Faults, name: str) -> Value | None:
        if not isinstance(value, Leaf) or not isinstance(value.value, str):
            quotable = isinstance(value, Leaf) and value.value is not None and not self.pattern
            _wrong(value, faults, name, self.what + (" (put it in quotes)" if quotable else ""))
            return None
        text = value.value.strip()
        if not text or len(text) > self.longest or (self.pattern and not self.pattern.fullmatch(text)):
            _wrong(value, faults, name, self.what, self.code)
            return None
        return Leaf(text, value.line)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]
    code: CatalogFault = CatalogFault.BAD_VALUE

    @property
    def what(self) -> str:
        return "one of " + ", ".join(f"`{word}`" for word in self.words)

    def fits(self, value: Value) -> bool:
        return isinstance(value, Leaf) and value.value is not None

    def check(self, value: Value, faults: Faults, name: str) -> Value | None:
        if isinstance(value, Leaf) and value.value in self.words and isinstance(value.value, str):
            return value
        _wrong(value, faults, name, self.what, self.code)
        return None


@dataclass(frozen=True, slots=True)
class Flag:
    what: str = "`true` or `false`"

    def fits(self, value: Value) -> bool:
        return isinstance(value, Leaf) and isinstance(value.value, bool)

    def check(self, value: Value, faults: Faults, name: str) -> Value | None:
        if self.fits(value):
            return value
        _wrong(value, faults, name, self.what)
        return None


@dataclass(frozen=True, slots=True)
class Whole:
    least: int
    most: int

    @property
    def what(self) -> str:
        return f"a whole number from {self.least} to {self.most}"

    def fits(self, value: Value) -> bool:
        return isinstance(value, Leaf) and value.value is not None

    def check(self, value: Value, faults: Faults, name: str) -> Value | None:
        number = value.value if isinstance(value, Leaf) else None
        if not isinstance(number, int) or isinstance(number, bool):
            _wrong(value, faults, name, self.what)
            return None
        if not self.least <= number <= self.most:
            _wrong(value, faults, name, self.what, CatalogFault.BAD_VALUE)
            return None
        return value


@dataclass(frozen=True, slots=True)
class Plain:
    """A text, a whole number or a boolean: what an attribute can be."""

    what: str = "a text, a whole number, `true` or `false`"

    def fits(self, value: Value) -> bool:
        return isinstance(value, Leaf) and value.value is not None

    def check(self, value: Value, faults: Faults, name: str) -> Value | None:
        if not isinstance(value, Leaf) or value.value is None:
            _wrong(value, faults, name, self.what, CatalogFault.BAD_CONDITION)
            return None
        if value.plain and isinstance(value.value, str) and _FRACTION.fullmatch(value.value):
            _wrong(value, faults, name, self.what + " (in quotes it is a text)", CatalogFault.BAD_CONDITION)
            return None
        return value


@dataclass(frozen=True, slots=True)
class Nothing:
    what: str = "left empty"

    def fits(self, value: Value) -> bool:
        return isinstance(value, Leaf) and value.value is None

    def check(self, value: Value, faults: Faults, name: str) -> Value | None:
        if self.fits(value):
            return value
        _wrong(value, faults, name, self.what)
        return None


@dataclass(frozen=True, slots=True)
class Many:
    """A list, one value alone, or a `|` text with one value a line; always a Listing afterwards.

    In a `|` text, blank lines and what follows a `#` are comments.
    """

    item: Shape
    longest: int = 50_000

    @property
    def what(self) -> str:
        return f"{self.item.what}, or a list of such"

    def fits(self, value: Value) -> bool:
        return isinstance(value, Listing) or (isinstance(value, Leaf) and value.value is not None)

    def check(self, value: Value, faults: Faults, name: str) -> Value | None:
        if not self.fits(value):
            _wrong(value, faults, name, self.what)
            return None
        items = list(_items(value))
        if len(items) > self.longest:
            faults.add(value.line, CatalogFault.TOO_LARGE, f"`{name}` holds at most {self.longest} values")
            return None
        checked = [self.item.check(item, faults, name) for item in items]
        return Listing(tuple(item for item in checked if item is not None), value.line)


def _items(value: Value) -> Iterator[Value]:
    if isinstance(value, Listing):
        yield from value.items
    elif isinstance(value, Leaf) and value.block and isinstance(value.value, str):
        for number, line in enumerate(value.value.split("\n"), start=value.line + 1):
            text = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
            if text:
                yield Leaf(text, number)
    else:
        yield value


@dataclass(frozen=True, slots=True)
class Keyed:
    """A mapping from names of the author's own to values of one shape."""

    key: Text
    value: Shape
    longest: int

    @property
    def what(self) -> str:
        return f"a mapping from {self.key.what}"

    def fits(self, value: Value) -> bool:
        return isinstance(value, Section)

    def check(self, value: Value, faults: Faults, name: str) -> Value | None:
        if not isinstance(value, Section):
            _wrong(value, faults, name, self.what)
            return None
        if len(value.entries) > self.longest:
            faults.add(value.line, CatalogFault.TOO_LARGE, f"`{name}` holds at most {self.longest} keys")
            return None
        entries = []
        for entry in value.entries:
            pattern = self.key.pattern
            if not entry.key or len(entry.key) > self.key.longest or (pattern and not pattern.fullmatch(entry.key)):
                text = Leaf(entry.key, entry.line)
                faults.add(entry.line, self.key.code, f"a key of `{name}` is {self.key.what}, not {shown(text)}")
            checked = self.value.check(entry.value, faults, entry.key)
            if checked is not None:
                entries.append(Entry(entry.key, entry.line, checked))
        return Section(tuple(entries), value.line)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a mapping whose keys are ours."""

    name: str
    shape: Shape
    note: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping with a fixed set of keys."""

    keys: tuple[Key, ...]

    @property
    def what(self) -> str:
        return "a mapping with " + ", ".join(f"`{key.name}`" for key in self.keys)

    def fits(self, value: Value) -> bool:
        return isinstance(value, Section)

    def check(self, value: Value, faults: Faults, name: str) -> Value | None:
        if not isinstance(value, Section):
            _wrong(value, faults, name, self.what)
            return None
        shapes = {key.name: key.shape for key in self.keys}
        entries = []
        for entry in value.entries:
            shape = shapes.get(entry.key)
            if shape is None:
                message = f"`{name}` has no key {shown(Leaf(entry.key, entry.line))}; {_near(entry.key, shapes)}"
                faults.add(entry.line, CatalogFault.UNKNOWN_KEY, message)
                continue
            checked = shape.check(entry.value, faults, entry.key)
            if checked is not None:
                entries.append(Entry(entry.key, entry.line, checked))
        given = {entry.key for entry in value.entries}
        for key in self.keys:
            if key.required and key.name not in given:
                faults.add(value.line, CatalogFault.MISSING_KEY, f"`{name}` needs `{key.name}`: {key.note}")
        return Section(tuple(entries), value.line)


def _near(word: str, known: dict[str, Shape]) -> str:
    close = get_close_matches(word, known, n=1)
    return f"did you mean `{close[0]}`?" if close else "it knows " + ", ".join(f"`{key}`" for key in known)


@dataclass(frozen=True, slots=True)
class Either:
    """The first shape of the value's YAML kind; shapes of one kind do not stand beside each other."""

    shapes: tuple[Shape, ...]

    @property
    def what(self) -> str:
        return ", or ".join(shape.what for shape in self.shapes)

    def fits(self, value: Value) -> bool:
        return any(shape.fits(value) for shape in self.shapes)

    def check(self, value: Value, faults: Faults, name: str) -> Value | None:
        for shape in self.shapes:
            if shape.fits(value):
                return shape.check(value, faults, name)
        _wrong(value, faults, name, self.what)
        return None
