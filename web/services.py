"""What the resources of one web process share; opened with the process, closed with it."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import quote
from uuid import UUID

import falcon.asgi

from photochanger import network, settings, slots, vault
from photochanger.config import Config, ConfigError
from photochanger.db import Database, Row
from photochanger.failures import SlotDisabled, SlotNotFound
from photochanger.image_pool import ImagePool
from photochanger.settings import Fresh, Settings
from photochanger.slots import Slot
from photochanger.storage.opening import open_storage
from photochanger.tokens import Links, master_keys
from web.door import Door
from web.live import Live
from web.models import Result
from web.passwords import IngestPassword
from web.pictures import Pictures
from web.refused import Refused
from web.waiting import Waiting


class Services:
    """``settings`` and ``slots`` are at most a second old; ``pool``: where pictures are decoded,
    started by the first of them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.db = Database(
            config.require_database_url(), connections=config.web_connections, application_name="photochanger web"
        )
        self.storage = open_storage(config)
        self.pool = ImagePool(1)
        self.pictures = Pictures(self.storage, self.pool)
        self.settings: Fresh[Settings] = Fresh(lambda: settings.load(self.db))
        self.slots: Fresh[dict[str, Slot]] = Fresh(lambda: slots.all_slots(self.db))
        self.waiting = Waiting(self.db, self.storage, ring=not config.no_notify)
        self.password = IngestPassword()
        self.refused = Refused()
        self.door = Door(self.db, self.storage, config)
        self._network_address = network.address_of(config.host)
        self.keys = keys = master_keys(config)
        self.result_links = Links(keys, "result")
        self.status_links = Links(keys, "status")
        self.cancel_links = Links(keys, "cancel")
        self.gallery_links = Links(keys, "gallery")
        self.live = Live(self.db, self._picture_path)

    def base(self, req: falcon.asgi.Request, current: Settings) -> str:
        """This server's address for others: as it is set, else the one the request came to; one that only this machine
        can use is replaced by the network's, where we listen there: a guest's phone cannot follow 127.0.0.1."""
        if current.public_base_url:
            return current.public_base_url
        if self._network_address and req.host in ("127.0.0.1", "localhost", "::1"):
            return f"{req.scheme}://{self._network_address}:{req.port}"
        return f"{req.scheme}://{req.netloc}"

    async def open(self) -> None:
        if refusal := await settings.wrong_media_root(self.db, self.storage):
            raise ConfigError(refusal)
        if refusal := await vault.wrong_master_key(self.db, self.keys):
            raise ConfigError(refusal)
        self.waiting.start()
        self.live.open()

    async def close(self) -> None:
        self.live.close()
        await self.waiting.close()
        self.pool.close()
        await self.db.close()

    def url(
        self, req: falcon.asgi.Request, current: Settings, links: Links, path: str, job: UUID, end: datetime
    ) -> str:
        """An absolute link with its token."""
        return f"{self.base(req, current)}{path}?token={quote(links.token(str(job), end))}"

    def _picture_path(self, job: UUID, end: datetime) -> str:
        return f"/public/results/{job}?token={quote(self.result_links.token(str(job), end))}"

    def accepted_links(self, req: falcon.asgi.Request, current: Settings, job: UUID, end: datetime) -> dict[str, str]:
        """A running job's id, and where to ask, to fetch and to cancel; links that are genuine until ``end``."""
        at = f"/public/jobs/{job}"
        return {
            "job_id": str(job),
            "status_url": self.url(req, current, self.status_links, at, job, end),
            "result_url": self.result_url(req, current, job, end),
            "cancel_url": self.url(req, current, self.cancel_links, f"{at}/cancel", job, end),
        }

    def result_of(self, req: falcon.asgi.Request, current: Settings, row: Row) -> Result | None:
        """A job's picture with its link, where there is one."""
        if row["result_sha256"] is None:
            return None
        return Result(
            url=self.result_url(req, current, row["id"], row["result_expires_at"]),
            mime=row["result_mime"],
            bytes=row["result_bytes"],
            sha256=row["result_sha256"],
            width=row["result_width"],
            height=row["result_height"],
            expires_at=row["result_expires_at"],
            served_by=row["served_by"],
        )

    async def in_use(self, slot_id: str) -> Slot:
        """A slot that is switched on.

        Raises:
            SlotNotFound, SlotDisabled: it is not.
        """
        slot = (await self.slots.get()).get(slot_id)
        if slot is None:
            raise SlotNotFound(f"There is no slot {slot_id[:64]!r}")
        if not slot.is_active:
            raise SlotDisabled(f"{slot.name} is switched off")
        return slot

    def result_url(self, req: falcon.asgi.Request, current: Settings, job: UUID, end: datetime) -> str:
        """A guest's link to a picture."""
        return self.url(req, current, self.result_links, f"/public/results/{job}", job, end)
