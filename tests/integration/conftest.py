"""What the tests of the drivers share: guarded image processes, and requests made with them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from photochanger import providers
from photochanger.image_pool import ImagePool
from tests.integration.calls import Calls


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop a module: pools and clients are bound to theirs."""
    return "asyncio"


@pytest.fixture(scope="module")
async def pool(anyio_backend: str) -> AsyncIterator[ImagePool]:
    """One guarded process; whatever drivers have opened is closed with it."""
    import google.genai  # noqa: F401 - a second and a half that no job's time is to be measured with

    made = ImagePool(1)
    yield made
    made.close()
    for provider in providers.registry().values():
        await provider.close()


@pytest.fixture
def calls(tmp_path: Path, pool: ImagePool) -> Calls:
    return Calls(tmp_path, pool)
