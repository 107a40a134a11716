"""What leaves for each operation, field by field, against the vendors' documented form."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from ops.simulators import KEY, Call, serving
from ops.simulators.gemini import Gemini, decoded, lower_camel
from ops.simulators.openai import OpenAI
from ops.simulators.turbotext import Turbotext
from photochanger import providers
from photochanger.failures import InvalidSettings, ProviderBadOutput, ProviderError, ProviderFailure
from tests.integration.calls import TEMPLATE_ID, Calls, until_called
from tests.photos import opened, photo

pytestmark = pytest.mark.anyio


@pytest.fixture
def gemini() -> Iterator[Gemini]:
    with serving(Gemini()) as running:
        yield running


@pytest.fixture
def turbotext() -> Iterator[Turbotext]:
    with serving(Turbotext()) as running:
        yield running


@pytest.fixture
def openai() -> Iterator[OpenAI]:
    with serving(OpenAI()) as running:
        yield running


def only(simulator: Gemini | Turbotext | OpenAI, verb: str) -> Call:
    (call,) = [call for name, call in simulator.seen if name == verb]
    return call


def looked_at(data: bytes) -> tuple[str | None, tuple[int, int]]:
    with Image.open(io.BytesIO(data)) as image:
        return image.format, image.size


# -- gemini ----------------------------------------------------------------------------------------------------------


def inline(part: dict[str, Any]) -> tuple[str, bytes]:
    blob = lower_camel(part)["inlineData"]
    return blob["mimeType"], decoded(blob["data"])


@pytest.mark.parametrize(
    ("operation", "settings", "templates"),
    [
        ("style_transfer", {"template": TEMPLATE_ID, "prompt": "Like that"}, {"template": 1}),
        ("identity_transfer", {"template": TEMPLATE_ID, "prompt": "Like that"}, {"template": 1}),
        ("image_edit", {"prompt": "Like that", "templates": [TEMPLATE_ID, TEMPLATE_ID]}, {"templates": 2}),
        ("image_edit", {"prompt": "Like that"}, {}),
    ],
)
async def test_gemini_gets_the_photo_then_the_templates_then_the_prompt(
    operation: str, settings: dict[str, Any], templates: dict[str, int], calls: Calls, gemini: Gemini
) -> None:
    given = {name: [photo(90 + number, 60) for number in range(count)] for name, count in templates.items()}
    request = calls.request("gemini", operation, photo(320, 200, "PNG"), simulator=gemini, files=given, **settings)
    await providers.registry()["gemini"].transform(request, 33.2)
    call = only(gemini, "generate")
    assert call.path == "/v1beta/models/gemini-3.1-flash-lite-image:generateContent"
    assert call.headers["x-goog-api-key"] == KEY
    assert KEY not in str(call.query)
    assert call.headers["x-server-timeout"] == "34"
    assert call.headers["accept-encoding"] == "identity"
    body = call.json()
    assert set(body) == {"contents", "generationConfig"}
    (content,) = body["contents"]
    assert content["role"] == "user"
    first, *others, last = content["parts"]
    assert (inline(first)[0], looked_at(inline(first)[1])) == ("image/jpeg", ("JPEG", (320, 200)))
    sizes = [looked_at(inline(part)[1])[1] for part in others]
    assert sizes == [(90 + number, 60) for count in templates.values() for number in range(count)]
    assert last == {"text": "Like that"}
    assert body["generationConfig"] == {"responseModalities": ["IMAGE"]}


async def test_gemini_gets_the_options_that_the_slot_sets(calls: Calls, gemini: Gemini) -> None:
    request = calls.request(
        "gemini",
        "image_edit",
        photo(64, 48),
        simulator=gemini,
        prompt="x",
        model="gemini-3-pro-image",
        aspect_ratio="3:2",
        image_size="2K",
        safety="BLOCK_ONLY_HIGH",
        temperature=0.4,
    )
    await providers.registry()["gemini"].transform(request, 20)
    call = only(gemini, "generate")
    assert call.path.endswith("/models/gemini-3-pro-image:generateContent")
    body = call.json()
    assert body["generationConfig"] == {
        "responseModalities": ["IMAGE"],
        "temperature": 0.4,
        "imageConfig": {"aspectRatio": "3:2", "imageSize": "2K"},
    }
    assert body["safetySettings"] == [
        {"category": f"HARM_CATEGORY_{name}", "threshold": "BLOCK_ONLY_HIGH"}
        for name in ("HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT")
    ]


async def test_gemini_is_never_asked_for_less_than_ten_seconds(calls: Calls, gemini: Gemini) -> None:
    await providers.registry()["gemini"].transform(
        calls.request("gemini", "image_edit", photo(64, 48), simulator=gemini), 3.0
    )
    assert only(gemini, "generate").headers["x-server-timeout"] == "10"


async def test_what_gemini_says_of_its_picture_is_kept(calls: Calls, gemini: Gemini) -> None:
    gemini.mode = "retiring"
    made = await providers.registry()["gemini"].transform(
        calls.request("gemini", "image_edit", photo(64, 48), simulator=gemini), 20
    )
    assert (made.model, made.request_id, made.finish_reason) == ("gemini-3.1-flash-lite-image", "response-1", "STOP")
    assert made.cost == pytest.approx((800 * 0.25 + 1290 * 30) / 1e6)
    assert made.model_retires_at is not None
    assert made.model_retires_at.isoformat() == "2027-01-15T00:00:00+00:00"


def test_gemini_refuses_options_that_a_model_does_not_take() -> None:
    driver = providers.registry()["gemini"]
    options = driver.options()
    assert driver.refusals({"model": "gemini-3-pro-image", "image_size": "4K", "aspect_ratio": "3:2"}, options) == []
    assert [
        field for field, _ in driver.refusals({"model": "gemini-2.5-flash-image", "image_size": "1K"}, options)
    ] == ["image_size"]
    assert [field for field, _ in driver.refusals({"model": "gemini-3-pro-image", "aspect_ratio": "7:5"}, options)] == [
        "aspect_ratio"
    ]
    assert [field for field, _ in driver.refusals({"model": "gemini-9"}, options)] == ["model"]


def noise(width: int, height: int) -> bytes:
    """A photo that does not compress."""
    out = io.BytesIO()
    Image.effect_noise((width, height), 120).convert("RGB").save(out, "JPEG", quality=97, subsampling=0)
    return out.getvalue()


@pytest.mark.parametrize("mode", ["success", "http_500", "finish_SAFETY", "truncated"])
async def test_large_pictures_go_by_the_files_api_and_are_deleted_however_it_ends(
    mode: str, calls: Calls, gemini: Gemini
) -> None:
    big = noise(8000, 5600)
    assert len(big) > 30 * 1024**2
    gemini.mode = mode
    request = calls.request("gemini", "image_edit", big, simulator=gemini, send_edge=None)
    if mode == "success":
        await providers.registry()["gemini"].transform(request, 20)
    else:
        with pytest.raises(ProviderFailure):
            await providers.registry()["gemini"].transform(request, 20)
    (content,) = only(gemini, "generate").json()["contents"]
    file, prompt = content["parts"]
    assert lower_camel(file)["fileData"]["fileUri"].startswith(f"{gemini.url}/v1beta/files/")
    assert lower_camel(file)["fileData"]["mimeType"] == "image/jpeg"
    assert prompt == {"text": "As a watercolour"}
    assert len(only(gemini, "generate").body) < 2000
    await until_called(gemini, "delete")
    assert (gemini.calls["upload"], gemini.calls["delete"], gemini.files) == (1, 1, {})


async def test_an_uploaded_file_is_deleted_when_the_call_is_cancelled(calls: Calls, gemini: Gemini) -> None:
    gemini.mode = "hang"
    request = calls.request(
        "gemini", "image_edit", photo(64, 48), simulator=gemini, provider_options={"inline_bytes": 0}
    )
    call = asyncio.create_task(providers.registry()["gemini"].transform(request, 20))
    await until_called(gemini, "generate")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until_called(gemini, "delete")
    assert gemini.files == {}


async def test_an_uploaded_file_is_deleted_when_the_call_is_cancelled_before_it_is_used(
    calls: Calls, gemini: Gemini
) -> None:
    gemini.file_state = "PROCESSING"
    uploading = {"inline_bytes": 0}
    request = calls.request("gemini", "image_edit", photo(64, 48), simulator=gemini, provider_options=uploading)
    call = asyncio.create_task(providers.registry()["gemini"].transform(request, 20))
    await until_called(gemini, "look")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until_called(gemini, "delete")
    assert (gemini.files, gemini.calls["generate"]) == ({}, 0)


async def test_an_uploaded_file_that_cannot_be_read_fails_the_call_and_is_deleted(calls: Calls, gemini: Gemini) -> None:
    gemini.file_state = "FAILED"
    uploading = {"inline_bytes": 0}
    request = calls.request("gemini", "image_edit", photo(64, 48), simulator=gemini, provider_options=uploading)
    with pytest.raises(ProviderError, match="could not read the uploaded picture"):
        await providers.registry()["gemini"].transform(request, 20)
    await until_called(gemini, "delete")
    assert (gemini.files, gemini.calls["generate"]) == ({}, 0)


async def test_one_client_serves_a_process_until_its_key_changes(calls: Calls, gemini: Gemini) -> None:
    driver: Any = providers.registry()["gemini"]
    gemini.keys = {KEY, "second-key"}

    async def client_after(key: str) -> Any:
        await driver.transform(calls.request("gemini", "image_edit", photo(64, 48), simulator=gemini, key=key), 20)
        return driver._open.aio

    first = await client_after(KEY)
    assert await client_after(KEY) is first
    assert await client_after("second-key") is not first


# -- turbotext -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "method", "settings", "fields"),
    [
        (
            "image_edit",
            "generate_image2image",
            {"prompt": "Как акварель", "negative_prompt": "шум", "seed": 7, "strength": 55, "scale": 3.5},
            {
                "content": "Как акварель", "strength": "55", "scale": "3.5", "seed": "7", "negative_prompt": "шум",
                "original_language": "ru", "user_id": "1",
            },
        ),
        ("image_edit", "generate_image2image", {"prompt": "x"},
         {"content": "x", "strength": "40", "scale": "7.5", "original_language": "ru", "user_id": "1"}),
        ("style_transfer", "mix_images", {"template": TEMPLATE_ID, "prompt": "x"}, {"content": "x"}),
        ("style_transfer", "mix_images", {"template": TEMPLATE_ID}, {}),
        ("identity_transfer", "deepfake_photo", {"template": TEMPLATE_ID, "face_restore": False},
         {"face_restore": "False"}),
    ],
)  # fmt: skip
async def test_turbotext_gets_each_operations_own_method_and_fields(
    operation: str, method: str, settings: dict[str, Any], fields: dict[str, str], calls: Calls, turbotext: Turbotext
) -> None:
    request = calls.request("turbotext", operation, photo(320, 200, "PNG"), simulator=turbotext, **settings)
    made = await providers.registry()["turbotext"].transform(request, 20)
    created = only(turbotext, "create_queue")
    assert created.path == f"/api_ai/{method}"
    assert created.headers["authorization"] == f"Bearer {KEY}"
    assert created.headers["content-type"] == "application/x-www-form-urlencoded"
    form = created.form()
    pictures = {name: form.pop(name) for name in ("url", "url_image_target") if name in form}
    assert form == {"do": "create_queue", **fields}
    sizes = {name: opened(turbotext.hosted[url.rpartition("/")[2]][1]).size for name, url in pictures.items()}
    if operation == "image_edit":
        assert sizes == {"url": (320, 200)}
    else:
        assert sizes == {"url_image_target": (320, 200), "url": (90, 60)}
    polls = [call.form() for name, call in turbotext.seen if name == "get_result"]
    assert polls == [{"do": "get_result", "queueid": str(made.request_id)}] * 2
    assert calls.remembered == [made.request_id]


async def test_turbotexts_price_is_the_settings(calls: Calls, turbotext: Turbotext) -> None:
    request = calls.request(
        "turbotext",
        "image_edit",
        photo(64, 48),
        simulator=turbotext,
        provider_options={"prices": {"image_edit": 4.5}},
    )
    assert (await providers.registry()["turbotext"].transform(request, 20)).cost == 0, "billed with its queueid"
    assert calls.billed == [4.5]


async def test_a_reference_is_polled_on_and_not_paid_again(calls: Calls, turbotext: Turbotext) -> None:
    turbotext.jobs["42"] = {"mode": "success", "polls": 2, "photo": photo(64, 48), "lost": 0}
    request = calls.request("turbotext", "image_edit", photo(64, 48), simulator=turbotext, reference="42")
    assert (await providers.registry()["turbotext"].transform(request, 20)).request_id == "42"
    assert turbotext.calls["create_queue"] == 0
    assert calls.billed == []


async def test_a_worthless_reference_is_forgotten(calls: Calls, turbotext: Turbotext) -> None:
    turbotext.mode = "truncated"
    request = calls.request("turbotext", "image_edit", photo(64, 48), simulator=turbotext)
    with pytest.raises(ProviderBadOutput):
        await providers.registry()["turbotext"].transform(request, 20)
    assert calls.remembered[-1] is None


# -- openai ----------------------------------------------------------------------------------------------------------


async def test_openai_gets_a_form_with_the_photo_first(calls: Calls, openai: OpenAI) -> None:
    request = calls.request(
        "openai",
        "image_edit",
        photo(320, 200, "PNG"),
        simulator=openai,
        files={"templates": [photo(90, 60), photo(80, 50, "PNG")]},
        prompt="As a watercolour",
        model="gpt-image-2",
        size="2048x2048",
        quality="high",
        output="image/webp",
        compression=70,
    )
    made = await providers.registry()["openai"].transform(request, 20)
    call = only(openai, "edit")
    assert call.path == "/v1/images/edits"
    assert call.headers["authorization"] == f"Bearer {KEY}"
    parts = call.multipart()
    assert [(part.mime, part.name, looked_at(part.data)[1]) for name, part in parts if name == "image[]"] == [
        ("image/jpeg", "photo.jpg", (320, 200)),
        ("image/jpeg", "template-1.jpeg", (90, 60)),
        ("image/png", "template-2.png", (80, 50)),
    ]
    assert {name: part.data.decode() for name, part in parts if name != "image[]"} == {
        "model": "gpt-image-2",
        "prompt": "As a watercolour",
        "n": "1",
        "size": "2048x2048",
        "quality": "high",
        "output_format": "webp",
        "output_compression": "70",
    }
    assert (made.model, made.request_id) == ("gpt-image-2", "req_1")
    assert made.cost == pytest.approx((300 * 8 + 1056 * 32) / 1e6)


async def test_openai_is_told_no_more_than_the_slot_sets(calls: Calls, openai: OpenAI) -> None:
    await providers.registry()["openai"].transform(
        calls.request("openai", "image_edit", photo(64, 48), simulator=openai), 20
    )
    fields = {name for name, _ in only(openai, "edit").multipart()}
    assert fields == {"model", "prompt", "n", "quality", "output_format", "image[]"}


async def test_a_picture_too_large_for_openai_is_not_sent(calls: Calls, openai: OpenAI) -> None:
    request = calls.request("openai", "image_edit", noise(9500, 9000), simulator=openai, send_edge=None)
    with pytest.raises(InvalidSettings, match="under 50 MB"):
        await providers.registry()["openai"].transform(request, 20)
    assert not openai.calls


def test_openai_refuses_options_that_a_model_does_not_take() -> None:
    driver = providers.registry()["openai"]
    options = driver.options()
    good = {"model": "gpt-image-2", "size": "2048x2048", "output": "image/jpeg", "compression": 80}
    assert driver.refusals(good, options) == []
    assert [field for field, _ in driver.refusals({**good, "model": "gpt-image-1.5"}, options)] == ["size"]
    assert [field for field, _ in driver.refusals({**good, "model": "dall-e"}, options)] == ["model"]
    assert [field for field, _ in driver.refusals({**good, "output": "image/png"}, options)] == ["compression"]
