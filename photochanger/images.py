"""What a picture is, whether it may come in, and how it is turned upright and stripped before it goes anywhere.

``probe`` reads headers only and is safe in the web process. Everything that decodes pixels (``decode``,
``encode``, ``thumbnail``) belongs in a guarded process when the bytes come from outside (``image_pool.py``).
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from photochanger.failures import ImageTooLarge, InvalidImage, UnsupportedMediaType

try:
    from pillow_heif import register_heif_opener

    register_heif_opener()
    _HEIF: tuple[str, ...] = ("HEIF",)
except ImportError:
    _HEIF = ()

#: Pillow's format name → (MIME type, file name extension). Content decides, never the name or the declared type.
ACCEPTED: dict[str, tuple[str, str]] = {
    "JPEG": ("image/jpeg", "jpg"),
    "MPO": ("image/jpeg", "jpg"),  # a JPEG with a second view behind it, as phones write; the first is taken
    "PNG": ("image/png", "png"),
    "WEBP": ("image/webp", "webp"),
    **{name: ("image/heic", "heic") for name in _HEIF},
}
EXTENSIONS: dict[str, str] = dict(ACCEPTED.values())
_FORMATS = tuple(name for name in ACCEPTED if name != "MPO")  # Pillow finds MPO through JPEG
#: What decoders raise for a damaged picture; ``RuntimeError`` is libheif's.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, RuntimeError)
_DAMAGED_EXIF = (OSError, SyntaxError, ValueError, TypeError, KeyError, ZeroDivisionError, struct.error)
#: A camera photo has one frame; a 10,000-frame WebP is an attack on the decoder.
MAX_FRAMES = 1
#: Longest edge either way: the JPEG format's own limit, and the size at which line buffers hurt.
MAX_EDGE = 65_500
#: Pixels of the longer side that what an administrator brings is kept with: what the largest model makes (4K).
KEPT_EDGE = 4096
#: Pixels of the longer side that results can be had in, beside their own.
THUMBNAIL_EDGES = (160, 320, 640, 1280)
#: JPEG quality of results: visually lossless prints from booth printers, a third of the size of 98.
RESULT_QUALITY = 92
#: Bytes of a colour profile. The ICC's own richest for sRGB (v4 preference) has 60,960; a JPEG can hold 16 MB of one.
MAX_PROFILE_BYTES = 1024 * 1024

# Bounds are checked here, against the settings' own limit, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
# Pillow gives memory back to the kernel at once by default; keeping up to eight 16 MB blocks halves the time of a
# filter on a 1024 x 768 photo (10.7 → 4.2 ms), which goes into page faults otherwise.
Image.core.set_blocks_max(8)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Header:
    """What a picture file says of itself: MIME type, extension without dot, stored size in pixels."""

    mime: str
    extension: str
    width: int
    height: int
    has_alpha: bool


def probe(file: BinaryIO | Path, *, max_pixels: int) -> Header:
    """Reads a picture's header, decoding nothing.

    Raises:
        UnsupportedMediaType: not JPEG, PNG, WebP (or HEIC where the extra is installed).
        InvalidImage: the header is damaged.
        ImageTooLarge: more than ``max_pixels``, or more than one frame.
    """
    with _open(file) as image:
        _bound(image, max_pixels)
        mime, extension = ACCEPTED[str(image.format)]
        return Header(mime, extension, image.width, image.height, _has_alpha(image))


def probe_head(head: bytes, *, max_pixels: int) -> Header | None:
    """``probe`` of a file's beginning; ``None`` when the beginning does not tell yet.

    Raises:
        ImageTooLarge: as ``probe``, so that a bomb is refused before the rest of it is read.
    """
    try:
        return probe(BytesIO(head), max_pixels=max_pixels)
    except (InvalidImage, UnsupportedMediaType):
        return None


def decode(file: BinaryIO | Path, *, max_pixels: int, edge: int | None = None) -> Image.Image:
    """The whole picture, upright, with its colour profile but no other metadata, as RGB or RGBA. ``edge``: pixels of
    a side that are enough, for decoders that can do with less work.

    Raises:
        UnsupportedMediaType, InvalidImage, ImageTooLarge: as ``probe``; ``InvalidImage`` also for a file cut short.
    """
    with _sound(file, max_pixels) as image:
        try:
            if edge is not None:
                image.draft("RGB", (edge, edge))
            image.load()
            profile = _profile(image)
            mode = "RGBA" if _has_alpha(image) else "RGB"
            # Every copy of the pixels costs as much as decoding them: none is made that need not be.
            with contextlib.suppress(*_DAMAGED_EXIF):  # then it stays as it lies
                ImageOps.exif_transpose(image, in_place=True)
            plain = image if image.mode == mode else image.convert(mode)
        except (*_DAMAGED, Image.DecompressionBombError) as error:
            raise InvalidImage(f"The picture cannot be decoded: {error}") from None
    plain.info = {"icc_profile": profile} if profile else {}
    return plain


def encode(image: Image.Image, mime: str = "image/jpeg", *, quality: int = RESULT_QUALITY) -> bytes:
    """The picture as a file of type ``mime`` (JPEG, PNG or WebP) with nothing in it but pixels and colour profile."""
    out = BytesIO()
    profile = image.info.get("icc_profile")
    if mime == "image/jpeg":
        if image.mode == "RGBA":
            white = Image.new("RGB", image.size, "white")
            white.paste(image, mask=image.getchannel("A"))
            image = white
        image.save(out, "JPEG", quality=quality, exif=b"", icc_profile=profile)
    elif mime == "image/png":
        image.save(out, "PNG", exif=b"", icc_profile=profile)
    elif mime == "image/webp":
        image.save(out, "WEBP", quality=quality, exif=b"", icc_profile=profile or b"")
    else:
        raise UnsupportedMediaType(f"{mime} cannot be written")
    return out.getvalue()


def write(image: Image.Image, target: Path, mime: str) -> tuple[int, int, int, str]:
    """Encodes and writes a picture: its width and height in pixels, its bytes, its SHA-256 in hex."""
    data = encode(image, mime)
    target.write_bytes(data)
    return image.width, image.height, len(data), hashlib.sha256(data).hexdigest()


def rewrite(
    picture: Path, target: Path, mime: str, max_pixels: int, max_edge: int | None = None
) -> tuple[int, int, int, str]:
    """Decodes a foreign picture whole and writes its pixels, and nothing else of it, as ``mime``, the longer side at
    most ``max_edge`` pixels; as ``write``. ``target`` may be the picture itself."""
    image = decode(picture, max_pixels=max_pixels, edge=max_edge)
    if max_edge is not None and max(image.size) > max_edge:
        image.thumbnail((max_edge, max_edge), Image.Resampling.LANCZOS)
    return write(image, target, mime)


def thumbnail(path: Path, edge: int) -> bytes:
    """A WebP whose longer side is at most ``edge`` pixels, from one of our own (trusted) files."""
    with Image.open(path, formats=_FORMATS) as image:
        image.draft("RGB", (edge, edge))
        image.load()  # while the file is open: what is small enough already is not touched below
        mode = "RGBA" if _has_alpha(image) else "RGB"
        profile = image.info.get("icc_profile")
        small = image if image.mode == mode else image.convert(mode)
        small.thumbnail((edge, edge), Image.Resampling.LANCZOS, reducing_gap=3.0)
    small.info = {"icc_profile": profile} if profile else {}
    return encode(small, "image/webp", quality=80)


def _sound(file: BinaryIO | Path, max_pixels: int) -> Image.Image:
    """The opened picture, within its bounds. A PNG's checksums are looked at: they are not while it is decoded, and one
    damaged file in ten gave a picture."""
    image = _open(file)
    with contextlib.ExitStack() as failing:
        failing.enter_context(image)
        _bound(image, max_pixels)
        if image.format != "PNG":
            failing.pop_all()
            return image
        try:
            image.verify()
        except _DAMAGED as error:
            raise InvalidImage(f"The picture is damaged: {error}") from None
    if not isinstance(file, Path):
        file.seek(0)
    return _open(file)


def _open(file: BinaryIO | Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        raise UnsupportedMediaType("The file is not a JPEG, PNG or WebP picture") from None
    except _DAMAGED as error:
        raise InvalidImage(f"The picture's header is damaged: {error}") from None


def _bound(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels or max(image.size) > MAX_EDGE:
        raise ImageTooLarge(
            f"The picture has {image.width} x {image.height} pixels; at most {max_pixels / 1e6:g} megapixels are taken"
        )
    if image.format in ("WEBP", "PNG") and getattr(image, "n_frames", 1) > MAX_FRAMES:
        raise ImageTooLarge("The picture is an animation; one frame is taken")


def _profile(image: Image.Image) -> bytes | None:
    """The picture's colour profile, where colours can be computed by it and it is of RGB, as the pixels leave; without
    what lies behind it. Its header (ICC.1:2022, 7.2) has its size at byte 0, its colours at 16, a signature at 36."""
    given = image.info.get("icc_profile") or b""
    size = int.from_bytes(given[:4])
    profile: bytes = given[:size]
    if not len(profile) == size <= MAX_PROFILE_BYTES or (profile[16:20], profile[36:40]) != (b"RGB ", b"acsp"):
        return None
    try:
        source, target = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
        ImageCms.buildTransform(source, target, "RGB", "RGB", flags=ImageCms.Flags.NOOPTIMIZE)
    except (OSError, ImageCms.PyCMSError):
        return None
    return profile


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
