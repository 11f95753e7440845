"""Other spellings of a path, made by rule: what proxies, frameworks and file systems read as something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Final

SEPARATORS: Final = (
    "//",
    "/./",
    "/%2e/",
    "/%2E/",
    "/x/../",
    "/x/%2e%2e/",
    "/x/.%2E/",
    "/;/",
    "/.;/",
    "\\",
    "%2f",
    "%2F",
    "%5c",
    "%252f",
    "/%2f",
    "%2f/",
    "/%00/",
    "%c0%af",
    "%e0%80%af",
    "%ef%bc%8f",
    "%u002f",
    "/\t/",
    "/ /",
    "/%20/",
    "/..;/x/",
    "/..%00/",
    "/*/",
)
ENDS: Final = (
    "/",
    "//",
    "/.",
    "/..",
    "/./",
    "/%2e",
    "/..;",
    "/.;/",
    ";",
    ";x=1",
    ";.json",
    "%00",
    "%00.json",
    "%0a",
    "%0d%0a",
    "%20",
    "%09",
    " ",
    "\t",
    "\\",
    "%5c",
    "%2f",
    "%2F..",
    "%252f",
    "%3f",
    "%3Fx=1",
    "%23",
    "#",
    "#/x",
    "?",
    "?x",
    "?/../../x",
    "??",
    ".",
    "..",
    ".json",
    "%2ejson",
    ".JSON",
    "%",
    "%2",
    "%zz",
    "%ff",
    "%c3",
    "\u00e9",
    "%e2%80%8b",
    "~",
    "'",
    "%27",
    '"',
    "*",
    "%2a",
    "|",
    "^",
    "`",
    "<",
    "{x}",
    "[0]",
    ",",
    "=",
    ":80",
    "@x",
)
FRONTS: Final = (
    "/",
    "//",
    "/./",
    "/../",
    "/x/../",
    "/%2e",
    "/%2e%2e",
    "/;",
    "/;x=1",
    "\\",
    "/\\",
    "%2f",
    "/%2f",
    "/%5c",
    ".",
    "x",
    "http://api.test",
    "http://api.test:80",
    "https://api.test",
    "HTTP://api.test/",
    "//api.test",
    "http:/",
    "http://x@api.test",
    "/http://api.test",
    " ",
    "\t",
    "%20",
    "?",
    "#",
    "*",
)
MIDDLES: Final = (
    ";",
    ";a=b",
    "%00",
    "%0a",
    "%7f",
    "%ff",
    "%c0%ae",
    " ",
    "\\",
    "%5c",
    "+",
    "%2b",
    "\u00ff",
    "%u0061",
    "%",
    "%c2%ad",
    "%e2%80%8e",
)


def spellings(path: str, sibling: str, count: int) -> Sequence[str]:
    """`count` of them, the same each time, every rule with its share; none is the path itself. `sibling` is a path that
    may lead to another decision: it is climbed out of, in every way that somebody resolves.
    """
    rules: Sequence[Callable[[str, str], Iterator[str]]] = (
        _separators,
        _ends,
        _fronts,
        _middles,
        _escapes,
        _double_escapes,
        _cases,
        _climbs,
        _numbers,
        _swaps,
    )
    found: dict[str, None] = {}
    for row in zip_longest(*(_spread(list(rule(path, sibling)), count) for rule in rules)):
        found |= dict.fromkeys(one for one in row if one is not None and one != path)
        if len(found) >= count:
            break
    return list(found)[:count]


def _spread(texts: list[str], count: int) -> list[str]:
    """Those of one rule, so ordered that any beginning comes from all over the path."""
    step = max(1, len(texts) // count)
    return [texts[place] for start in range(step) for place in range(start, len(texts), step)]


def _slashes(path: str) -> list[int]:
    return [place for place, letter in enumerate(path) if letter == "/"]


def _separators(path: str, _: str) -> Iterator[str]:
    for text in SEPARATORS:
        yield path.replace("/", text)
        for place in reversed(_slashes(path)):
            yield path[:place] + text + path[place + 1 :]


def _ends(path: str, _: str) -> Iterator[str]:
    yield from (path + text for text in ENDS)


def _fronts(path: str, _: str) -> Iterator[str]:
    yield from (text + path for text in FRONTS)
    yield path[1:]


def _middles(path: str, _: str) -> Iterator[str]:
    for text in MIDDLES:
        for place in reversed(_slashes(path)):
            yield path[:place] + text + path[place:]
            yield path[: place + 1] + text + path[place + 1 :]


def _letters(path: str) -> Iterator[int]:
    for place in range(len(path) - 1, 0, -1):
        if path[place].isalnum() and "%" not in path[max(place - 2, 0) : place]:
            yield place


def _escapes(path: str, _: str) -> Iterator[str]:
    yield "/" + "".join(f"%{ord(letter):02x}" if letter.isalnum() else letter for letter in path[1:]).replace(
        "%2F", "/"
    )
    for place in _letters(path):
        yield f"{path[:place]}%{ord(path[place]):02X}{path[place + 1 :]}"


def _double_escapes(path: str, _: str) -> Iterator[str]:
    for place in _letters(path):
        yield f"{path[:place]}%25{ord(path[place]):02x}{path[place + 1 :]}"


def _cases(path: str, _: str) -> Iterator[str]:
    yield path.upper()
    for place in _letters(path):
        if path[place].isalpha():
            yield path[:place] + path[place].swapcase() + path[place + 1 :]
    for plain, folded in (("k", "%E2%84%AA"), ("s", "%C5%BF"), ("i", "%C4%B1")):
        if plain in path:
            yield path.replace(plain, folded, 1)
            before, _, after = path.rpartition(plain)
            yield before + folded + after


def _climbs(path: str, sibling: str) -> Iterator[str]:
    up = sibling.count("/")
    for dots in (
        "..",
        "%2e%2e",
        ".%2e",
        "%2E.",
        "..;",
        "..;x",
        "..%00",
        "%252e%252e",
        ".%00.",
        "..%20",
        "...",
        "..\\",
        "..%5c",
    ):
        for slash in ("/", "%2f", "\\", "%5c", "//", ";/"):
            yield sibling + (slash + dots) * up + path
            yield sibling + slash + dots + "/" + path.rpartition("/")[2]
            yield path + slash + dots + "/" + sibling.rpartition("/")[2]


def _numbers(path: str, _: str) -> Iterator[str]:
    """Other ways to write a number that stands as a segment."""
    for part in path.split("/"):
        if not part.isdigit():
            continue
        for text in (
            f"0{part}",
            f"+{part}",
            f"-{part}",
            f"{part}.0",
            f"{part}%20",
            f"%20{part}",
            f"{part}%00",
            f"0x{int(part):x}",
            f"{part}e0",
            f"{part},{part}",
            f"{part}%2C1",
            f"{part}_",
            "".join(f"%EF%BC%9{digit}" for digit in part),
            "".join(f"%3{digit}" for digit in part),
            f"{part}%0a",
            f"{part};{part}",
            f"{part}/{part}",
        ):
            yield path.replace(f"/{part}", f"/{text}", 1)


def _swaps(path: str, sibling: str) -> Iterator[str]:
    """The end of one path on the other, behind what somebody takes for the end."""
    for text in ("?", "%3f", "%3F", ";", "#", "%23", "%00", "%0a", "\\", "%5c", "/*/", "&", ",", "%26"):
        yield path + text + sibling.rpartition("/")[2]
        yield sibling + text + path
        yield sibling + text + "/../" + path.rpartition("/")[2]
