"""Driver calls for the tests: a request as routing would make it, and simulators to send it to."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from ops.simulators import KEY, Simulator, serving
from ops.simulators.gemini import Gemini
from ops.simulators.openai import OpenAI
from ops.simulators.turbotext import Turbotext
from photochanger import images, providers
from photochanger.image_pool import ImagePool
from photochanger.providers import Access, Request, Template
from tests.photos import photo

SIMULATORS: Mapping[str, type[Simulator]] = {"gemini": Gemini, "turbotext": Turbotext, "openai": OpenAI}
TEMPLATE_ID = "00000000-0000-4000-8000-000000000001"
#: What an operation must be told beside its defaults.
NEEDED: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("gemini", "style_transfer"): {"template": TEMPLATE_ID},
    ("gemini", "image_edit"): {"prompt": "As a watercolour"},
    ("gemini", "identity_transfer"): {"template": TEMPLATE_ID},
    ("turbotext", "style_transfer"): {"template": TEMPLATE_ID},
    ("turbotext", "image_edit"): {"prompt": "Как акварель"},
    ("turbotext", "identity_transfer"): {"template": TEMPLATE_ID},
    ("openai", "image_edit"): {"prompt": "As a watercolour"},
}
#: The call that costs money.
PAID = {"gemini": "generate", "turbotext": "create_queue", "openai": "edit"}
_BASE = {"turbotext": "/api_ai", "openai": "/v1"}


def options(name: str, url: str, **more: Any) -> dict[str, Any]:
    """A provider's options that lead to its simulator at ``url``, with times short enough for tests."""
    given: dict[str, Any] = {"base_url": f"{url}{_BASE.get(name, '')}", **more}
    if name == "turbotext":
        given.setdefault("poll_s", 0.05)
    return given


@contextmanager
def simulated(name: str, **how: Any) -> Iterator[Simulator | None]:
    """The provider's simulator, running; ``None`` for the one that needs none."""
    if name not in SIMULATORS:
        yield None
        return
    with serving(SIMULATORS[name](**how)) as simulator:
        yield simulator


class Calls:
    """Makes requests in ``folder``. ``remembered`` is what drivers asked to be remembered, ``billed`` at what price."""

    def __init__(self, folder: Path, pool: ImagePool) -> None:
        self.folder = folder
        self.remembered: list[str | None] = []
        self.billed: list[float] = []
        self.scratched: list[Path] = []
        self._pool = pool
        self._numbers = itertools.count()

    def request(
        self,
        provider: str,
        operation: str,
        data: bytes,
        *,
        simulator: Simulator | None = None,
        reference: str | None = None,
        timeout_s: float = 20,
        provider_options: Mapping[str, Any] | None = None,
        files: Mapping[str, Sequence[bytes]] | None = None,
        key: str = KEY,
        **settings: Any,
    ) -> Request:
        driver = providers.registry()[provider]
        source = self._file(data)
        given = driver.operations[operation].settings.model_validate(
            {**NEEDED.get((provider, operation), {}), **settings}
        )
        whole = given.model_dump(mode="json")
        if files is None:
            files = {"template": [photo(90, 60, "PNG")]} if whole.get("template") else {}
        sent = None
        if "send_edge" in whole:
            sent = self._path()
            images.rewrite(source, sent, "image/jpeg", 110_000_000, whole["send_edge"])
        url = simulator.url if simulator else "http://127.0.0.1:9"
        their = driver.options.model_validate(
            options(provider, url, **(provider_options or {})) if driver.needs_key else {}
        )
        return Request(
            operation=operation,
            settings=whole,
            photo=source,
            came_on=date(2026, 12, 1),
            max_pixels=110_000_000,
            result=self._path(),
            run_guarded=partial(self._pool.run, timeout_s=timeout_s),
            access=Access(key=key, options=their, private_hosts=frozenset({url.removeprefix("http://")})),
            scratch=self._scratch,
            publish=partial(self._publish, simulator),
            remember=self._remember,
            reference=reference,
            templates={name: [Template(self._file(one), _mime(one)) for one in group] for name, group in files.items()},
            sent=sent,
        )

    async def _publish(self, simulator: Simulator | None, path: Path, mime: str) -> str:
        assert isinstance(simulator, Turbotext)
        return simulator.host(path.read_bytes(), mime)

    async def _remember(self, reference: str | None, *, cost: float = 0.0) -> None:
        self.remembered.append(reference)
        self.billed.append(cost)

    def _scratch(self) -> Path:
        self.scratched.append(self._path())
        return self.scratched[-1]

    def _path(self) -> Path:
        return self.folder / f"file-{next(self._numbers)}"

    def _file(self, data: bytes) -> Path:
        path = self._path()
        path.write_bytes(data)
        return path


def _mime(data: bytes) -> str:
    return "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"


async def until_called(simulator: Simulator, verb: str, *, within_s: float = 10) -> None:
    """Waits until the simulator has counted a call."""
    async with asyncio.timeout(within_s):
        while not simulator.calls[verb]:  # noqa: ASYNC110 - it counts in a thread of its own
            await asyncio.sleep(0.01)
