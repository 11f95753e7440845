"""Requests that this service sends to where people tell it to: resolved once, sent to that very address, bounded."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

import httpx

from authz_service.admin.addresses import Receiver, is_public, parse_receiver
from authz_service.errors import Fault, InvalidInputError

_RESOLVE_SECONDS: Final = 5.0
_LONGEST_SECONDS: Final = 60.0
_REFUSED: Final = "the host does not lead to public addresses alone; nothing is sent there"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. A redirect is an answer like any other: nobody follows it."""

    status: int
    body: bytes
    """As it came, cut at the bound; empty where none was wanted."""


class OutboundError(Exception):
    """Nothing, or nothing usable, came back. `message` tells who asked no more than they know anyway."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Outbound:
    """A way out that leads to public addresses alone, and to the hosts that the settings name.

    No proxy of the environment is used, no cookie kept, no redirect followed, no connection shared.
    """

    def __init__(self, private_hosts: Collection[str] = (), *, ca_file: Path | None = None) -> None:
        self._private = frozenset(private_hosts)
        self._ca_file = ca_file

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        """On first use: most processes never send anything, and reading all authorities takes a while."""
        context = ssl.create_default_context()
        if self._ca_file is not None:
            context.load_verify_locations(self._ca_file)
        return context

    async def check(self, url: str, *, where: str = "/url") -> Receiver:
        """Raises InvalidInputError for a URL that `send` would refuse.

        A name that does not resolve and one that leads to a private address get the same answer: nobody learns here
        which names there are.
        """
        receiver = parse_receiver(url, where=where)
        try:
            await self._resolve(receiver)
        except OutboundError as error:
            raise InvalidInputError(
                "the URL has a fault", faults=[Fault(where, "address_refused", error.message)]
            ) from None
        return receiver

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        max_bytes: int = 0,
        timeout: float = 10.0,  # noqa: ASYNC109 - of the whole exchange, resolving included
    ) -> Answer:
        """One request, one answer. Raises OutboundError, and InvalidInputError for a URL that is none.

        With `max_bytes`, an answer that is longer raises; with none its body is not read.
        """
        receiver = parse_receiver(url)
        try:
            async with asyncio.timeout(timeout):
                return await self._send(method, receiver, headers or {}, body, max_bytes)
        except TimeoutError:
            raise OutboundError(f"there was no answer within {timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
            raise OutboundError(_why(error)) from None

    async def _send(
        self, method: str, receiver: Receiver, headers: Mapping[str, str], body: bytes | None, max_bytes: int
    ) -> Answer:
        address = await self._resolve(receiver)
        host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
        transport = httpx.AsyncHTTPTransport(verify=self._trust, trust_env=False)
        # The caller's bound is around all of it.
        async with httpx.AsyncClient(
            transport=transport, follow_redirects=False, trust_env=False, timeout=_LONGEST_SECONDS
        ) as client:
            request = client.build_request(
                method,
                f"https://{host}:{receiver.port}{receiver.path}",
                headers={**headers, "Host": receiver.authority, "Accept-Encoding": "identity", "Connection": "close"},
                content=body,
                # The certificate has to be the name's, though the connection goes to the address.
                extensions={"sni_hostname": receiver.host},
            )
            answer = await client.send(request, stream=True)
            try:
                return Answer(answer.status_code, await _read(answer, max_bytes) if max_bytes else b"")
            finally:
                await answer.aclose()

    async def _resolve(self, receiver: Receiver) -> IPv4Address | IPv6Address:
        """The one address to call. All that the name leads to have to be allowed: else which one is called is luck."""
        literal = receiver.address
        found = [literal] if literal is not None else await _look_up(receiver)
        if receiver.host not in self._private and not all(is_public(address) for address in found):
            raise OutboundError(_REFUSED)
        return found[0]


async def _look_up(receiver: Receiver) -> list[IPv4Address | IPv6Address]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_RESOLVE_SECONDS):
            rows = await loop.getaddrinfo(receiver.host, receiver.port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        raise OutboundError(_REFUSED) from None
    found = [ip_address(str(row[4][0]).partition("%")[0]) for row in rows]
    if not found:
        raise OutboundError(_REFUSED)
    return sorted(found, key=lambda address: address.version)


async def _read(answer: httpx.Response, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in answer.aiter_raw():
        size += len(part)
        if size > max_bytes:
            raise OutboundError(f"the answer is longer than {max_bytes} bytes")
        parts.append(part)
    return b"".join(parts)


def _why(error: Exception) -> str:
    """A sentence from a short list: what a library says may name addresses, or repeat what the receiver sent."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, ssl.SSLCertVerificationError):
            return "the receiver's certificate is not trusted"
        if isinstance(inner, ssl.SSLError):
            return "no TLS connection could be made"
        inner = inner.__cause__ or inner.__context__
    if isinstance(error, httpx.ConnectError | OSError):
        return "no connection could be made"
    return "the connection broke, or what came was no HTTP"
