"""From a bare HTTP request to the operation it calls, by the routes of a catalog version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from authz_service.catalog.model import Catalog
from authz_service.catalog.routes import PathFault, RouteFault, Router, make_router
from authz_service.engine.model import OperationRequest
from authz_service.pdp.documents import NO_DOCUMENT, GraphqlCall

_READING: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class HttpCall:
    """A request as the client sent it: `path` is the request line's, with its query, still encoded.

    `target` is what the PEP gives for operations whose target is the caller's to say (C3).
    """

    method: str
    path: str
    target: str | None = None
    document: Callable[[], GraphqlCall] | None = field(default=None, compare=False)
    """Reads the request's body and query as GraphQL; called only for the path where the catalog's documents go."""

    def graphql(self, catalog: Catalog) -> GraphqlCall | None:
        """The documents of this request; None where its path takes none."""
        if catalog.graphql is None or not catalog.graphql.path:
            return None
        if self.path.partition("?")[0] != catalog.graphql.path:
            return None
        if self.document is None:
            return GraphqlCall(target=self.target, faults=(NO_DOCUMENT,))
        return self.document()


class Routing:
    """The routers of the catalog versions in use, each made once."""

    def __init__(self) -> None:
        self._routers: dict[str, tuple[Catalog, Router]] = {}

    def router(self, catalog: Catalog) -> Router:
        """A version never changes, but an installed one that was dropped and came back is another object."""
        known = self._routers.get(catalog.label)
        if known is None or known[0] is not catalog:
            known = self._routers[catalog.label] = (catalog, make_router(catalog))
        return known[1]

    def resolve(self, catalog: Catalog, call: HttpCall) -> OperationRequest:
        """The operation, or one in no table; a path with more than one reading is marked as such (A2). Never raises.

        Where documents are sent there is no operation, and nothing that a coarse token could cover.
        """
        if call.graphql(catalog) is not None:  # whoever reads documents asks for them before
            return OperationRequest("", target=call.target, bad_document=True)
        found = self.router(catalog).resolve(call.method, call.path)
        if isinstance(found, PathFault):
            return OperationRequest(
                "",
                target=call.target,
                mutates=call.method not in _READING,
                bad_path=found.fault is RouteFault.BAD_PATH,
                path_fault=found.message,
            )
        return OperationRequest(found.operation_id, found.parameters, call.target)
