"""Lists in the console: what a query asks for, read leniently from the URL, and the links to other pages of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar
from urllib.parse import urlencode

from fastapi import Request

from authz_service.errors import Fault, InvalidInputError

E = TypeVar("E", bound=StrEnum)


def text_of(request: Request, name: str, longest: int = 255) -> str | None:
    """A parameter without the spaces around it; None where it is empty. Raises InvalidInputError for NUL and excess."""
    given = request.query_params.get(name, "").strip()
    if not given:
        return None
    if len(given) > longest or "\x00" in given:
        fault = Fault(name, "invalid_parameter", f"write at most {longest} characters")
        raise InvalidInputError("the search cannot be made", faults=[fault])
    return given


def choice_of(request: Request, name: str, kind: type[E]) -> E | None:
    """One of a closed list; None for anything else: an old link still shows a page."""
    given = request.query_params.get(name, "")
    return next((one for one in kind if one.value == given), None)


@dataclass(frozen=True, slots=True)
class Pager:
    """Where a list is, and the ways on. `back` leads to the first page: cursors know no way back."""

    path: str
    query: Mapping[str, str]
    next_cursor: str | None

    @property
    def next(self) -> str | None:
        return None if self.next_cursor is None else link(self.path, {**self.query, "cursor": self.next_cursor})

    @property
    def first(self) -> str | None:
        return link(self.path, {**self.query, "cursor": ""}) if self.query.get("cursor") else None


def link(path: str, query: Mapping[str, str | None]) -> str:
    """A URL of this site, empty parameters left out."""
    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path


def query_of(request: Request, *names: str) -> dict[str, str]:
    """The parameters of this list, for its links and its form; empty texts for those that were not given."""
    return {name: request.query_params.get(name, "").strip() for name in names}


def is_filtered(query: Mapping[str, str], *beside: str) -> bool:
    """Whether anything but the order and the page was chosen; `beside` names what does not count either."""
    return any(value for name, value in query.items() if name not in ("cursor", "sort", *beside))
