"""How files are read for an answer."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import falcon.asgi
import pytest

from photochanger.failures import ResultExpired
from photochanger.image_pool import ImagePool
from photochanger.storage import StorageAway
from photochanger.storage.local import LocalStorage
from web.pictures import Pictures

pytestmark = pytest.mark.anyio
DATA = bytes(range(256)) * 100
KEY = "results/picture.jpg"


@pytest.fixture
def store(tmp_path: Path) -> LocalStorage:
    made = LocalStorage(tmp_path / "media")
    made.prepare()
    return made


@pytest.fixture
def pictures(store: LocalStorage) -> Pictures:
    return Pictures(store, ImagePool(processes=1))


@pytest.mark.parametrize("memory", ["has it", "has a part", "has nothing", "cannot tell"])
async def test_a_picture_is_sent_whole_whatever_the_system_has_in_memory(
    memory: str, store: LocalStorage, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    def a_part(descriptor: int, buffers: list[bytearray], start: int, flags: int) -> int:
        buffers[0][:5] = b"wrong"
        return 5

    def nothing(*asked: object) -> int:
        raise BlockingIOError(errno.EAGAIN, "it would have to be read")

    if memory == "has a part":
        monkeypatch.setattr(os, "preadv", a_part)
    elif memory == "has nothing":
        monkeypatch.setattr(os, "preadv", nothing)
    elif memory == "cannot tell":
        monkeypatch.delattr(os, "RWF_NOWAIT")
    store.path(KEY).write_bytes(DATA)
    for start, length in ((0, len(DATA)), (300, 1000), (len(DATA) - 1, 1)):
        resp = falcon.asgi.Response()
        await pictures.send(resp, KEY, len(DATA), start=start, length=length)
        assert resp.data == DATA[start : start + length]


async def test_a_picture_that_is_gone_has_expired_unless_its_disk_is_away(
    store: LocalStorage, pictures: Pictures
) -> None:
    with pytest.raises(ResultExpired):
        await pictures.send(falcon.asgi.Response(), KEY, 10)
    with pytest.raises(ResultExpired):
        await pictures.whole(KEY)
    store.root.rename(store.root.with_name("unmounted"))
    with pytest.raises(StorageAway):
        await pictures.send(falcon.asgi.Response(), KEY, 10)
    with pytest.raises(StorageAway):
        await pictures.whole(KEY)
