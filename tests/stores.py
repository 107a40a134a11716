"""An S3-compatible store in this process (moto's), for tests of installations that keep their pictures in one."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field

import httpx
from moto.server import ThreadedMotoServer

#: Moto's state is one per process: every store has its own bucket.
_numbers = itertools.count(1)


@dataclass
class Bucket:
    """One bucket of a store that can be stopped and started; what it holds stays."""

    name: str = field(default_factory=lambda: f"photos-{next(_numbers)}")

    def __post_init__(self) -> None:
        self._port = 0
        self.start()
        httpx.put(f"{self.endpoint}/{self.name}", trust_env=False).raise_for_status()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def env(self) -> dict[str, str]:
        """What a process needs to use it."""
        return {
            "PHOTOCHANGER_STORE_URL": f"s3://{self.name}/studio",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "key-of-the-tests",
            "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
            "AWS_REGION": "us-east-1",
        }

    def keys(self, kind: str) -> list[str]:
        """What lies under ``kind``, as the store tells by its own protocol."""
        listed = httpx.get(
            f"{self.endpoint}/{self.name}",
            params={"list-type": "2", "prefix": f"studio/{kind}/"},
            trust_env=False,
        ).raise_for_status()
        return re.findall(r"<Key>studio/([^<]+)</Key>", listed.text)

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()
        self._port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        self._server.stop()
