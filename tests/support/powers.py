"""Everything that a token may do at one state of the world, by the naive reference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from tests.reference import naive
from tests.property.worlds import UPSTREAM_NODES
from tests.reference.places import place_of
from tests.reference.rows import Rows

from authz_service.directory.model import NodeKind
from authz_service.engine.model import PermissionRequest, Request
from authz_service.tokens.model import Conditions, Token

UPSTREAM_PLACES = (*UPSTREAM_NODES, "project:acme/deep/er", "project:dana/deep/er", "user:eve", "instance")

Power = tuple[str, str, str]
"""(catalog, permission, place)."""


def powers(rows: Rows, token: Token, now: datetime, catalogs: Iterable[str] | None = None) -> set[Power]:
    """What the token is allowed at each place of the directory, whenever and from wherever it is used."""
    anytime = [replace(one, conditions=Conditions(), not_before=None) for one in rows.tokens]
    known = replace(rows, tokens=anytime)
    found: set[Power] = set()
    for name in token.catalogs if catalogs is None else catalogs:
        catalog = naive.catalog_of(rows, token, name)
        if catalog is None:
            continue
        for text in UPSTREAM_PLACES if catalog.upstream else [place_of(rows, node).text for node in rows.nodes]:
            kind = NodeKind(text.partition(":")[0])
            for permission in catalog.permissions:
                request = Request(name, PermissionRequest(permission.name, text), now)
                if kind in permission.boundaries and naive.decide(known, token.id, request).allowed:
                    found.add((name, permission.name, text))
    return found
