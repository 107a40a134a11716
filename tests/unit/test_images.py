"""Which pictures come in, and what is left of them."""

from __future__ import annotations

import io

import pytest
from PIL import Image, ImageCms

from photochanger import images
from photochanger.failures import Failure, ImageTooLarge, InvalidImage, UnsupportedMediaType
from tests.photos import opened, photo, png_header

PIXELS = 110_000_000


def probe(data: bytes) -> images.Header:
    return images.probe(io.BytesIO(data), max_pixels=PIXELS)


@pytest.mark.parametrize(("form", "mime"), [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")])
def test_the_content_decides_the_type(form: str, mime: str) -> None:
    header = probe(photo(64, 48, form))
    assert (header.mime, header.width, header.height) == (mime, 64, 48)


@pytest.mark.parametrize(
    ("data", "failure"),
    [
        (b"", UnsupportedMediaType),
        (b"a text file", UnsupportedMediaType),
        (b"GIF89a" + bytes(100), UnsupportedMediaType),
        (b"%PDF-1.7" + bytes(100), UnsupportedMediaType),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', UnsupportedMediaType),
        (b"II*\x00" + bytes(100), UnsupportedMediaType),
        (png_header(50_000, 50_000), ImageTooLarge),
        (png_header(70_000, 10), ImageTooLarge),
    ],
)
def test_anything_else_is_refused_from_its_header(data: bytes, failure: type[Failure]) -> None:
    with pytest.raises(failure):
        probe(data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_picture_cut_in_half_is_found_when_it_is_decoded(form: str) -> None:
    whole = photo(400, 300, form)
    with pytest.raises((InvalidImage, UnsupportedMediaType)):
        images.decode(io.BytesIO(whole[: len(whole) // 2]), max_pixels=PIXELS)


def test_a_png_with_a_damaged_middle_is_found_although_it_could_be_decoded() -> None:
    """Such a file passes Pillow's decoder about once in ten times: every one of these must be found."""
    for number in range(60):
        noisy = Image.open(io.BytesIO(photo(320, 240, quality=60 + number % 30)))
        out = io.BytesIO()
        noisy.save(out, "PNG")
        whole = out.getvalue()
        damaged = whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2)
        with pytest.raises(InvalidImage):
            images.decode(io.BytesIO(damaged), max_pixels=PIXELS)


def test_an_animation_is_refused() -> None:
    out = io.BytesIO()
    frames = [Image.new("RGB", (32, 32), (n * 60, 255 - n * 60, 0)) for n in range(4)]
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageTooLarge):
        probe(out.getvalue())


def test_a_bomb_is_known_by_its_beginning() -> None:
    with pytest.raises(ImageTooLarge):
        images.probe_head(png_header(50_000, 50_000)[:200], max_pixels=PIXELS)
    assert images.probe_head(photo()[:10], max_pixels=PIXELS) is None


def test_orientation_is_baked_in_and_metadata_left_behind() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "CANARY-CAMERA"
    exif.get_ifd(0x8825)[1] = "N"
    decoded = images.decode(io.BytesIO(photo(80, 40, exif=exif)), max_pixels=PIXELS)
    assert decoded.size == (40, 80)
    encoded = images.encode(decoded)
    assert b"CANARY" not in encoded
    assert b"Exif" not in encoded
    assert not opened(encoded).getexif()


def test_damaged_metadata_does_not_cost_the_picture() -> None:
    whole = photo(80, 40)
    for exif in (
        b"II*\x00",
        b"Exif\x00\x00II*\x00",
        b"MM\x00*\xff\xff\xff\xff",
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00",
    ):
        segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
        damaged = whole[:2] + segment + whole[2:]
        assert images.decode(io.BytesIO(damaged), max_pixels=PIXELS).size == (80, 40)


@pytest.mark.parametrize("mime", ["image/jpeg", "image/png", "image/webp"])
def test_the_colour_profile_is_kept(mime: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    out = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(out, "JPEG", icc_profile=profile)
    decoded = images.decode(io.BytesIO(out.getvalue()), max_pixels=PIXELS)
    assert opened(images.encode(decoded, mime)).info.get("icc_profile") == profile


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SCRIPT = b"<script>alert(1)</script>"


def enveloped(body: bytes) -> bytes:
    """``body`` behind a profile's header."""
    return (128 + len(body)).to_bytes(4) + PROFILE[4:128] + body


@pytest.mark.parametrize(
    "profile",
    [
        SCRIPT,
        enveloped(SCRIPT),
        enveloped(bytes(4) + SCRIPT),
        PROFILE[:16] + b"CMYK" + PROFILE[20:],
        PROFILE[:400],
    ],
    ids=["a script", "a header and a script", "no tag and a script", "of inks", "cut short"],
)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_what_is_no_colour_profile_is_dropped(form: str, profile: bytes) -> None:
    out = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(out, form, icc_profile=profile)
    decoded = images.decode(io.BytesIO(out.getvalue()), max_pixels=PIXELS)
    assert decoded.info == {}
    assert len(images.encode(decoded)) < 2000


@pytest.mark.parametrize(
    ("profile", "kept"),
    [(PROFILE + SCRIPT, {"icc_profile": PROFILE}), (enveloped(PROFILE[128:] + bytes(images.MAX_PROFILE_BYTES)), {})],
    ids=["something behind it", "too large"],
)
def test_no_more_of_a_colour_profile_is_kept_than_there_is(profile: bytes, kept: dict[str, bytes]) -> None:
    out = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(out, "JPEG", icc_profile=profile)
    assert images.decode(io.BytesIO(out.getvalue()), max_pixels=PIXELS).info == kept


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_pixel_mode_ends_as_rgb_or_rgba(mode: str) -> None:
    out = io.BytesIO()
    Image.new(mode, (20, 20)).save(out, "JPEG" if mode == "CMYK" else "PNG")
    decoded = images.decode(io.BytesIO(out.getvalue()), max_pixels=PIXELS)
    assert decoded.mode in ("RGB", "RGBA")
    assert images.encode(decoded, "image/jpeg")


def test_heic_is_taken_where_the_extra_is_installed() -> None:
    image = Image.new("RGB", (64, 40), (200, 30, 30))
    out = io.BytesIO()
    image.save(out, "HEIF")
    header = probe(out.getvalue())
    assert (header.mime, header.extension) == ("image/heic", "heic")
    decoded = images.decode(io.BytesIO(out.getvalue()), max_pixels=PIXELS)
    assert decoded.size == (64, 40)
    assert opened(images.encode(decoded)).format == "JPEG"


def test_a_thumbnail_is_a_small_webp(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("t") / "p.jpg"
    path.write_bytes(photo(1000, 500))
    small = opened(images.thumbnail(path, 320))
    assert (small.format, small.size) == ("WEBP", (320, 160))


def test_a_heic_with_any_byte_of_its_head_damaged_is_refused_or_decoded() -> None:
    whole = photo(96, 64, "HEIF")
    refused = 0
    for at in range(whole.index(b"mdat")):
        data = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        try:
            images.decode(io.BytesIO(data), max_pixels=1_000_000)
        except Failure:
            refused += 1
    assert refused
