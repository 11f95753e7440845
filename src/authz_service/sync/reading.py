"""Asks an upstream: one page at a time, at the pace it sets, again where a try may help, and nobody but it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx
import msgspec

from authz_service.sync.errors import StrangeAnswerError, SyncError, UpstreamDownError, UpstreamRefusedError

TIMEOUT: Final = 30.0
TRIES: Final = 7
LONGEST_WAIT: Final = 900.0
_MOST_WAITS: Final = 30
_LONGEST_PAUSE: Final = 30.0
_PAUSE: Final = 0.5
_LIMITED_PAUSE: Final = 60.0
_LONGEST_PAGE: Final = 32 * 1024 * 1024
_AN_EPOCH: Final = 1_000_000_000


def check_url(text: str) -> str:
    """The upstream's address without its last slash. Raises SyncError: tokens go by https, or to this machine."""
    parts = urlsplit(text)
    host = parts.hostname or ""
    if parts.scheme not in ("https", "http") or not host or parts.query or parts.fragment or parts.username:
        raise SyncError(f"`{text}` is no address of an upstream; write it as `https://gitlab.example.com`")
    if parts.scheme == "http" and not _is_loopback(host):
        raise SyncError(f"`{text}` would send the token unprotected; write `https://`")
    return text.rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Page:
    """`document` is None for what is not there; `next` is the query of the page after this one."""

    document: Any
    next: str | None = None


class Reader:
    """Requests to one upstream. All of them wait when it says that there were too many."""

    def __init__(
        self,
        base: str,
        token: str,
        *,
        accept: str = "application/json",
        tell: Callable[[str], None] = lambda text: None,  # noqa: ARG005 - whoever shows it
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        longest_wait: float = LONGEST_WAIT,
        timeout: float = TIMEOUT,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base = check_url(base)
        self._tell = tell
        self._sleep = sleep
        self._longest_wait = longest_wait
        self._until = 0.0
        self._clock = asyncio.get_running_loop().time
        headers = {"Authorization": f"Bearer {token}", "Accept": accept, "User-Agent": "authz-service-sync"}
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        # A redirect is not followed: the token was meant for this host alone.
        self._http = httpx.AsyncClient(
            headers=headers, timeout=timeout, transport=transport, limits=limits, follow_redirects=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def get(self, path: str, query: str, shape: Any, *, may_be_absent: bool = False) -> Page:
        """One page, decoded as `shape`. Raises UpstreamRefusedError, UpstreamDownError, StrangeAnswerError."""
        url = f"{self.base}{path}"
        failures = waits = 0
        while True:
            await self._wait()
            why = "it does not answer"
            pause = 0.0
            try:
                answer = await self._send(f"{url}?{query}" if query else url)
            except httpx.TimeoutException:
                why = "it does not answer in time"
            except httpx.InvalidURL as error:
                raise StrangeAnswerError(f"`{url}` is no URL; is the upstream's address right") from error
            except httpx.HTTPError:
                why = "the connection fails"
            else:
                limited = _limit_of(answer)
                if limited is not None:
                    waits += 1
                    if waits > _MOST_WAITS:
                        raise UpstreamDownError(f"`{url}` says again and again that there are too many requests")
                    self._hold(limited, waits)
                    continue
                if answer.is_success:
                    self._heed(answer)
                    try:
                        return Page(_decode(answer.content, shape, url), _next_of(answer))
                    except msgspec.DecodeError:
                        why = "its answer is cut off, or no JSON"
                elif self._is_absent(answer, url, may_be_absent=may_be_absent):
                    return Page(None)
                else:
                    why = f"it answers {answer.status_code}"
                    pause = _retry_after(answer) or 0.0
            failures += 1
            if failures == TRIES:
                raise UpstreamDownError(f"`{url}`: {why}, {TRIES} times in a row; what was fetched is kept: run again")
            await self._sleep(max(min(pause, self._longest_wait), _backoff(failures)))

    async def _send(self, url: str) -> httpx.Response:
        """The answer with its body. A body without end is cut: raises httpx.ReadError."""
        async with self._http.stream("GET", url) as answer:
            chunks, size = [], 0
            async for chunk in answer.aiter_bytes():
                size += len(chunk)
                if size > _LONGEST_PAGE:
                    raise httpx.ReadError("the page is too large")
                chunks.append(chunk)
            # Of the body as it is now: it was unpacked on the way.
            headers = [(name, value) for name, value in answer.headers.items() if name not in _OF_THE_WIRE]
            return httpx.Response(answer.status_code, headers=headers, content=b"".join(chunks), request=answer.request)

    async def _wait(self) -> None:
        while (left := self._until - self._clock()) > 0:
            await self._sleep(left)

    def _hold(self, seconds: float, times: int) -> None:
        """Nobody asks before. The first of those that are refused together says so."""
        if seconds > self._longest_wait:
            raise UpstreamDownError(
                f"the upstream asks to wait {seconds / 60:.0f} minutes; what was fetched is kept: run again then"
            )
        until = self._clock() + seconds
        if until > self._until + 1:
            self._tell(f"the upstream asks to wait {seconds:.0f} s")
        # Those that were held together do not come back together.
        self._until = max(self._until, until + _jitter(min(1.0, 0.1 * times)))

    def _heed(self, answer: httpx.Response) -> None:
        """A good answer that was the last one for now."""
        left = _header(answer, "ratelimit-remaining")
        if left is None or left > 0:
            return
        seconds = _until_reset(answer)
        if seconds is not None and seconds > 0:
            self._hold(seconds, 1)

    def _is_absent(self, answer: httpx.Response, url: str, *, may_be_absent: bool) -> bool:
        """True for what is not there, False for what may be tried again. Raises for what stays as it is."""
        status = answer.status_code
        if status == 401:
            raise UpstreamRefusedError(
                "the upstream does not accept the token (401): it may be over or revoked. Make a new one and run"
                " again: what was fetched is kept"
            )
        if status in (404, 410, 451) or answer.is_redirect:
            if may_be_absent:
                return True
            if answer.is_redirect:
                raise StrangeAnswerError(f"`{url}` leads elsewhere ({status}), which is not followed with a token")
            raise UpstreamRefusedError(f"`{url}` is not there, or this token may not see it ({status})")
        if status == 403:
            raise UpstreamRefusedError(f"the token may not read `{url}` (403): give it the right, and run again")
        if status < 500 and status not in (408, 425):
            raise StrangeAnswerError(f"`{url}` answers {status}; is the upstream's address right")
        return False


def _decode(content: bytes, shape: Any, url: str) -> Any:
    """Raises msgspec.DecodeError for what is no JSON, StrangeAnswerError for what is, and not of this shape."""
    try:
        return msgspec.json.decode(content, type=shape)
    except msgspec.ValidationError as error:
        try:
            msgspec.json.decode(content)  # a page that is cut off may be of a wrong shape before that shows
        except UnicodeDecodeError as odd:
            raise msgspec.DecodeError("no text") from odd
        raise StrangeAnswerError(
            f"`{url}` answers with something else than this API does ({error}); is the address right"
        ) from error
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError("no text") from error


_OF_THE_WIRE: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})


def _limit_of(answer: httpx.Response) -> float | None:
    """The seconds to wait when there were too many requests, else None. GitHub says so with a 403 as well."""
    told = _retry_after(answer)
    spent = _header(answer, "ratelimit-remaining") == 0
    if answer.status_code == 429 or (answer.status_code == 403 and (told is not None or spent)):
        if told is not None:
            return told
        reset = _until_reset(answer) if spent else None
        return _LIMITED_PAUSE if reset is None else max(reset, 1.0)
    if answer.status_code == 403 and b"secondary rate limit" in answer.content[:4096]:
        return _LIMITED_PAUSE
    return None


def _retry_after(answer: httpx.Response) -> float | None:
    """In seconds; it is written as those, or as a date."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - _now_of(answer)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _until_reset(answer: httpx.Response) -> float | None:
    """By the upstream's own clock: it is its moment."""
    reset = _header(answer, "ratelimit-reset")
    if reset is None:
        return None
    return reset if reset < _AN_EPOCH else max(0.0, reset - _now_of(answer).timestamp())


def _now_of(answer: httpx.Response) -> datetime:
    try:
        found = parsedate_to_datetime(answer.headers.get("date", ""))
    except (ValueError, TypeError):
        return datetime.now(UTC)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _header(answer: httpx.Response, name: str) -> float | None:
    """`RateLimit-…` as GitLab says it, or `X-RateLimit-…` as GitHub does."""
    text = answer.headers.get(name, answer.headers.get(f"x-{name}", "")).strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 15 else None


def _next_of(answer: httpx.Response) -> str | None:
    """Of the link only its query: whatever host it names, the token goes to ours."""
    link = answer.links.get("next", {}).get("url")
    if link:
        return urlsplit(link).query or None
    page = answer.headers.get("x-next-page", "").strip()
    if not (page.isascii() and page.isdigit()):
        return None
    return str(answer.request.url.copy_set_param("page", page).query, "ascii")


def _backoff(failures: int) -> float:
    longest = min(_LONGEST_PAUSE, _PAUSE * 2.0**failures)
    return longest / 2 + _jitter(longest / 2)


def _jitter(most: float) -> float:
    return random.random() * most  # noqa: S311 - no secret depends on it
