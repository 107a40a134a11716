"""The simulators themselves: a seed draws the same again, calls in hand are counted, a hang-up is noticed at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest

from ops.simulators import KEY, commanded, serving
from ops.simulators.openai import OpenAI
from tests.photos import photo

pytestmark = pytest.mark.anyio
MIX = {"http_500": 3, "http_429": 1}


@pytest.fixture
def openai() -> Iterator[OpenAI]:
    with serving(OpenAI()) as simulator:
        yield simulator


@pytest.fixture
async def http(anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=20, trust_env=False) as client:
        yield client


async def edit(http: httpx.AsyncClient, simulator: OpenAI) -> int:
    """One paid call, as the driver makes it; its status."""
    answer = await http.post(
        f"{simulator.url}/v1/images/edits",
        data={"model": "gpt-image-1-mini", "prompt": "x", "output_format": "jpeg"},
        files=[("image[]", ("photo.jpg", photo(64, 48), "image/jpeg"))],
        headers={"Authorization": f"Bearer {KEY}"},
    )
    return answer.status_code


async def until(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - the simulator counts in a thread of its own
            await asyncio.sleep(0.005)


async def hung_up(calls: list[asyncio.Task[int]]) -> None:
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_mix_is_drawn_again_with_the_same_seed(http: httpx.AsyncClient, openai: OpenAI) -> None:
    openai.mix = {**MIX}
    seen = []
    for seed in (7, 7, 8):
        openai.replay(seed)
        seen.append([await edit(http, openai) for _ in range(20)])
    assert seen[0] == seen[1] != seen[2]
    assert set(seen[0]) == {500, 429}
    assert seen[0].count(500) > seen[0].count(429)


async def test_the_script_goes_before_the_mix_and_the_mix_before_the_mode(
    http: httpx.AsyncClient, openai: OpenAI
) -> None:
    openai.script.extend(["http_503", "success"])
    openai.mix = {"http_429": 1}
    openai.mode = "http_500"
    assert [await edit(http, openai) for _ in range(3)] == [503, 200, 429]
    openai.mix = {}
    assert await edit(http, openai) == 500


async def test_some_calls_take_many_times_as_long(http: httpx.AsyncClient, openai: OpenAI) -> None:
    openai.latency_s, openai.tail_factor = 0.02, 20
    openai.tail_share = 1
    began = time.monotonic()
    await edit(http, openai)
    assert time.monotonic() - began >= 0.4
    openai.tail_share = 0.25
    openai.replay(1)
    drawn = [openai.drawn_s() for _ in range(400)]
    assert 60 < sum(latency_s > 0.3 for latency_s in drawn) < 140


@pytest.mark.parametrize("mode", ["success", "hang", "hang_after_headers", "trickle"])
async def test_calls_in_hand_are_counted_until_their_clients_hang_up(
    mode: str, http: httpx.AsyncClient, openai: OpenAI
) -> None:
    openai.mode = mode
    openai.latency_s = 20.0 if mode == "success" else 0.0
    calls = [asyncio.create_task(edit(http, openai)) for _ in range(4)]
    await until(lambda: openai.flying == 4)
    assert not openai.hang_ups
    hung_up_at = time.monotonic()
    await hung_up(calls)
    await until(lambda: not openai.flying, within_s=1.0)
    await until(lambda: len(openai.hang_ups) == 4, within_s=1.0)
    assert all(0 <= at - hung_up_at < 1.0 for at in openai.hang_ups)
    assert (openai.most_flying, openai.calls["edit"]) == (4, 4)


async def test_calls_one_after_another_are_never_two_at_once(http: httpx.AsyncClient, openai: OpenAI) -> None:
    assert [await edit(http, openai) for _ in range(3)] == [200] * 3
    assert await edit(http, openai) == 200
    await http.aclose()
    await until(lambda: not openai.flying)
    assert openai.most_flying == 1
    assert not openai.hang_ups, "closing a connection whose answers are complete is no hang-up"


async def test_what_is_set_while_it_runs_is_shown_and_what_is_wrong_changes_nothing(
    http: httpx.AsyncClient, openai: OpenAI
) -> None:
    wish = {"mix": MIX, "seed": 3, "latency_s": 0.01, "jitter_s": 0.01, "tail_share": 0.1, "tail_factor": 2}
    answer = await http.post(f"{openai.url}/_/mode", json=wish)
    assert answer.status_code == 200
    assert {name: answer.json()[name] for name in wish} == wish
    await edit(http, openai)
    for wrong in (
        {"mode": "no_such_mode"},
        {"latency_s": 5, "mix": {"success": -1}},
        {"latency_s": 5, "mix": {"no_such_mode": 1}},
        {"latency_s": "long"},
        {"latency": 5},
        {"seed": "x"},
        ["hang"],
    ):
        assert (await http.post(f"{openai.url}/_/mode", json=wrong)).status_code == 422
    shown = (await http.get(f"{openai.url}/_/calls")).json()
    assert {name: shown[name] for name in wish} == wish
    assert shown["calls"] == {"edit": 1}
    assert (shown["flying"], shown["most_flying"], shown["hang_ups"]) == (0, 1, 0)


def test_the_command_line_sets_everything_that_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--port=9001", "--mode=hang", "--latency=1", "--jitter=2", "--tail-share=0.1", "--tail-factor=4"]
    simulator, port = commanded(OpenAI, [*flags, "--seed=5", "--mix", json.dumps(MIX)])
    assert (port, simulator.url) == (9001, "http://127.0.0.1:9001")
    numbers = {"latency_s": 1.0, "jitter_s": 2.0, "tail_share": 0.1, "tail_factor": 4.0}
    assert simulator.settings() == {"mode": "hang", "script": [], "mix": MIX, "seed": 5, **numbers}
    with pytest.raises(SystemExit):
        commanded(OpenAI, ["--port", "1", "--mix", '{"no_such_mode": 1}'])
    assert "no such mode: no_such_mode" in capsys.readouterr().err
