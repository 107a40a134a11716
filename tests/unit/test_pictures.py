"""How files are read for an answer."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import falcon.asgi
import pytest

from photochanger.failures import ResultExpired
from web.pictures import send_file

pytestmark = pytest.mark.anyio
DATA = bytes(range(256)) * 100


@pytest.mark.parametrize("memory", ["has it", "has a part", "has nothing", "cannot tell"])
async def test_a_picture_is_sent_whole_whatever_the_system_has_in_memory(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    picture = tmp_path / "picture"
    picture.write_bytes(DATA)
    for start, length in ((0, len(DATA)), (300, 1000), (len(DATA) - 1, 1)):
        resp = falcon.asgi.Response()
        await send_file(resp, picture, len(DATA), start=start, length=length)
        assert resp.data == DATA[start : start + length]


async def test_a_picture_that_is_gone_has_expired(tmp_path: Path) -> None:
    with pytest.raises(ResultExpired):
        await send_file(falcon.asgi.Response(), tmp_path / "gone", 10)
