"""Which address is this client counted under, and could others read what it sent on the way?"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final, Literal

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Https = Literal["auto", "always", "never"]
"""Where plain HTTP will not do: from elsewhere than this machine, ever, or nowhere."""

_IPV6_PREFIX: Final = 64
_REMEMBERED: Final = 10_000
"""Peers whose group is remembered, those that came last: under a peer's own text, of which it is a function."""


def client_address(peer: str, forwarded_for: str | None, trusted: tuple[IpNetwork, ...]) -> str:
    """Return the address that failed authentication is counted under: IPv4, or the /64 of an IPv6 address.

    `forwarded_for` (`X-Forwarded-For`) counts only when the peer is a trusted proxy, and then from the right: the
    first address that is not itself a trusted proxy. Anything that is not an address ends the walk there.
    """
    if forwarded_for is None or not trusted:
        return _peer_itself(peer)
    address = _parse(peer)
    if address is None:
        return "unknown"
    if _is_trusted(address, trusted):
        for hop in reversed(forwarded_for.split(",")):
            claimed = _parse(hop.strip())
            if claimed is None:
                break
            address = claimed
            if not _is_trusted(address, trusted):
                break
    return _group(address)


def is_secure(
    https: Https, peer: str, forwarded_proto: str | None, trusted: tuple[IpNetwork, ...], *, is_encrypted: bool
) -> bool:
    """Tell whether a request may carry a credential; `is_encrypted`: it came to us by TLS.

    Then it may; with *auto* also when the peer is this machine. What a trusted proxy says (`X-Forwarded-Proto`) comes
    before both, for its client may have come otherwise than itself: it is secure when all of it is ``https``, for a
    proxy that appends to what the client sent must not be taken in.
    """
    if https == "never":
        return True
    if forwarded_proto is not None and trusted:
        address = _parse(peer)
        if address is not None and _is_trusted(address, trusted):
            return all(proto.strip().lower() == "https" for proto in forwarded_proto.split(","))
    return is_encrypted or (https == "auto" and _is_loopback(peer))


@lru_cache(maxsize=_REMEMBERED)
def _is_loopback(peer: str) -> bool:
    address = _parse(peer)
    return address is not None and address.is_loopback


@lru_cache(maxsize=_REMEMBERED)
def _peer_itself(peer: str) -> str:
    address = _parse(peer)
    return "unknown" if address is None else _group(address)


def _parse(text: str) -> IpAddress | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def _is_trusted(address: IpAddress, trusted: tuple[IpNetwork, ...]) -> bool:
    return any(address in network for network in trusted)


def _group(address: IpAddress) -> str:
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.IPv6Network((address, _IPV6_PREFIX), strict=False))
