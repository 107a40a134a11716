"""The built-in provider's filters and frames, on pixels."""

from __future__ import annotations

import io
from datetime import date
from pathlib import Path

import pytest
from PIL import Image, ImageChops
from pydantic import ValidationError

from photochanger import images
from photochanger.providers.local import FilterSettings, FrameSettings, Local, apply_filter, apply_frame
from tests.photos import photo

DAY = date(2026, 12, 1)


def picture(width: int = 120, height: int = 80) -> Image.Image:
    return images.decode(io.BytesIO(photo(width, height)), max_pixels=10**8)


@pytest.mark.parametrize("name", ["grayscale", "sepia", "posterize", "sketch", "vivid"])
def test_every_filter_changes_the_photo_and_keeps_its_size(name: str) -> None:
    before = picture()
    after = apply_filter(before.copy(), FilterSettings.model_validate({"filter": name}))
    assert after.size == before.size
    assert ImageChops.difference(before, after).getbbox() is not None


def test_strength_zero_leaves_the_photo_as_it_is() -> None:
    before = picture()
    after = apply_filter(before.copy(), FilterSettings(filter="sepia", strength=0))
    assert ImageChops.difference(before, after).getbbox() is None


def test_a_filter_keeps_transparency() -> None:
    photo = Image.new("RGBA", (10, 10), (255, 0, 0, 77))
    assert apply_filter(photo, FilterSettings(filter="grayscale")).getchannel("A").getextrema() == (77, 77)


def frame_file(folder: Path) -> Path:
    frame = Image.new("RGBA", (300, 200), (0, 0, 255, 255))
    frame.paste((0, 0, 0, 0), (50, 40, 250, 160))
    frame.save(folder / "frame.png")
    return folder / "frame.png"


@pytest.mark.parametrize("fit", ["crop", "fit"])
def test_the_photo_fills_the_frames_window_and_only_that(fit: str, tmp_path: Path) -> None:
    red = Image.new("RGB", (400, 400), (255, 0, 0))
    framed = apply_frame(
        red, FrameSettings.model_validate({"fit": fit}), frame_file(tmp_path), came_on=DAY, max_pixels=10**8
    )
    assert framed.size == (300, 200)
    assert framed.getpixel((10, 10)) == (0, 0, 255)
    assert framed.getpixel((150, 100)) == (255, 0, 0)
    corner = framed.getpixel((55, 100))
    assert corner == ((255, 0, 0) if fit == "crop" else (255, 255, 255))


def test_without_a_template_a_card_with_caption_is_drawn() -> None:
    plain = apply_frame(picture(), FrameSettings(), None, came_on=DAY, max_pixels=10**8)
    wanted = FrameSettings(caption="Anna & Boris", date=True)
    captioned = apply_frame(picture(), wanted, None, came_on=DAY, max_pixels=10**8)
    assert plain.width == captioned.width > 120
    assert captioned.height > plain.height
    strip = captioned.crop((0, captioned.height - 14, captioned.width, captioned.height))
    darkest, _ = strip.convert("L").getextrema()
    assert isinstance(darkest, int)
    assert darkest < 128, "the caption is written"
    day_later = apply_frame(picture(), wanted, None, came_on=DAY.replace(day=2), max_pixels=10**8)
    assert day_later.tobytes() != captioned.tobytes(), "the date is"


def test_the_operations_schemas_are_whole() -> None:
    for operation in Local.operations.values():
        schema = operation.json_schema()
        assert schema["additionalProperties"] is False
        assert set(operation.name) == {"en", "ru"}


@pytest.mark.parametrize(
    "settings", [{"filter": "blur"}, {"strength": 1.5}, {"colour": "red"}, {"output": "image/gif"}]
)
def test_settings_outside_the_schema_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FilterSettings.model_validate(settings)
