"""Everything that a token may do at one state of the world, by the naive reference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from tests.property.worlds import UPSTREAM_NODES
from tests.reference import naive
from tests.reference.places import place_of
from tests.reference.rows import Rows

from authz_service.catalog.model import Catalog
from authz_service.directory.model import NodeKind, Scalar
from authz_service.engine.model import OperationRequest, PermissionRequest, Reason, Request
from authz_service.tokens.model import Conditions, Token

UPSTREAM_PLACES = (*UPSTREAM_NODES, "project:acme/deep/er", "project:dana/deep/er", "user:eve", "instance")
ATTRIBUTES: tuple[Mapping[str, Scalar], ...] = (
    {},
    {"resource.status": "open", "action.soft": "true", "context.touches_workflows": True},
)

Power = tuple[str, str, str]
"""(catalog, permission or operation, place)."""


def powers(
    rows: Rows, token: Token, now: datetime, catalogs: Iterable[str] | None = None, *, operations: bool = False
) -> set[Power]:
    """What the token is allowed at each place of the directory, whenever and from wherever it is used.

    With `operations` the calls of each catalog too, with every parameter naming the place. What is `open` to every
    token of its owner no token gives.
    """
    anytime = replace(rows, tokens=[replace(one, conditions=Conditions(), not_before=None) for one in rows.tokens])
    found: set[Power] = set()
    for name in token.catalogs if catalogs is None else catalogs:
        catalog = naive.catalog_of(rows, token, name)
        if catalog is None:
            continue
        for text in UPSTREAM_PLACES if catalog.upstream else [place_of(rows, node).text for node in rows.nodes]:
            asked = [*_permissions(catalog, text), *(_operations(catalog, text) if operations else ())]
            for what, ask in asked:
                for attributes in ATTRIBUTES if catalog.attribute_parameters else ATTRIBUTES[:1]:
                    request = Request(name, ask, now, attributes=attributes)
                    decision = naive.decide(anytime, token.id, request)
                    if decision.allowed and decision.reason is not Reason.GRANTED_OPEN:
                        found.add((name, what, text))
    return found


def _permissions(catalog: Catalog, text: str) -> Iterator[tuple[str, PermissionRequest]]:
    kind = NodeKind(text.partition(":")[0])
    for permission in catalog.permissions:
        if kind in permission.boundaries:
            yield permission.name, PermissionRequest(permission.name, text)


def _operations(catalog: Catalog, text: str) -> Iterator[tuple[str, OperationRequest]]:
    path = text.partition(":")[2] or text
    for operation in catalog.operations.values():
        parameters: dict[str, str] = {}
        targets = [item.target for choice in operation.sets for item in choice.items]
        for target in targets if operation.open_at is None else [*targets, operation.open_at]:
            if len(target.parameters) == 2:
                above, _, name = path.rpartition("/")
                parameters |= dict(zip(target.parameters, (above, name), strict=True))
            elif target.parameters:
                parameters[target.parameters[0]] = path
            if target.owner_is is not None:
                parameters[target.owner_is] = path
        yield operation.id, OperationRequest(operation.id, parameters, text)
    yield "GET /in/no/table", OperationRequest("GET /in/no/table", {}, text, mutates=False)
    yield "POST /in/no/table", OperationRequest("POST /in/no/table", {}, text)
