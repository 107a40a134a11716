"""Photos for tests: made here, each different from every other."""

from __future__ import annotations

import io
import itertools
import struct
import zlib

from PIL import Image, ImageDraw

_count = itertools.count()


def photo(
    width: int = 640, height: int = 480, form: str = "JPEG", *, exif: Image.Exif | None = None, quality: int = 85
) -> bytes:
    """A picture no other call has made: its number is drawn into it."""
    number = next(_count)
    image = Image.radial_gradient("L").resize((width, height)).convert("RGB")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 2, height // 2), fill=(200, 60 + number % 190, number // 190 % 250))
    draw.text((width // 3, height // 2), str(number), fill="white")
    out = io.BytesIO()
    image.save(out, form, **({"exif": exif} if exif else {}), **({"quality": quality} if form != "PNG" else {}))
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims any size and holds almost nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"x")) + chunk(b"IEND", b"")


def big_png() -> bytes:
    """59 megapixels in 0.2 MB."""
    out = io.BytesIO()
    Image.new("RGB", (7700, 7700), "gold").save(out, "PNG")
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
