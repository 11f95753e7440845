"""The catalogs that come with this version: read from the installed package, not from the database."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

from authz_service.catalog.loader import load_catalog
from authz_service.catalog.model import Catalog

_SUFFIX: Final = ".yaml"


@cache
def shipped_texts() -> tuple[tuple[str, str], ...]:
    """The label and the text of each shipped catalog version (`authz@1`, …), in the order of the labels."""
    folder = files("authz_service.catalog") / "data"
    found = [each for each in folder.iterdir() if each.name.endswith(_SUFFIX)]
    return tuple(
        (each.name.removesuffix(_SUFFIX), each.read_text(encoding="utf-8")) for each in sorted(found, key=_name)
    )


def _name(file: object) -> str:
    return str(getattr(file, "name", ""))


@cache
def shipped_catalogs() -> tuple[Catalog, ...]:
    """Every shipped catalog version. Read once in a process; afterwards the same objects."""
    return tuple(load_catalog(text, file=f"{label}{_SUFFIX}") for label, text in shipped_texts())
