"""How an upstream is asked: its pace, its failures, its links; by answers that no server had to give."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import msgspec
import pytest

from authz_service.sync.errors import StrangeAnswerError, SyncError, UpstreamDownError, UpstreamRefusedError
from authz_service.sync.reading import LONGEST_WAIT, TRIES, Reader, check_url

BASE = "https://gitlab.test"
DATE = {"Date": "Sun, 01 Nov 2026 12:00:00 GMT"}
NOON = 1793534400


class One(msgspec.Struct):
    id: int


class Asking:
    """A reader whose waits take no time, and what it did."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.urls: list[str] = []
        self.slept: list[float] = []
        self.told: list[str] = []
        self.now = 0.0

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.urls.append(str(request.url))
        assert request.headers["authorization"] == "Bearer hush"
        found = self.answers.pop(0) if self.answers else page([])
        if isinstance(found, Exception):
            raise found
        return found

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def get(self, path: str = "/api/v4/users", query: str = "per_page=100", **more):
        async with Reader(
            BASE, "hush", tell=self.told.append, sleep=self.sleep, transport=httpx.MockTransport(self.answer)
        ) as reader:
            reader._clock = lambda: self.now
            return await reader.get(path, query, list[One], **more)


def page(rows: object, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=rows, headers={key.replace("_", "-"): value for key, value in headers.items()})


def limited(status: int = 429, **headers: str) -> httpx.Response:
    return page({"message": "slow down"}, status, **(DATE | headers))


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (limited(Retry_After="7"), 7),
        (limited(Retry_After="Sun, 01 Nov 2026 12:00:30 GMT"), 30),
        (limited(RateLimit_Remaining="0", RateLimit_Reset=str(NOON + 20)), 20),
        (limited(RateLimit_Remaining="0", RateLimit_Reset="20"), 20),
        (limited(403, X_RateLimit_Remaining="0", X_RateLimit_Reset=str(NOON + 90)), 90),
        (limited(403, Retry_After="5"), 5),
        (limited(), 60),
        (page({"message": "You have exceeded a secondary rate limit."}, 403), 60),
    ],
)
async def test_who_asked_too_often_waits_as_long_as_was_said(answer, seconds):
    asking = Asking(answer, page([{"id": 1}]))
    found = await asking.get()
    assert [one.id for one in found.document] == [1]
    assert seconds <= sum(asking.slept) <= seconds + 1
    assert len(asking.told) == 1


async def test_the_last_request_for_now_is_followed_by_a_pause():
    asking = Asking(page([], RateLimit_Remaining="0", RateLimit_Reset=str(NOON + 40), **DATE))
    async with Reader(BASE, "hush", sleep=asking.sleep, transport=httpx.MockTransport(asking.answer)) as reader:
        reader._clock = lambda: asking.now
        await reader.get("/x", "", list[One])
        assert asking.slept == []
        await reader.get("/x", "", list[One])
    assert 40 <= sum(asking.slept) <= 41


@pytest.mark.parametrize(
    "answer", [limited(Retry_After="901"), limited(403, X_RateLimit_Remaining="0", X_RateLimit_Reset=str(NOON + 3600))]
)
async def test_a_wait_that_is_too_long_ends_the_run(answer):
    asking = Asking(answer)
    with pytest.raises(UpstreamDownError, match="minutes"):
        await asking.get()
    assert asking.slept == []
    assert LONGEST_WAIT == 900


async def test_an_upstream_that_never_has_enough_is_given_up():
    asking = Asking(*(limited(Retry_After="1") for _ in range(100)))
    with pytest.raises(UpstreamDownError, match="again and again"):
        await asking.get()


BROKEN: list[Callable[[], httpx.Response | Exception]] = [
    lambda: httpx.Response(502, text="<html>"),
    lambda: httpx.Response(500, text=""),
    lambda: httpx.Response(408, text=""),
    lambda: httpx.Response(200, text='[{"id": 1}, {"i'),
    lambda: httpx.Response(200, text="<html>please sign in</html>"),
    lambda: httpx.Response(200, content=b"\xff\xfe"),
    lambda: httpx.Response(200, text=""),
    lambda: httpx.ConnectError("no"),
    lambda: httpx.ReadTimeout("slow"),
    lambda: httpx.RemoteProtocolError("cut"),
]


@pytest.mark.parametrize("broken", BROKEN)
async def test_what_may_help_is_tried_again_with_longer_pauses_and_then_given_up(broken):
    asking = Asking(*(broken() for _ in range(TRIES - 1)), page([{"id": 1}]))
    assert (await asking.get()).document[0].id == 1
    assert len(asking.urls) == TRIES
    assert all(min(15, 0.25 * 2**n) <= pause <= min(30, 0.5 * 2**n) for n, pause in enumerate(asking.slept, 1))
    asking = Asking(*(broken() for _ in range(TRIES)))
    with pytest.raises(UpstreamDownError, match="in a row"):
        await asking.get()


async def test_pauses_differ_from_run_to_run():
    firsts = set()
    for _ in range(8):
        asking = Asking(httpx.ConnectError("no"))
        await asking.get()
        firsts.add(asking.slept[0])
    assert len(firsts) > 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (page({"message": "401 Unauthorized"}, 401), UpstreamRefusedError),
        (page({"message": "403 Forbidden"}, 403), UpstreamRefusedError),
        (page({"message": "404 Not found"}, 404), UpstreamRefusedError),
        (page({"error": "keyset"}, 405), StrangeAnswerError),
        (page({"error": "order_by"}, 400), StrangeAnswerError),
        (page({}, 302, Location="https://evil.test/users"), StrangeAnswerError),
        (page({"users": []}), StrangeAnswerError),
        (page([{"id": "1"}]), StrangeAnswerError),
        (page([7]), StrangeAnswerError),
    ],
)
async def test_what_no_try_mends_is_said_at_once_and_without_the_token(answer, error):
    asking = Asking(answer)
    with pytest.raises(error) as raised:
        await asking.get()
    assert len(asking.urls) == 1
    assert "hush" not in raised.value.message
    assert "per_page" not in raised.value.message


@pytest.mark.parametrize("status", [404, 410, 301])
async def test_what_may_be_gone_is_absent(status):
    asking = Asking(page({}, status, Location=f"{BASE}/api/v4/projects/8"))
    assert (await asking.get(may_be_absent=True)).document is None


@pytest.mark.parametrize(
    ("headers", "following"),
    [
        ({"Link": f'<{BASE}/api/v4/users?per_page=100&cursor=abc>; rel="next"'}, "per_page=100&cursor=abc"),
        ({"Link": '<https://evil.test/steal?cursor=abc>; rel="next"'}, "cursor=abc"),
        ({"Link": f'<{BASE}/x?page=9>; rel="last", <{BASE}/x?page=2>; rel="next"'}, "page=2"),
        ({"X-Next-Page": "3"}, "per_page=100&page=3"),
        ({"X-Next-Page": ""}, None),
        ({"X-Next-Page": "https://evil.test"}, None),
        ({"Link": f'<{BASE}/x?page=1>; rel="prev"'}, None),
        ({}, None),
    ],
)
async def test_of_a_link_only_its_query_is_followed(headers, following):
    asking = Asking(httpx.Response(200, json=[], headers=headers))
    assert (await asking.get()).next == following


@pytest.mark.parametrize("url", ["https://gitlab.test/", "http://127.0.0.1:8080", "http://localhost", "http://[::1]:1"])
def test_tokens_go_by_https_or_to_this_machine(url):
    assert check_url(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "http://gitlab.test",
        "http://10.0.0.1",
        "http://localhost.evil.test",
        "http://127.0.0.1.evil.test",
        "ftp://gitlab.test",
        "gitlab.test",
        "https://",
        "https://user:secret@gitlab.test",
        "https://gitlab.test?x=1",
        "",
    ],
)
def test_other_addresses_are_refused(url):
    with pytest.raises(SyncError):
        check_url(url)
