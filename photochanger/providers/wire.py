"""What every driver's HTTP needs: bounded bodies, and downloads that never reach an address they should not.

A provider that answers with a gigabyte, a bomb or a redirect into this machine's own network is a provider that
failed, not a worker that did.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from photochanger.failures import ProviderBadOutput, ProviderError

#: Bytes of one answer. A 4K picture as PNG has up to 25 MB, 34 MB in base64.
MAX_ANSWER_BYTES = 40 * 1024**2
#: Bytes of one downloaded picture.
MAX_PICTURE_BYTES = 40 * 1024**2
#: Bytes of an answer that carries no picture.
MAX_TALK_BYTES = 1024**2
CONNECT_S = 5.0
#: Seconds without a byte after which what may be asked again is asked again: a poll, a download.
STALL_S = 5.0
CHUNK_BYTES = 1024**2
#: Seconds in which a key is tried.
TRY_S = 10.0
#: The budget cuts a call, nothing else: a limit of a driver's own once beat the deadline and explained nothing.
TIMEOUT = httpx.Timeout(None, connect=CONNECT_S)
#: For what costs nothing to ask again.
STALLED = httpx.Timeout(STALL_S, connect=CONNECT_S)


class AnswerTooLarge(httpx.TransportError):
    """The answer is larger than any picture, or packed so that its size cannot be told."""


class Bounded(httpx.AsyncBaseTransport):
    """httpx's own transport, with answers of at most ``max_bytes``, unpacked, and ``CONNECT_S`` to connect whatever
    the client was told. Retries nothing."""

    def __init__(self, max_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._inner = httpx.AsyncHTTPTransport(retries=0)
        self._max_bytes = max_bytes

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.headers["Accept-Encoding"] = "identity"
        request.extensions["timeout"] = {**request.extensions.get("timeout", {}), "connect": CONNECT_S}
        response = await self._inner.handle_async_request(request)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            await response.aclose()
            raise AnswerTooLarge("it is packed, though it was asked not to be", request=request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Capped(response.stream, self._max_bytes, request)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Capped(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, max_bytes: int, request: httpx.Request) -> None:
        self._stream = stream
        self._left = max_bytes
        self._max_bytes = max_bytes
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._left -= len(chunk)
            if self._left < 0:
                raise AnswerTooLarge(f"it has more than {self._max_bytes // 1024**2} MiB", request=self._request)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def client(max_bytes: int = MAX_ANSWER_BYTES) -> httpx.AsyncClient:
    """An httpx client for a provider's API: bounded answers, no redirects, no retries, no limit but the budget."""
    return httpx.AsyncClient(transport=Bounded(max_bytes), follow_redirects=False, timeout=TIMEOUT)


async def tried(provider: str, method: str, url: str, headers: Mapping[str, str], **more: Any) -> httpx.Response:
    """One call that costs nothing, to see whether a key and an address are right.

    Raises:
        ProviderError, ProviderBadOutput: nothing sensible answers there.
    """
    try:
        async with client(MAX_TALK_BYTES) as http, asyncio.timeout(TRY_S):
            return await http.request(method, url, headers=headers, **more)
    except httpx.HTTPError as error:
        raise unreached(provider, error) from error
    except TimeoutError as error:
        raise ProviderError(f"{provider} did not answer within {TRY_S:g} s") from error


def unreached(provider: str, error: httpx.HTTPError) -> ProviderError | ProviderBadOutput:
    """httpx's exceptions in an operator's words."""
    if isinstance(error, AnswerTooLarge):
        return ProviderBadOutput(f"{provider} sent an answer that cannot be a picture: {error}")
    words: dict[type[httpx.HTTPError], str] = {
        httpx.ConnectTimeout: f"could not be reached within {CONNECT_S:g} s",
        httpx.ConnectError: "could not be reached",
        httpx.ReadTimeout: f"said nothing for {STALL_S:g} s",
        httpx.ReadError: "broke the connection off",
        httpx.RemoteProtocolError: "broke its answer off",
    }
    what = words.get(type(error), "could not be talked to")
    return ProviderError(f"{provider} {what}: {str(error) or type(error).__name__}")


def retry_after_s(headers: httpx.Headers) -> float | None:
    """``Retry-After`` in seconds; ``None`` where there is none or it is a date."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdecimal() else None


def json_object(body: bytes) -> dict[str, Any] | None:
    """A JSON object, or ``None`` when it is anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


# -- downloads -------------------------------------------------------------------------------------------------------


class Refused(ProviderBadOutput):
    """The provider gave an address that is not followed"""

    retryable = False


def may_connect(address: str) -> bool:
    """Whether an IP address belongs to the public internet, however it is wrapped.

    >>> [may_connect(a) for a in ("93.184.216.34", "127.0.0.1", "100.64.1.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1")]
    [True, False, False, False, False]
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if inner is None and (ip in _NAT64 or int(ip) >> 32 & 0xFDFFFFFF == _ISATAP):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return may_connect(str(inner))
        if ip not in _GLOBAL_UNICAST or ip in _DOCUMENTATION:
            return False
    return ip.is_global and not ip.is_multicast


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
#: The only part of IPv6 that is given out for the internet (RFC 4291, 2.4), less RFC 9637's examples.
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_DOCUMENTATION = ipaddress.ip_network("3fff::/20")
#: Bits 64 to 95 of an address that wraps an IPv4 one by RFC 5214, with or without its "universal" bit.
_ISATAP = 0x00005EFE


class _Guard(httpcore.AsyncNetworkBackend):
    """Connects to the very address it has checked: a name that resolves differently the second time gains nothing."""

    def __init__(self, private: Collection[str]) -> None:
        self._private = private
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        if f"{host}:{port}" in self._private:
            return await self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError:
            raise Refused("The provider gave an address whose host is none") from None
        except OSError as error:
            raise httpcore.ConnectError(f"{host} has no address: {error}") from error
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        if inner := [address for address in addresses if not may_connect(address)]:
            raise Refused(f"{host} leads to {inner[0]}, which is not on the public internet")
        for address in addresses[:-1]:  # one family may lead nowhere
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
        return await self._inner.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise Refused("A socket of this machine is not an address of a picture")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


async def download(
    url: str, target: Path, *, hosts: Collection[str], private: Collection[str] = (), max_bytes: int = MAX_PICTURE_BYTES
) -> None:
    """Fetches a picture that a provider named by URL into ``target``.

    Over https only, from ``hosts`` or their subdomains, without following redirects, from public addresses checked
    at connect. ``private``: ``host:port`` pairs that are exempt from all of it (a simulator, a gateway of one's own).

    Raises:
        Refused: the address is not one to follow; nothing was sent to it.
        ProviderBadOutput: it is no picture by size or packing.
        ProviderError: it could not be had; another try may.
    """
    origin = _allowed(url, hosts, private)
    try:
        async with httpcore.AsyncConnectionPool(network_backend=_Guard(private)) as pool:
            headers = [("Host", origin), ("Accept-Encoding", "identity"), ("Accept", "image/*")]
            timeouts = {"timeout": {"connect": CONNECT_S, "read": STALL_S}}
            async with pool.stream("GET", url.encode(), headers=headers, extensions=timeouts) as response:
                _expect_picture(response, max_bytes)
                await _write(response, target, max_bytes)
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
        why = str(error) or type(error).__name__
        raise ProviderError(f"The picture could not be fetched from {origin}: {why}") from error


def _allowed(url: str, hosts: Collection[str], private: Collection[str]) -> str:
    """The URL's host and port as they go into ``Host``."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    except ValueError:
        raise Refused("The provider gave something that is not a URL") from None
    host = parts.hostname or ""
    if not url.isascii() or any(character <= " " for character in url) or parts.username is not None:
        raise Refused("The provider gave a URL that is not a plain one")
    if f"{host}:{port}" in private and parts.scheme in ("http", "https"):
        return parts.netloc
    if parts.scheme != "https" or port != 443:
        raise Refused(f"The provider gave an address that is not https: {parts.scheme}://{host}:{port}")
    if not any(host == one or host.endswith(f".{one}") for one in hosts):
        raise Refused(f"The provider gave an address of {host}, which is not one of its hosts")
    return parts.netloc


def _expect_picture(response: httpcore.Response, max_bytes: int) -> None:
    headers = {name.lower(): value for name, value in response.headers}
    if 300 <= response.status < 400:
        raise Refused("The picture's address leads elsewhere, and is not followed")
    if response.status != 200:
        raise ProviderError(f"The picture's address answered with status {response.status}")
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise ProviderBadOutput("The picture came packed, though it was asked for unpacked")
    if int(headers.get(b"content-length", b"0")) > max_bytes:
        raise ProviderBadOutput(f"The picture has more than {max_bytes // 1024**2} MiB")


async def _write(response: httpcore.Response, target: Path, max_bytes: int) -> None:
    size = 0
    waiting = bytearray()

    def flush() -> None:
        with target.open("ab") as file:
            file.write(waiting)
        waiting.clear()

    assert isinstance(response.stream, AsyncIterable)
    async for chunk in response.stream:
        size += len(chunk)
        if size > max_bytes:
            raise ProviderBadOutput(f"The picture has more than {max_bytes // 1024**2} MiB")
        waiting += chunk
        if len(waiting) >= CHUNK_BYTES:
            await asyncio.to_thread(flush)
    await asyncio.to_thread(flush)
