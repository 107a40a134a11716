"""What a slot and the settings of its providers must be before they are saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image

from photochanger import images, providers, settings, slots, templates
from photochanger.access import options_of
from photochanger.db import Database
from photochanger.failures import InvalidImage, InvalidSettings
from photochanger.image_pool import ImagePool
from photochanger.settings import Settings
from photochanger.slots import Route, Rung, Slot
from photochanger.storage.local import LocalStorage
from tests.photos import opened, photo

pytestmark = pytest.mark.anyio


async def saved(db: Database, provider: str, operation: str, **given: Any) -> Slot:
    first = (await slots.all_slots(db))["slot-001"]
    route = Route(rungs=[Rung(provider=provider, operation=operation, settings=given)])
    return await slots.save(db, first.model_copy(update={"route": route}))


@pytest.mark.parametrize(
    ("provider", "operation", "given", "field"),
    [
        ("gemini", "image_edit", {}, "prompt"),
        ("gemini", "image_edit", {"prompt": "x", "model": "gemini-9"}, "model"),
        ("gemini", "image_edit", {"prompt": "x", "model": "gemini-2.5-flash-image", "image_size": "1K"}, "image_size"),
        ("gemini", "image_edit", {"prompt": "x", "aspect_ratio": "7:5"}, "aspect_ratio"),
        ("gemini", "image_edit", {"prompt": "x", "send_edge": 99}, "send_edge"),
        ("gemini", "style_transfer", {}, "template"),
        ("gemini", "image_edit", {"prompt": "x", "templates": [str(uuid4())] * 9}, "templates"),
        ("turbotext", "image_edit", {"prompt": "x", "strength": 81}, "strength"),
        ("turbotext", "image_edit", {"prompt": "x", "negative_prompt": "no " * 81}, "negative_prompt"),
        ("openai", "image_edit", {"prompt": "x", "size": "7x7"}, "size"),
        ("openai", "image_edit", {"prompt": "x", "unknown": 1}, "unknown"),
        ("local", "filter", {"filter": "nothing"}, "filter"),
    ],
)
async def test_settings_that_cannot_work_are_refused_by_name(
    provider: str, operation: str, given: dict[str, Any], field: str, db: Database
) -> None:
    await settings.save(db, {"public_base_url": "https://photos.example.com"})
    with pytest.raises(InvalidSettings) as refused:
        await saved(db, provider, operation, **given)
    assert refused.value.errors[0].field.startswith(f"route.rungs.0.settings.{field}")
    assert (await slots.all_slots(db))["slot-001"].version == 1


async def test_all_that_is_wrong_with_a_route_is_said_at_once(db: Database) -> None:
    steps = [
        Rung(provider="gemini", operation="image_edit", settings={"send_edge": 9}),
        Rung(provider="nobody", operation="image_edit"),
        Rung(provider="local", operation="filter"),
        Rung(provider="turbotext", operation="image_edit", settings={"prompt": "x"}),
    ]
    with pytest.raises(InvalidSettings) as refused:
        slots.check_route(Route(rungs=steps), await settings.load(db))
    assert {one.field for one in refused.value.errors} == {
        "route.rungs.0.settings.send_edge",
        "route.rungs.0.settings.prompt",
        "route.rungs.1.provider",
        "route.rungs.3.provider",
    }


async def test_a_provider_that_fetches_from_us_needs_our_address(db: Database) -> None:
    with pytest.raises(InvalidSettings, match="set public_base_url"):
        await saved(db, "turbotext", "image_edit", prompt="x")
    await settings.save(db, {"public_base_url": "https://photos.example.com"})
    assert (await saved(db, "turbotext", "image_edit", prompt="x")).version == 2


async def test_a_template_that_is_not_there_is_refused(db: Database) -> None:
    with pytest.raises(InvalidSettings, match="There is no template") as refused:
        await saved(db, "gemini", "image_edit", prompt="x", templates=[str(uuid4())])
    assert [one.field for one in refused.value.errors] == ["route.rungs.0.settings.templates"]


async def test_what_is_allowed_but_unwise_is_said(db: Database) -> None:
    slow = await saved(db, "openai", "image_edit", prompt="x", model="gpt-image-2")
    [found] = slots.warnings(slow.route, Settings())
    assert (found.code, found.words) == ("slow", "openai/image_edit usually takes 50 s; the camera waits 48 s")
    old = await saved_again(db, slow, "gemini", model="gemini-2.5-flash-image")
    assert [one.code for one in slots.warnings(old.route, Settings())] == ["retiring"]
    good = await saved_again(db, old, "gemini")
    assert slots.warnings(good.route, Settings()) == []


async def saved_again(db: Database, slot: Slot, provider: str, **given: Any) -> Slot:
    rung = Rung(provider=provider, operation="image_edit", settings={"prompt": "x", **given})
    return await slots.save(db, slot.model_copy(update={"route": Route(rungs=[rung])}))


async def test_the_catalogue_is_data(db: Database) -> None:
    catalogue = {"gemini-9-image": {"image_sizes": ["8K"], "usual_s": 3}}
    await settings.save(db, {"providers": {"gemini": {"models": catalogue}}})
    made = await saved(db, "gemini", "image_edit", prompt="x", model="gemini-9-image")
    assert made.route.rungs[0].settings["model"] == "gemini-9-image"
    driver = providers.registry()["gemini"]
    options = options_of(driver, await settings.load(db))
    assert list(driver.models(options)) == ["gemini-9-image"]
    assert driver.usual_for(made.route.rungs[0].settings, options) == 3
    with pytest.raises(InvalidSettings):
        await saved_again(db, made, "gemini", model="gemini-3-pro-image")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"nobody": {}}, "'nobody' is not a provider"),
        ({"gemini": {"base_url": "https://https://x.example"}}, "gemini.base_url: It must be an http"),
        ({"gemini": {"api_version": "beta"}}, "gemini.api_version"),
        ({"turbotext": {"poll_s": 0}}, "turbotext.poll_s"),
        ({"openai": {"unknown": 1}}, "openai.unknown"),
        ({"openai": {"models": {"x": {"usual_s": -1}}}}, "openai.models.x.usual_s"),
    ],
)
async def test_options_that_cannot_be_are_refused_and_nothing_is_saved(
    given: dict[str, Any], words: str, db: Database
) -> None:
    with pytest.raises(InvalidSettings, match=words):
        await settings.save(db, {"providers": given})
    assert (await settings.load(db)).providers == {}


@pytest.mark.parametrize("address", ["http://10.0.0.7:9001", "http://evil.example", "http://127.0.0.1.evil.example"])
async def test_a_key_is_not_sent_in_the_open(address: str, db: Database) -> None:
    for save in (
        settings.save(db, {"providers": {"openai": {"base_url": address}}}),
        settings.save_provider(db, "openai", {"base_url": address}, actor="boss"),
    ):
        with pytest.raises(InvalidSettings, match="It must be https, since the key is sent there"):
            await save


async def test_a_key_is_sent_by_plain_http_to_this_machine_and_to_where_it_is_allowed(db: Database) -> None:
    for address in ("http://127.0.0.1:9001", "http://localhost", "http://[::1]:9001", "https://gateway.example"):
        await settings.save_provider(db, "openai", {"base_url": address}, actor="boss")
    await settings.save(db, {"allowed_private_hosts": ["10.0.0.7:9001"]})
    await settings.save_provider(db, "openai", {"base_url": "http://10.0.0.7:9001/v1"}, actor="boss")
    with pytest.raises(InvalidSettings, match=r"name 10\.0\.0\.7:9001 in allowed_private_hosts"):
        await settings.save(db, {"allowed_private_hosts": []})


async def test_options_of_another_version_stop_that_provider_only(db: Database) -> None:
    await db.fetch("INSERT INTO app_settings VALUES ('providers', '{\"gemini\": {\"long_gone\": 1}}')")
    current = await settings.load(db)
    assert options_of(providers.registry()["openai"], current)
    with pytest.raises(InvalidSettings, match=r"providers\.gemini\.long_gone"):
        options_of(providers.registry()["gemini"], current)
    assert (await settings.save(db, {"plain_links": True})).plain_links


@pytest.mark.parametrize("address", ["https://a.example:99999", "https://a.example:0", "https://https://a.example"])
async def test_an_address_with_no_port_is_refused(address: str, db: Database) -> None:
    with pytest.raises(InvalidSettings):
        await settings.save(db, {"public_base_url": address})
    with pytest.raises(InvalidSettings):
        await settings.save(db, {"providers": {"openai": {"base_url": address}}})


@pytest.mark.parametrize(
    ("mode", "form", "mime"),
    [
        ("RGB", "JPEG", "image/jpeg"),
        ("RGB", "WEBP", "image/jpeg"),
        ("RGB", "HEIF", "image/jpeg"),
        ("RGBA", "WEBP", "image/png"),
        ("RGB", "PNG", "image/png"),
    ],
)
async def test_a_template_is_stored_as_every_provider_takes_it(
    mode: str, form: str, mime: str, db: Database, storage: LocalStorage, pool: ImagePool, tmp_path: Path
) -> None:
    source = tmp_path / "template"
    colour = (200, 30, 30, 120)[: len(mode)]
    Image.new(mode, (5000, 1000), colour).save(source, form)
    template_id = str(await templates.add(db, storage, pool, source, name="a template"))
    (found,) = (await templates.files(db, storage, {"template": template_id}))["template"]
    assert found.mime == mime
    picture = opened(found.path.read_bytes())
    assert max(picture.size) == images.KEPT_EDGE
    (row,) = await templates.listing(db)
    assert (row["mime"], row["width"], row["height"]) == (mime, *picture.size)
    assert storage.keys("tmp") == []


async def test_a_damaged_template_is_not_stored(
    db: Database, storage: LocalStorage, pool: ImagePool, tmp_path: Path
) -> None:
    source = tmp_path / "template"
    source.write_bytes(photo(400, 300)[:2000])
    with pytest.raises(InvalidImage):
        await templates.add(db, storage, pool, source, name="a template")
    assert storage.keys("templates") == storage.keys("tmp") == []
    assert await templates.listing(db) == []


async def test_several_templates_come_in_the_order_the_slot_names_them(
    db: Database, storage: LocalStorage, pool: ImagePool, tmp_path: Path
) -> None:
    ids = []
    for width in (70, 50, 60):
        source = tmp_path / "template"
        source.write_bytes(photo(width, 40))
        ids.append(str(await templates.add(db, storage, pool, source, name="a template")))
    found = (await templates.files(db, storage, {"templates": ids}))["templates"]
    assert [opened(one.path.read_bytes()).width for one in found] == [70, 50, 60]
    with pytest.raises(InvalidSettings, match="is gone"):
        await templates.files(db, storage, {"templates": [*ids, str(uuid4())]})
