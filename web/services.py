"""What the resources of one web process share; opened with the process, closed with it."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import quote
from uuid import UUID

import falcon.asgi

from photochanger import network, settings, slots, vault
from photochanger.config import Config, ConfigError
from photochanger.db import Database
from photochanger.settings import Fresh, Settings
from photochanger.slots import Slot
from photochanger.storage.local import LocalStorage
from photochanger.tokens import Links, master_keys
from web.door import Door
from web.passwords import IngestPassword
from web.waiting import Waiting


class Services:
    """``settings`` and ``slots`` are at most a second old."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.db = Database(
            config.require_database_url(), connections=config.web_connections, application_name="photochanger web"
        )
        self.storage = LocalStorage(config.media)
        self.settings: Fresh[Settings] = Fresh(lambda: settings.load(self.db))
        self.slots: Fresh[dict[str, Slot]] = Fresh(lambda: slots.all_slots(self.db))
        self.waiting = Waiting(self.db, self.storage, ring=not config.no_notify)
        self.password = IngestPassword()
        self.door = Door(self.db, self.storage, config)
        self._network_address = network.address_of(config.host)
        self._keys = keys = master_keys(config)
        self.result_links = Links(keys, "result")
        self.status_links = Links(keys, "status")
        self.cancel_links = Links(keys, "cancel")

    def _base(self, req: falcon.asgi.Request) -> str:
        """The address the request came to; one that only this machine can use is replaced by the network's, where
        we listen there: a guest's phone cannot follow 127.0.0.1."""
        if self._network_address and req.host in ("127.0.0.1", "localhost", "::1"):
            return f"{req.scheme}://{self._network_address}:{req.port}"
        return f"{req.scheme}://{req.netloc}"

    async def open(self) -> None:
        if refusal := await settings.wrong_media_root(self.db, self.storage):
            raise ConfigError(refusal)
        if refusal := await vault.wrong_master_key(self.db, self._keys):
            raise ConfigError(refusal)
        self.waiting.start()

    async def close(self) -> None:
        await self.waiting.close()
        await self.db.close()

    def url(
        self, req: falcon.asgi.Request, current: Settings, links: Links, path: str, job: UUID, end: datetime
    ) -> str:
        """An absolute link with its token; by the configured public address, else the one the request came to."""
        base = current.public_base_url or self._base(req)
        return f"{base}{path}?token={quote(links.token(str(job), end))}"
