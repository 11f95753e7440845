r"""The text that names an operation, and what a path template says: its parameters, and the paths it stands for.

A template is made of segments. `:name` or `{name}` stands for text without a slash, `*name` or `{name*}` for text that
may have slashes, `(…)` is a part that may be left out, `\(` and `\)` are parentheses. Everything else is itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Final

from authz_service.catalog.model import OperationKind

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""The methods an operation may have; a request with another matches nothing."""
READING_METHODS: Final = frozenset({"GET", "HEAD"})
"""Operations with these do not mutate unless they say so (C4)."""
MAX_OPTIONAL: Final = 4

MUTATION_ROOT: Final = "Mutation"
"""GraphQL operations on this type mutate unless they say otherwise; all other types are read."""

_REST: Final = re.compile(r"([A-Z]+) +(\S+)")
_GRAPHQL: Final = re.compile(r"([A-Z][A-Za-z0-9_]*)\.[A-Za-z_][A-Za-z0-9_]*")
_SERVICE: Final = re.compile(r"(git|registry)\.[a-z][a-z0-9_]*")
_ACTION: Final = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_PIECES: Final = re.compile(
    rf":(?P<colon>{_NAME})|\{{(?P<brace>[A-Za-z_][A-Za-z0-9_-]*)\}}|\*(?P<star>{_NAME})|\{{(?P<rest>[A-Za-z_][A-Za-z0-9_-]*)\*\}}"
    r"|(?P<paren>\\[()])|(?P<text>[A-Za-z0-9._~!$&'=,@+-]+)"
)
_OPTIONAL: Final = re.compile(r"(?<!\\)\(([^()\\]+)\)")


class OperationTextError(ValueError):
    """The text names no operation; the message says why."""


class PieceKind(StrEnum):
    """What a part of a segment stands for: itself, text without a slash, or text with slashes."""

    TEXT = "text"
    PARAMETER = "parameter"
    REST = "rest"


@dataclass(frozen=True, slots=True)
class Piece:
    kind: PieceKind
    text: str


@dataclass(frozen=True, slots=True)
class Segment:
    """What stands between two slashes."""

    pieces: tuple[Piece, ...]

    @property
    def parameter(self) -> str | None:
        """The parameter that is this whole segment, if it is one."""
        return self.pieces[0].text if len(self.pieces) == 1 and self.pieces[0].kind is not PieceKind.TEXT else None

    @property
    def pattern(self) -> tuple[tuple[PieceKind, str], ...]:
        """The segment without the names of its parameters: equal for segments that match the same text."""
        return tuple((piece.kind, piece.text if piece.kind is PieceKind.TEXT else "") for piece in self.pieces)


@dataclass(frozen=True)
class PathTemplate:
    """A parsed template. `variants` are its paths with and without each optional part, longest first."""

    text: str
    variants: tuple[tuple[Segment, ...], ...]

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names in the order of the path."""
        longest = [piece for segment in self.variants[0] for piece in segment.pieces]
        return tuple(piece.text for piece in longest if piece.kind is not PieceKind.TEXT)


@dataclass(frozen=True, slots=True)
class OperationText:
    """What the id of an operation says; `method` and `path` are set for REST alone."""

    id: str
    kind: OperationKind
    method: str | None = None
    path: PathTemplate | None = None

    @property
    def mutates(self) -> bool:
        """What holds unless the catalog says otherwise (C4): only GET, HEAD and GraphQL outside `Mutation` read."""
        if self.kind is OperationKind.REST:
            return self.method not in READING_METHODS
        return self.kind is not OperationKind.GRAPHQL or self.id.startswith(f"{MUTATION_ROOT}.")


def parse_operation(text: str) -> OperationText:
    """Reads `GET /projects/:id`, `Mutation.createIssue`, `Type.Issue`, `git.push`, `registry.pull` or `record.write`.

    Raises OperationTextError with a sentence for the author.
    """
    service = _SERVICE.fullmatch(text)
    if service is not None:
        return OperationText(text, OperationKind(service[1]))
    if _ACTION.fullmatch(text):
        return OperationText(text, OperationKind.ACTION)
    if _GRAPHQL.fullmatch(text):
        return OperationText(text, OperationKind.GRAPHQL)
    found = _REST.fullmatch(text)
    if found is None:
        raise OperationTextError(
            "write `GET /path`, `Mutation.name`, `Type.Name`, `Type.field`, `git.service`, `registry.service` or"
            " `resource.action`"
        )
    method, path = found.groups()
    if method not in METHODS:
        raise OperationTextError(f"`{method}` is none of {', '.join(METHODS)}")
    return OperationText(f"{method} {path}", OperationKind.REST, method, parse_path(path))


def parse_path(text: str) -> PathTemplate:
    """Reads a path template. Raises OperationTextError when it could not match exactly one way or matches nothing."""
    if len(_OPTIONAL.findall(text)) > MAX_OPTIONAL:
        raise OperationTextError(f"a path has at most {MAX_OPTIONAL} optional parts")
    variants = []
    for variant in _variants(text):
        if not variant.startswith("/"):
            raise OperationTextError("a path begins with `/`")
        if variant != "/" and variant.endswith("/"):
            if "(" in text:
                continue  # `latest(/)(*rest)`: a path that ends with a slash is not canonical, and matches nothing
            raise OperationTextError("a path does not end with `/`")
        variants.append(tuple(_segment(part) for part in variant[1:].split("/")) if variant != "/" else ())
    if not variants:
        raise OperationTextError("a path does not end with `/`")
    template = PathTemplate(text, tuple(variants))
    twice = [name for name in template.parameters if template.parameters.count(name) > 1]
    if twice:
        raise OperationTextError(f"the path has two parameters `{twice[0]}`")
    return template


def _variants(text: str) -> Iterator[str]:
    found = _OPTIONAL.search(text)
    if found is None:
        yield text
        return
    before, after = text[: found.start()], text[found.end() :]
    yield from _variants(before + found[1] + after)
    yield from _variants(before + after)


@lru_cache(maxsize=4096)  # a thousand operations share a hundred segments
def _segment(text: str) -> Segment:
    if not text:
        raise OperationTextError("a path has no empty segments")
    pieces: list[Piece] = []
    position = 0
    while position < len(text):
        found = _PIECES.match(text, position)
        if found is None:
            raise OperationTextError(f"`{text[position]}` may not stand in a path here")
        position = found.end()
        piece = _piece(found)
        if pieces and piece.kind is PieceKind.TEXT and pieces[-1].kind is PieceKind.TEXT:
            pieces[-1] = Piece(PieceKind.TEXT, pieces[-1].text + piece.text)
            continue
        if pieces and piece.kind is not PieceKind.TEXT and pieces[-1].kind is not PieceKind.TEXT:
            raise OperationTextError(f"nothing separates the parameters `{pieces[-1].text}` and `{piece.text}`")
        pieces.append(piece)
    segment = Segment(tuple(pieces))
    if segment.pattern in (((PieceKind.TEXT, "."),), ((PieceKind.TEXT, ".."),)):
        raise OperationTextError(f"the segment `{text}` would be resolved away by clients and proxies")
    return segment


def _piece(found: re.Match[str]) -> Piece:
    parameter = found["colon"] or found["brace"]
    if parameter:
        return Piece(PieceKind.PARAMETER, parameter)
    rest = found["star"] or found["rest"]
    if rest:
        return Piece(PieceKind.REST, rest)
    return Piece(PieceKind.TEXT, found["text"] or found["paren"][1])
