"""Hostile and broken uploads: each gets its own clear refusal, and leaves neither a file nor a job behind."""

from __future__ import annotations

import contextlib
import io
import select
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.e2e.test_camera import (
    BOUNDARY,
    FORM_TYPE,
    Answer,
    form,
    part,
    password_part,
    picture_part,
    request_head,
    send_form,
    wire,
)
from tests.installation import Installation, until
from tests.photos import photo, png_header

pytestmark = pytest.mark.xdist_group("shared")

KIB, MIB = 1024, 1024**2
#: The default limit of a photo, and what a form may hold beside it.
PHOTO_BYTES = 50 * MIB


def drawn(form_name: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(out, form_name, **options)
    return out.getvalue()


def animation(frames: int) -> bytes:
    pictures = [Image.new("RGB", (32, 32), (8 * number % 256, 0, 255 - number)) for number in range(frames)]
    out = io.BytesIO()
    pictures[0].save(out, "WEBP", save_all=True, append_images=pictures[1:], duration=40)
    return out.getvalue()


def jobs(installation: Installation) -> int:
    count = installation.sql("SELECT count(*) AS count FROM job")[0]["count"]
    assert isinstance(count, int)
    return count


def nothing_left(installation: Installation) -> None:
    """No unfinished upload, and no original: every job of these tests is final by now."""
    until(lambda: not installation.files("tmp"), within_s=5, what="no file in media/tmp")
    until(lambda: not installation.files("payloads"), within_s=5, what="no file in media/payloads")


def assert_problem(answer: httpx.Response | Answer, status: int, code: str) -> None:
    """A problem document of the one shape, which tells nothing of our insides."""
    actual = answer.status if isinstance(answer, Answer) else answer.status_code
    body = answer.body if isinstance(answer, Answer) else answer.content
    assert actual == status, body[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["title"]
    assert problem["detail"]
    for inside in (b"Traceback", b'File "', b".py", b"psycopg", b"falcon"):
        assert inside not in body


def both(picture: bytes) -> bytes:
    return form(password_part(), picture_part(picture))


SVG = (
    b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'
)
HTML = b"<!doctype html><html><body><script>alert(1)</script></body></html>"
PDF = b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer << /Root 1 0 R >>\n%%EOF\n"
HUGE_HEAD = b'Content-Disposition: form-data; name="x"\r\nX-Padding: ' + b"a" * 64 * KIB + b"\r\n\r\nx"
NOT_UTF8_NAME = 'Content-Disposition: form-data; name="имя"\r\n\r\nx'.encode("cp1251")

FORMS: list[tuple[str, Callable[[], bytes], int, str]] = [
    ("an empty photo", lambda: both(b""), 400, "invalid_image"),
    ("no password", lambda: form(picture_part(photo())), 400, "invalid_request"),
    ("no photo", lambda: form(password_part()), 400, "invalid_request"),
    ("no part at all", lambda: form(), 400, "invalid_request"),
    ("an empty body", lambda: b"", 400, "invalid_request"),
    (
        "two passwords",
        lambda: form(password_part(), password_part(), picture_part(photo())),
        400,
        "invalid_request",
    ),
    ("two photos", lambda: form(password_part(), picture_part(photo()), picture_part(photo())), 400, "invalid_request"),
    (
        "two photos by two names",
        lambda: form(password_part(), picture_part(photo()), picture_part(photo(), name="image")),
        400,
        "invalid_request",
    ),
    ("another boundary", lambda: both(photo()).replace(BOUNDARY, b"another"), 400, "invalid_request"),
    ("an end too early", lambda: both(photo())[:-600], 400, "invalid_request"),
    ("a wrong password", lambda: form(password_part("not this one"), picture_part(photo())), 401, "invalid_password"),
    ("a wrong password last", lambda: form(picture_part(photo()), password_part("nor this")), 401, "invalid_password"),
    ("an empty password", lambda: form(password_part(""), picture_part(photo())), 401, "invalid_password"),
    (
        "a password that is not text",
        lambda: form(part("password", b"\x00\xff\xed\xa0\x80"), picture_part(photo())),
        401,
        "invalid_password",
    ),
    (
        "21 parts",
        lambda: form(password_part(), *(part(f"f{n}", "x") for n in range(19)), picture_part(photo())),
        400,
        "invalid_request",
    ),
    ("huge part headers", lambda: form(password_part(), HUGE_HEAD, picture_part(photo())), 400, "invalid_request"),
    (
        "a transfer encoding",
        lambda: form(password_part(), b"Content-Transfer-Encoding: base64\r\n\r\nYQ==", picture_part(photo())),
        400,
        "invalid_request",
    ),
    ("a 2 MiB preamble", lambda: b"x" * 2 * MIB + b"\r\n" + both(photo()), 400, "invalid_request"),
    (
        "a text field over 64 KiB",
        lambda: form(part("note", b"x" * (64 * KIB + 1)), password_part(), picture_part(photo())),
        413,
        "payload_too_large",
    ),
    ("a password over 64 KiB", lambda: form(password_part("x" * 65 * KIB)), 413, "payload_too_large"),
    ("a GIF", lambda: both(drawn("GIF")), 415, "unsupported_media_type"),
    ("an SVG", lambda: both(SVG), 415, "unsupported_media_type"),
    ("HTML", lambda: both(HTML), 415, "unsupported_media_type"),
    ("a PDF", lambda: both(PDF), 415, "unsupported_media_type"),
    ("a TIFF", lambda: both(drawn("TIFF")), 415, "unsupported_media_type"),
    ("a BMP", lambda: both(drawn("BMP")), 415, "unsupported_media_type"),
    ("text", lambda: both(b"not a picture at all\n" * 100), 415, "unsupported_media_type"),
    ("one byte", lambda: both(b"\xff"), 415, "unsupported_media_type"),
    ("a PNG of 50k x 50k pixels", lambda: both(png_header(50_000, 50_000)), 413, "image_too_large"),
    ("a PNG that is 1 pixel wide and endlessly high", lambda: both(png_header(1, 2**31 - 1)), 413, "image_too_large"),
    ("an animated WebP", lambda: both(animation(30)), 413, "image_too_large"),
    ("a field's name that is no UTF-8", lambda: form(NOT_UTF8_NAME, picture_part(photo())), 400, "invalid_request"),
]


@pytest.mark.parametrize(
    ("body", "status", "code"), [pytest.param(body, status, code, id=name) for name, body, status, code in FORMS]
)
def test_a_hostile_form_is_refused(shared: Installation, body: Callable[[], bytes], status: int, code: str) -> None:
    before = jobs(shared)
    assert_problem(send_form(shared, body()), status, code)
    nothing_left(shared)
    assert jobs(shared) == before


REQUESTS: list[tuple[str, str, str, dict[str, str], int, str]] = [
    ("an unknown slot", "POST", "no-such-slot", {}, 404, "slot_not_found"),
    ("a slot that is NUL", "POST", "%00", {}, 404, "slot_not_found"),
    ("a slot of 4 KiB", "POST", "a" * 4 * KIB, {}, 404, "slot_not_found"),
    ("a slot that is no UTF-8", "POST", "%ff%fe", {}, 404, "slot_not_found"),
    ("a slot that is switched off", "POST", "slot-002", {}, 404, "slot_disabled"),
    ("JSON", "POST", "slot-001", {"Content-Type": "application/json"}, 415, "unsupported_media_type"),
    (
        "a plain form",
        "POST",
        "slot-001",
        {"Content-Type": "application/x-www-form-urlencoded"},
        415,
        "unsupported_media_type",
    ),
    (
        "a longer type",
        "POST",
        "slot-001",
        {"Content-Type": FORM_TYPE.replace("data", "dataxyz")},
        415,
        "unsupported_media_type",
    ),
    ("no type", "POST", "slot-001", {"Content-Type": ""}, 415, "unsupported_media_type"),
    ("no boundary", "POST", "slot-001", {"Content-Type": "multipart/form-data"}, 400, "invalid_request"),
    (
        "an endless boundary",
        "POST",
        "slot-001",
        {"Content-Type": f"multipart/form-data; boundary={'b' * 4096}"},
        400,
        "invalid_request",
    ),
    ("GET", "GET", "slot-001", {}, 405, "invalid_request"),
    ("PUT", "PUT", "slot-001", {}, 405, "invalid_request"),
]


@pytest.mark.parametrize(
    ("method", "slot", "headers", "status", "code"), [pytest.param(*rest, id=name) for name, *rest in REQUESTS]
)
def test_a_hostile_request_is_refused(
    shared: Installation, method: str, slot: str, headers: dict[str, str], status: int, code: str
) -> None:
    before = jobs(shared)
    answer = httpx.request(
        method,
        f"{shared.url}/ingest/{slot}",
        content=both(photo()) if method != "GET" else None,
        headers={"Content-Type": FORM_TYPE, **headers},
        timeout=30,
        trust_env=False,
    )
    assert_problem(answer, status, code)
    if status == 405:
        assert "POST" in answer.headers["allow"]
    nothing_left(shared)
    assert jobs(shared) == before


@pytest.mark.parametrize("host", ["evil.com/path?x", "user@evil", "a b", "<script>", "é", "a:0", ""])
def test_a_host_that_is_none_is_refused(shared: Installation, host: str) -> None:
    with wire(shared) as sender:
        sender.send(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1"))
        assert_problem(sender.answer(), 400, "invalid_request")


def test_truncated_pictures_fail_and_nothing_of_them_is_kept(installation: Installation) -> None:
    """Thirty, because what could be left behind depends on who is first: the job's end or the look at its end."""
    for form_name in ("JPEG", "PNG", "WEBP") * 10:
        whole = photo(form=form_name)
        answer = installation.post(whole[: len(whole) // 2])
        assert_problem(answer, 400, "invalid_image")
        if form_name == "WEBP":
            assert "x-job-id" not in answer.headers, "its header already tells; no job was made"
            continue
        job_id = answer.headers["x-job-id"]
        row = installation.sql("SELECT status::text AS status, failure_reason FROM job WHERE id = %s", job_id)[0]
        assert row == {"status": "failed", "failure_reason": "invalid_image"}
    nothing_left(installation)
    assert installation.files("results") == []


def test_a_polyglot_leaves_as_pixels_only(shared: Installation) -> None:
    answer = shared.post(photo() + b"PK\x03\x04<script>alert(1)</script>")
    assert answer.status_code == 200, answer.text
    assert b"<script>" not in answer.content
    assert b"PK\x03\x04" not in answer.content


NAMES = {
    "a path": b"../../etc/passwd",
    "an absolute path": b"/etc/passwd",
    "a NUL": b"IMG\x00.JPG",
    "a right-to-left override": "IMG\u202egpj.exe".encode(),
    "4 KiB": b"a" * 4096 + b".JPG",
    "an encoded line break": b"IMG%0D%0AX-Evil: yes.JPG",
    "nothing": b"",
    "no UTF-8": "Фото_0003.JPG".encode("cp1251"),
}


@pytest.mark.parametrize("name", [pytest.param(name, id=what) for what, name in NAMES.items()])
def test_the_file_name_does_not_matter(shared: Installation, name: bytes) -> None:
    head = b'Content-Disposition: form-data; name="fileToUpload"; filename="%b"\r\nContent-Type: image/jpeg' % name
    answer = send_form(shared, form(password_part(), head + b"\r\n\r\n" + photo()))
    assert answer.status_code == 200, answer.text
    assert "x-evil" not in answer.headers
    nothing_left(shared)


@pytest.mark.parametrize(
    "name", ["a\x00b", "../../etc/passwd", "\u202eabc", "n" * 4096], ids=["NUL", "path", "RTL", "4 KiB"]
)
def test_the_name_of_a_field_is_metadata_too(shared: Installation, name: str) -> None:
    answer = send_form(shared, form(part(name, "x"), password_part(), picture_part(photo())))
    assert answer.status_code == 200, answer.text
    nothing_left(shared)


def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(shared: Installation) -> None:
    before = jobs(shared)
    with wire(shared, timeout_s=15) as sender:
        sender.send(request_head(shared, f"Content-Length: {PHOTO_BYTES + 4 * MIB}"))
        began = time.monotonic()
        answer = sender.answer()
        assert time.monotonic() - began < 2
        assert_problem(answer, 413, "payload_too_large")
        assert answer.headers["connection"] == "close"
        assert sender.ended()
    nothing_left(shared)
    assert jobs(shared) == before


def test_an_endless_chunked_body_is_cut(shared: Installation) -> None:
    before = jobs(shared)
    begin = form(password_part())[: -len(b"--" + BOUNDARY + b"--\r\n")]
    begin += b"--" + BOUNDARY + b"\r\n" + picture_part(photo())
    filler = b"%x\r\n" % MIB + b"\xa5" * MIB + b"\r\n"
    answer: Answer | None = None
    sent = 0
    with wire(shared, timeout_s=30) as sender:
        began = time.monotonic()
        sender.send(request_head(shared, "Transfer-Encoding: chunked"))
        sender.send(b"%x\r\n" % len(begin) + begin + b"\r\n")
        with contextlib.suppress(ConnectionError):
            # Goes on sending after the answer, as a program that does not read does, until it is cut.
            while sent < 400 * MIB:
                if answer is None and select.select([sender.connection], [], [], 0)[0]:
                    answer = sender.answer()
                sender.send(filler)
                sent += MIB
        took_s = time.monotonic() - began
    assert answer is not None
    assert_problem(answer, 413, "payload_too_large")
    assert answer.headers["connection"] == "close"
    # The limit, then at most 64 MiB that are thrown away, and what the kernel's buffers hold.
    assert PHOTO_BYTES <= sent <= PHOTO_BYTES + (64 + 20) * MIB
    assert took_s < 30
    nothing_left(shared)
    assert jobs(shared) == before


def test_a_sender_that_goes_silent_after_its_refusal_is_cut(shared: Installation) -> None:
    body = form(password_part("wrong"), picture_part(photo() + b"\x00" * 2 * MIB))
    with wire(shared, timeout_s=15) as sender:
        sender.send(request_head(shared, f"Content-Length: {len(body)}") + body[:MIB])
        assert_problem(sender.answer(), 401, "invalid_password")
        began = time.monotonic()
        assert sender.ended()
        assert time.monotonic() - began < 10
    nothing_left(shared)


@pytest.mark.parametrize("after", [0, 100, 64 * KIB, 3 * MIB])
def test_a_sender_that_leaves_in_the_middle_leaves_no_file(shared: Installation, after: int) -> None:
    before = jobs(shared)
    body = form(password_part(), picture_part(photo() + b"\x00" * 4 * MIB))
    with wire(shared) as sender:
        sender.send(request_head(shared, f"Content-Length: {len(body)}") + body[:after])
        if after == 3 * MIB:
            until(lambda: shared.files("tmp"), within_s=5, what="the beginning of the photo on disk")
    nothing_left(shared)
    assert jobs(shared) == before


def test_a_refused_sender_reads_its_whole_answer_while_it_still_sends(shared: Installation) -> None:
    body = form(password_part("not the password"), picture_part(photo() + b"\x00" * 20 * MIB))
    for _ in range(10):
        with wire(shared) as sender:
            sender.send(request_head(shared, f"Content-Length: {len(body)}"))
            sender.send(body)
            answer = sender.answer()
            assert sender.ended()
        assert_problem(answer, 401, "invalid_password")
    nothing_left(shared)


def test_senders_who_do_not_finish_their_head_or_trailers_are_cut(shared: Installation) -> None:
    chunked = request_head(shared, "Transfer-Encoding: chunked")
    begins = {
        "a head": (b"POST /ingest/slot-001 HTTP/1.1\r\nX-Drip: ", b"x"),
        "a silent head": (b"POST /ingest/slo", b""),
        "trailers": (chunked + b"0\r\n", b"X: y\r\n"),
        "a trailer": (chunked + b"0\r\nX-Drip: ", b"x"),
        "silent trailers": (chunked + b"0\r\n", b""),
    }
    with contextlib.ExitStack() as stack:
        slow = {name: (stack.enter_context(wire(shared)), begin, drip) for name, (begin, drip) in begins.items()}
        answered = stack.enter_context(wire(shared))
        answered.send(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
        assert answered.answer().status == 200
        slow["line ends behind an answer"] = (answered, b"\r\n", b"\r\n")
        for one, begin, _ in slow.values():
            one.send(begin)
            one.connection.settimeout(0.02)
        began = time.monotonic()

        def held() -> list[str]:
            for name, (one, _, drip) in list(slow.items()):
                try:
                    one.send(drip)
                    if one.connection.recv(1) == b"":
                        del slow[name]
                except TimeoutError:
                    continue
                except ConnectionError:
                    del slow[name]
            return list(slow)

        until(lambda: len(held()) < 6, within_s=15, what="the end of the first")
        assert time.monotonic() - began > 5
        until(lambda: not held(), within_s=3, what=f"the end of {list(slow)}")


def test_a_photo_that_drips_is_cut_when_its_deadline_has_passed(tmp_path: Path, database_url: str) -> None:
    running = Installation(tmp_path / "home", database_url=database_url)
    running.done("settings", "t_sync_response_s=10")
    body = form(password_part(), picture_part(photo()))
    with running, wire(running) as sender:
        began = time.monotonic()
        sender.send(request_head(running, f"Content-Length: {10 * MIB}") + body[:-100])

        def answered() -> bool:
            sender.send(b"x")
            return bool(select.select([sender.connection], [], [], 0.2)[0])

        until(answered, within_s=20, what="its refusal")
        assert time.monotonic() - began > 9
        assert_problem(sender.answer(), 408, "invalid_request")
        assert sender.ended()
        nothing_left(running)


CHUNKED = b"POST /ingest/slot-001 HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"POST /ingest/slot-001 HTTP/1.1\r\n", b"X-Padding: " + b"a" * 16 * KIB + b"\r\n"),
        (b"POST /ingest/slot-001 HTTP/1.1\r\nX-Padding: ", b"a" * 16 * KIB),
        (b"POST /ingest/", b"a" * 16 * KIB),
        (CHUNKED, b"X-Padding: " + b"a" * 16 * KIB + b"\r\n"),
        (CHUNKED + b"X-Padding: ", b"a" * 16 * KIB),
    ],
    ids=["headers", "one header", "request line", "trailers", "one trailer"],
)
def test_an_endless_head_or_trailer_is_cut_and_not_kept_in_memory(
    shared: Installation, begin: bytes, more: bytes
) -> None:
    web = shared.part("web")
    before = web.memory_info().rss
    sent = 0
    with wire(shared) as sender, contextlib.suppress(ConnectionError):
        sender.send(begin)
        while sent < 64 * MIB:
            sender.send(more)
            sent += len(more)
    assert sent < 64 * MIB
    assert web.memory_info().rss - before < 20 * MIB


def wrong(installation: Installation, password: str, *, slot: str = "slot-001") -> httpx.Response:
    return installation.post(photo(64, 48), password=password, slot=slot)


def test_guessing_is_slowed_and_the_right_password_still_works(installation: Installation) -> None:
    assert installation.post(photo()).status_code == 200
    for number in range(10):
        assert_problem(wrong(installation, f"guess {number}"), 401, "invalid_password")
    eleventh = wrong(installation, "guess 11")
    assert_problem(eleventh, 429, "rate_limited")
    assert 1 <= int(eleventh.headers["retry-after"]) <= 60
    assert installation.post(photo()).status_code == 200
    assert installation.sql("SELECT count(*) AS count FROM job")[0]["count"] == 2
    nothing_left(installation)


def test_one_camera_with_an_old_password_does_not_lock_the_booth_out(installation: Installation) -> None:
    for _ in range(30):
        assert_problem(wrong(installation, "last year's password"), 401, "invalid_password")
    for number in range(9):
        assert_problem(wrong(installation, f"guess {number}"), 401, "invalid_password")
    # Ten distinct ones by now; the right one must not have been counted among them.
    assert_problem(wrong(installation, "last year's password"), 401, "invalid_password")
    assert_problem(wrong(installation, "one more"), 429, "rate_limited")


def test_guesses_at_one_slot_do_not_slow_another(installation: Installation) -> None:
    installation.sql("UPDATE slot SET is_active = true WHERE id = 'slot-002'")
    for number in range(10):
        wrong(installation, f"guess {number}")
    assert_problem(wrong(installation, "guess 11"), 429, "rate_limited")

    def other() -> bool:
        return wrong(installation, "guess 11", slot="slot-002").status_code == 401

    until(other, within_s=5, what="slot-002 switched on and not throttled")
