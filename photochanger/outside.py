"""Whether the public address of this server leads to it: asked before an event, not found out during one."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from photochanger.failures import Concern
from photochanger.providers.wire import may_connect

#: Seconds a provider may need to reach us before it gives up; a guess on the short side.
PATIENCE_S = 10.0


async def check(base_url: str) -> list[Concern]:
    """What stands between the internet and this server, in an administrator's words; empty: nothing that can be seen
    from here.

    It asks the address itself for its liveness, with a request id that must come back. A router that does not lead
    its own network back to itself fails this check and may still be right: then ask from a phone without Wi-Fi.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
    except OSError:
        words = f"{host} has no address: the name is wrong, or not known in the internet yet"
        return [Concern("no_address", words, {"host": host})]
    problems = []
    if parts.scheme != "https":
        problems.append(Concern("not_https", "It is not https: providers may refuse it, and photos travel in the open"))
    addresses = {str(one[4][0]) for one in found}
    if inner := sorted(address for address in addresses if not may_connect(address)):
        words = f"{host} leads to {inner[0]}, which nobody outside of this network can reach"
        problems.append(Concern("inner", words, {"host": host, "address": inner[0]}))
    if answer := await _asked(base_url):
        problems.append(answer)
    return problems


async def _asked(base_url: str) -> Concern | None:
    mark = uuid4().hex
    try:
        async with httpx.AsyncClient(timeout=PATIENCE_S, follow_redirects=False) as http:
            response = await http.get(f"{base_url}/healthz", headers={"X-Request-Id": mark})
    except httpx.ConnectTimeout:
        words = f"Nothing answered within {PATIENCE_S:g} s: a firewall or a router does not let calls through"
        return Concern("silent", words, {"seconds": PATIENCE_S})
    except httpx.ConnectError as error:
        return Concern("no_connection", f"No connection: {error}", {"reason": str(error)})
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        return Concern("no_answer", f"No answer: {reason}", {"reason": reason})
    if response.headers.get("X-Request-Id") != mark:
        status = response.status_code
        return Concern(
            "another", f"Something else answers there (status {status}), not this server", {"status": status}
        )
    return None
