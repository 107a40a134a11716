"""The guarded download: forty addresses that must not be followed, and bodies that must not be swallowed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpcore
import pytest

from ops.simulators import serving
from ops.simulators.turbotext import Turbotext
from photochanger.failures import ProviderBadOutput, ProviderError
from photochanger.providers import wire
from photochanger.providers.wire import Refused, download
from tests.photos import photo

pytestmark = pytest.mark.anyio
HOSTS = ["turbotext.ru"]


class Canary:
    """Listens on this machine and counts who knocks."""

    def __init__(self) -> None:
        self.knocks = 0
        self.port = 0

    async def heard(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.knocks += 1
        writer.close()


@pytest.fixture
async def canary() -> AsyncIterator[Canary]:
    found = Canary()
    first = await asyncio.start_server(found.heard, "127.0.0.1")
    found.port = first.sockets[0].getsockname()[1]
    second = await asyncio.start_server(found.heard, "::1", found.port)
    yield found
    for server in (first, second):
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_canary_hears_who_knocks(host: str, canary: Canary) -> None:
    _, writer = await asyncio.open_connection(host, canary.port)
    writer.close()
    async with asyncio.timeout(5):
        while not canary.knocks:  # noqa: ASYNC110 - it counts in this very loop
            await asyncio.sleep(0.01)


#: ``{port}``: the canary's. Refused before anything is connected.
ADDRESSES = [
    "http://127.0.0.1:{port}/x.jpg",
    "https://127.0.0.1:{port}/x.jpg",
    "https://127.0.0.1/x.jpg",
    "http://localhost:{port}/x.jpg",
    "https://localhost/x.jpg",
    "http://[::1]:{port}/x.jpg",
    "https://[::1]/x.jpg",
    "https://0.0.0.0/x.jpg",
    "http://0:{port}/x.jpg",
    "http://2130706433:{port}/x.jpg",
    "http://0x7f000001:{port}/x.jpg",
    "http://0177.0.0.1:{port}/x.jpg",
    "http://127.1:{port}/x.jpg",
    "https://[::ffff:127.0.0.1]/x.jpg",
    "https://[64:ff9b::7f00:1]/x.jpg",
    "https://169.254.169.254/latest/meta-data/",
    "https://[fd00:ec2::254]/latest/meta-data/",
    "https://10.0.0.1/x.jpg",
    "https://172.16.0.1/x.jpg",
    "https://192.168.1.1/x.jpg",
    "https://100.64.0.1/x.jpg",
    "https://[fe80::1]/x.jpg",
    "https://[fc00::1]/x.jpg",
    "https://224.0.0.1/x.jpg",
    "https://255.255.255.255/x.jpg",
    "https://example.com/x.jpg",
    "https://turbotext.ru.example.com/x.jpg",
    "https://evilturbotext.ru/x.jpg",
    "https://turbotext.ru@127.0.0.1:{port}/x.jpg",
    "https://user:password@turbotext.ru/x.jpg",
    "https://turbotext.ru:{port}/x.jpg",
    "http://turbotext.ru/x.jpg",
    "https://127.0.0.1:{port}#@turbotext.ru/",
    "https://127.0.0.1:{port}\\@turbotext.ru/",
    "https://turbotext.ru\r\nHost: 127.0.0.1/x.jpg",
    "https://turbotext.ru\t/x.jpg",
    "https://turbotеxt.ru/x.jpg",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_x",
    "ftp://turbotext.ru/x.jpg",
    "//127.0.0.1:{port}/x.jpg",
    "https://",
    "not an address",
    "https://turbotext.ru:99999/x.jpg",
]


def test_there_are_at_least_forty() -> None:
    assert len(set(ADDRESSES)) >= 40


@pytest.mark.parametrize("address", ADDRESSES)
async def test_no_address_off_the_list_is_followed(address: str, canary: Canary, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        await download(address.replace("{port}", str(canary.port)), tmp_path / "x", hosts=HOSTS)
    assert canary.knocks == 0
    assert not (tmp_path / "x").exists()


INNER = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.31.255.1", "192.168.0.10", "169.254.169.254",
    "100.64.0.1", "100.127.255.254", "192.0.2.1", "198.18.0.1", "224.0.0.251", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fc00::1", "fd12:3456::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2001:db8::1",
    "2001:0:53aa:64c:0:0:f5ff:fffe", "fec0::1", "64:ff9b:1::7f00:1", "::ffff:0:7f00:1", "2001:4860::5efe:7f00:1",
    "2001:4860::200:5efe:7f00:1", "3fff::1", "5f00::1",
]  # fmt: skip


@pytest.mark.parametrize("address", INNER)
async def test_a_permitted_name_that_leads_inside_is_refused_at_connect(
    address: str, canary: Canary, tmp_path: Path, names: dict[str, list[str]]
) -> None:
    names["www.turbotext.ru"] = [address]
    with pytest.raises(Refused, match="not on the public internet"):
        await download("https://www.turbotext.ru/x.jpg", tmp_path / "x", hosts=HOSTS)
    with pytest.raises(Refused, match="not on the public internet"):
        await wire._Guard([]).connect_tcp("www.turbotext.ru", canary.port)
    await asyncio.sleep(0)
    assert canary.knocks == 0


async def test_one_inner_address_among_public_ones_is_enough_to_refuse(
    tmp_path: Path, names: dict[str, list[str]]
) -> None:
    names["www.turbotext.ru"] = ["93.184.216.34", "127.0.0.1"]
    with pytest.raises(Refused):
        await download("https://www.turbotext.ru/x.jpg", tmp_path / "x", hosts=HOSTS)


async def test_an_address_that_leads_nowhere_is_followed_by_the_next(names: dict[str, list[str]]) -> None:
    asked: list[str] = []
    names["www.turbotext.ru"] = ["2606:2800:220:1:248:1893:25c8:1946", "93.184.216.34"]

    class Inner(httpcore.AsyncNetworkBackend):
        async def connect_tcp(self, host: str, *rest: Any, **more: Any) -> httpcore.AsyncNetworkStream:
            asked.append(host)
            raise httpcore.ConnectError("nowhere")

    guard = wire._Guard([])
    guard._inner = Inner()  # type: ignore[assignment]
    with pytest.raises(httpcore.ConnectError):
        await guard.connect_tcp("www.turbotext.ru", 443)
    assert asked == names["www.turbotext.ru"]


async def test_a_host_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        await download(f"https://{'a' * 70}.turbotext.ru/x.jpg", tmp_path / "x", hosts=HOSTS)


async def test_the_address_that_was_checked_is_the_one_connected_to(names: dict[str, list[str]]) -> None:
    """A name that leads elsewhere the second time it is asked for (DNS rebinding) is asked for once."""
    asked: list[str] = []
    names["www.turbotext.ru"] = ["93.184.216.34"]

    class Inner(httpcore.AsyncNetworkBackend):
        async def connect_tcp(self, host: str, *rest: Any, **more: Any) -> httpcore.AsyncNetworkStream:
            asked.append(host)
            raise httpcore.ConnectError("enough")

    guard = wire._Guard([])
    guard._inner = Inner()  # type: ignore[assignment]
    with pytest.raises(httpcore.ConnectError):
        await guard.connect_tcp("www.turbotext.ru", 443)
    assert asked == ["93.184.216.34"]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names lead to, in place of DNS."""
    found: dict[str, list[str]] = {}

    def resolve(host: str, port: int, *rest: Any, **more: Any) -> Iterable[Any]:
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in found[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return found


@pytest.fixture
def turbotext() -> Iterator[Turbotext]:
    simulator = Turbotext()
    with serving(simulator):
        yield simulator


def result(simulator: Turbotext, mode: str) -> tuple[str, set[str]]:
    """The address of a result that goes wrong in ``mode``, and the setting that permits its host."""
    simulator.jobs["1"] = {"mode": mode, "polls": 0, "photo": photo(64, 48), "lost": 0}
    return f"{simulator.url}/results/1.jpg", {simulator.url.removeprefix("http://")}


async def test_a_listed_host_of_ones_own_is_reached(turbotext: Turbotext, tmp_path: Path) -> None:
    url, private = result(turbotext, "success")
    await download(url, tmp_path / "x", hosts=HOSTS, private=private)
    assert (tmp_path / "x").stat().st_size > 0
    with pytest.raises(Refused):
        await download(url, tmp_path / "y", hosts=HOSTS)


async def test_a_redirect_is_not_followed(turbotext: Turbotext, tmp_path: Path) -> None:
    url, private = result(turbotext, "moved")
    with pytest.raises(Refused, match="leads elsewhere"):
        await download(url, tmp_path / "x", hosts=HOSTS, private=private)
    assert turbotext.calls["elsewhere"] == 0


@pytest.mark.parametrize("mode", ["result_huge", "result_gzip_bomb"])
async def test_a_body_that_is_too_much_is_cut(mode: str, turbotext: Turbotext, tmp_path: Path) -> None:
    url, private = result(turbotext, mode)
    with pytest.raises(ProviderBadOutput):
        await download(url, tmp_path / "x", hosts=HOSTS, private=private, max_bytes=4 * 1024**2)
    size = (tmp_path / "x").stat().st_size if (tmp_path / "x").exists() else 0
    assert size <= 4 * 1024**2


async def test_what_is_not_there_may_come_later(turbotext: Turbotext, tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="404"):
        await download(
            f"{turbotext.url}/results/9.jpg",
            tmp_path / "x",
            hosts=HOSTS,
            private={turbotext.url.removeprefix("http://")},
        )
