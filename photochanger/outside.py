"""Whether the public address of this server leads to it: asked before an event, not found out during one."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from photochanger.providers.wire import may_connect

#: Seconds a provider may need to reach us before it gives up; a guess on the short side.
PATIENCE_S = 10.0


async def check(base_url: str) -> list[str]:
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
        return [f"{host} has no address: the name is wrong, or not known in the internet yet"]
    problems = []
    if parts.scheme != "https":
        problems.append("It is not https: providers may refuse it, and photos travel in the open")
    addresses = {str(one[4][0]) for one in found}
    if inner := sorted(address for address in addresses if not may_connect(address)):
        problems.append(f"{host} leads to {inner[0]}, which nobody outside of this network can reach")
    if answer := await _asked(base_url):
        problems.append(answer)
    return problems


async def _asked(base_url: str) -> str | None:
    mark = uuid4().hex
    try:
        async with httpx.AsyncClient(timeout=PATIENCE_S, follow_redirects=False) as http:
            response = await http.get(f"{base_url}/healthz", headers={"X-Request-Id": mark})
    except httpx.ConnectTimeout:
        return f"Nothing answered within {PATIENCE_S:g} s: a firewall or a router does not let calls through"
    except httpx.ConnectError as error:
        return f"No connection: {error}"
    except httpx.HTTPError as error:
        return f"No answer: {str(error) or type(error).__name__}"
    if response.headers.get("X-Request-Id") != mark:
        return f"Something else answers there (status {response.status_code}), not this server"
    return None
