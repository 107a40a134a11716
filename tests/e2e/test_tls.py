"""A server that does TLS itself."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from photochanger.config import ConfigError, load
from tests.installation import INGEST_PASSWORD, Installation, result_link
from tests.photos import opened, photo

NAME = "photos.test"


def certificate(folder: Path, *, password: bytes | None = None) -> dict[str, str]:
    """A certificate that vouches for itself, and its key: what the environment says of them."""
    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    names = [x509.DNSName("*.photos.test"), x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    (folder / "certificate.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, locked))
    return {
        "PHOTOCHANGER_TLS_CERTIFICATE": str(folder / "certificate.pem"),
        "PHOTOCHANGER_TLS_KEY": str(folder / "key.pem"),
    }


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
