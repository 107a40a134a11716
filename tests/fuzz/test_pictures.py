"""Damaged pictures: refused in words or made whole, never anything else."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from photochanger import images
from photochanger.failures import ImageTooLarge, InvalidImage, UnsupportedMediaType
from photochanger.image_pool import ImagePool
from tests.fuzz.damage import damaged
from tests.photos import opened, photo

pytestmark = pytest.mark.anyio

MAX_PIXELS = 1_000_000
REFUSED = (InvalidImage, ImageTooLarge, UnsupportedMediaType)


def samples() -> list[bytes]:
    """Small pictures of every kind that is taken, with all that may hang on one."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Canon"
    found = [photo(96, 64, form, exif=exif) for form in ("JPEG", "PNG", "WEBP")]
    base = opened(found[0])
    for mode, form in (
        ("CMYK", "JPEG"),
        ("L", "JPEG"),
        ("RGBA", "PNG"),
        ("P", "PNG"),
        ("I;16", "PNG"),
        ("RGBA", "WEBP"),
    ):
        image = base.convert("L" if mode == "I;16" else mode)
        out = io.BytesIO()
        (image.convert("I").convert("I;16") if mode == "I;16" else image).save(out, form)
        found.append(out.getvalue())
    out = io.BytesIO()
    base.save(out, "HEIF")
    found.append(out.getvalue())
    out = io.BytesIO()
    base.save(out, "JPEG", progressive=True, icc_profile=b"\0" * 200, comment=b"c" * 50)
    return [*found, out.getvalue()]


async def test_damaged_pictures_are_refused_or_whole(tmp_path: Path, anyio_backend: str) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    pool = ImagePool(1)
    taken = refused = 0
    try:
        for which, data in damaged(samples(), "pictures"):
            source.write_bytes(data)
            try:
                images.probe(source, max_pixels=MAX_PIXELS)
                await pool.run(images.rewrite, source, target, "image/jpeg", MAX_PIXELS, 512, timeout_s=30)
            except REFUSED:
                refused += 1
                continue
            except BaseException as error:
                raise AssertionError(f"{which}: {data[:200]!r}") from error
            made = opened(target.read_bytes())
            assert max(made.size) <= 512, which
            assert set(made.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "icc_profile"}, which
            taken += 1
    finally:
        pool.close()
    print(f"{taken + refused} damaged pictures: {taken} made whole, {refused} refused")
    assert refused
    assert taken
