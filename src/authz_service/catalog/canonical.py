"""The one spelling of a request's path that may be decided: every other spelling is refused, never repaired.

Whoever asks us and whoever serves the request read the same text with different software. Where two readers could
differ (encoded separators, dot segments, doubled slashes) there is no right answer to find, so there is none given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import quote, unquote_plus, unquote_to_bytes

MAX_TARGET: Final = 8192
"""Characters of a request target, query included."""
MAX_SEGMENTS: Final = 128

_TARGET: Final = re.compile(r'[!"$-~]*')  # what is left of ASCII without controls, space and `#`
_PATH: Final = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,=:@-]|%[0-9A-Fa-f]{2})++)++")  # RFC 3986, `;` left out
_BASE: Final = re.compile(r"(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*)*")
_SAFE: Final = "!$&'()*+,=:@"
_WHOLE_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_STRUCTURE: Final = re.compile(r"%(?:2[35Ff]|3[BbFf]|5[Cc])")  # / \ ; ? # and the % of a second encoding
_ESCAPE: Final = re.compile("%..")
_PAIRS: Final = re.compile("[&;]")
_OVERRIDE: Final = re.compile(r"\s*[_.\[]method(?![A-Za-z0-9_-])", re.IGNORECASE)  # as PHP spells `_method`, too
_NO_PART: Final = frozenset({"", ".", ".."})


class RouteFault(StrEnum):
    """Why a request has no operation: the public reasons of the same text (A2)."""

    BAD_PATH = "bad_path"
    OPERATION_UNKNOWN = "operation_unknown"


@dataclass(frozen=True, slots=True)
class PathFault:
    """No operation, and why: `fault` is public, `message` says to a person what to send instead."""

    fault: RouteFault
    message: str


@dataclass(frozen=True, slots=True)
class RequestPath:
    """The segments below the base path, as they came (`raws`), decoded once, and decoded without regard to case."""

    raws: list[str]
    texts: list[str]
    folds: list[str]


def bad_path(message: str) -> PathFault:
    return PathFault(RouteFault.BAD_PATH, message)


def read_target(target: str, base_path: str = "") -> RequestPath | PathFault:
    """Reads a request target in origin form, as it stood in the request line; the query is left out.

    A query that names another method (`_method`) is a fault, for then the path and the method are not all of it.
    What comes back may still hold encoded separators: whether they are data, the route says (`hides_structure`).
    Whatever the text, there is no exception, and the time grows with its length alone.
    """
    if len(target) > MAX_TARGET:
        return bad_path(f"the request target is longer than {MAX_TARGET} characters")
    path, _, query = target.partition("?")
    if not _TARGET.fullmatch(target) or not (path in ("/", f"{base_path}/") or _PATH.fullmatch(path)):
        return bad_path(_fault_of(target, path))
    if overrides_method(query):
        return bad_path("the query holds `_method`, by which many servers take another method; leave it out")
    if path.count("/") > MAX_SEGMENTS:
        return bad_path(f"the path has more than {MAX_SEGMENTS} segments")
    if path == f"{base_path}/":
        return RequestPath([], [], [])
    raws = path[1:].split("/")
    if "." in raws or ".." in raws:
        return bad_path(_DOTS)
    texts = raws if "%" not in path else _decode_all(raws)
    if isinstance(texts, PathFault):
        return texts
    folds = [text.casefold() for text in texts]
    if not base_path:
        return RequestPath(raws, texts, folds)
    if path.startswith(f"{base_path}/"):
        depth = base_path.count("/")
        return RequestPath(raws[depth:], texts[depth:], folds[depth:])
    return _outside(path, folds, base_path)


def overrides_method(query: str) -> bool:
    """Whether a parameter of this query, still encoded, is `_method` to whoever reads it, as one or as a list."""
    if "%" not in query and "method" not in query.lower():
        return False
    return any(_OVERRIDE.match(unquote_plus(pair.partition("=")[0])) for pair in _PAIRS.split(query))


_DOTS: Final = "the path has a `.` or `..` segment; resolve it before the request is sent"


def _decode_all(raws: list[str]) -> list[str] | PathFault:
    texts = []
    for raw in raws:
        if "%" not in raw:
            texts.append(raw)
            continue
        try:
            text = decode(raw)
        except UnicodeDecodeError:
            return bad_path("what the path encodes is not UTF-8")
        if _CONTROL.search(text):
            return bad_path("the path encodes a control character")
        # A reader that decodes before it resolves would climb out, and one that merges slashes would see other names.
        if not _NO_PART.isdisjoint(text.replace("\\", "/").split("/")):
            return bad_path("the path encodes a `.` or `..` segment, or a slash with nothing before or after it")
        texts.append(text)
    return texts


def _outside(path: str, folds: list[str], base_path: str) -> PathFault:
    base = base_path.casefold()[1:].split("/")
    if folds[: len(base)] == base and len(folds) > len(base):
        return bad_path(f"the path begins with another spelling of `{base_path}`; send it exactly so")
    return unmatched(path)


def unmatched(path: str) -> PathFault:
    """The fault of a path that no route has: a bad one where it could be read as some other path."""
    if hides_structure(path):
        return bad_path("the path encodes a separator where no parameter may hold one")
    return PathFault(RouteFault.OPERATION_UNKNOWN, "the catalog has no operation with this method and path")


def _fault_of(target: str, path: str) -> str:
    """The first thing wrong with a target that is not of the one form."""
    if not target.isascii() or _CONTROL.search(target) or " " in target:
        return "the request target has a character that must be percent-encoded"
    if "#" in target:
        return "the request target has a fragment, which is never sent"
    if _WHOLE_URL.match(path):
        return "this is a whole URL; send its path alone, beginning with the `/` after the host"
    if not path.startswith("/"):
        return "the path does not begin with `/`; send it as the client did"
    if _BROKEN_ESCAPE.search(path):
        return "the path has a `%` without two hexadecimal digits"
    if "//" in path:
        return "the path has an empty segment: two `/` in a row"
    if path.endswith("/"):
        return "the path ends with `/`; leave that out"
    return "the path has a character that must be percent-encoded"


def is_base_path(text: str) -> bool:
    """Whether a catalog's base path can be compared as it stands: empty, or as `/api/v4`."""
    return _BASE.fullmatch(text) is not None


def decode(raw: str) -> str:
    """Decodes once. Raises UnicodeDecodeError on what is not UTF-8, which `read_target` lets through nowhere."""
    return unquote_to_bytes(raw).decode() if "%" in raw else raw


def mask(raw: str) -> str:
    """The same text with every escape blotted out, so that no text of a template is found inside one."""
    return _ESCAPE.sub("\0\0\0", raw) if "%" in raw else raw


def hides_structure(raw: str) -> bool:
    r"""Whether decoding would make a separator (`/`, `\`, `;`, `?`, `#`) or a second encoding out of data."""
    return _STRUCTURE.search(raw) is not None


def encode(value: str, *, slashes: bool = False) -> str:
    """A value as it stands in a path; with `slashes` they stay as they are. Raises UnicodeEncodeError on surrogates."""
    return quote(value, safe=f"{_SAFE}/" if slashes else _SAFE)
