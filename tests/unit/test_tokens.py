"""Signed links: genuine, guessed, foreign, and after a rotation of keys."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from photochanger.config import Config, ConfigError
from photochanger.tokens import Links, MasterKeys, master_keys

OLD, NEW = MasterKeys({"k1": b"o" * 32}), MasterKeys({"k2": b"n" * 32, "k1": b"o" * 32})
END = datetime(2026, 11, 24, 20, 0, 0, tzinfo=UTC)


def test_a_genuine_token_tells_its_expiry() -> None:
    links = Links(OLD, "result")
    assert links.expiry("job", links.token("job", END)) == END


def test_a_token_is_good_for_its_subject_and_purpose_only() -> None:
    token = Links(OLD, "result").token("job", END)
    assert Links(OLD, "result").expiry("other", token) is None
    assert Links(OLD, "cancel").expiry("job", token) is None


def test_links_made_before_a_rotation_stay_good() -> None:
    token = Links(OLD, "result").token("job", END)
    assert Links(NEW, "result").expiry("job", token) == END
    assert Links(NEW, "result").token("job", END).startswith("k2.")
    assert Links(MasterKeys({"k2": b"n" * 32}), "result").expiry("job", token) is None


@given(st.text(max_size=80))
def test_no_text_is_taken_for_a_token(text: str) -> None:
    assert Links(OLD, "result").expiry("job", text) is None


def test_the_expiry_in_a_token_cannot_be_changed() -> None:
    key_id, _, signature = Links(OLD, "result").token("job", END).split(".")
    assert Links(OLD, "result").expiry("job", f"{key_id}.zzzzzz.{signature}") is None


def test_the_first_start_makes_a_private_key_and_later_ones_keep_it(tmp_path: Path) -> None:
    config = Config(home=tmp_path / "home")
    made = master_keys(config)
    assert master_keys(config) == made
    path = tmp_path / "home" / "master.key"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        master_keys(config)


def test_keys_from_the_environment_are_checked(tmp_path: Path) -> None:
    whole = base64.b64encode(b"x" * 32).decode()
    config = Config.model_validate({"home": tmp_path, "master_key": f"k2:{whole},k1:{whole}"})
    assert list(master_keys(config).keys) == ["k2", "k1"]
    with pytest.raises(ConfigError, match="PHOTOCHANGER_MASTER_KEY"):
        master_keys(Config.model_validate({"home": tmp_path, "master_key": "k1:c2hvcnQ="}))
