"""This machine's address as other machines see it."""

from __future__ import annotations

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
