"""From nothing to a guest's phone: what the first start prints is all that is known."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import zxingcpp
from PIL import Image
from playwright.sync_api import Locator, expect

from tests.installation import Installation, until
from tests.ui.conftest import LAN_HOST, Guest
from web.pages import words

EN = words("en")
NEW = "chosen at the first sign-in"


def read(code: Locator) -> str:
    """What a phone reads of a code on the screen."""
    seen = Image.open(io.BytesIO(code.screenshot())).convert("RGB")
    [found] = zxingcpp.read_barcodes(seen)
    return str(found.text)


def test_what_the_first_start_prints_leads_to_a_changed_picture_on_a_guest_s_phone(
    guest: Guest, tmp_path: Path
) -> None:
    with Installation(tmp_path / "home", env={"PHOTOCHANGER_INGEST_PASSWORD": ""}) as cold:
        printed = "".join(cold.log)
        password = re.search(r"admin / (\S+)", printed)
        assert password is not None
        curl = next(line.strip() for line in cold.log if line.strip().startswith("curl "))
        subprocess.run(shlex.split(curl), cwd=tmp_path, capture_output=True, timeout=60, check=True)

        laptop = guest()
        laptop.goto(cold.url.replace("127.0.0.1", LAN_HOST))
        for fields in ({"name": "admin", "password": password[1]}, {"old": password[1], "new": NEW, "again": NEW}):
            for name, value in fields.items():
                laptop.locator(f"#{name}").fill(value)
            laptop.locator("form button.wide").click()
        laptop.locator("nav.side").get_by_role("link", name=EN["nav.jobs"]).click()
        laptop.locator("tbody a[href^='/jobs/']").first.click()
        laptop.get_by_role("button", name=EN["job.qr"]).click()
        link = read(laptop.locator("dialog .segno"))
        assert urlsplit(link).hostname == LAN_HOST, "a guest's phone reaches it"

        phone = guest(width=360, language="ru")
        phone.goto(link)
        expect(phone.locator("h1")).to_have_text(words("ru")["result.title"])
        picture = phone.locator(".picture img")
        until(lambda: picture.evaluate("(one) => one.complete && one.naturalWidth > 0"), within_s=15, what="it is seen")
        with phone.expect_download() as download:
            phone.get_by_role("link", name=words("ru")["result.download"]).click()
        assert Path(download.value.path()).read_bytes() == (tmp_path / "changed.jpg").read_bytes()
        for page in (laptop, phone):
            page.close()  # before the server goes away under it
