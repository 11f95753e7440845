"""A token's own conditions: client networks (rule T1)."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from authz_service.tokens.model import Conditions


def address_allowed(conditions: Conditions, client_address: str | None) -> bool:
    """Whether the client's address is in one of the networks; an unknown or unreadable address is not (T1).

    An IPv4 address written as IPv6 (`::ffff:10.0.0.1`) counts as the IPv4 address.
    """
    if not conditions.networks:
        return True
    if client_address is None:
        return False
    try:
        address = ip_address(client_address)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address.version == network.version and address in network for network in _networks(conditions.networks))


@lru_cache(maxsize=4096)
def _networks(texts: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(text) for text in texts)
