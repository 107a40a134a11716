"""Pictures that an administrator brings: temporary ones, templates; and the emptying of caches."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import ExifTags, Image

from photochanger import images
from tests.api import Api
from tests.installation import Installation, until
from tests.photos import big_png, opened, photo, png_header
from web.api.media import PURGED

pytestmark = pytest.mark.xdist_group("api")

REGISTER = ["/api/media/register", "/api/template-media/register"]


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def sent(picture: bytes, name: str = "file") -> dict[str, Any]:
    return {name: ("a.png", picture, "image/png")}


@pytest.fixture
def template(boss: httpx.Client) -> dict[str, Any]:
    answer = boss.post(REGISTER[1], files=sent(photo(300, 200, "PNG")), data={"name": "Gold frame"})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/api/template-media/{answer.json()['id']}"
    made: dict[str, Any] = answer.json()
    return made


def test_a_picture_is_public_for_as_long_as_a_photo_may_take(
    house: Installation, known: Api, boss: httpx.Client
) -> None:
    answer = boss.post(REGISTER[0], files={"image": photo(64, 48)})
    assert answer.status_code == 201
    made = answer.json()
    got = httpx.get(made["url"], trust_env=False)
    assert got.status_code == 200
    assert (made["job_id"], made["mime"], made["bytes"]) == (None, "image/jpeg", len(got.content))
    assert got.headers["cache-control"] == "private, no-store"
    known.sql("UPDATE media_object SET expires_at = clock_timestamp() WHERE id = %s", made["id"])
    assert code(httpx.get(made["url"], trust_env=False)) == (410, "media_expired")
    assert made["id"] not in "".join(house.log)
    assert made["id"] not in boss.get("/api/audit").text


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_of_a_registered_picture_only_the_pixels_leave(boss: httpx.Client, form: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "Leica"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    data = photo(5000, 40, form, exif=exif) + b"<script>alert(1)</script>"
    made = boss.post(REGISTER[0], files={"image": data}).json()
    got = httpx.get(made["url"], trust_env=False)
    picture = opened(got.content)
    assert (picture.format, made["mime"], got.headers["content-type"]) == (form, *[f"image/{form.lower()}"] * 2)
    assert (picture.height, dict(picture.getexif())) == (images.KEPT_EDGE, {})
    assert [one for one in (b"Exif", b"Leica", b"script") if one in data and one in got.content] == []


@pytest.mark.parametrize("url", REGISTER)
def test_what_is_no_sound_picture_is_refused_and_leaves_nothing(
    house: Installation, boss: httpx.Client, url: str
) -> None:
    before = [house.files(kind) for kind in ("media", "templates")]
    assert code(boss.post(url, json={})) == (415, "unsupported_media_type")
    assert code(boss.post(url, data={"name": "x"}, files={"other": b"y"})) == (400, "invalid_request")
    assert code(boss.post(url, files=[("file", b"x"), ("photo", b"y")])) in (
        (415, "unsupported_media_type"),
        (400, "invalid_request"),
    )
    assert code(boss.post(url, files=sent(b""))) == (400, "invalid_image")
    assert code(boss.post(url, files=sent(b"<svg/>"))) == (415, "unsupported_media_type")
    assert code(boss.post(url, files=sent(png_header(60_000, 60_000)))) == (413, "image_too_large")
    assert code(boss.post(url, files=sent(photo()), data={"name": "x" * 70_000})) == (413, "payload_too_large")
    assert [house.files(kind) for kind in ("media", "templates")] == before
    until(lambda: not house.files("tmp"), within_s=5, what="no file in media/tmp")


@pytest.mark.parametrize("url", REGISTER)
def test_a_damaged_picture_is_refused_and_leaves_nothing(house: Installation, boss: httpx.Client, url: str) -> None:
    before = [house.files(kind) for kind in ("media", "templates")]
    for whole in (photo(300, 200, "PNG"), photo(300, 200)):
        assert code(boss.post(url, files=sent(whole[: len(whole) // 2]))) == (400, "invalid_image")
    assert [house.files(kind) for kind in ("media", "templates")] == before
    until(lambda: not house.files("tmp"), within_s=5, what="no file in media/tmp")


def test_the_command_stores_a_template_or_says_in_one_line_why_not(house: Installation, tmp_path: Path) -> None:
    picture = tmp_path / "frame.png"
    picture.write_bytes(photo(64, 48, "PNG"))
    assert house.done("template", "add", str(picture)).strip() in house.done("template", "list")
    picture.write_bytes(photo(300, 200, "PNG")[:900])
    for path, why in ((picture, "The picture is damaged: "), (tmp_path / "none", f"There is no file {tmp_path}/none")):
        refused = house.cli("template", "add", str(path))
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1), refused.stderr
        assert refused.stderr.startswith(f"photochanger: {why}")


def test_a_templates_name_is_bounded(boss: httpx.Client) -> None:
    answer = boss.post(REGISTER[1], files=sent(photo(64, 48)), data={"name": "x" * 121})
    assert code(answer) == (400, "invalid_request")


@pytest.mark.parametrize("url", REGISTER)
def test_a_crash_of_the_decoder_costs_its_picture_only(house: Installation, boss: httpx.Client, url: str) -> None:
    before = [house.files(kind) for kind in ("media", "templates")]

    def busy() -> list[psutil.Process]:
        return [one for one in house.decoders() if one.memory_info().rss > 100 * 1024**2]

    with ThreadPoolExecutor(1) as sender:
        answer = sender.submit(boss.post, url, files=sent(big_png()))
        [decoder] = until(busy, within_s=20, what="it decodes")
        decoder.send_signal(signal.SIGSEGV)
        assert code(answer.result(20)) == (400, "invalid_image")
    assert house.decoders() == []
    assert [house.files(kind) for kind in ("media", "templates")] == before
    until(lambda: not house.files("tmp"), within_s=5, what="no file in media/tmp")
    assert boss.post(url, files=sent(photo(64, 48))).status_code == 201


def test_a_template_is_stored_listed_and_shown(boss: httpx.Client, template: dict[str, Any]) -> None:
    url = f"/api/template-media/{template['id']}"
    assert (template["name"], template["mime"], template["width"], template["height"]) == (
        "Gold frame",
        "image/png",
        300,
        200,
    )
    assert boss.get(url).json() == template
    assert template in boss.get("/api/template-media").json()["items"]
    whole = boss.get(f"{url}/picture")
    assert (whole.headers["content-type"], len(whole.content)) == ("image/png", template["bytes"])
    assert whole.headers["content-security-policy"] == "default-src 'none'; sandbox"
    small = boss.get(f"{url}/picture", params={"size": 160})
    assert (small.headers["content-type"], max(opened(small.content).size)) == ("image/webp", 160)
    again = boss.get(f"{url}/picture", params={"size": 160}, headers={"If-None-Match": small.headers["etag"]})
    assert again.status_code == 304
    assert code(boss.get(f"{url}/picture", params={"size": 161})) == (400, "invalid_request")


def test_templates_come_page_by_page_newest_first(boss: httpx.Client) -> None:
    made = [boss.post(REGISTER[1], files=sent(photo(40, 30, "PNG"))).json() for _ in range(3)]
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = boss.get("/api/template-media", params={"limit": 2, **after}).json()
        found += page["items"]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert found[:3] == made[::-1]
    assert made[0]["name"] == "template"
    assert len({one["id"] for one in found}) == len(found)


def test_a_template_that_is_used_is_deleted_only_by_force(
    house: Installation, boss: httpx.Client, template: dict[str, Any]
) -> None:
    url = f"/api/template-media/{template['id']}"
    route = {"rungs": [{"provider": "local", "operation": "frame", "settings": {"template": template["id"]}}]}
    slot = boss.post("/api/slots", json={"name": "Framed", "route": route}).json()
    refused = boss.delete(url)
    assert code(refused) == (409, "in_use")
    assert slot["id"] in refused.json()["detail"]
    assert boss.get(url).status_code == 200
    assert boss.delete(url, params={"force": "true"}).json() == {"used_by": [slot["id"]]}
    assert code(boss.get(url)) == (404, "media_not_found")
    assert [path for path in house.files("templates") if template["id"] in path.name] == []
    tried = boss.post(f"/api/slots/{slot['id']}/test-run", files=sent(photo(64, 48)))
    assert tried.json()["failure"]["code"] == "invalid_settings"
    boss.post(f"/api/slots/{slot['id']}/archive", headers={"If-Match": '"1"'})


def test_a_template_that_nobody_uses_is_deleted(boss: httpx.Client, template: dict[str, Any]) -> None:
    url = f"/api/template-media/{template['id']}"
    assert boss.delete(url).json() == {"used_by": []}
    assert code(boss.delete(url)) == (404, "media_not_found")
    assert code(boss.get(f"{url}/picture")) == (404, "media_not_found")


@pytest.mark.parametrize("template_id", ["x", "%00", "00000000-0000-4000-8000-000000000000"])
def test_a_template_that_is_not_there_is_not_found(boss: httpx.Client, template_id: str) -> None:
    wanted = (404, "not_found" if template_id == "%00" else "media_not_found")
    url = f"/api/template-media/{template_id}"
    assert {code(answer) for answer in (boss.get(url), boss.delete(url), boss.get(f"{url}/picture"))} == {wanted}


def test_a_purge_is_taken_and_really_runs(house: Installation, known: Api, boss: httpx.Client) -> None:
    made = boss.post(REGISTER[0], files={"image": photo(64, 48)}).json()
    [(key,)] = known.sql("SELECT storage_key FROM media_object WHERE id = %s", made["id"])
    assert (house.home / "media" / key).exists()
    known.sql("UPDATE media_object SET expires_at = clock_timestamp() - interval '1 s' WHERE id = %s", made["id"])
    before = {one["name"]: one["last_run_at"] for one in boss.get("/api/system/schedules").json()["items"]}
    answer = boss.post("/api/media/cache/purge")
    assert (answer.status_code, answer.json()) == (202, {"tasks": list(PURGED)})

    def ran() -> bool:
        now = {one["name"]: one["last_run_at"] for one in boss.get("/api/system/schedules").json()["items"]}
        return all(now[task] != before[task] for task in PURGED)

    until(ran, within_s=20, what="every sweep has run")
    assert not (house.home / "media" / key).exists()
