"""Random tables of routes and random requests: one reading or none, whatever the spelling (C3, A2)."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from urllib.parse import quote, unquote

from hypothesis import assume, event, given
from hypothesis import strategies as st

from authz_service.catalog.model import Operation, OperationKind
from authz_service.catalog.routes import Match, PathFault, RouteClashError, Router

TEXTS = ("a", "b", "ab", "x-a", "a.z", "-", "@v", "Q")
ENCODED = frozenset({"e0", "e1", "e2"})
METHODS = ("GET", "HEAD", "POST")

name_of_parameter = st.sampled_from(["p", "e", "p"])  # `e…` may hold encoded separators


@st.composite
def templates(draw: st.DrawFn, *, most_rests: int = 2) -> str:
    """`/a/:p0/x-:e1/*p2`, of up to five segments."""
    parts = []
    rests = 0
    for number in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["text", "text", "parameter", "mixed", "rest"]))
        if kind == "rest" and rests == most_rests:
            kind = "parameter"
        rests += kind == "rest"
        name = f"{draw(name_of_parameter)}{number}" if number < 3 else f"p{number}"
        mixed = draw(
            st.sampled_from([f"x-{{{name}}}", f"{{{name}}}.z", f"x-{{{name}}}.z", f"{{{name}}}.{{q{number}}}"])
        )
        parts.append(
            {"text": draw(st.sampled_from(TEXTS)), "parameter": f":{name}", "mixed": mixed, "rest": f"*{name}"}[kind]
        )
    return "/" + "/".join(parts)


def compile_table(ids: list[str], **settings) -> tuple[Router, list[str]]:
    """A router of as many of these as can live together."""
    kept: list[Operation] = []
    routes = Router([], **settings)
    for id_ in dict.fromkeys(ids):
        method, _, path = id_.partition(" ")
        added = Operation(id_, OperationKind.REST, method=method, path=path)
        try:
            routes = Router([*kept, added], encoded=ENCODED, **settings)
        except RouteClashError:
            continue
        kept.append(added)
    return routes, [operation.id for operation in kept]


@st.composite
def tables(draw: st.DrawFn, *, most_rests: int = 2) -> tuple[Router, list[str]]:
    paths = draw(st.lists(templates(most_rests=most_rests), min_size=1, max_size=8))
    ids = [f"{draw(st.sampled_from(METHODS))} {path}" for path in paths]
    base_path = draw(st.sampled_from(["", "/api/v4"]))
    return compile_table(ids, base_path=base_path, case_sensitive=draw(st.booleans()))


words = st.text(alphabet="abxz-.A é/%2eF;", min_size=1, max_size=6)
segments = st.one_of(
    st.sampled_from(
        [*TEXTS, "A", "x-", "x-q.z", "q.z.z", "c", ".", "..", "", "%61", "%2e", "%2E%2e", "a%2Fb", "a%252fb"]
    ),
    st.sampled_from(
        ["%5c", "%00", ";", "a;x", "\\", "%", "%zz", "%ff", "é", "%C3%A9", "X-%61", "@%76", "x%2da", "a%2Ez"]
    ),
    words,
    words.map(lambda word: quote(word, safe="")),
)
targets = st.one_of(
    st.lists(segments, max_size=7).map(lambda parts: "/" + "/".join(parts)),
    st.lists(segments, max_size=7).map(lambda parts: "/api/v4/" + "/".join(parts)),
    st.text(max_size=40),
    st.binary(max_size=40).map(lambda raw: "/" + raw.decode("latin-1")),
)


@given(tables(), st.one_of(st.sampled_from(METHODS), st.text(max_size=5)), targets)
def test_every_text_has_an_answer(table, method, target):
    routes, ids = table
    found = routes.resolve(method, target)
    event(type(found).__name__)
    assert isinstance(found, PathFault) or found.operation_id in ids


@st.composite
def matched(draw: st.DrawFn) -> list[tuple[Router, str, str, Match]]:
    """Requests that some route of a table took, made from its templates with odd things in their places."""
    routes, ids = draw(tables())
    found = []
    for _ in range(12):
        method, _, path = draw(st.sampled_from(ids)).partition(" ")
        base_path = draw(st.sampled_from(["", "/api/v4"]))
        target = base_path + re.sub(r"[:*][a-z][0-9]|\{[a-z][0-9]\}", lambda _: draw(segments), path)
        if draw(st.integers(0, 3)) == 0:
            target = target.replace(draw(st.sampled_from(TEXTS)), draw(segments))
        match = routes.resolve(method, target)
        if isinstance(match, Match):
            found.append((routes, method, target, match))
    event(f"{min(len(found), 3)} or more match" if len(found) > 2 else f"{len(found)} match")
    return found


@given(matched())
def test_a_match_written_as_a_path_resolves_to_itself(found):
    for routes, _, _, match in found:
        written = routes.format_target(match.operation_id, match.parameters)
        assert routes.resolve(match.operation_id.partition(" ")[0], written) == match


UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")


def normalise(target: str) -> str:
    """RFC 3986, section 6.2.2: capital escapes, and none of unreserved characters."""

    def plain(found: re.Match[str]) -> str:
        character = chr(int(found[0][1:], 16))
        return character if character in UNRESERVED else found[0].upper()

    return re.sub("%[0-9A-Fa-f]{2}", plain, target)


@given(matched())
def test_whoever_normalises_the_path_before_or_behind_us_reads_the_same(found):
    for routes, method, target, match in found:
        assert routes.resolve(method, normalise(target)) == match


@given(matched())
def test_whoever_does_not_look_at_case_reads_the_same_operation(found):
    for routes, method, target, match in found:
        path = target.removeprefix("/api/v4")
        for other in (path.lower(), path.upper()):
            again = routes.resolve(method, target[: len(target) - len(path)] + other)
            assert isinstance(again, PathFault) or again.operation_id == match.operation_id


@dataclass(frozen=True)
class Request:
    """A canonical request of one route of a table, and what it must resolve to."""

    routes: Router
    method: str
    target: str
    match: Match


@st.composite
def requests(draw: st.DrawFn) -> Request:
    routes, ids = draw(tables())
    id_ = draw(st.sampled_from(ids))
    method, _, path = id_.partition(" ")
    plain = st.text(alphabet="cdé .+", min_size=1, max_size=4)
    values = {}
    for star, name in re.findall(r"([:*{])([a-z][0-9])", path):
        value = st.lists(plain, min_size=1, max_size=3).map("/".join) if star == "*" or name in ENCODED else plain
        values[name] = draw(value)
    try:
        target = routes.format_target(id_, values)
    except ValueError:
        assume(False)
    return Request(routes, method, target, Match(id_, values))


INSERTED = [
    "/",
    "//",
    "/.",
    "/..",
    "/x/..",
    "/%2e",
    "/%2e%2E",
    "..",
    ";x",
    ";",
    "\\",
    "%5c",
    "%2f",
    "%2F..%2F",
    "%00",
    "%",
]
INSERTED += ["%0a", "%ff", "%c0%af", "%252f", "%252e%252e%252f", "#", " ", "?", "\n", "é", "%25", "/" * 200, "a" * 9000]


@st.composite
def mutations(draw: st.DrawFn, target: str) -> tuple[str, bool]:
    """Another spelling, and whether every reader must refuse it or read what it was before, but for what is data."""
    kind = draw(st.sampled_from(["insert", "insert", "encode", "twice", "case", "slash", "form"]))
    place = draw(st.integers(0, len(target) - 1))
    here = target[place]
    inside = "%" in target[max(place - 2, 0) : place + 1]
    if kind == "insert" and not inside:
        return target[:place] + draw(st.sampled_from(INSERTED)) + target[place:], False
    if kind == "encode" and not inside:
        return f"{target[:place]}%{ord(here):02x}{target[place + 1 :]}", here != "/"
    if kind == "twice" and not inside:
        return f"{target[:place]}%25{ord(here):02x}{target[place + 1 :]}", False
    if kind == "case":
        return target[:place] + here.swapcase() + target[place + 1 :], False
    if kind == "slash":
        return target.replace("/", draw(st.sampled_from(["//", "\\", "%2f", "%5C", "/./", "/;/"]))), False
    return draw(st.sampled_from([f"{target}/", f"{target}/.", f"/{target}", f"http://a{target}", target[1:]])), True


@given(requests().flatmap(lambda request: st.tuples(st.just(request), mutations(request.target))))
def test_another_spelling_is_the_same_request_or_none(drawn):
    request, (target, same) = drawn
    found = request.routes.resolve(request.method, target)
    event("refused" if isinstance(found, PathFault) else "the same" if found == request.match else "other data")
    if isinstance(found, PathFault) or found == request.match:
        return
    assert not same
    # Another match reads every character that stands there as it stands there: no reader would take any away.
    assert "?" in target or decoded_by_hand(found, target)


def decoded_by_hand(found: Match, target: str) -> bool:
    """Whether the template with these values in it, and nothing taken away, is the target decoded once."""
    path = found.operation_id.partition(" ")[2]
    filled = re.sub(r"[:*]([a-z][0-9])|\{([a-z][0-9])\}", lambda name: found.parameters[name[1] or name[2]], path)
    decoded = unquote(target, errors="strict").removeprefix("/api/v4")
    return filled.casefold() == decoded.casefold() and "//" not in decoded and ".." not in decoded.split("/")


@given(requests())
def test_a_canonical_request_is_what_it_says(request_):
    assert request_.routes.resolve(request_.method, request_.target) == request_.match


@given(st.text(alphabet="ab/%2F.;é\\ ?#5Cc", min_size=1, max_size=8))
def test_what_is_encoded_is_decoded_once(value):
    routes, _ = compile_table(["GET /files/:e0/raw", "GET /files/:p0"])
    found = routes.resolve("GET", f"/files/{quote(value, safe='')}/raw")
    parts = value.replace("\\", "/").split("/")
    if {"", ".", ".."} & set(parts):
        assert isinstance(found, PathFault)
        return
    assert found == Match("GET /files/:e0/raw", {"e0": value})
    twice = routes.resolve("GET", f"/files/{quote(quote(value, safe=''), safe='')}/raw")
    assert twice == Match("GET /files/:e0/raw", {"e0": quote(value, safe="")})


def readings(path: str, parts: list[str]) -> Iterator[tuple[tuple[tuple[int, int], ...], Mapping[str, str]]]:
    """Every way to read the segments by one template, with how special each segment's reading is."""
    template = path[1:].split("/")
    spare = len(parts) - len(template)
    rests = [place for place, text in enumerate(template) if text.startswith("*")]
    if spare < 0 or (spare and not rests):
        return
    for extra in product(range(spare + 1), repeat=len(rests)):
        if sum(extra) != spare:
            continue
        taken = dict(zip(rests, extra, strict=True))
        ranks: list[tuple[int, int]] = []
        values: dict[str, str] = {}
        at = 0
        for place, text in enumerate(template):
            size = 1 + taken.get(place, 0)
            rank = read_segment(text, "/".join(parts[at : at + size]), values)
            if rank is None:
                break
            ranks.extend([rank] * size)
            at += size
        else:
            yield tuple(ranks), values


def read_segment(text: str, part: str, values: dict[str, str]) -> tuple[int, int] | None:
    if text[0] in ":*":
        values[text[1:]] = part
        return (3 if text[0] == "*" else 2), 0
    before, _, name = text.partition("{")
    name, _, after = name.partition("}")
    if not name:
        return (0, 0) if text == part else None
    inner = part[len(before) : len(part) - len(after)]
    if not inner or part != before + inner + after:
        return None
    values[name] = inner
    return 1, -len(before + after)


one_parameter_each = templates(most_rests=1).filter(lambda path: "{q" not in path)
plain_segments = st.sampled_from([*TEXTS, "c", "x-c", "c.z", "x-c.z", "x-.z", "x-"])


@given(st.lists(one_parameter_each, min_size=1, max_size=12), st.lists(plain_segments, min_size=1, max_size=6))
def test_the_most_special_template_wins_from_the_left(paths, parts):
    """By trying every template alone: text, then text beside a parameter (the longest), a parameter, a spanning one."""
    routes, ids = compile_table([f"GET {path}" for path in paths])
    found = [(ranks, Match(id_, values)) for id_ in ids for ranks, values in readings(id_.partition(" ")[2], parts)]
    answer = routes.resolve("GET", "/" + "/".join(parts))
    if not found:
        assert isinstance(answer, PathFault)
        return
    assert answer == min(found, key=lambda each: each[0])[1]
