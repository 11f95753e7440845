"""The reference's own reading of request attributes (C5): their values, and the trials where some are absent."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.reference.people import effective_roles, user_of, visibility_of
from tests.reference.places import Place, node_of
from tests.reference.rows import Rows

from authz_service.catalog.model import Catalog, Condition
from authz_service.directory.model import NodeId, NodeKind
from authz_service.engine.model import OperationRequest, Request

ANOTHER = object()
"""A value that no `when` names."""

DIRECTORY_ALONE = (
    "subject.role",
    "subject.state",
    "subject.admin",
    "subject.external",
    "subject.service_account",
    "resource.visibility",
    "resource.archived",
)


@dataclass(frozen=True)
class Facts:
    """Where attributes come from: the directory by owner and place, the path parameters, the PEP; then the trial."""

    rows: Rows
    catalog: Catalog
    owner: NodeId
    request: Request
    trial: Mapping[str, object] = field(default_factory=dict)

    def values(self, name: str, place: Place | None) -> list[object] | None:
        """All values the attribute has at the place; None where it is absent."""
        space, _, key = name.partition(".")
        if space == "resource" and place is not None and place.whole:
            return [self.trial[name]] if name in self.trial else None
        if name in DIRECTORY_ALONE:
            return self._own_values(name, place)
        node = None
        if space == "resource" and place is not None:
            node = place.node
        if space == "subject" and not self.catalog.upstream:
            node = node_of(self.rows, self.owner)
        if node is not None and key in node.attributes:
            return [node.attributes[key]]
        if isinstance(self.request.ask, OperationRequest) and name in self.catalog.attribute_parameters:
            parameter = self.catalog.attribute_parameters[name]
            if parameter in self.request.ask.parameters:
                return [self.request.ask.parameters[parameter]]
        if name in self.request.attributes:
            return [self.request.attributes[name]]
        if name in self.trial:
            return [self.trial[name]]
        return None

    def _own_values(self, name: str, place: Place | None) -> list[object]:
        if self.catalog.upstream:
            return []
        user = user_of(self.rows, self.owner)
        if name == "resource.visibility":
            visibility = None if place is None else visibility_of(self.rows, place)
            return [] if visibility is None else [visibility.name.lower()]
        if name == "resource.archived":
            archives = place is not None and place.kind in (NodeKind.PROJECT, NodeKind.GROUP)
            return [place.node.archived] if archives and place and place.node else []
        if user is None:
            return []
        if name == "subject.role":
            if place is None:
                return []
            return list(effective_roles(self.rows, self.catalog, self.owner, place))
        known: dict[str, object] = {
            "subject.state": user.state.value,
            "subject.admin": user.admin,
            "subject.external": user.external,
            "subject.service_account": user.service_account,
        }
        return [known[name]]

    def matches(self, when: Condition, place: Place | None) -> bool:
        """Whether every attribute has the value named; an absent one that is not on trial has no value."""
        return all(
            any(type(value) is type(wanted) and value == wanted for value in self.values(name, place) or [])
            for name, wanted in when
        )

    def absent(self, when: Condition, place: Place | None) -> list[tuple[str, object]]:
        return [(name, wanted) for name, wanted in when if self.values(name, place) is None]


def trials(absent: list[tuple[str, object]]) -> Iterator[Mapping[str, object]]:
    """Every combination of values for the absent attributes, "another" first, then by name and value (C5)."""
    names = sorted({name for name, _ in absent})
    choices = []
    for name in names:
        wanted: list[object] = []
        for other, value in absent:
            if other == name and not any(type(value) is type(old) and value == old for old in wanted):
                wanted.append(value)
        choices.append([ANOTHER, *sorted(wanted, key=lambda value: (type(value).__name__, value))])
    for combination in itertools.product(*choices):
        yield dict(zip(names, combination, strict=True))
