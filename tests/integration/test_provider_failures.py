"""Every way a provider can fail, through the router: the job's code, whether it was tried again, how often it was paid.

The table at the end of the test run is made of what these tests saw.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from ops.simulators import KEY, Simulator, serving
from ops.simulators.turbotext import Turbotext
from photochanger import access, jobs, providers, settings, slots, templates, usual, vault
from photochanger.config import Config
from photochanger.db import Database
from photochanger.deadlines import STORE_S
from photochanger.gate import Gate
from photochanger.image_pool import ImagePool
from photochanger.jobs import Claim
from photochanger.routing import Router
from photochanger.rungs import AttemptFailed, Served, Surroundings
from photochanger.slots import Route, Rung
from photochanger.storage.local import LocalStorage
from photochanger.tokens import master_keys
from tests.integration.calls import NEEDED, PAID, SIMULATORS, options, simulated
from tests.integration.jobs_made import submitted
from tests.photos import photo
from tests.servers import web

pytestmark = pytest.mark.anyio

OPERATION = {"gemini": "style_transfer", "turbotext": "image_edit", "openai": "image_edit"}
#: Seconds: a job that is to run into its deadline, and one that is not.
SHORT_S, LONG_S = 2.5, 20.0


class Expected(NamedTuple):
    """``code`` is ``None`` for a picture. ``calls``: how often the provider is paid."""

    code: str | None
    calls: int


_SAME: Mapping[str, Expected] = {
    "success": Expected(None, 1),
    "hang": Expected("sync_timeout", 1),
    "hang_after_headers": Expected("sync_timeout", 1),
    "trickle": Expected("sync_timeout", 1),
    "http_500": Expected("provider_error", 2),
    "http_503": Expected("provider_error", 2),
    "http_429": Expected("provider_quota", 1),
    "http_429_hint": Expected("provider_quota", 2),
    "html": Expected("provider_bad_output", 2),
    "redirect": Expected("provider_error", 2),
    "huge": Expected("provider_bad_output", 2),
    "gzip_bomb": Expected("provider_bad_output", 2),
    "truncated": Expected("provider_bad_output", 2),
    "corrupt": Expected("provider_bad_output", 2),
    "wrong_mime": Expected("provider_bad_output", 2),
    "text_as_picture": Expected("provider_bad_output", 2),
    "auth": Expected("provider_auth", 1),
    "quota": Expected("provider_quota", 1),
    "bad_request": Expected("invalid_settings", 1),
}
_REFUSED, _NO_IMAGE = Expected("provider_refused", 1), Expected("provider_no_image", 2)
EXPECTED: Mapping[str, Mapping[str, Expected]] = {
    "gemini": {
        **_SAME,
        "text_only": _NO_IMAGE,
        "no_candidates": _NO_IMAGE,
        "thought_only": _NO_IMAGE,
        "finish_NO_IMAGE": _NO_IMAGE,
        "finish_IMAGE_OTHER": _NO_IMAGE,
        "finish_SAFETY": _REFUSED,
        "finish_PROHIBITED_CONTENT": _REFUSED,
        "finish_SPII": _REFUSED,
        "finish_RECITATION": _REFUSED,
        "finish_IMAGE_SAFETY": _REFUSED,
        "finish_IMAGE_PROHIBITED_CONTENT": _REFUSED,
        "finish_IMAGE_RECITATION": _REFUSED,
        "block_SAFETY": _REFUSED,
        "block_OTHER": _REFUSED,
        "block_BLOCKLIST": _REFUSED,
        "block_PROHIBITED_CONTENT": _REFUSED,
        "block_IMAGE_SAFETY": _REFUSED,
        "retiring": Expected(None, 1),
    },
    "turbotext": {
        **_SAME,
        # Turbotext says "no" in its own JSON; its words are kept, and the same would be declined again.
        "bad_request": Expected("provider_error", 1),
        "declined": Expected("provider_error", 1),
        "failed": Expected("provider_error", 1),
        "forbidden": _REFUSED,
        # shortly before the deadline: what is paid for is not given up
        "no_address": Expected("provider_bad_output", 1),
        "never_done": Expected("sync_timeout", 1),
        "broken_polls": Expected(None, 1),
        "garbled_polls": Expected(None, 1),
        "hanging_poll": Expected(None, 1),
        "busy_polls": Expected("provider_quota", 1),
        "late_file": Expected(None, 1),
        "moved": Expected("provider_bad_output", 1),
        "inner_address": Expected("provider_bad_output", 1),
        "result_hang": Expected("sync_timeout", 1),
        "result_hang_after_headers": Expected("sync_timeout", 1),
        "result_trickle": Expected("sync_timeout", 1),
        "result_html": Expected("provider_bad_output", 2),
        "result_huge": Expected("provider_bad_output", 2),
        "result_gzip_bomb": Expected("provider_bad_output", 2),
    },
    "openai": {
        **_SAME,
        "moderation": _REFUSED,
        "no_image": _REFUSED,
        "not_base64": Expected("provider_bad_output", 2),
    },
}
CASES = [(name, mode) for name, simulator in SIMULATORS.items() for mode in simulator.modes()]


class Bench:
    """A router with its database and store, and one slot for every provider."""

    def __init__(self, db: Database, storage: LocalStorage, pool: ImagePool, config: Config) -> None:
        self.db = db
        self.storage = storage
        self.pool = pool
        self.keys = master_keys(config)
        self.router = Router(
            Surroundings(
                db,
                storage,
                pool,
                providers.registry(),
                access=lambda provider: access.to(provider, db, self.keys, config),
                gate=Gate(db, lambda: None),
                times=lambda: usual.load(db),
                settings=lambda: settings.load(db),
            )
        )

    async def slot(self, name: str, operation: str, given: Mapping[str, Any], **rung: Any) -> None:
        """Routes ``slot-001`` through one rung."""
        current = (await slots.all_slots(self.db))["slot-001"]
        route = Route(rungs=[Rung(provider=name, operation=operation, settings=dict(given), pause_s=0.05, **rung)])
        await slots.save(self.db, current.model_copy(update={"route": route}))

    async def claimed(self, *, t_sync_s: float, data: bytes | None = None) -> Claim:
        job_id = await submitted(self.db, self.storage, t_sync_s=t_sync_s, data=data or photo(320, 240))
        claim = await jobs.claim(self.db, job_id, usual_s=await self.router.usual_s())
        assert claim is not None
        return claim

    async def served(self, claim: Claim) -> Served | AttemptFailed:
        """How routing ends; a failure ends the job, as the actor does it."""
        deadline = time.monotonic() + claim.remaining_s
        try:
            served = await self.router.serve(claim, deadline=deadline)
        except AttemptFailed as failed:
            await jobs.fail(self.db, claim, failed.failure, attempt=failed.attempt)
            return failed
        assert served is not None
        return served

    async def attempts(self, job_id: UUID) -> list[dict[str, Any]]:
        return await self.db.fetch("SELECT * FROM attempt WHERE job_id = %(id)s ORDER BY id", {"id": job_id})


@pytest.fixture
async def bench(db: Database, storage: LocalStorage, pool: ImagePool, config: Config) -> Bench:
    return Bench(db, storage, pool, config)


@pytest.fixture
def address(config: Config, db: Database) -> Iterator[str]:
    """Where providers fetch our media."""
    with web(config) as url:
        yield url


async def configured(bench: Bench, name: str, simulator: Simulator, address: str, **more: Any) -> None:
    """Points the provider at its simulator, with a stored key and times that let a second try fit."""
    quick: dict[str, Any] = {"usual_s": 0.2}
    driver = providers.registry()[name]
    models = driver.models(driver.options())
    given = {"models": {model: dict(quick) for model in models}} if models else quick
    host = simulator.url.removeprefix("http://")
    await settings.save(
        bench.db,
        {
            "providers": {name: options(name, simulator.url, **given, **more)},
            "allowed_private_hosts": [host],
            "public_base_url": address,
        },
    )
    await vault.store(bench.db, bench.keys, name, KEY)


async def needed(bench: Bench, name: str, operation: str, tmp_path: Path) -> dict[str, Any]:
    """What the operation must be told; its template is stored first."""
    given = dict(NEEDED[(name, operation)])
    if "template" in given:
        source = tmp_path / "template.png"
        source.write_bytes(photo(90, 60, "PNG"))
        given["template"] = str(await templates.add(bench.db, bench.storage, bench.pool, source, name="template"))
    return given


def test_the_table_names_every_mode_of_every_simulator() -> None:
    assert {name: set(modes) for name, modes in EXPECTED.items()} == {
        name: set(simulator.modes()) for name, simulator in SIMULATORS.items()
    }


@pytest.mark.parametrize(("name", "mode"), CASES)
async def test_every_failure_has_its_code_its_retry_and_its_number_of_calls(
    name: str,
    mode: str,
    bench: Bench,
    address: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    expected = EXPECTED[name][mode]
    short = expected.code == "sync_timeout" or mode in ("no_address", "busy_polls")
    with simulated(name) as simulator:
        assert simulator is not None
        await configured(bench, name, simulator, address)
        await bench.slot(name, OPERATION[name], await needed(bench, name, OPERATION[name], tmp_path))
        simulator.mode = mode
        claim = await bench.claimed(t_sync_s=SHORT_S if short else LONG_S)
        began = time.monotonic()
        ended = await bench.served(claim)
        seconds = time.monotonic() - began
    code = ended.failure.code if isinstance(ended, AttemptFailed) else None
    attempts = await bench.attempts(claim.job_id)
    paid = simulator.calls[PAID[name]]
    assert (code, paid) == expected, ended
    assert len(attempts) == paid, "every call is recorded, and nothing else is"
    assert [row["cause"] for row in attempts if row["cause"]] == ([code] * paid if code else [])
    assert all(row["detail"] for row in attempts if row["cause"]), "no failure is without an explanation"
    assert not simulator.calls["elsewhere"], "no redirect is followed"
    assert seconds < claim.remaining_s - STORE_S + 0.3, "the store still has its second"
    left = {kind: list((bench.storage.root / kind).iterdir()) for kind in ("tmp", "media")}
    kept = 0 if isinstance(ended, AttemptFailed) else 1
    assert (len(left["tmp"]), left["media"]) == (kept, []), "a failed call leaves no file"
    detail = ended.failure.detail if isinstance(ended, AttemptFailed) else ended.served_by
    again = "yes" if paid > 1 else "no"
    record_property("provider call", (name, mode, code or "picture", again, paid, detail))


@pytest.mark.parametrize("name", ["gemini", "openai"])
async def test_prices_in_dollars_are_counted_in_the_studios_currency(name: str, bench: Bench, address: str) -> None:
    costs = []
    with simulated(name) as simulator:
        assert simulator is not None
        await configured(bench, name, simulator, address)
        await settings.save(bench.db, {"providers": {name: options(name, simulator.url)}})  # the catalogue's own prices
        await bench.slot(name, "image_edit", NEEDED[(name, "image_edit")])
        for rate in (1, 90):
            await settings.save(bench.db, {"usd_rate": rate})
            claim = await bench.claimed(t_sync_s=LONG_S)
            served = await bench.served(claim)
            assert isinstance(served, Served), served
            costs.append(served.picture.cost)
    assert costs[0] > 0
    assert costs[1] == pytest.approx(90 * costs[0])


async def test_a_damaged_photo_is_not_sent_and_is_no_attempt(bench: Bench, address: str, tmp_path: Path) -> None:
    whole = photo(400, 300)
    for name in SIMULATORS:
        with simulated(name) as simulator:
            assert simulator is not None
            await configured(bench, name, simulator, address)
            await bench.slot(name, OPERATION[name], await needed(bench, name, OPERATION[name], tmp_path))
            claim = await bench.claimed(t_sync_s=LONG_S, data=whole[: len(whole) // 2])
            ended = await bench.served(claim)
            assert isinstance(ended, AttemptFailed)
            assert ended.failure.code == "invalid_image"
            assert await bench.attempts(claim.job_id) == []
            assert not simulator.calls


async def test_what_is_broken_in_us_ends_the_job_with_its_cause(bench: Bench, address: str) -> None:
    with simulated("openai") as simulator:
        assert simulator is not None
        await configured(bench, "openai", simulator, address)
        await bench.slot("openai", "image_edit", {"prompt": "x"})
        await bench.db.fetch("ALTER TABLE provider_secret RENAME TO elsewhere")
        ended = await bench.served(await bench.claimed(t_sync_s=LONG_S))
        assert isinstance(ended, AttemptFailed)
        assert ended.failure.code == "internal_error"
        assert "UndefinedTable" in ended.failure.detail


async def test_what_failed_once_may_succeed(bench: Bench, address: str, tmp_path: Path) -> None:
    for name in SIMULATORS:
        with simulated(name) as simulator:
            assert simulator is not None
            await configured(bench, name, simulator, address)
            await bench.slot(name, OPERATION[name], await needed(bench, name, OPERATION[name], tmp_path))
            simulator.script.append("http_503")
            claim = await bench.claimed(t_sync_s=LONG_S)
            ended = await bench.served(claim)
            assert isinstance(ended, Served)
            first, second = await bench.attempts(claim.job_id)
            assert (first["cause"], first["responded_at"] is not None) == ("provider_error", True)
            assert second["id"] == ended.attempt


async def test_nothing_is_tried_again_that_the_time_does_not_hold(bench: Bench, address: str, tmp_path: Path) -> None:
    with simulated("openai", mode="http_503") as simulator:
        assert simulator is not None
        await configured(bench, "openai", simulator, address)
        current = await settings.load(bench.db)
        slow = {name: {"usual_s": 30} for name in current.providers["openai"]["models"]}
        await settings.save(bench.db, {"providers": {"openai": {**current.providers["openai"], "models": slow}}})
        await bench.slot("openai", "image_edit", {"prompt": "x"})
        assert isinstance(await bench.served(await bench.claimed(t_sync_s=LONG_S)), AttemptFailed)
        assert simulator.calls["edit"] == 1


async def test_a_hint_that_does_not_fit_is_not_waited_for(bench: Bench, address: str) -> None:
    with simulated("openai", mode="http_429_hint") as simulator:
        assert simulator is not None
        await configured(bench, "openai", simulator, address)
        await bench.slot("openai", "image_edit", {"prompt": "x"})
        began = time.monotonic()
        ended = await bench.served(await bench.claimed(t_sync_s=2.1))
        assert isinstance(ended, AttemptFailed)
        assert simulator.calls["edit"] == 1
        assert time.monotonic() - began < 1


async def test_the_slot_says_how_often_and_how_long(bench: Bench, address: str) -> None:
    with simulated("openai", mode="http_503") as simulator:
        assert simulator is not None
        await configured(bench, "openai", simulator, address)
        await bench.slot("openai", "image_edit", {"prompt": "x"}, max_tries=4)
        await bench.served(await bench.claimed(t_sync_s=LONG_S))
        assert simulator.calls["edit"] == 4
        await bench.slot("openai", "image_edit", {"prompt": "x"}, max_tries=1)
        await bench.served(await bench.claimed(t_sync_s=LONG_S))
        assert simulator.calls["edit"] == 5


async def test_a_rungs_own_time_limit_is_told_from_the_deadline(bench: Bench, address: str) -> None:
    with simulated("openai", mode="hang") as simulator:
        assert simulator is not None
        await configured(bench, "openai", simulator, address)
        await bench.slot("openai", "image_edit", {"prompt": "x"}, timeout_s=0.4)
        ended = await bench.served(await bench.claimed(t_sync_s=LONG_S))
        assert isinstance(ended, AttemptFailed)
        assert ended.failure.code == "provider_error"
        assert "within its 0.4 s" in ended.failure.detail
        assert simulator.calls["edit"] == 2


async def test_without_a_key_nothing_is_called(bench: Bench, address: str) -> None:
    with simulated("openai") as simulator:
        assert simulator is not None
        await configured(bench, "openai", simulator, address)
        await vault.forget(bench.db, "openai")
        await bench.slot("openai", "image_edit", {"prompt": "x"})
        claim = await bench.claimed(t_sync_s=LONG_S)
        ended = await bench.served(claim)
        assert isinstance(ended, AttemptFailed)
        assert ended.failure.code == "provider_auth"
        assert "photochanger secrets set openai" in ended.failure.detail
        assert not simulator.calls
        assert await bench.attempts(claim.job_id) == []


async def test_a_changed_key_is_in_effect_on_the_next_call(bench: Bench, address: str, tmp_path: Path) -> None:
    for name in SIMULATORS:
        with simulated(name) as simulator:
            assert simulator is not None
            await configured(bench, name, simulator, address)
            await bench.slot(name, OPERATION[name], await needed(bench, name, OPERATION[name], tmp_path))
            assert isinstance(await bench.served(await bench.claimed(t_sync_s=LONG_S)), Served)
            simulator.keys = {"another-key"}
            await vault.store(bench.db, bench.keys, name, "another-key")
            assert isinstance(await bench.served(await bench.claimed(t_sync_s=LONG_S)), Served)


async def test_what_is_paid_for_is_polled_on_after_a_crash(bench: Bench, address: str) -> None:
    with simulated("turbotext", mode="never_done") as simulator:
        assert isinstance(simulator, Turbotext)
        await configured(bench, "turbotext", simulator, address)
        await bench.slot("turbotext", "image_edit", {"prompt": "x"})
        claim = await bench.claimed(t_sync_s=LONG_S)
        await jobs.remember(bench.db, claim, "turbotext/77")
        simulator.jobs["77"] = {"mode": "success", "polls": 1, "photo": photo(64, 48), "lost": 0}
        again = await jobs.claim(bench.db, claim.job_id, usual_s={"turbotext": 3600.0})
        assert again is not None, "the provider's usual time does not count any more"
        ended = await bench.served(again)
        assert isinstance(ended, Served)
        assert ended.picture.request_id == "77"
        assert not simulator.calls["create_queue"]


@pytest.mark.parametrize(("mode", "costs"), [("success", [4.5]), ("forbidden", [4.5]), ("truncated", [4.5, 4.5])])
async def test_every_create_queue_is_billed_once_whatever_came_of_it(
    mode: str, costs: list[float], bench: Bench, address: str
) -> None:
    with simulated("turbotext", mode=mode) as simulator:
        assert isinstance(simulator, Turbotext)
        await configured(bench, "turbotext", simulator, address, prices={"image_edit": 4.5})
        await bench.slot("turbotext", "image_edit", {"prompt": "x"})
        claim = await bench.claimed(t_sync_s=LONG_S)
        await bench.served(claim)
        attempts = await bench.attempts(claim.job_id)
    assert [float(row["cost"]) for row in attempts] == costs
    assert simulator.calls["create_queue"] == len(costs)


async def test_a_result_that_never_comes_says_so_before_the_deadline(bench: Bench, address: str) -> None:
    with serving(Turbotext()) as simulator:
        await configured(bench, "turbotext", simulator, address)
        await bench.slot("turbotext", "image_edit", {"prompt": "x"})
        claim = await bench.claimed(t_sync_s=SHORT_S)
        await jobs.remember(bench.db, claim, "turbotext/77")
        simulator.jobs["77"] = {"mode": "late_file", "polls": 0, "photo": photo(64, 48), "lost": 10**6}
        again = await jobs.claim(bench.db, claim.job_id, usual_s={})
        assert again is not None
        ended = await bench.served(again)
    assert isinstance(ended, AttemptFailed)
    assert ended.failure.code == "provider_error"
    assert "404" in ended.failure.detail


async def test_another_try_may_fit_although_the_rung_has_a_limit_of_its_own(bench: Bench, address: str) -> None:
    with simulated("openai", mode="http_429_hint") as simulator:
        assert simulator is not None
        await configured(bench, "openai", simulator, address)
        await bench.slot("openai", "image_edit", {"prompt": "x"}, timeout_s=0.3)
        await bench.served(await bench.claimed(t_sync_s=LONG_S))
        assert simulator.calls["edit"] == 2


async def test_unreadable_polls_do_not_forget_what_was_paid_for(bench: Bench, address: str) -> None:
    with serving(Turbotext()) as simulator:
        await configured(bench, "turbotext", simulator, address)
        await bench.slot("turbotext", "image_edit", {"prompt": "x"})
        claim = await bench.claimed(t_sync_s=LONG_S)
        await jobs.remember(bench.db, claim, "turbotext/77")
        simulator.jobs["77"] = {"mode": "garbled_polls", "polls": 0, "photo": photo(64, 48), "lost": 7}
        again = await jobs.claim(bench.db, claim.job_id, usual_s={})
        assert again is not None
        ended = await bench.served(again)
    assert isinstance(ended, Served)
    assert ended.picture.request_id == "77"
    (attempt,) = await bench.attempts(claim.job_id)
    assert attempt["request_id"] == "77"
    assert not simulator.calls["create_queue"]


@pytest.mark.parametrize("words", ["a\x00b", "a\ud800b", "x" * 100_000])
async def test_whatever_words_a_provider_finds_they_can_be_kept(words: str, bench: Bench, address: str) -> None:
    with simulated("turbotext", mode="declined") as simulator:
        assert isinstance(simulator, Turbotext)
        simulator.words = words
        await configured(bench, "turbotext", simulator, address)
        await bench.slot("turbotext", "image_edit", {"prompt": "x"})
        claim = await bench.claimed(t_sync_s=LONG_S)
        assert isinstance(await bench.served(claim), AttemptFailed)
        (attempt,) = await bench.attempts(claim.job_id)
    assert attempt["cause"] == "provider_error"
    assert 0 < len(attempt["detail"]) <= 600


async def test_a_key_in_a_providers_words_is_taken_out(bench: Bench, address: str) -> None:
    with simulated("openai") as simulator:
        assert simulator is not None
        await configured(bench, "openai", simulator, address)
        await bench.slot("openai", "image_edit", {"prompt": "x"})
        simulator.keys = {"another"}
        claim = await bench.claimed(t_sync_s=LONG_S)
        ended = await bench.served(claim)
        assert isinstance(ended, AttemptFailed)
        assert ended.failure.code == "provider_auth"
        assert KEY not in ended.failure.detail
        assert "[the key]" in ended.failure.detail
        assert KEY not in str(await bench.attempts(claim.job_id))


async def test_the_provider_gets_the_photo_stripped_and_upright_and_small(
    bench: Bench, address: str, tmp_path: Path
) -> None:
    from PIL import Image

    from tests.photos import opened

    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "A camera"
    with serving(Turbotext()) as simulator:
        await configured(bench, "turbotext", simulator, address)
        await bench.slot("turbotext", "image_edit", {"prompt": "x", "send_edge": 600})
        claim = await bench.claimed(t_sync_s=LONG_S, data=photo(1200, 800, exif=exif))
        assert isinstance(await bench.served(claim), Served)
        (job,) = simulator.jobs.values()
    sent = opened(job["photo"])
    assert sent.size == (400, 600)
    assert not sent.getexif()
