"""Which places a question is about, whatever the answer: what limits an asker, not a token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from authz_service.catalog.model import Target, TargetKind
from authz_service.engine.case import Case
from authz_service.engine.model import OperationRequest, Reason
from authz_service.engine.places import Place

_CALLER: Final = Target(TargetKind.CALLER)


def touched_places(case: Case) -> list[Place] | None:
    """Every place that some requirement set names; None when one of them does not exist.

    `anywhere` is the instance here. A target that nobody gave is left out: the answer says so without it.
    """
    found: list[Place] = []
    for target in _targets(case):
        place = case.places.instance() if target.kind is TargetKind.ANYWHERE else case.resolve(target)
        if isinstance(place, Place):
            found.append(place)
        elif place is not Reason.TARGET_REQUIRED:
            return None
    return found


def _targets(case: Case) -> Iterator[Target]:
    ask = case.request.ask
    operation = case.catalog.operations.get(ask.operation) if isinstance(ask, OperationRequest) else None
    if operation is None or not (operation.sets or operation.open):
        yield _CALLER
        return
    if operation.open_at is not None:
        yield operation.open_at
    for choice in operation.sets:
        for item in choice.items:
            yield item.target
