"""The catalogs that come with this version: read from the installed package, not from the database.

Reading a large catalog as YAML takes about a second, so that each file has a compiled twin beside it, which
`make catalogs` writes. A twin begins with a digest of all it was made from; where that differs, it is not used.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

import msgspec

from authz_service.catalog.loader import load_catalog
from authz_service.catalog.model import Catalog

COMPILED_SUFFIX: Final = ".msgpack"
_SUFFIX: Final = ".yaml"
_DIGEST_SIZE: Final = hashlib.sha256().digest_size
_PACKAGE: Final = "authz_service.catalog"


@cache
def shipped_texts() -> tuple[tuple[str, str], ...]:
    """The label and the text of each shipped catalog version (`authz@1`, …), in the order of the labels."""
    found = _files(files(_PACKAGE) / "data", _SUFFIX)
    return tuple((file.name.removesuffix(_SUFFIX), file.read_text(encoding="utf-8")) for file in found)


@cache
def shipped_catalogs() -> tuple[Catalog, ...]:
    """Every shipped catalog version. Read once in a process; afterwards the same objects."""
    return tuple(_read_compiled(label, text) or _load(label, text) for label, text in shipped_texts())


def compile_shipped() -> Mapping[str, bytes]:
    """The compiled twin of each shipped catalog, by file name; equal sources give equal bytes."""
    return {f"{label}{COMPILED_SUFFIX}": pack(_load(label, text), digest_of(text)) for label, text in shipped_texts()}


def _load(label: str, text: str) -> Catalog:
    return load_catalog(text, file=f"{label}{_SUFFIX}")


def _read_compiled(label: str, text: str) -> Catalog | None:
    file = files(_PACKAGE) / "data" / f"{label}{COMPILED_SUFFIX}"
    return unpack(file.read_bytes(), digest_of(text)) if file.is_file() else None


def digest_of(text: str) -> bytes:
    """What a catalog of this text is made from: the text, and the code that reads it."""
    return hashlib.sha256(_digest_of_reader() + text.encode()).digest()


@cache
def _digest_of_reader() -> bytes:
    # A model with another default, or a loader that reads a word differently, makes another catalog of the same text.
    digest = hashlib.sha256()
    for file in _files(files(_PACKAGE), ".py"):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.digest()


def _files(folder: Traversable, suffix: str) -> list[Traversable]:
    return sorted((file for file in folder.iterdir() if file.name.endswith(suffix)), key=lambda file: file.name)


def pack(catalog: Catalog, digest: bytes) -> bytes:
    """A catalog as bytes that `unpack` gives back for the same digest only."""
    return digest + zlib.compress(msgspec.msgpack.encode(_plain(catalog)), level=9)


def unpack(data: bytes, digest: bytes) -> Catalog | None:
    """The packed catalog; None where the bytes were made from anything else, or are broken."""
    if data[:_DIGEST_SIZE] != digest:
        return None
    try:
        return msgspec.msgpack.decode(zlib.decompress(data[_DIGEST_SIZE:]), type=Catalog)
    except (zlib.error, msgspec.DecodeError):
        return None


def _plain(value: Any) -> Any:
    """Nested lists and dictionaries: sets in order, the order of mappings kept, and nothing that is as by default."""
    if is_dataclass(value):
        named = ((field, getattr(value, field.name)) for field in fields(value))
        return {field.name: _plain(each) for field, each in named if each not in _defaults(field)}
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, frozenset):
        return sorted(_plain(each) for each in value)
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value


def _defaults(field: Field[Any]) -> Iterator[Any]:
    if field.default is not MISSING:
        yield field.default
    if field.default_factory is not MISSING:
        yield field.default_factory()
