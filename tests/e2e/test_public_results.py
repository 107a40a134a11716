"""What a result link gives: bytes for programs, a page for people, and a clear end from ``result_expires_at`` on."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import httpx
import pytest

from photochanger.config import Config
from photochanger.tokens import Links, master_keys
from tests.installation import Installation, result_link, until
from tests.photos import opened, photo

pytestmark = pytest.mark.xdist_group("shared")

PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@dataclass(frozen=True)
class Result:
    """A fresh result: its picture, the job's id and its public link."""

    picture: bytes
    job_id: str
    link: str

    @property
    def token(self) -> str:
        return parse_qs(urlsplit(self.link).query)["token"][0]


@pytest.fixture
def result(shared: Installation) -> Result:
    answer = shared.post(photo())
    assert answer.status_code == 200, answer.text
    return Result(answer.content, answer.headers["x-job-id"], result_link(answer))


def get(url: str, headers: Mapping[str, str] | None = None, **query: str) -> httpx.Response:
    return httpx.get(httpx.URL(url).copy_merge_params(query), headers=headers, timeout=30, trust_env=False)


def file_name(answer: httpx.Response) -> str:
    """What a picture's file is called: when it was finished."""
    return f"photo-{parsedate_to_datetime(answer.headers['last-modified']):%Y-%m-%d-%H%M%S}.jpg"


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code
    assert answer.json()["status"] == status
    assert "Traceback" not in answer.text


def own_link(installation: Installation, job_id: str, expires_at: datetime) -> str:
    """A genuine link made with the installation's own key."""
    links = Links(master_keys(Config(home=installation.home)), "result")
    return f"{installation.url}/public/results/{job_id}?token={links.token(job_id, expires_at)}"


# -- programs -------------------------------------------------------------------------------------------------------


def test_a_program_gets_the_bytes_guarded_against_being_anything_else(result: Result) -> None:
    answer = get(result.link)
    assert answer.status_code == 200
    assert answer.content == result.picture
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["content-length"] == str(len(result.picture))
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-disposition"] == f'inline; filename="{file_name(answer)}"'
    assert "Accept" in [value.strip() for value in answer.headers["vary"].split(",")]


def test_the_headers_say_when_the_result_ends(shared: Installation, result: Result) -> None:
    row = shared.sql("SELECT finalized_at, result_expires_at FROM job WHERE id = %s", result.job_id)[0]
    assert row["result_expires_at"] - row["finalized_at"] == timedelta(hours=72)
    answer = get(result.link)
    assert datetime.fromisoformat(answer.headers["photochanger-result-expires-at"]) == row["result_expires_at"]
    expires = datetime.strptime(answer.headers["expires"], "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    assert abs(expires - row["result_expires_at"]) <= timedelta(seconds=1)
    modified = datetime.strptime(answer.headers["last-modified"], "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    assert abs(modified - row["finalized_at"]) <= timedelta(seconds=1)


def test_an_unchanged_result_is_not_sent_again(result: Result) -> None:
    first = get(result.link)
    assert hashlib.sha256(first.content).hexdigest() in first.headers["etag"]
    for condition in (
        {"If-None-Match": first.headers["etag"]},
        {"If-None-Match": f'"another", W/{first.headers["etag"]}'},
        {"If-Modified-Since": first.headers["last-modified"]},
    ):
        again = get(result.link, condition)
        assert again.status_code == 304, condition
        assert again.content == b""
        assert again.headers["etag"] == first.headers["etag"]


def test_another_etag_or_an_older_instant_gets_the_picture(result: Result) -> None:
    for condition in (
        {"If-None-Match": '"another"'},
        {"If-Modified-Since": "Thu, 01 Jan 2026 00:00:00 GMT"},
        {"If-None-Match": '"another"', "If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"},
    ):
        assert get(result.link, condition).content == result.picture, condition


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("bytes=0-9", 0, 9), ("bytes=-5", -5, None), ("bytes=5-", 5, None), ("bytes=0-99999999", 0, None)],
)
def test_a_range_gives_just_those_bytes(result: Result, asked: str, first: int, last: int | None) -> None:
    total = len(result.picture)
    begin = first % total
    end = total - 1 if last is None else last
    answer = get(result.link, {"Range": asked})
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {begin}-{end}/{total}"
    assert answer.content == result.picture[begin : end + 1]


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=99999999-100000000"])
def test_a_range_past_the_end_is_refused(result: Result, asked: str) -> None:
    answer = get(result.link, {"Range": asked})
    assert_problem(answer, 416, "invalid_request")
    assert answer.headers["content-range"] == f"bytes */{len(result.picture)}"


@pytest.mark.parametrize("asked", ["bytes=9-0", "bytes=a-b", "lines=1-2", "bytes=0-1,4-5", "bytes=-", "bytes"])
def test_a_range_that_is_none_gets_the_whole(result: Result, asked: str) -> None:
    answer = get(result.link, {"Range": asked})
    assert answer.status_code == 200, answer.text[:300]
    assert answer.content == result.picture


def test_a_range_of_another_version_gets_the_whole(result: Result) -> None:
    etag = get(result.link).headers["etag"]
    assert get(result.link, {"Range": "bytes=0-9", "If-Range": etag}).status_code == 206
    changed = get(result.link, {"Range": "bytes=0-9", "If-Range": '"another"'})
    assert changed.status_code == 200
    assert changed.content == result.picture


def test_head_says_what_get_would_send(result: Result) -> None:
    got = get(result.link)
    head = httpx.head(result.link, trust_env=False)
    assert head.status_code == 200
    assert head.content == b""
    for name in ("content-type", "content-length", "etag", "last-modified", "photochanger-result-expires-at"):
        assert head.headers[name] == got.headers[name], name


def test_a_download_is_an_attachment(result: Result) -> None:
    answer = get(result.link, PAGE, download="1")
    assert answer.content == result.picture
    assert answer.headers["content-disposition"] == f'attachment; filename="{file_name(answer)}"'


@pytest.mark.parametrize("size", [160, 320])
def test_a_thumbnail_is_a_small_webp_with_an_etag_of_its_own(result: Result, size: int) -> None:
    answer = get(result.link, PAGE, size=str(size))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    small = opened(answer.content)
    assert small.format == "WEBP"
    assert max(small.size) == size
    assert answer.headers["etag"] != get(result.link).headers["etag"]
    assert get(result.link, {"If-None-Match": answer.headers["etag"]}, size=str(size)).status_code == 304
    assert get(result.link, size=str(size)).content == answer.content


@pytest.mark.parametrize("size", ["321", "0", "-1", "99999999999999999999", "abc", "", "1e3"])
def test_other_sizes_are_refused(result: Result, size: str) -> None:
    assert_problem(get(result.link, size=size), 400, "invalid_request")


# -- people ---------------------------------------------------------------------------------------------------------


def test_a_browser_gets_a_page_with_picture_countdown_download_and_qr(result: Result) -> None:
    answer = get(result.link, PAGE)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe-inline" not in policy
    assert "Accept" in [value.strip() for value in answer.headers["vary"].split(",")]
    assert answer.headers["referrer-policy"] == "no-referrer"
    end = re.search(r'<time[^>]* datetime="([^"]+)"', answer.text)
    assert end is not None
    assert end[1] == answer.headers["photochanger-result-expires-at"]
    assert '<script type="module" src="/static/countdown.js">' in answer.text
    assert re.search(r'<figure class="qr">\s*<svg', answer.text)
    assert "download=1" in answer.text
    shown = re.search(r'<img src="([^"]+)"', answer.text)
    assert shown is not None
    picture = get(str(httpx.URL(result.link).join(html.unescape(shown[1]))))
    assert picture.headers["content-type"] == "image/webp"


def test_page_and_bytes_are_never_taken_for_each_other(result: Result) -> None:
    etag = get(result.link).headers["etag"]
    page = get(result.link, {**PAGE, "If-None-Match": etag})
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers.get("etag") != etag
    assert "sandbox" not in page.headers["content-security-policy"]


# -- who may --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda token: "",
        lambda token: "k1",
        lambda token: "..",
        lambda token: token[:-1],
        lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"),
        lambda token: token + "x",
        lambda token: token.replace(".", ".z", 1),
        lambda token: "k2" + token[2:],
        lambda token: "\x00" * 20,
        lambda token: "к1.é.\U0001f600",
        lambda token: "a" * 10_000,
    ],
    ids=["empty", "key id", "dots", "cut", "changed", "longer", "later", "other key", "NUL", "no ASCII", "long"],
)
def test_a_damaged_token_opens_nothing(shared: Installation, result: Result, change: Any) -> None:
    url = f"{shared.url}/public/results/{result.job_id}"
    assert_problem(get(url, token=change(result.token)), 404, "result_not_found")


def test_a_missing_token_opens_nothing(shared: Installation, result: Result) -> None:
    url = f"{shared.url}/public/results/{result.job_id}"
    assert_problem(get(url), 404, "result_not_found")
    assert_problem(get(url, size="320"), 404, "result_not_found")


def test_another_results_token_opens_nothing(shared: Installation, result: Result) -> None:
    other = parse_qs(urlsplit(result_link(shared.post(photo()))).query)["token"][0]
    assert_problem(get(f"{shared.url}/public/results/{result.job_id}", token=other), 404, "result_not_found")


@pytest.mark.parametrize("job_id", [str(UUID(int=7)), "nonsense", "%00", "a" * 3000, "%ff"])
def test_an_id_that_never_was_is_answered_as_a_foreign_token_is(
    shared: Installation, result: Result, job_id: str
) -> None:
    foreign = get(f"{shared.url}/public/results/{result.job_id}", token="k1.zzzzzz.AAAA")
    unknown = get(f"{shared.url}/public/results/{job_id}", token=result.token)
    assert_problem(unknown, 404, "result_not_found")
    assert unknown.json() == foreign.json()


def test_a_browser_without_a_genuine_link_gets_a_friendly_404(shared: Installation, result: Result) -> None:
    answer = get(f"{shared.url}/public/results/{result.job_id}", PAGE)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert result.job_id not in answer.text


# -- the end --------------------------------------------------------------------------------------------------------


def end_in(installation: Installation, job_id: str, seconds: float) -> None:
    """Moves a job's end to ``seconds`` from now, and everything before it along."""
    installation.sql(
        "UPDATE job SET finalized_at = finalized_at - gone, result_expires_at = result_expires_at - gone "
        "FROM (SELECT id, result_expires_at - clock_timestamp() - %s * interval '1 second' AS gone FROM job) AS m "
        "WHERE job.id = m.id AND job.id = %s",
        seconds,
        job_id,
    )


def is_over(installation: Installation, job_id: str) -> bool:
    row = installation.sql("SELECT clock_timestamp() >= result_expires_at AS over FROM job WHERE id = %s", job_id)[0]
    return bool(row["over"])


def test_a_result_is_given_until_its_last_second_and_gone_from_then_on(shared: Installation, result: Result) -> None:
    end_in(shared, result.job_id, 2)
    assert get(result.link).content == result.picture
    seen = []

    def gone() -> bool:
        over_before = is_over(shared, result.job_id)
        status = get(result.link).status_code
        over_after = is_over(shared, result.job_id)
        if over_before == over_after:
            assert status == (410 if over_before else 200)
        seen.append(status)
        return status == 410

    until(gone, within_s=6, what="410 after the end")
    assert seen[0] == 200
    assert is_over(shared, result.job_id)


def test_an_expired_result_is_gone_for_programs_in_every_shape(shared: Installation, result: Result) -> None:
    etag = get(result.link).headers["etag"]
    assert get(result.link, size="320").status_code == 200
    end_in(shared, result.job_id, -1)
    assert_problem(get(result.link), 410, "result_expired")
    assert_problem(get(result.link, size="320"), 410, "result_expired")
    assert_problem(get(result.link, download="1"), 410, "result_expired")
    assert_problem(get(result.link, {"If-None-Match": etag}), 410, "result_expired")
    assert_problem(get(result.link, {"Range": "bytes=0-9"}), 410, "result_expired")
    assert httpx.head(result.link, trust_env=False).status_code == 410


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en-GB,en;q=0.9", "This picture has expired"),
        ("ru", "Срок хранения снимка истёк"),
        ("ru-RU,ru;q=0.9,en;q=0.8", "Срок хранения снимка истёк"),
        ("de", "This picture has expired"),
    ],
)
def test_an_expired_result_is_a_friendly_page_in_the_guests_language(
    shared: Installation, result: Result, language: str, words: str
) -> None:
    end_in(shared, result.job_id, -1)
    answer = get(result.link, {**PAGE, "Accept-Language": language})
    assert answer.status_code == 410
    assert answer.headers["content-type"].startswith("text/html")
    assert words in answer.text
    assert f'<html lang="{"ru" if language.startswith("ru") else "en"}">' in answer.text
    assert "Accept-Language" in answer.headers["vary"]


def test_a_result_is_gone_though_its_file_is_still_there(shared: Installation, result: Result) -> None:
    end_in(shared, result.job_id, -1)
    row = shared.sql("SELECT result_file_path FROM job WHERE id = %s", result.job_id)[0]
    if row["result_file_path"] is not None:  # the cleaner has not come by yet
        assert (shared.home / "media" / row["result_file_path"]).exists()
    assert_problem(get(result.link), 410, "result_expired")


def test_a_genuine_link_whose_row_is_gone_says_expired_once_it_has(shared: Installation) -> None:
    job_id = str(uuid4())
    assert shared.sql("SELECT FROM job WHERE id = %s", job_id) == []
    now = datetime.now(UTC)
    over = own_link(shared, job_id, now - timedelta(seconds=5))
    assert_problem(get(over), 410, "result_expired")
    assert get(over, PAGE).status_code == 410
    assert_problem(get(own_link(shared, job_id, now + timedelta(hours=1))), 404, "result_not_found")


def test_a_deleted_jobs_link_is_not_found_before_its_end(shared: Installation, result: Result) -> None:
    row = shared.sql("DELETE FROM job WHERE id = %s RETURNING result_file_path", result.job_id)[0]
    (shared.home / "media" / row["result_file_path"]).unlink()
    assert_problem(get(result.link), 404, "result_not_found")


# -- before it is there ---------------------------------------------------------------------------------------------


@contextmanager
def unfinished(installation: Installation) -> Iterator[str]:
    """The link of a job that nobody works on, for as long as the block runs."""
    job_id = str(uuid4())
    installation.sql(
        "INSERT INTO job (id, slot_id, status, created_at, expires_at, snapshot, payload_mime, payload_bytes, "
        "payload_sha256) VALUES (%s, 'slot-001', 'pending', clock_timestamp(), clock_timestamp() + interval '1 hour', "
        "'{}', 'image/jpeg', 1, 'none')",
        job_id,
    )
    try:
        yield own_link(installation, job_id, datetime.now(UTC) + timedelta(hours=72))
    finally:
        installation.sql("DELETE FROM job WHERE id = %s", job_id)


@pytest.mark.parametrize(
    ("language", "words"), [("en", "still being made"), ("ru", "ещё создаётся")], ids=["English", "Russian"]
)
def test_an_unfinished_jobs_page_says_so_and_looks_again_by_itself(
    shared: Installation, language: str, words: str
) -> None:
    with unfinished(shared) as link:
        answer = get(link, {**PAGE, "Accept-Language": language})
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.status_code == 200
    assert words in answer.text
    again = re.search(r'<noscript><meta http-equiv="refresh" content="(\d+)"></noscript>', answer.text)
    assert again is not None
    assert 1 <= int(again[1]) <= 10
    script = re.search(r'<script type="module" src="(/static/[a-z]+\.js)">', answer.text)
    assert script is not None
    assert get(shared.url + script[1]).status_code == 200
    assert answer.headers["cache-control"] == "private, no-store"


def test_a_program_is_told_to_come_back_for_an_unfinished_job(shared: Installation) -> None:
    with unfinished(shared) as link:
        answer = get(link)
    assert_problem(answer, 404, "result_not_found")
    assert answer.headers["retry-after"] == "1"
