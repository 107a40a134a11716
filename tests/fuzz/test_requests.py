"""Damaged requests, byte by byte on the wire: refused, never an error of ours, and nothing is left of them."""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import pytest

from tests.conftest import database
from tests.e2e.test_camera import BOUNDARY, CAMERA_FIELDS, FORM_TYPE, form, part
from tests.fuzz.damage import damaged
from tests.installation import INGEST_PASSWORD, Installation, until
from tests.photos import photo

#: What may be said to a damaged request: the picture (the damage did no harm), a way on, a refusal.
SAID = re.compile(rb"HTTP/1\.1 (1|2|3|4|503)")
#: Seconds without a byte after which a request that was cut short is left; the server waits for its head for ten.
PATIENCE_S = 12.0
SENDERS = 32


pytestmark = pytest.mark.xdist_group("requests")


@pytest.fixture(scope="module")
def attacked(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    for url in database(server_url):
        with Installation(tmp_path_factory.mktemp("home"), database_url=url) as installation:
            yield installation


def request(line: str, *headers: str, body: bytes = b"", sized: bool = True) -> bytes:
    size = [f"Content-Length: {len(body)}"] if sized and body else []
    head = "\r\n".join((f"{line} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers, *size))
    return head.encode() + b"\r\n\r\n" + body


def camera(*, password: str = INGEST_PASSWORD) -> bytes:
    fields = [part(name, value) for name, value in CAMERA_FIELDS.items()]
    picture = part("fileToUpload", photo(48, 32), file="IMG_0003.JPG", kind="image/jpeg")
    return form(*fields, part("password", password), picture)


def samples() -> list[bytes]:
    body = camera()
    pieces = b"".join(f"{len(one):x}\r\n".encode() + one + b"\r\n" for one in (body[:100], body[100:])) + b"0\r\n\r\n"
    kind = f"Content-Type: {FORM_TYPE}"
    job = "00000000-0000-4000-8000-000000000000"
    login = b'{"name": "admin", "password": "a wrong password"}'
    return [
        request("POST /ingest/slot-001", kind, body=body),
        request("POST /ingest/slot-001", kind, "Prefer: respond-async", "Idempotency-Key: a", body=body),
        request("POST /ingest/slot-001", kind, "Expect: 100-continue", body=body),
        request("POST /ingest/slot-001", kind, "Transfer-Encoding: chunked", body=pieces, sized=False),
        request(f"GET /public/results/{job}?token=A.B.C&size=320&download=1", "Range: bytes=0-9", 'If-None-Match: "x"'),
        request(f"GET /public/jobs/{job}?token=A.B.C", "Prefer: wait=1"),
        request("POST /api/login", "Content-Type: application/json", body=login),
        request("POST /sign-in", "Content-Type: application/x-www-form-urlencoded", body=b"name=admin&password=wrong"),
        request("GET /api/jobs?limit=1&cursor=eyJhIjoxfQ", "Authorization: Bearer aaaa.bbbb.cccc"),
        request("GET /jobs?status=failed&q=%D0%B0", "Cookie: session=abc; language=ru", "Accept: text/html"),
        request(
            "GET /static/js/refresh.js", "Accept-Encoding: gzip", "If-Modified-Since: Sat, 30 May 2026 21:14:07 GMT"
        ),
    ]


def said_to(port: int, data: bytes) -> bytes:
    """The first line of the answer; empty when the connection was closed without one, or nothing came in time."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as camera:
        heard = b""
        try:
            camera.sendall(data)
            while b"\n" not in heard and (more := camera.recv(4096)):
                heard += more
        except (ConnectionError, TimeoutError):  # refused while it was still being sent; or it waits for the rest
            return b""
        return heard.partition(b"\r\n")[0]


def test_the_samples_are_sound(attacked: Installation) -> None:
    said = [said_to(attacked.port, one)[9:12] for one in samples()]
    assert said == [b"200", b"202", b"100", b"200", b"404", b"404", b"401", b"403", b"401", b"303", b"200"]
    assert BOUNDARY in samples()[0]


def test_damaged_requests_are_refused_and_leave_nothing(attacked: Installation) -> None:
    attacked.done("settings", "t_sync_response_s=10")
    heard: Counter[bytes] = Counter()

    def send(one: tuple[str, bytes]) -> None:
        which, data = one
        said = said_to(attacked.port, data)
        assert not said or SAID.match(said), f"{which}: {said!r} to {data[:300]!r}"
        heard[said[9:12] or b"closed"] += 1

    with ThreadPoolExecutor(SENDERS) as pool:
        sent: set[Future[None]] = set()
        for one in damaged(samples(), "requests"):
            sent.add(pool.submit(send, one))
            if len(sent) >= SENDERS:
                done, sent = wait(sent, return_when=FIRST_COMPLETED)
                for each in done:
                    each.result()
        for each in sent:
            each.result()
    print(f"{heard.total()} damaged requests:", ", ".join(f"{n} {what.decode()}" for what, n in heard.most_common()))
    assert heard.total() > len(samples())
    until(lambda: not attacked.files("tmp"), within_s=20, what="temporary files gone")
    until(
        lambda: not attacked.sql("SELECT FROM job WHERE NOT is_finalized LIMIT 1"), within_s=20, what="every job final"
    )
    assert attacked.files("payloads") == []
    broken = [line for line in attacked.log if "request.broken" in line or "Traceback" in line]
    assert broken == []
    assert attacked.post(photo()).status_code == 200
