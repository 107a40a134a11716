"""The conformance suite: what every driver of the registry must do, whatever it speaks to."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from ops.simulators import Simulator
from photochanger import images, providers
from photochanger.failures import InvalidImage, ProviderError
from tests.integration.calls import PAID, Calls, simulated, until_called
from tests.photos import opened, photo

pytestmark = pytest.mark.anyio
FORMS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP", "image/heic": "HEIF"}
#: What ingest takes, every driver takes: in its own form, or made into one it does.
CASES = [
    (provider.name, operation.id, mime)
    for provider in providers.registry().values()
    for operation in provider.operations.values()
    for mime in sorted({mime for mime, _ in images.ACCEPTED.values()})
]
OPERATIONS = sorted({(provider, operation) for provider, operation, _ in CASES})


@pytest.fixture
def simulator(request: pytest.FixtureRequest) -> Iterator[Simulator | None]:
    with simulated(request.node.callspec.params["provider"]) as running:
        yield running


@pytest.mark.parametrize(("provider", "operation", "mime"), CASES)
async def test_every_operation_takes_every_type_that_ingest_takes(
    provider: str, operation: str, mime: str, calls: Calls, simulator: Simulator | None
) -> None:
    data = photo(120, 80, FORMS[mime])
    request = calls.request(provider, operation, data, simulator=simulator)
    made = await providers.registry()[provider].transform(request, 20)
    written = made.path.read_bytes()
    assert made.path == request.result
    assert (made.bytes, made.sha256) == (len(written), hashlib.sha256(written).hexdigest())
    picture = opened(written)
    assert picture.size == (made.width, made.height)
    assert images.ACCEPTED[str(picture.format)][0] == made.mime == "image/jpeg"
    assert written != data


@pytest.mark.parametrize(("provider", "operation"), OPERATIONS)
@pytest.mark.parametrize("output", ["image/png", "image/webp"])
async def test_the_guest_gets_the_type_the_slot_asks_for_and_no_metadata(
    provider: str, operation: str, output: str, calls: Calls, simulator: Simulator | None
) -> None:
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    data = photo(120, 80, exif=exif)
    request = calls.request(provider, operation, data, simulator=simulator, output=output)
    made = await providers.registry()[provider].transform(request, 20)
    picture = opened(made.path.read_bytes())
    assert images.ACCEPTED[str(picture.format)][0] == made.mime == output
    assert not picture.getexif()


@pytest.mark.parametrize("operation", sorted(providers.registry()["local"].operations))
async def test_a_damaged_photo_is_the_photos_fault(operation: str, calls: Calls) -> None:
    whole = photo(400, 300)
    with pytest.raises(InvalidImage):
        await providers.registry()["local"].transform(calls.request("local", operation, whole[: len(whole) // 2]), 20)


@pytest.mark.parametrize(("provider", "operation"), OPERATIONS)
async def test_a_cancelled_call_ends_at_once(
    provider: str, operation: str, calls: Calls, simulator: Simulator | None
) -> None:
    request = calls.request(provider, operation, photo(120, 80), simulator=simulator)
    if simulator is None:
        request.photo.unlink()
        os.mkfifo(request.photo)
        begun = _read(request.photo)
    else:
        simulator.mode = "hang"
        begun = until_called(simulator, PAID[provider])
    call = asyncio.create_task(providers.registry()[provider].transform(request, 20))
    await begun
    began = time.monotonic()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert time.monotonic() - began < 1.0


async def _read(pipe: Path, *, within_s: float = 10) -> None:
    """Waits until somebody has opened the pipe to read: who reads it now waits for ever."""
    async with asyncio.timeout(within_s):
        while True:
            with contextlib.suppress(OSError):  # ENXIO: no reader yet
                os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("provider", sorted(providers.registry()))
async def test_every_operation_describes_itself(provider: str) -> None:
    driver = providers.registry()[provider]
    options = driver.options()
    for operation in driver.operations.values():
        schema = operation.json_schema(driver.models(options))
        assert schema["type"] == "object"
        assert set(operation.name) == {"en", "ru"}
        assert operation.input_mime
        for name, field in schema["properties"].items():
            assert field.get("title"), f"{operation.id}.{name} has no title"


async def test_the_local_time_limit_ends_the_call_with_words(calls: Calls) -> None:
    request = calls.request("local", "filter", photo(4000, 3000), timeout_s=0.02)
    with pytest.raises(ProviderError, match="not finished within"):
        await providers.registry()["local"].transform(request, 0.02)
