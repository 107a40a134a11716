"""Addresses: this machine's as others see it, and whose a client's is."""

from __future__ import annotations

import ipaddress
import socket

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


def address_of(host: str) -> str | None:
    """The address towards other machines, as the routing table says, where ``host`` means every network; ``None`` for
    a single address and without a network. Nothing is sent: a datagram socket that is only connected stays silent
    (192.0.2.1 is RFC 5737's example address)."""
    if host not in EVERYWHERE:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return address


def subscriber(address: str) -> str:
    """What one subscriber has of addresses, who may choose among them: of IPv6 a whole /64 (RFC 6177).

    >>> [subscriber(one) for one in ("192.0.2.7", "2001:db8::7:1", "::ffff:192.0.2.7", "unix")]
    ['192.0.2.7', '2001:db8::/64', '192.0.2.7', 'unix']
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
