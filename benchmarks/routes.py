"""Bare requests of an API: the questions of the workload as calls, and what routes and catalogs cost."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import authz_service.catalog
from authz_service.catalog.loader import load_catalog
from authz_service.catalog.model import Operation
from authz_service.catalog.routes import Match, Router, make_router
from authz_service.directory.model import NodeKind
from benchmarks.bulk import catalog
from benchmarks.inside import Inside
from benchmarks.oracle import Ask
from benchmarks.workload import Workload

Call = tuple[str, str]
"""Method and path as a client sends them."""
_SHIPPED = Path(authz_service.catalog.__file__).parent / "data"
_BIGGEST = ("gitlab@2", "github@1")
_TIMES = 3


class CallMaker:
    """For each permission an operation of the measured catalog that takes it alone, on the project in its path."""

    def __init__(self) -> None:
        self.router: Router = make_router(catalog())
        self._operations: dict[str, Operation] = {}
        for operation in catalog().operations.values():
            needed = _takes_alone(operation)
            if needed is not None:
                self._operations.setdefault(needed, operation)

    def call(self, ask: Ask) -> Call | None:
        """None where no operation takes just this permission."""
        operation = self._operations.get(ask.permission)
        if operation is None or operation.method is None or operation.path is None:
            return None
        (place,) = operation.sets[0].items[0].target.parameters
        match = self.router.resolve(operation.method, f"{catalog().base_path}{_filled(operation.path)}")
        if not isinstance(match, Match) or match.operation_id != operation.id:
            return None
        parameters = {**match.parameters, place: ask.target}
        return operation.method, self.router.format_target(operation.id, parameters)


def _takes_alone(operation: Operation) -> str | None:
    if operation.open or operation.closed or operation.public_read or len(operation.sets) != 1:
        return None
    (only,) = operation.sets
    if len(only.items) != 1 or only.when or only.min_role or only.items[0].boundary is not NodeKind.PROJECT:
        return None
    target = only.items[0].target
    return only.items[0].permission if len(target.parameters) == 1 else None


def _filled(path: str) -> str:
    """A path of the template with a number for each parameter; good enough where nothing is optional."""
    return "/".join("7" if part[:1] in (":", "*") else part for part in path.split("/"))


def calls_of(workload: Workload) -> list[tuple[int, Call]]:
    """The questions that can be asked as calls, by their position."""
    maker = CallMaker()
    known: dict[tuple[str, str], Call | None] = {}
    found = []
    for position, ask in enumerate(workload.asks):
        key = (ask.permission, ask.target)
        if key not in known:
            known[key] = maker.call(ask)
        call = known[key]
        if call is not None:
            found.append((position, call))
    return found


def resolving(calls: Sequence[Call]) -> Inside:
    """The route of each call, without what remembers calls."""
    router = make_router(catalog())
    right = [[_operation(router, call)] for call in calls]
    return Inside(
        "routes", "authz-service, routes resolved", router.resolve, calls, lambda match: [match.operation_id], right
    )


def _operation(router: Router, call: Call) -> str:
    match = router.resolve(*call)
    if not isinstance(match, Match):
        raise TypeError(f"`{call[0]} {call[1]}` is no operation")
    return match.operation_id


def weigh_catalogs() -> list[dict[str, Any]]:
    """Both big catalogs: seconds from their text to what decides, routes included, and its memory in bytes."""
    found = []
    for label in _BIGGEST:
        text = (_SHIPPED / f"{label}.yaml").read_text(encoding="utf-8")
        times = []
        for _ in range(_TIMES):
            begin = time.perf_counter()
            make_router(load_catalog(text, file=label))
            times.append(time.perf_counter() - begin)
        gc.collect()
        tracemalloc.start()
        kept = load_catalog(text, file=label)
        router = make_router(kept)
        gc.collect()
        weight, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        found.append(
            {
                "label": label,
                "operations": len(kept.operations),
                "permissions": len(kept.permissions),
                "compile_s": round(sorted(times)[len(times) // 2], 3),
                "bytes": weight,
            }
        )
        del kept, router
    return found
