"""Which addresses people may have this service call: public ones, whichever way they are written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

from authz_service.errors import Fault, InvalidInputError

_LONGEST: Final = 2000
_PRINTABLE: Final = re.compile(r"[!-~]+")
_NAME: Final = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")
_AUTHORITY: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:@]+)(?::[0-9]*)?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
# An IPv4 address inside an IPv6 one, and where its 32 bits begin, counted from the left.
_CARRIERS: Final = (
    (IPv6Network("::/96"), 96),  # compatible
    (IPv6Network("::ffff:0:0/96"), 96),  # mapped
    (IPv6Network("::ffff:0:0:0/96"), 96),  # translated (RFC 2765)
    (IPv6Network("64:ff9b::/96"), 96),  # NAT64
    (IPv6Network("2002::/16"), 16),  # 6to4
)
_NEVER: Final = (
    IPv6Network("64:ff9b:1::/48"),  # NAT64 of the site's own: where the IPv4 part stands is the site's choice
    IPv6Network("2001::/32"),  # Teredo
    IPv6Network("2001:db8::/32"),
    IPv6Network("3fff::/20"),
    IPv6Network("5f00::/16"),
    IPv6Network("100::/64"),
)
_NEVER_V4: Final = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"))
"""Protocol assignments, of which only some count as private, and the relays of 6to4."""
_ISATAP: Final = (0x00005EFE, 0x02005EFE)


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where a request goes, read from an `https` URL. `host` is a name or an address, in lower case, no brackets."""

    host: str
    port: int
    path: str
    """With the query."""

    @property
    def authority(self) -> str:
        """As the `Host` header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 443 else f"{host}:{self.port}"

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        """The address itself, where the URL names one."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None


def parse_receiver(url: str, *, where: str = "/url") -> Receiver:
    """Read a URL. Raises InvalidInputError for all but plain `https://host[:port]/path`, whoever the host is."""
    fault = _fault(url)
    if fault is not None:
        raise InvalidInputError("the URL has a fault", faults=[Fault(where, "invalid_url", fault)])
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Receiver((parts.hostname or "").lower(), parts.port or 443, path)


def _fault(url: str) -> str | None:
    if len(url) > _LONGEST or not _PRINTABLE.fullmatch(url) or "\\" in url:
        return "write a plain URL in ASCII, as `https://hooks.example.com/authz`; names with other letters as `xn--…`"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "this is no URL; write one as `https://hooks.example.com/authz`"
    if parts.scheme != "https":
        return "only `https://` is taken"
    if "@" in parts.netloc:
        return "a URL with a user or password is not taken; what is sent is signed"
    if parts.fragment or "#" in url:
        return "leave out what follows `#`; it is never sent"
    if port == 0:
        return "there is no port 0"
    host = (parts.hostname or "").lower()
    if "%" in host or "%" in parts.netloc:
        return "write the host without `%`"
    if host and not _AUTHORITY.fullmatch(parts.netloc):  # readers differ on what stands beside brackets
        return "this is no URL; write one as `https://hooks.example.com/authz`"
    if not host:
        return "the host is missing; write a URL as `https://hooks.example.com/authz`"
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        return None if _is_canonical(host) else "write an address plainly, as `192.0.2.7`, or better a name"
    if ":" in host or _NAME.fullmatch(host) or _is_local_name(host):
        return None
    return "the host is no name; write a URL as `https://hooks.example.com/authz`"


def _is_canonical(host: str) -> bool:
    try:
        return str(IPv4Address(host)) == host
    except ValueError:
        return False


def _is_local_name(host: str) -> bool:
    """A name without a dot: refused where it leads, unless the settings name it."""
    return re.fullmatch(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", host) is not None


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address is one of the public Internet, and so is every address that it carries inside."""
    if address.is_multicast or address.is_reserved or address.is_unspecified or not address.is_global:
        # `is_reserved` takes some IPv6 carriers in: none of them is an address to call.
        return _carries_public(address) if isinstance(address, IPv6Address) else False
    return all(is_public(inner) for inner in _inside(address)) and not _is_odd(address)


def _carries_public(address: IPv6Address) -> bool:
    """Of an address that is not global by itself, only NAT64's well-known prefix leads anywhere public."""
    return address in _CARRIERS[3][0] and all(is_public(inner) for inner in _inside(address))


def _is_odd(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return any(address in network for network in _NEVER_V4)
    isatap = int(address) >> 32 & 0xFFFFFFFF in _ISATAP
    return isatap or address.is_site_local or any(address in network for network in _NEVER)


def _inside(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address]:
    if isinstance(address, IPv6Address):
        for network, start in _CARRIERS:
            if address in network:
                yield IPv4Address(int(address) >> (128 - start - 32) & 0xFFFFFFFF)
