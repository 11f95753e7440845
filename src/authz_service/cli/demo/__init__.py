"""A small organisation to try things on: a bakery, its web shop, and the people who work there."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

MARK: Final = "bakery"
"""The group by which a database is known to hold the organisation."""


@cache
def organisation() -> bytes:
    """The directory import, one change a line."""
    return (files(__name__) / "organisation.ndjson").read_bytes()


@cache
def orders_catalog() -> str:
    """The catalog of an API of one's own, the same as in `examples/orders`."""
    return (files(__name__) / "orders.yaml").read_text("utf-8")
