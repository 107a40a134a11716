"""How much memory the web process takes for big pictures: they go to disk, and are decoded elsewhere."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import psutil
import pytest
from PIL import Image

from tests.api import Api
from tests.installation import Installation, result_link, until
from tests.photos import big_png, opened, photo

pytestmark = pytest.mark.xdist_group("shared")

MIB = 1024**2


class Peak:
    """The highest resident size of a process, in bytes, since the first look."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self.idle = self.highest = int(process.memory_info().rss)

    def look(self) -> None:
        self.highest = max(self.highest, int(self._process.memory_info().rss))

    @property
    def growth(self) -> int:
        return self.highest - self.idle


@contextmanager
def watched(process: psutil.Process) -> Iterator[Peak]:
    peak = Peak(process)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak.look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak.look()


@pytest.fixture(scope="module")
def big_photo() -> bytes:
    """A JPEG of about 20 MB: noise, which does not compress."""
    out = io.BytesIO()
    noise = [Image.effect_noise((4500, 3500), sigma) for sigma in (60, 70, 80)]
    Image.merge("RGB", noise).save(out, "JPEG", quality=97)
    return out.getvalue()


def numbered(picture: bytes, number: int) -> bytes:
    """The same picture as another photo: what stands behind its end does not show."""
    return picture + b"%08d" % number


def test_one_photo_of_20_mb_costs_at_most_30_mb(installation: Installation, big_photo: bytes) -> None:
    assert 17 * MIB < len(big_photo) < 24 * MIB
    assert installation.post(photo()).status_code == 200
    with watched(installation.part("web")) as peak:
        answer = installation.post(big_photo)
    assert answer.status_code == 200, answer.text
    assert peak.growth <= 30 * MIB, f"{peak.growth / MIB:.0f} MiB"


def test_32_photos_of_20_mb_at_once_cost_at_most_200_mb(installation: Installation, big_photo: bytes) -> None:
    assert installation.post(photo()).status_code == 200
    with watched(installation.part("web")) as peak, ThreadPoolExecutor(32) as cameras:
        answers = list(cameras.map(lambda number: installation.post(numbered(big_photo, number)), range(32)))
    assert {answer.status_code for answer in answers} <= {200, 503, 504}
    assert peak.growth <= 200 * MIB, f"{peak.growth / MIB:.0f} MiB"
    assert installation.post(photo(), timeout=70).status_code in (200, 503, 504)


@pytest.mark.parametrize("url", ["/api/template-media/register", "/api/media/register"])
def test_a_picture_of_59_megapixels_that_an_administrator_brings_costs_at_most_30_mb(
    installation: Installation, database_url: str, url: str
) -> None:
    with (
        httpx.Client() as client,
        Api(installation.url, database_url, client).signed_in("boss") as boss,
        watched(installation.part("web")) as peak,
    ):
        answer = boss.post(url, files={"file": big_png()})
    assert answer.status_code == 201, answer.text
    assert peak.growth <= 30 * MIB, f"{peak.growth / MIB:.0f} MiB"


def test_a_small_picture_of_a_result_of_59_megapixels_costs_at_most_30_mb(installation: Installation) -> None:
    installation.done(
        "slot", "set", "slot-002", "--on", "--operation", "original", "--settings", '{"output": "image/png"}'
    )
    made = until(
        lambda: (answer := installation.post(big_png(), slot="slot-002")).status_code == 200 and answer,
        within_s=30,
        what="the picture",
    )
    assert made
    assert opened(made.content).size == (7700, 7700)
    with watched(installation.part("web")) as peak:
        small = [httpx.get(f"{result_link(made)}&size={edge}", timeout=30, trust_env=False) for edge in (160, 1280)]
    assert [opened(one.content).width for one in small] == [160, 1280]
    assert peak.growth <= 30 * MIB, f"{peak.growth / MIB:.0f} MiB"
