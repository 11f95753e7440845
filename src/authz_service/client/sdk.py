"""The client for threads and the one for event loops: the same calls, the same answers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

import httpx

from authz_service.client.model import Answer, Ask, WhoAmI
from authz_service.client.wire import (
    Call,
    ask_http,
    ask_many,
    ask_one,
    is_safe,
    read_answer,
    read_answers,
    read_document,
    read_whoami,
    unreachable,
)

DEFAULT_TIMEOUT: Final = 5.0
DEFAULT_RETRIES: Final = 1
_PAUSE: Final = 0.05
_BROKEN: Final = (httpx.NetworkError, httpx.RemoteProtocolError)
_SELF: Final = Call("GET", "/v1/self")
_OWN: Final = "/v1/self/check"
_CHECK: Final = "/check"


class Client:
    """Speaks for one token. Whatever is not an answer is raised, and none of it means allow: see ClientError.

    `timeout` is in seconds. `transport` is httpx's, for tests and for services reached in another way. Connections are
    kept and used again. What only asks is asked again, `retries` times, when its connection broke: a write never is,
    and nothing is after a time-out or an answer.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int = DEFAULT_RETRIES,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._retries = retries
        self._http = httpx.Client(
            base_url=self._url, headers=_headers(token), timeout=timeout, transport=transport, follow_redirects=False
        )

    def __repr__(self) -> str:
        return f"<Client of `{self._url}`>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def whoami(self) -> WhoAmI:
        """The token this client speaks for."""
        return read_whoami(self.send(_SELF))

    def can(self, permission: str, target: str | None = None, *, catalog: str | None = None) -> Answer:
        """Whether the client's own token may; `permission` is `resource:action`."""
        return read_answer(self.send(ask_one(_OWN, Ask.of(permission, target), {"catalog": catalog})))

    def can_all(self, asks: Sequence[Ask], *, catalog: str | None = None) -> list[Answer]:
        """Many questions about the client's own token, answered at one revision."""
        return read_answers(self.send(ask_many(f"{_OWN}/batch", asks, {"catalog": catalog})))

    def check(
        self,
        token: str,
        ask: Ask,
        *,
        catalog: str | None = None,
        client_address: str | None = None,
        at_least: str | None = None,
        fully_consistent: bool = False,
    ) -> Answer:
        """As an enforcement point: whether the `token` that somebody showed may. Needs `decision:evaluate`."""
        given = _given(token, catalog, client_address, at_least, fully_consistent=fully_consistent)
        return read_answer(self.send(ask_one(_CHECK, ask, given)))

    def check_http(
        self,
        token: str,
        method: str,
        path: str,
        *,
        catalog: str | None = None,
        client_address: str | None = None,
        at_least: str | None = None,
        fully_consistent: bool = False,
    ) -> Answer:
        """Whether the token may make this request; `path` is as it was sent, encoded. The catalog knows its needs."""
        given = _given(token, catalog, client_address, at_least, fully_consistent=fully_consistent)
        return read_answer(self.send(ask_http(method, path, given)))

    def check_all(
        self,
        token: str,
        asks: Sequence[Ask],
        *,
        catalog: str | None = None,
        client_address: str | None = None,
        at_least: str | None = None,
        fully_consistent: bool = False,
    ) -> list[Answer]:
        """Many questions about one token, answered at one revision."""
        given = _given(token, catalog, client_address, at_least, fully_consistent=fully_consistent)
        return read_answers(self.send(ask_many(f"{_CHECK}/batch", asks, given)))

    def document(self, call: Call) -> Any:
        """Any other call of the service's HTTP surface: the JSON it answers with."""
        return read_document(self.send(call))

    def send(self, call: Call) -> httpx.Response:
        """Raises UnreachableError; the answer may still be a refusal, which the `read_` functions raise."""
        left = self._retries if is_safe(call) else 0
        while True:
            try:
                return self._http.request(
                    call.method, call.path, content=call.body, params=call.params, headers=call.headers()
                )
            except _BROKEN as error:
                if left <= 0:
                    raise unreachable(self._url, error) from error
                left -= 1
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise unreachable(self._url, error) from error
            time.sleep(_pause())


class AsyncClient:
    """Like Client, for event loops."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int = DEFAULT_RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._retries = retries
        self._http = httpx.AsyncClient(
            base_url=self._url, headers=_headers(token), timeout=timeout, transport=transport, follow_redirects=False
        )

    def __repr__(self) -> str:
        return f"<AsyncClient of `{self._url}`>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def whoami(self) -> WhoAmI:
        """The token this client speaks for."""
        return read_whoami(await self.send(_SELF))

    async def can(self, permission: str, target: str | None = None, *, catalog: str | None = None) -> Answer:
        """Whether the client's own token may; `permission` is `resource:action`."""
        return read_answer(await self.send(ask_one(_OWN, Ask.of(permission, target), {"catalog": catalog})))

    async def can_all(self, asks: Sequence[Ask], *, catalog: str | None = None) -> list[Answer]:
        """Many questions about the client's own token, answered at one revision."""
        return read_answers(await self.send(ask_many(f"{_OWN}/batch", asks, {"catalog": catalog})))

    async def check(
        self,
        token: str,
        ask: Ask,
        *,
        catalog: str | None = None,
        client_address: str | None = None,
        at_least: str | None = None,
        fully_consistent: bool = False,
    ) -> Answer:
        """As an enforcement point: whether the `token` that somebody showed may. Needs `decision:evaluate`."""
        given = _given(token, catalog, client_address, at_least, fully_consistent=fully_consistent)
        return read_answer(await self.send(ask_one(_CHECK, ask, given)))

    async def check_http(
        self,
        token: str,
        method: str,
        path: str,
        *,
        catalog: str | None = None,
        client_address: str | None = None,
        at_least: str | None = None,
        fully_consistent: bool = False,
    ) -> Answer:
        """Whether the token may make this request; `path` is as it was sent, encoded. The catalog knows its needs."""
        given = _given(token, catalog, client_address, at_least, fully_consistent=fully_consistent)
        return read_answer(await self.send(ask_http(method, path, given)))

    async def check_all(
        self,
        token: str,
        asks: Sequence[Ask],
        *,
        catalog: str | None = None,
        client_address: str | None = None,
        at_least: str | None = None,
        fully_consistent: bool = False,
    ) -> list[Answer]:
        """Many questions about one token, answered at one revision."""
        given = _given(token, catalog, client_address, at_least, fully_consistent=fully_consistent)
        return read_answers(await self.send(ask_many(f"{_CHECK}/batch", asks, given)))

    async def document(self, call: Call) -> Any:
        """Any other call of the service's HTTP surface: the JSON it answers with."""
        return read_document(await self.send(call))

    async def send(self, call: Call) -> httpx.Response:
        """Raises UnreachableError; the answer may still be a refusal, which the `read_` functions raise."""
        left = self._retries if is_safe(call) else 0
        while True:
            try:
                return await self._http.request(
                    call.method, call.path, content=call.body, params=call.params, headers=call.headers()
                )
            except _BROKEN as error:
                if left <= 0:
                    raise unreachable(self._url, error) from error
                left -= 1
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise unreachable(self._url, error) from error
            await asyncio.sleep(_pause())


def _pause() -> float:
    """Not in step with other clients whose connections broke together."""
    return _PAUSE * (1 + random.random())  # noqa: S311 - no secret depends on it


def _headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "User-Agent": "authz-service-client", "Accept": "application/json"}


def _given(
    token: str, catalog: str | None, client_address: str | None, at_least: str | None, *, fully_consistent: bool
) -> dict[str, object]:
    return {
        "token": token,
        "catalog": catalog,
        "client_address": client_address,
        "at_least": at_least,
        "fully_consistent": fully_consistent,
    }
