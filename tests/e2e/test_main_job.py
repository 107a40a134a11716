"""The main job, end to end: a camera sends a photo and gets a changed picture back."""

from __future__ import annotations

import hashlib

import httpx
import pytest

from tests.installation import Installation, result_link
from tests.photos import opened, photo

pytestmark = pytest.mark.xdist_group("shared")


def test_a_photo_comes_back_changed_in_the_same_request(shared: Installation) -> None:
    sent = photo()
    answer = shared.post(sent)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content != sent
    assert opened(answer.content).size == (640, 480)
    row = shared.sql("SELECT * FROM job WHERE id = %s", answer.headers["x-job-id"])[0]
    assert row["status"] == "succeeded"
    assert row["result_sha256"] == hashlib.sha256(answer.content).hexdigest()
    assert (shared.home / "media" / row["result_file_path"]).read_bytes() == answer.content


def test_the_link_in_the_answer_gives_the_same_picture(shared: Installation) -> None:
    answer = shared.post(photo())
    again = httpx.get(result_link(answer), trust_env=False)
    assert again.status_code == 200
    assert again.content == answer.content
