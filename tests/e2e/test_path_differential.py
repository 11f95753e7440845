"""Two hundred spellings of each of fifty routes, through real gateways and frameworks: the canonical answer or none."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import httpx
import pytest
from starlette.routing import Match as Matching
from starlette.routing import Route
from tests.support.gateways import ENVOY, NGINX, Kind, Places, free_port, require, running
from tests.support.processes import DevService, dev_service
from tests.support.spellings import spellings

from authz_service.catalog.model import Catalog
from authz_service.catalog.paths import PieceKind, Segment, parse_path
from authz_service.catalog.routes import Match, PathFault, Router, make_router
from authz_service.store.shipped import shipped_catalogs

ROUTES: Final = 50
SPELLINGS: Final = 200
PROJECT: Final = "110"
CONNECTIONS: Final = 12


# what is asked about


@dataclass(frozen=True)
class Asked:
    """A route with its own path, and the permission that it takes."""

    operation: str
    method: str
    path: str
    permission: str
    held: bool
    """Whether the token may."""


@dataclass(frozen=True)
class Sent:
    asked: Asked
    path: str


def gitlab() -> Catalog:
    [found] = [catalog for catalog in shipped_catalogs() if catalog.label == "gitlab@2"]
    return found


CATALOG: Final = gitlab()
OURS: Final = make_router(CATALOG)


def chosen() -> list[Asked]:
    """One route for each of fifty permissions of projects, by which nobody else's route is opened; every other is held.

    Some read and some write, and their paths have one to four segments behind the project.
    """
    found: dict[str, Asked] = {}
    for operation in CATALOG.operations.values():
        items = [item for one in operation.sets for item in one.items]
        if operation.path is None or len(items) != 1 or operation.open or operation.public_read or operation.closed:
            continue
        [item] = items
        names = parse_path(operation.path).parameters
        if item.boundary != "project" or item.permission in found or names[:1] != ("id",):
            continue
        try:
            path = OURS.format_target(operation.id, {name: PROJECT if name == "id" else "7" for name in names})
        except ValueError:
            continue
        if path.startswith(f"/api/v4/projects/{PROJECT}"):
            found[item.permission] = Asked(operation.id, str(operation.method), path, item.permission, held=False)
    every = sorted(found.values(), key=lambda one: one.operation)
    picked = [every[place * len(every) // ROUTES] for place in range(ROUTES)]
    return [replace(one, held=place % 2 == 0) for place, one in enumerate(picked)]


ASKED: Final = chosen()
BY_OPERATION: Final = {one.operation: one for one in ASKED}


def all_sent(count: int = SPELLINGS, routes: Sequence[Asked] = ASKED) -> list[Sent]:
    """The sibling of a route is one that is decided otherwise."""
    found = []
    for one in routes:
        sibling = next(other for other in ASKED if other.held != one.held)
        found += [Sent(one, path) for path in spellings(one.path, sibling.path, count)]
    return found


# how others read


class Starlette:
    """The same routes as an application of Starlette has them: the path is decoded first, and the first that fits."""

    def __init__(self) -> None:
        self._routes: list[Route] = []
        found: list[tuple[tuple[bool, ...], str, str]] = []
        for operation in CATALOG.operations.values():
            if operation.path is not None and operation.method is not None:
                for variant in parse_path(operation.path).variants:
                    plain = tuple(segment.parameter is not None for segment in variant)
                    path = CATALOG.base_path + "".join(f"/{_piece(segment)}" for segment in variant)
                    found.append((plain, operation.id, path))
        for _, operation_id, path in sorted(found):  # text before parameters, as whoever writes them by hand would
            self._routes.append(
                Route(path, lambda _: None, methods=[operation_id.partition(" ")[0]], name=operation_id)
            )

    def read(self, method: str, target: str) -> tuple[str, Mapping[str, str]] | None:
        if not target.startswith("/"):
            return None
        scope = {"type": "http", "method": method, "path": unquote(target.partition("?")[0]), "root_path": ""}
        for route in self._routes:
            match, more = route.matches(scope)
            if match is Matching.FULL:
                return str(route.name), more["path_params"]
        return None


def _piece(segment: Segment) -> str:
    return "".join(
        piece.text
        if piece.kind is PieceKind.TEXT
        else f"{{{piece.text.replace('-', '_')}{':path' if piece.kind is PieceKind.REST else ''}}}"
        for piece in segment.pieces
    )


STARLETTE: Final = Starlette()


def test_both_readers_know_the_canonical_paths():
    assert len(ASKED) == ROUTES
    assert len({one.permission for one in ASKED}) == ROUTES
    for one in ASKED:
        found = OURS.resolve(one.method, one.path)
        assert isinstance(found, Match)
        assert (found.operation_id, dict(found.parameters)) == STARLETTE.read(one.method, one.path)
    assert {one.method for one in ASKED} >= {"GET", "POST", "PUT", "DELETE"}


def test_a_spelling_is_the_canonical_request_to_us_and_to_starlette_or_refused():
    """Where we take a spelling at all, a framework that decodes first must not take it for another route."""
    every = all_sent()
    assert len(every) == len({(one.asked.operation, one.path) for one in every}) == ROUTES * SPELLINGS
    outcomes: Counter[str] = Counter()
    wrong = []
    for sent in every:
        found = OURS.resolve(sent.asked.method, sent.path)
        if isinstance(found, PathFault):
            outcomes[str(found.fault)] += 1
            continue
        read = STARLETTE.read(sent.asked.method, sent.path)
        if read is None or read == (found.operation_id, dict(found.parameters)):
            outcomes["the same" if read else "nothing there"] += 1
        elif "/" in found.parameters["id"]:
            outcomes["an id with a slash"] += 1  # the documented difference: docs/security.md, and the test below
        else:
            wrong.append((sent, found, read))
    assert not wrong, wrong[:10]
    assert outcomes["bad_path"] > ROUTES * SPELLINGS // 2
    assert outcomes["the same"] > ROUTES


# through gateways


@dataclass
class Echo:
    """An API that answers with the very target of the request as it came."""

    port: int = 0
    asked: int = 0
    connections: set[asyncio.StreamWriter] = field(default_factory=set)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                target = head.split(b"\r\n", 1)[0].partition(b" ")[2].rpartition(b" ")[0]
                self.asked += 1
                writer.write(b"HTTP/1.1 200 OK\r\nX-From: api\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.connections.discard(writer)
            writer.close()


@contextmanager
def echo() -> Iterator[Echo]:
    found = Echo()
    loop = asyncio.new_event_loop()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    found.port = int(listener.getsockname()[1])
    server = loop.run_until_complete(asyncio.start_server(found.answer, sock=listener))

    async def end() -> None:
        server.close()
        for writer in list(found.connections):
            writer.close()
        await asyncio.sleep(0.05)
        loop.stop()

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield found
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop)
        thread.join()
        loop.close()


@dataclass
class Stand:
    dev: DevService
    api: Echo
    places: Places
    secret: str
    asker: httpx.Client
    decided: dict[tuple[str, str], bool] = field(default_factory=dict)

    def allows(self, method: str, path: str) -> bool:
        """What the service says of a request as the API would write it."""
        key = (method, path)
        if key not in self.decided:
            body = {"token": self.secret, "catalog": "gitlab", "method": method, "path": path}
            answer = self.asker.post("/check/http", json=body)
            assert answer.status_code == 200, answer.text
            self.decided[key] = answer.json()["decision"] == "allow"
        return self.decided[key]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with dev_service(tmp_path_factory.mktemp("stand")) as dev, echo() as api:
        gateway_token = str(dev.ready["gateway_token"])
        places = Places(0, pdp=int(dev.url.rpartition(":")[2]), api=api.port, token=gateway_token, catalog="gitlab")
        with dev.client(str(dev.ready["admin_token"])) as http:
            body = {
                "name": "half of them",
                "owner": "olive",  # an admin has every role, so that the scopes alone decide
                "catalog": "gitlab",
                "scopes": [
                    {
                        "reach": {"kind": "selected", "nodes": ["project:bakery/shop/checkout"]},
                        "permissions": [one.permission for one in ASKED if one.held],
                    }
                ],
            }
            answer = http.post("/v1/tokens", json=body)
            assert answer.status_code == 201, answer.text
        with dev.client(gateway_token) as asker:
            yield Stand(dev, api, places, answer.json()["secret"], asker)


def normalising(kind: Kind, changes: Mapping[str, str], file: str) -> Kind:
    """The gateway as somebody sets it up who has it tidy paths up."""

    def write(folder: Path, places: Places) -> Sequence[str]:
        command = kind.write(folder, places)
        text = (folder / file).read_text()
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        (folder / file).write_text(text)
        return command

    return Kind(f"{kind.name}, tidying", kind.missing, write)


# With a path behind `proxy_pass`, nginx passes on what it made of the request, and asks about what came.
TIDY_NGINX: Final = normalising(NGINX, {"proxy_pass http://api;": "proxy_pass http://api/;"}, "api.conf")
TIDY_ENVOY: Final = normalising(
    ENVOY,
    {
        "normalize_path: false": "normalize_path: true",
        "merge_slashes: false": "merge_slashes: true",
        "KEEP_UNCHANGED": "UNESCAPE_AND_FORWARD",
    },
    "envoy.yaml",
)


async def send_all(port: int, secret: str, every: Sequence[Sent]) -> list[tuple[int, str | None]]:
    """For each its status (0: the connection ended), and the target that the API saw."""
    found: list[tuple[int, str | None]] = [(0, None)] * len(every)
    waiting = iter(enumerate(every))

    async def work() -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        for place, sent in waiting:
            if connection is None:
                connection = await asyncio.open_connection("127.0.0.1", port)
            head = f"{sent.asked.method} {sent.path} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {secret}\r\n"
            if sent.asked.method not in ("GET", "HEAD"):
                head += "Content-Length: 0\r\n"
            try:
                connection[1].write(head.encode() + b"\r\n")
                async with asyncio.timeout(60):
                    status, headers, body = await read_answer(connection[0])
            except (OSError, asyncio.IncompleteReadError):
                status, headers, body = 0, {}, b""
            found[place] = (status, body.decode("latin-1") if headers.get("x-from") == "api" else None)
            if not status or headers.get("connection") == "close":
                connection[1].close()
                connection = None
        if connection is not None:
            connection[1].close()

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    return found


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(head[0].split()[1]), headers, body


def read_as(router: Router, method: str, target: str) -> Iterator[str]:
    """The canonical paths of what the API may take a target for: by our own reading, and by Starlette's."""
    found = router.resolve(method, target)
    if isinstance(found, Match):
        yield router.format_target(found.operation_id, found.parameters)
    read = STARLETTE.read(method, target)
    if read is not None:
        try:
            yield router.format_target(*read)
        except ValueError:
            return  # parameters that no path of the API can have


CASES: Final[Sequence[tuple[Kind, Callable[[], list[Sent]]]]] = (
    (NGINX, all_sent),
    (ENVOY, all_sent),
    (TIDY_NGINX, lambda: all_sent(SPELLINGS, ASKED[:8])),
    (TIDY_ENVOY, lambda: all_sent(SPELLINGS, ASKED[:8])),
)


@pytest.mark.parametrize(("kind", "sent"), CASES, ids=[kind.name for kind, _ in CASES])
def test_no_spelling_gets_past_a_gateway_to_what_its_token_may_not(stand, tmp_path, kind, sent):
    require(kind)
    places = replace(stand.places, listen=free_port())
    canonical = [Sent(one, one.path) for one in ASKED]
    every = sent()
    with running(kind, tmp_path, places):
        plain = asyncio.run(send_all(places.listen, stand.secret, canonical))
        found = asyncio.run(send_all(places.listen, stand.secret, every))
    # The canonical paths pass as they are, or not, as the token may.
    for one, (status, seen) in zip(canonical, plain, strict=True):
        assert (status, seen) == ((200, one.path) if one.asked.held else (403, None)), one
    held = {one.path for one in ASKED if one.held}
    passed = 0
    wrong: list[Any] = []
    for one, (status, seen) in zip(every, found, strict=True):
        if seen is None:
            if status == 200 or status >= 500:
                wrong.append((one, status))
            continue
        passed += 1
        # Never more than the canonical request may (but for what is plainly another's, with an odd query), and never
        # anything that the token may not, whoever reads it.
        read = list(read_as(OURS, one.asked.method, seen))
        if not (one.asked.held or seen.partition("?")[0] in held) or not all(
            stand.allows(one.asked.method, path) for path in read
        ):
            wrong.append((one, seen, read))
    assert not wrong, (len(wrong), wrong[:10])
    assert passed > 0


REFUSING: Final = (
    # As docs/gateways/README.md has it for APIs that decode a path before they route it.
    normalising(
        NGINX,
        {"    location / {": '    if ($request_uri ~* "^[^?]*%2f") { return 400; }\n    location / {'},
        "api.conf",
    ),
    normalising(ENVOY, {"KEEP_UNCHANGED": "REJECT_REQUEST"}, "envoy.yaml"),
)


@pytest.mark.parametrize("kind", REFUSING, ids=[kind.name for kind in REFUSING])
def test_a_slash_inside_an_id_is_refused_where_the_gateway_is_told_to(stand, tmp_path, kind):
    require(kind)
    places = replace(stand.places, listen=free_port())
    one = next(each for each in ASKED if each.held)
    inside = one.path.replace(f"/{PROJECT}", "/bakery%2Fshop%2Fcheckout")
    paths = [one.path, f"{one.path}?x=a%2fb", inside, inside.replace("%2F", "%2f"), f"{one.path}%2Fx"]
    every = [Sent(one, path) for path in paths]
    with running(kind, tmp_path, places):
        found = asyncio.run(send_all(places.listen, stand.secret, every))
    assert [seen for _, seen in found] == [*paths[:2], None, None, None]
    assert [status for status, _ in found] == [200, 200, 400, 400, 400]
