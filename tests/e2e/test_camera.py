"""What a camera program may send and gets back: every byte as DSLR Remote Pro 3.30 sends it, and its relatives."""

from __future__ import annotations

import io
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import pytest
from PIL import Image

from tests.installation import INGEST_PASSWORD, Installation, until
from tests.photos import opened, photo

pytestmark = pytest.mark.xdist_group("shared")

BOUNDARY = b"----BreezeFormBoundary7MA4YWxkTrZu0gW"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY.decode()}"
#: The text fields of DSLR Remote Pro 3.30 before the password and the photo, in its order.
CAMERA_FIELDS = {
    "time": "2026-05-30 21:14:07",
    "user_id": "booth 3",
    "id": "0003",
    "profile": r"C:\Users\Booth\AppData\Roaming\BreezeSys\DSLR Remote Pro\Profiles\evening.xml",
    "status": r"C:\Users\Booth\Pictures\status\status.txt",
    "hash": "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
    "name": "Анна",
    "model": "Canon EOS 90D",
    "version": "3.30",
}


@dataclass
class Answer:
    """One answer off the wire: status, headers by lower-case name, body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return orjson.loads(self.body)


class Wire:
    """A connection spoken to byte by byte."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._in = connection.makefile("rb")

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def head(self) -> Answer:
        """The next status line and headers, whether 100 Continue or a final one."""
        status_line = self._in.readline()
        match = re.match(rb"HTTP/1\.1 (\d{3}) ", status_line)
        assert match is not None, status_line
        headers = {}
        while line := self._in.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return Answer(int(match[1]), headers)

    def answer(self) -> Answer:
        """The next answer with its body, which must come whole."""
        answer = self.head()
        length = int(answer.headers["content-length"])
        answer.body = self._in.read(length)
        assert len(answer.body) == length
        return answer

    def close(self) -> None:
        self._in.close()

    def ended(self) -> bool:
        """Waits (at most the socket's timeout) for what comes next; True when it is the connection's end."""
        try:
            return self._in.read(1) == b""
        except ConnectionResetError:
            return True


@contextmanager
def wire(installation: Installation, *, timeout_s: float = 60) -> Iterator[Wire]:
    """A connection, closed afterwards whatever it was in the middle of."""
    with (
        socket.create_connection(("127.0.0.1", installation.port), timeout=timeout_s) as connection,
        closing(Wire(connection)) as opened_wire,
    ):
        yield opened_wire


def part(name: str, value: bytes | str, *, file: str | None = None, kind: str | None = None) -> bytes:
    """One part of a form, written out."""
    disposition = f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{file}"' if file else "")
    head = disposition + (f"\r\nContent-Type: {kind}" if kind else "")
    data = value.encode() if isinstance(value, str) else value
    return head.encode() + b"\r\n\r\n" + data


def form(*parts: bytes) -> bytes:
    """A whole body of ``FORM_TYPE``."""
    return b"".join(b"--" + BOUNDARY + b"\r\n" + one + b"\r\n" for one in parts) + b"--" + BOUNDARY + b"--\r\n"


def picture_part(data: bytes, *, name: str = "fileToUpload", file: str = "IMG_0003.JPG") -> bytes:
    return part(name, data, file=file, kind="image/jpeg")


def password_part(password: str = INGEST_PASSWORD) -> bytes:
    return part("password", password)


def request_head(
    installation: Installation, *lines: str, slot: str = "slot-001", kind: str = FORM_TYPE, method: str = "POST"
) -> bytes:
    """The head of an ingest request with ``lines`` beside host and type."""
    host = f"127.0.0.1:{installation.port}"
    rows = (f"{method} /ingest/{slot} HTTP/1.1", f"Host: {host}", f"Content-Type: {kind}", *lines, "", "")
    return "\r\n".join(rows).encode()


def expecting(installation: Installation, body: bytes, *, slot: str = "slot-001") -> bytes:
    return request_head(installation, f"Content-Length: {len(body)}", "Expect: 100-continue", slot=slot)


def fields_of(installation: Installation, job_id: str) -> Any:
    return installation.sql("SELECT fields FROM job WHERE id = %s", job_id)[0]["fields"]


def send_form(installation: Installation, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.post(
        f"{installation.url}/ingest/slot-001",
        content=body,
        headers={"Content-Type": FORM_TYPE, **(headers or {})},
        timeout=70,
        trust_env=False,
    )


def camera_answer(installation: Installation, body: bytes) -> Answer:
    """Sends ``body`` as DSLR Remote Pro does: the head, then, once it is told to go on, the body."""
    with wire(installation) as camera:
        camera.send(expecting(installation, body))
        assert camera.head().status == 100
        camera.send(body)
        return camera.answer()


def camera_parts() -> list[bytes]:
    return [part(name, value) for name, value in CAMERA_FIELDS.items()]


def test_dslr_remote_pro_is_told_to_go_on_and_gets_the_changed_picture(shared: Installation) -> None:
    sent = photo()
    answer = camera_answer(shared, form(*camera_parts(), password_part(), picture_part(sent)))
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "no-store"
    assert re.search(r'filename="[^"]+\.jpg"', answer.headers["content-disposition"])
    assert answer.body != sent
    assert opened(answer.body).size == (640, 480)


def test_what_a_camera_says_is_kept_as_it_came_but_never_its_password(shared: Installation) -> None:
    answer = camera_answer(shared, form(*camera_parts(), password_part(), picture_part(photo())))
    assert answer.status == 200, answer.body
    assert fields_of(shared, answer.headers["x-job-id"]) == CAMERA_FIELDS
    row = shared.sql("SELECT job::text AS whole FROM job WHERE id = %s", answer.headers["x-job-id"])[0]
    assert INGEST_PASSWORD not in row["whole"]


def test_the_photo_may_come_before_the_password(shared: Installation) -> None:
    sent = photo()
    answer = camera_answer(shared, form(picture_part(sent), *camera_parts(), password_part()))
    assert answer.status == 200, answer.body
    assert answer.body != sent
    assert fields_of(shared, answer.headers["x-job-id"]) == CAMERA_FIELDS


def test_a_refusal_comes_before_the_body_is_asked_for(shared: Installation) -> None:
    with wire(shared) as camera:
        camera.send(expecting(shared, form(password_part(), picture_part(photo())), slot="no-such-slot"))
        answer = camera.answer()
    assert answer.status == 404
    assert answer.json()["code"] == "slot_not_found"
    assert answer.headers["connection"] == "close"


def test_a_field_may_hold_what_is_not_text(shared: Installation) -> None:
    odd = part("note", b"a\x00b\xff\xed\xa0\x80<script>\r\nc")
    answer = send_form(shared, form(odd, password_part(), picture_part(photo())))
    assert answer.status_code == 200, answer.text
    note = fields_of(shared, answer.headers["x-job-id"])["note"]
    assert note.startswith("a\N{REPLACEMENT CHARACTER}b")
    assert note.endswith("<script>\r\nc")


def test_the_case_of_the_form_s_type_does_not_matter(shared: Installation) -> None:
    kind = f"Multipart/Form-Data; Boundary={BOUNDARY.decode()}"
    answer = send_form(shared, form(password_part(), picture_part(photo())), {"Content-Type": kind})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("name", ["fileToUpload", "file", "image", "photo"])
def test_the_photo_may_be_named(shared: Installation, name: str) -> None:
    answer = send_form(shared, form(password_part(), picture_part(photo(), name=name)))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("kind", ["application/octet-stream", "image/jpg", "text/plain", None])
def test_the_declared_type_of_a_real_picture_does_not_matter(shared: Installation, kind: str | None) -> None:
    body = form(password_part(), part("fileToUpload", photo(), file="IMG_0003.JPG", kind=kind))
    answer = send_form(shared, body)
    assert answer.status_code == 200, answer.text
    assert opened(answer.content).size == (640, 480)


@pytest.mark.parametrize("form_name", ["PNG", "WEBP"])
def test_other_picture_formats_are_taken(shared: Installation, form_name: str) -> None:
    sent = photo(form=form_name)
    answer = shared.post(sent)
    assert answer.status_code == 200, answer.text
    assert answer.content != sent
    picture = opened(answer.content)
    assert picture.size == (640, 480)
    assert answer.headers["content-type"] == Image.MIME[str(picture.format)]


def rotated_photo() -> bytes:
    """Stored 96 x 64, left half white and right half black, to be turned by 90° clockwise; taken somewhere."""
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation
    exif[0x010F] = "Canary Cameras"  # Make
    exif.get_ifd(0x8825).update({1: "N", 2: (55.0, 45.0, 21.0), 3: "E", 4: (37.0, 37.0, 2.0)})  # GPS
    image = Image.new("RGB", (96, 64), "black")
    image.paste("white", (0, 0, 48, 64))
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif, quality=95)
    return out.getvalue()


def test_the_orientation_is_baked_in(shared: Installation) -> None:
    answer = shared.post(rotated_photo())
    assert answer.status_code == 200, answer.text
    upright = opened(answer.content).convert("L")
    assert upright.size == (64, 96)
    top, bottom = upright.getpixel((32, 16)), upright.getpixel((32, 80))
    assert isinstance(top, int)
    assert isinstance(bottom, int)
    assert top > 180
    assert bottom < 60


def test_the_place_and_the_camera_are_stripped_from_the_result(shared: Installation) -> None:
    sent = rotated_photo()
    assert opened(sent).getexif().get_ifd(0x8825)[1] == "N"
    answer = shared.post(sent)
    assert answer.status_code == 200, answer.text
    assert dict(opened(answer.content).getexif()) == {}
    for trace in (b"Exif", b"Canary Cameras", b"http://ns.adobe.com/xap"):
        assert trace not in answer.content


def test_a_sender_may_ask_not_to_wait(shared: Installation) -> None:
    answer = shared.post(photo(), headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    assert answer.headers["preference-applied"] == "respond-async"
    body = answer.json()
    assert set(body) == {"job_id", "status_url", "result_url", "cancel_url"}
    assert body["job_id"] == answer.headers["x-job-id"]

    def result() -> httpx.Response | None:
        found = httpx.get(body["result_url"], trust_env=False)
        return found if found.status_code == 200 else None

    found = until(result, within_s=30, what="the result of a job nobody waited for")
    assert found is not None
    assert opened(found.content).size == (640, 480)


def test_a_sender_may_shorten_its_wait(shared: Installation) -> None:
    answer = shared.post(photo(), headers={"Prefer": "wait=0"})
    assert answer.status_code == 202, answer.text
    assert answer.headers["preference-applied"] == "wait=0"
    row = shared.sql("SELECT id FROM job WHERE id = %s", answer.json()["job_id"])
    assert len(row) == 1


def test_ten_cameras_at_once_each_get_their_own_picture(shared: Installation) -> None:
    sizes = [(200 + 10 * number, 150) for number in range(10)]
    got: dict[int, tuple[int, int]] = {}

    def camera(number: int) -> None:
        answer = camera_answer(shared, form(*camera_parts(), password_part(), picture_part(photo(*sizes[number]))))
        assert answer.status == 200, answer.body
        got[number] = opened(answer.body).size

    cameras = [threading.Thread(target=camera, args=(number,)) for number in range(len(sizes))]
    for one in cameras:
        one.start()
    for one in cameras:
        one.join(70)
    assert got == dict(enumerate(sizes))
