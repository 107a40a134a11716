"""The worker: ``dramatiq actors``. Builds the broker and names the actors; nothing connects before the worker boots."""

from __future__ import annotations

import dramatiq

from actors.workshop import Workshop
from photochanger import config
from photochanger.broker.postgres import LeasingBroker

_config = config.load_or_exit()
shared = Workshop(_config, worker_id=lambda: broker.worker_id)
broker: LeasingBroker = LeasingBroker(
    _config.require_database_url(), on_stop=shared.look_at, ring=not _config.no_notify
)
broker.add_middleware(shared)
dramatiq.set_broker(broker)

from actors import housekeeping, process_job  # noqa: E402, F401 - an actor needs the broker first
