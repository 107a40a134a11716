"""Who is believed about where a request came from, whatever command has started the server."""

from __future__ import annotations

import httpx
import pytest

from photochanger.config import Config
from tests.servers import web


@pytest.mark.parametrize(("trusted", "believed"), [("", False), ("10.9.9.9", False), ("10.0.0.0/8,127.0.0.1", True)])
def test_only_a_named_proxy_is_believed(config: Config, trusted: str, *, believed: bool) -> None:
    with web(config.model_copy(update={"trusted_proxies": trusted})) as url:
        answer = httpx.get(f"{url}/sign-in", headers={"X-Forwarded-Proto": "https"}, trust_env=False)
    assert answer.status_code == 200
    assert ("strict-transport-security" in answer.headers) == believed
