"""One installation for the tests of the admin API: who changes its settings puts them back."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from ops.simulators import KEY, serving
from ops.simulators.openai import OpenAI
from tests.api import Api
from tests.conftest import database
from tests.installation import Installation, until
from tests.integration.calls import options
from tests.photos import photo

#: Of ``openai``, a slot that goes through its simulator.
PAID = "slot-002"


@pytest.fixture(scope="session")
def house(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Originals are kept for an hour."""
    for url in database(server_url):
        with Installation(tmp_path_factory.mktemp("home"), database_url=url) as running:
            running.done("settings", "t_original_retention_h=1", "t_sync_response_s=20")
            yield running


@pytest.fixture(scope="session")
def known(house: Installation) -> Iterator[Api]:
    """The same, with accounts."""
    assert house._database_url is not None
    with httpx.Client(base_url=house.url, trust_env=False, timeout=30) as client:
        yield Api(house.url, house._database_url, client)


@pytest.fixture(scope="session")
def boss(known: Api) -> Iterator[httpx.Client]:
    """Somebody who may do everything."""
    with known.signed_in("boss") as client:
        yield client


@pytest.fixture(scope="session")
def vendor(house: Installation) -> Iterator[OpenAI]:
    """OpenAI's simulator, and ``PAID`` set to it."""
    with serving(OpenAI()) as simulator:
        given = options("openai", simulator.url, models={"gpt-image-1-mini": {"usual_s": 0.3}})
        house.done("secrets", "set", "openai", stdin=KEY)
        house.done("settings", f"providers={json.dumps({'openai': given})}")
        route = {"rungs": [{"provider": "openai", "operation": "image_edit", "settings": {"prompt": "x"}}]}
        house.done("slot", "set", PAID, "--on", "--route", json.dumps(route))
        until(lambda: house.post(photo(64, 48), slot=PAID).status_code == 200, within_s=20, what="the slot is on")
        yield simulator


@pytest.fixture
def openai(vendor: OpenAI) -> Iterator[OpenAI]:
    """The simulator; as it was, afterwards."""
    yield vendor
    vendor.mode, vendor.keys = "success", {KEY}
