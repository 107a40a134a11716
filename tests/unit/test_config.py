"""What the environment may say, and how a wrong word stops the start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from photochanger import config
from photochanger.config import ConfigError, authority, http_address


def test_defaults_need_nothing() -> None:
    loaded = config.load({})
    assert loaded.port == 8000
    assert loaded.media == loaded.home / "media"


def test_what_is_set_is_used(tmp_path: Path) -> None:
    loaded = config.load(
        {"PORT": "9001", "PHOTOCHANGER_HOME": str(tmp_path), "PHOTOCHANGER_MEDIA_ROOT": str(tmp_path / "pictures")}
    )
    assert (loaded.port, loaded.home, loaded.media) == (9001, tmp_path, tmp_path / "pictures")


def test_a_key_copied_with_its_line_end_is_a_key() -> None:
    loaded = config.load({"PHOTOCHANGER_OPENAI_API_KEY": "sk-0123456789\r\n"})
    assert loaded.openai_api_key is not None
    assert loaded.openai_api_key.get_secret_value() == "sk-0123456789"
    assert "sk-0123456789" not in repr(loaded)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"PORT": "http"}, "PORT: "),
        ({"PORT": "70000"}, "PORT: "),
        ({"PHOTOCHANGER_WORKER_THREADS": "0"}, "PHOTOCHANGER_WORKER_THREADS: "),
        ({"PHOTOCHANGER_DATABASE_URL": "mysql://x"}, "PHOTOCHANGER_DATABASE_URL: It must be a postgresql:// URL"),
        ({"PHOTOCHANGER_INGEST_PASSWORD": "short"}, "PHOTOCHANGER_INGEST_PASSWORD: "),
        ({"PHOTOCHANGER_OPENAI_API_KEY": "two words or more"}, "PHOTOCHANGER_OPENAI_API_KEY: It must be 8 to 4096"),
        ({"PHOTOCHANGER_GEMINI_BASE_URL": "https://https://x"}, "PHOTOCHANGER_GEMINI_BASE_URL: It must be an http"),
        ({"PHOTOCHANGER_MEDIAROOT": "/x"}, "did you mean PHOTOCHANGER_MEDIA_ROOT?"),
    ],
)
def test_a_wrong_setting_is_named(environ: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
        config.load(environ)


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("https://фото.рф/", "https://xn--n1aalg.xn--p1ai"),
        ("HTTPS://Gateway.Example:8443/v1/", "https://gateway.example:8443/v1"),
        ("http://[::1]:8790", "http://[::1]:8790"),
        ("http://openai_sim:80/v1", "http://openai_sim:80/v1"),
    ],
)
def test_an_address_is_kept_in_ascii(given: str, address: str) -> None:
    assert http_address(given) == address


@pytest.mark.parametrize("wrong", ['http://a" onx=1', "http://a b", "http://a\u202eb", "http://a<b>", "https://user:pw@a",
    "http://127.0.0.1:8790/\r\nX: y", "http://127.0.0.1\r\n", " http://a", "http://a /b", "http://999.1.1.1",
    "http://a:99999", "http://a:0", "http://[fe80::1%25eth0]", "http://-/\x00", "http://", "http://..", "http://a?b",
    f"https://{'ф' * 500_000}.рф"])  # fmt: skip
def test_what_is_no_address_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"must be an http:// or https:// address|must not hold a user"):
        http_address(wrong)


@pytest.mark.parametrize("wrong", ["", "evil.com/path?x", "user@evil", "a b", "<script>", "a:b", "a,b", "[::1", "::1"])
def test_what_is_no_host_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"is not a|Expected 4 octets|At least 3 parts|empty"):
        authority(wrong)


def test_a_wrong_setting_stops_the_start_with_one_line(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "photochanger.cli", "up"],
        env={"PORT": "none", "PHOTOCHANGER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [ended.stderr.strip()]
    assert ended.stderr.startswith("photochanger: PORT: ")


def test_no_secret_shows_in_a_printed_configuration() -> None:
    loaded = config.load({"PHOTOCHANGER_INGEST_PASSWORD": "canary-secret", "PHOTOCHANGER_MASTER_KEY": "k1:canary"})
    assert "canary" not in repr(loaded)
