"""A server that does TLS itself."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import pytest

from photochanger.config import ConfigError, load
from tests.certificates import NAME, certificate
from tests.installation import INGEST_PASSWORD, Installation, result_link
from tests.photos import opened, photo


def test_photos_and_pages_go_over_tls(tmp_path: Path, database_url: str) -> None:
    env = certificate(tmp_path / "a folder")
    trusted = ssl.create_default_context(cafile=env["PHOTOCHANGER_TLS_CERTIFICATE"])
    with (
        Installation(tmp_path / "home", database_url=database_url, env=env) as running,
        httpx.Client(verify=trusted, trust_env=False, base_url=f"https://127.0.0.1:{running.port}") as client,
    ):
        banner = "".join(running.log)
        assert f"Address          https://{NAME}:{running.port}\n" in banner
        assert f"https://{NAME}:{running.port}/ingest/slot-001" in banner
        form = {"data": {"password": INGEST_PASSWORD}, "files": {"fileToUpload": photo(320, 240)}}
        answer = client.post("/ingest/slot-001", timeout=70, **form)  # type: ignore[arg-type]
        assert answer.status_code == 200
        assert opened(answer.content).size == (320, 240)
        link = result_link(answer)
        assert link.startswith(f"https://127.0.0.1:{running.port}/public/results/")
        assert client.get(link).content == answer.content
        page = client.get("/sign-in")
        assert "max-age=" in page.headers["strict-transport-security"]
        assert client.get("/readyz").status_code == 200
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{running.url}/readyz", trust_env=False)


@pytest.mark.parametrize(
    ("break_", "words"),
    [
        (lambda env, folder: Path(env["PHOTOCHANGER_TLS_KEY"]).unlink(), "No such file or directory"),
        (lambda env, folder: Path(env["PHOTOCHANGER_TLS_KEY"]).write_text("nonsense"), "not in PEM form"),
        (lambda env, folder: certificate(folder, password=b"locked"), "the key is locked by a password"),
        (
            lambda env, folder: env.update(PHOTOCHANGER_TLS_KEY=certificate(folder / "other")["PHOTOCHANGER_TLS_KEY"]),
            "the key is another certificate's",
        ),
    ],
    ids=["missing", "nonsense", "locked", "another's"],
)
def test_a_certificate_that_cannot_be_used_stops_the_start_with_one_line(
    tmp_path: Path, database_url: str, break_: object, words: str
) -> None:
    env = certificate(tmp_path)
    break_(env, tmp_path)  # type: ignore[operator]
    with pytest.raises(AssertionError, match=f"photochanger: PHOTOCHANGER_TLS_CERTIFICATE: .*{words}"):
        Installation(tmp_path / "home", database_url=database_url, env=env).start()


def test_a_certificate_comes_with_its_key() -> None:
    with pytest.raises(ConfigError, match="PHOTOCHANGER_TLS_CERTIFICATE and PHOTOCHANGER_TLS_KEY go together"):
        load({"PHOTOCHANGER_TLS_CERTIFICATE": "/etc/ssl/certificate.pem"})
