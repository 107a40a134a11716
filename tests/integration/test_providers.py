"""The conformance suite: what every driver of the registry must do, whatever it speaks to."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from photochanger import images, providers
from photochanger.failures import InvalidImage, ProviderError
from photochanger.image_pool import ImagePool
from photochanger.providers import Request
from tests.photos import opened, photo

pytestmark = pytest.mark.anyio
FORMS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
CASES = [
    (provider.name, operation.id, mime)
    for provider in providers.registry().values()
    for operation in provider.operations.values()
    for mime in sorted(operation.input_mime & FORMS.keys())
]
OPERATIONS = sorted({(provider, operation) for provider, operation, _ in CASES})


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def pool(anyio_backend: str) -> AsyncIterator[ImagePool]:
    made = ImagePool(1)
    yield made
    made.close()


Make = Callable[..., Request]


@pytest.fixture
def request_for(tmp_path: Path, pool: ImagePool) -> Make:
    def make(
        operation: str, data: bytes, mime: str = "image/jpeg", *, timeout_s: float = 20, **settings: Any
    ) -> Request:
        source = tmp_path / "photo"
        source.write_bytes(data)
        return Request(
            operation=operation,
            settings=settings,
            photo=source,
            photo_mime=mime,
            max_pixels=110_000_000,
            result=tmp_path / "result",
            run_guarded=partial(pool.run, timeout_s=timeout_s),
        )

    return make


@pytest.mark.parametrize(("provider", "operation", "mime"), CASES)
async def test_every_operation_takes_every_type_it_names(
    provider: str, operation: str, mime: str, request_for: Make
) -> None:
    data = photo(120, 80, FORMS[mime])
    made = await providers.registry()[provider].transform(request_for(operation, data, mime), 20)
    written = made.path.read_bytes()
    assert (made.bytes, made.sha256) == (len(written), hashlib.sha256(written).hexdigest())
    picture = opened(written)
    assert picture.size == (made.width, made.height)
    assert images.ACCEPTED[str(picture.format)][0] == made.mime
    assert written != data


@pytest.mark.parametrize(("provider", "operation"), OPERATIONS)
async def test_a_damaged_photo_is_the_photos_fault(provider: str, operation: str, request_for: Make) -> None:
    whole = photo(400, 300)
    with pytest.raises(InvalidImage):
        await providers.registry()[provider].transform(request_for(operation, whole[: len(whole) // 2]), 20)


@pytest.mark.parametrize(("provider", "operation"), OPERATIONS)
async def test_a_time_limit_ends_the_call_with_words(provider: str, operation: str, request_for: Make) -> None:
    request = request_for(operation, photo(4000, 3000), timeout_s=0.02)
    with pytest.raises(ProviderError, match="not finished within"):
        await providers.registry()[provider].transform(request, 0.02)


@pytest.mark.parametrize(("provider", "operation"), OPERATIONS)
async def test_a_cancelled_call_ends_at_once(provider: str, operation: str, request_for: Make) -> None:
    call = asyncio.create_task(providers.registry()[provider].transform(request_for(operation, photo(5000, 4000)), 20))
    await asyncio.wait({call}, timeout=0.1)
    began = time.monotonic()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("provider", sorted(providers.registry()))
async def test_every_operation_describes_itself(provider: str) -> None:
    for operation in providers.registry()[provider].operations.values():
        assert operation.json_schema()["type"] == "object"
        assert set(operation.name) == {"en", "ru"}
        assert operation.input_mime
