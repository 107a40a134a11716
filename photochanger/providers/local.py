"""The built-in provider: filters, frames and the untouched photo, made on this machine, free and without a key.

Useful by itself, as the demonstration, and as the last rung of a route: the guest always gets a picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps
from pydantic import Field

from photochanger import images
from photochanger.failures import ProviderError
from photochanger.providers import Operation, OperationSettings, Picture, Provider, Request, TemplateId

_INPUT = frozenset(mime for mime, _ in images.ACCEPTED.values())
#: Fonts that know Cyrillic, where Debian and Fedora put them; Pillow's own knows Latin only.
_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf")


class FilterSettings(OperationSettings):
    """Settings of ``filter``."""

    filter: Literal["grayscale", "sepia", "posterize", "sketch", "vivid"] = Field("sepia", title="Filter")
    strength: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, title="Strength", description="0 leaves the photo as it is, 1 is the whole effect."
    )


class FrameSettings(OperationSettings):
    """Settings of ``frame``."""

    template: TemplateId | None = Field(
        None,
        title="Frame picture",
        description="A PNG with a transparent window. Without one, a plain white card is drawn.",
    )
    fit: Literal["crop", "fit"] = Field(
        "crop", title="Fit", description="Crop the photo to fill the window, or fit it in whole."
    )
    caption: Annotated[str, Field(max_length=80)] = Field("", title="Caption")
    date: bool = Field(False, title="Add the date")


class OriginalSettings(OperationSettings):
    """Settings of ``original``: nothing to choose but the file type."""


class Local(Provider):
    """``filter``, ``frame`` and ``original``. Pixels are touched in a guarded process only."""

    name = "local"
    title: Mapping[str, str] = {"en": "Built-in", "ru": "Встроенный"}
    needs_key = False
    #: A 12-megapixel photo decodes, turns and encodes in about 0.4 s on one core; twice that leaves room.
    usual_s = 0.8
    operations: Mapping[str, Operation] = {
        "filter": Operation("filter", {"en": "Filter", "ru": "Фильтр"}, FilterSettings, _INPUT),
        "frame": Operation("frame", {"en": "Frame", "ru": "Рамка"}, FrameSettings, _INPUT),
        "original": Operation("original", {"en": "Original", "ru": "Оригинал"}, OriginalSettings, _INPUT),
    }

    async def transform(self, request: Request, budget_s: float) -> Picture:
        templates = request.templates.get("template")
        try:
            made = await request.run_guarded(
                _make,
                request.operation,
                dict(request.settings),
                request.photo,
                request.came_on,
                templates[0].path if templates else None,
                request.result,
                request.max_pixels,
            )
        except TimeoutError:
            raise ProviderError(f"The picture was not finished within {budget_s:.1f} s") from None
        assert isinstance(made, Picture)
        return made


def _make(
    operation: str,
    settings: dict[str, Any],
    photo: Path,
    came_on: date,
    template: Path | None,
    result: Path,
    max_pixels: int,
) -> Picture:
    """Decodes, transforms, encodes and writes; runs in a guarded process."""
    picture = images.decode(photo, max_pixels=max_pixels)
    profile = picture.info.get("icc_profile")
    if operation == "filter":
        picture = apply_filter(picture, FilterSettings.model_validate(settings))
    elif operation == "frame":
        given = FrameSettings.model_validate(settings)
        picture = apply_frame(picture, given, template, came_on=came_on, max_pixels=max_pixels)
    picture.info = {"icc_profile": profile} if profile else {}
    mime = settings.get("output", "image/jpeg")
    return Picture(result, mime, *images.write(picture, result, mime))


def apply_filter(photo: Image.Image, settings: FilterSettings) -> Image.Image:
    """The photo under one filter, blended with itself by ``1 - strength``; transparency is kept."""
    colour = photo.convert("RGB")
    changed = _FILTERS[settings.filter](colour)
    if settings.strength < 1:
        changed = Image.blend(colour, changed, settings.strength)
    if photo.mode == "RGBA":
        changed.putalpha(photo.getchannel("A"))
    return changed


def apply_frame(
    photo: Image.Image, settings: FrameSettings, template: Path | None, *, came_on: date, max_pixels: int
) -> Image.Image:
    """The photo in the window of a frame: the template's transparent part, or a white card's middle; below it the
    caption and, where it is wanted, the day on which the photo came."""
    if template is None:
        margin = round(min(photo.size) * 0.05)
        bottom = margin * 4 if settings.caption or settings.date else margin
        frame = Image.new("RGBA", (photo.width + 2 * margin, photo.height + margin + bottom), "white")
        window = (margin, margin, margin + photo.width, margin + photo.height)
        frame.paste((0, 0, 0, 0), window)
    else:
        frame = images.decode(template, max_pixels=max_pixels).convert("RGBA")
        window = ImageChops.invert(frame.getchannel("A")).point(lambda a: 255 if a > 8 else 0).getbbox() or (
            0,
            0,
            *frame.size,
        )
    canvas = Image.new("RGB", frame.size, "white")
    size = (window[2] - window[0], window[3] - window[1])
    colour = photo.convert("RGB")
    if settings.fit == "crop":
        fitted = ImageOps.fit(colour, size, Image.Resampling.LANCZOS)
    else:
        fitted = ImageOps.pad(colour, size, Image.Resampling.LANCZOS, color="white")
    canvas.paste(fitted, window[:2])
    canvas.paste(frame, mask=frame.getchannel("A"))
    words = " · ".join(filter(None, (settings.caption, f"{came_on:%d.%m.%Y}" if settings.date else "")))
    if words:
        _write(canvas, words, below=window[3])
    return canvas


def _write(canvas: Image.Image, words: str, *, below: int) -> None:
    """Centres one line in the strip under the window, or over the window's foot where there is no strip."""
    strip = canvas.height - below
    height = strip if strip > canvas.height // 30 else canvas.height // 10
    font = _font(max(10, round(height * 0.42)))
    while font.getlength(words) > canvas.width * 0.92 and font.size > 10:
        font = _font(round(font.size * 0.9))
    draw = ImageDraw.Draw(canvas)
    middle = (canvas.width / 2, canvas.height - height / 2)
    draw.text(middle, words, font=font, anchor="mm", fill="#222", stroke_width=font.size // 14, stroke_fill="white")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _grayscale(photo: Image.Image) -> Image.Image:
    return ImageOps.grayscale(photo).convert("RGB")


def _sepia(photo: Image.Image) -> Image.Image:
    return ImageOps.colorize(ImageOps.grayscale(photo), black="#1c1108", mid="#a07850", white="#fff4dc")


def _posterize(photo: Image.Image) -> Image.Image:
    return ImageOps.posterize(photo, 3)


def _sketch(photo: Image.Image) -> Image.Image:
    """Pencil: the grey photo divided by its own blurred negative (colour dodge)."""
    grey = ImageOps.grayscale(photo)
    blurred = ImageOps.invert(grey).filter(ImageFilter.GaussianBlur(max(2, min(photo.size) / 100)))
    return ImageChops.invert(ImageChops.subtract(blurred, ImageOps.invert(grey))).convert("RGB")


def _vivid(photo: Image.Image) -> Image.Image:
    return ImageEnhance.Contrast(ImageEnhance.Color(photo).enhance(1.6)).enhance(1.15)


_FILTERS = {
    "grayscale": _grayscale,
    "sepia": _sepia,
    "posterize": _posterize,
    "sketch": _sketch,
    "vivid": _vivid,
}
