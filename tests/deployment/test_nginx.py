"""The site for nginx that ``ops`` ships, run by nginx itself, with its names, ports and certificate replaced."""

from __future__ import annotations

import io
import shutil
import socket
import ssl
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from photochanger.config import PROJECT
from tests.api import Api
from tests.certificates import NAME, certificate
from tests.conftest import database as fresh_database
from tests.installation import INGEST_PASSWORD, Installation, free_port, result_link, until
from tests.photos import opened, photo

SITE = PROJECT / "ops" / "proxy" / "nginx.conf"


def site(folder: Path, *, backend: int, plain: int, secure: int) -> str:
    """The shipped file with each thing replaced that it says to replace, and no other."""
    made = certificate(folder)
    text = SITE.read_text()
    for old, new in (
        ("photos.example.com;", f"{NAME};"),
        ("/etc/ssl/photos.example.com/fullchain.pem", made["PHOTOCHANGER_TLS_CERTIFICATE"]),
        ("/etc/ssl/photos.example.com/privkey.pem", made["PHOTOCHANGER_TLS_KEY"]),
        ("listen 443 ssl;", f"listen 127.0.0.1:{secure} ssl;"),
        ("listen 80;", f"listen 127.0.0.1:{plain};"),
        ("http://127.0.0.1:8000;", f"http://127.0.0.1:{backend};"),
    ):
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def database(server_url: str) -> Iterator[str]:
    yield from fresh_database(server_url)


@pytest.fixture(scope="module")
def behind(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    env = {"PHOTOCHANGER_TRUSTED_PROXIES": "127.0.0.1"}
    with Installation(tmp_path_factory.mktemp("home"), database_url=database, env=env) as installation:
        yield installation


@pytest.fixture(scope="module")
def proxied(behind: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, int]]:
    """A client of the installation through nginx, and nginx' port for plain HTTP."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    assert program is not None, "nginx is not installed (Debian's package nginx-light)"
    folder = tmp_path_factory.mktemp("nginx")
    plain, secure = free_port(), free_port()
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = folder / "nginx.conf"
    main.write_text(
        f"pid {folder}/pid;\nerror_log stderr;\ndaemon off;\nworker_processes 1;\nuser root;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}"
        f"{site(folder, backend=behind.port, plain=plain, secure=secure)}}}\n"
    )
    trusted = ssl.create_default_context(cafile=str(folder / "certificate.pem"))
    with (
        subprocess.Popen([program, "-c", main, "-e", "stderr"]) as nginx,
        httpx.Client(
            base_url=f"https://127.0.0.1:{secure}",
            headers={"Host": NAME},
            verify=trusted,
            trust_env=False,
            timeout=70,
        ) as client,
    ):
        try:

            def answers() -> bool:
                assert nginx.poll() is None, "nginx did not start"
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", secure)) == 0

            until(answers, within_s=10, what="nginx")
            yield client, plain
        finally:
            nginx.terminate()


def form(data: bytes, **fields: str) -> dict[str, Any]:
    return {"data": {"password": INGEST_PASSWORD, **fields}, "files": {"fileToUpload": data}}


def test_a_photo_comes_back_and_its_link_leads_through_the_proxy(proxied: tuple[httpx.Client, int]) -> None:
    client, _ = proxied
    answer = client.post("/ingest/slot-001", **form(photo(320, 240)))
    assert answer.status_code == 200
    assert opened(answer.content).size == (320, 240)
    link = httpx.URL(result_link(answer))
    assert (link.scheme, link.host) == ("https", NAME)
    assert client.get(link.raw_path.decode()).content == answer.content


def test_a_whole_day_s_pictures_come_in_one_file(proxied: tuple[httpx.Client, int], behind: Installation) -> None:
    client, _ = proxied
    made = client.post("/ingest/slot-001", **form(photo(64, 48))).headers["x-job-id"]
    names = {"job_id": [made, *(str(uuid4()) for _ in range(499))]}
    with Api(behind.url, str(behind._database_url), client).signed_in("packer") as packer:
        answer = client.get("/api/results/zip", params=names, headers=packer.headers)
    assert answer.status_code == 200, answer.text
    assert zipfile.is_zipfile(io.BytesIO(answer.content))


def test_plain_http_is_sent_on_to_https(proxied: tuple[httpx.Client, int]) -> None:
    _, plain = proxied
    answer = httpx.get(f"http://127.0.0.1:{plain}/gallery?x=1", headers={"Host": NAME}, trust_env=False)
    assert (answer.status_code, answer.headers["location"]) == (301, f"https://{NAME}/gallery?x=1")


def test_counters_stay_inside(proxied: tuple[httpx.Client, int]) -> None:
    client, _ = proxied
    assert client.get("/metrics").status_code == 403


def test_a_refusal_comes_in_our_words_while_a_large_body_is_still_being_sent(proxied: tuple[httpx.Client, int]) -> None:
    client, _ = proxied
    unknown = client.post("/ingest/no-such-slot", **form(bytes(30_000_000)))
    assert unknown.status_code == 404
    assert unknown.json()["code"] == "slot_not_found"
    large = client.post("/ingest/slot-001", **form(bytes(60_000_000)))
    assert large.status_code == 413
    assert large.json()["code"] == "payload_too_large"


def test_nobody_says_where_they_come_from(proxied: tuple[httpx.Client, int], behind: Installation) -> None:
    client, _ = proxied
    answer = client.post("/api/login", json={"name": "nobody", "password": "x"}, headers={"X-Forwarded-For": "9.9.9.9"})
    assert answer.status_code == 401
    [row] = behind.sql("SELECT actor, address FROM audit ORDER BY at DESC LIMIT 1")
    assert row["address"] == "127.0.0.1"
    page = client.get("/sign-in")
    assert "strict-transport-security" in page.headers


def test_events_come_at_once(proxied: tuple[httpx.Client, int], behind: Installation, database: str) -> None:
    client, _ = proxied
    api = Api(behind.url, database, client)
    api.account("watcher")
    token = api.login("watcher").json()["access_token"]
    with client.stream("GET", "/api/events", headers={"Authorization": f"Bearer {token}"}) as events:
        names = (line.partition(": ")[2] for line in events.iter_lines() if line.startswith("event:"))
        assert next(names) == "hello"
        behind.post(photo(64, 48))
        assert next(name for name in names if name.startswith("job")) == "job"
