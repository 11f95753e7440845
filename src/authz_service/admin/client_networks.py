"""What counts as one address where requests or failures are counted."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network, ip_address


def network_of(address: str | None) -> str:
    """An IPv4 address, in an IPv6 one too; of IPv6 the /64, whose other bits are its holder's to choose.

    Raises ValueError for what is no address; None is `unknown`.
    """
    if address is None:
        return "unknown"
    found = ip_address(address)
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or IPv6Network((int(found) >> 64 << 64, 64)))
    return str(found)
