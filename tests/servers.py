"""The web application in a thread of the test's own process, for what must be fetched from it over HTTP."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from ops.simulators import Quiet
from photochanger.config import Config
from tests.installation import until
from web.app import create_app


@contextmanager
def web(config: Config) -> Iterator[str]:
    """Runs the application on a free port; its URL."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = create_app(config)
    server = Quiet(uvicorn.Config(app, lifespan="on", log_config=None, log_level="error", proxy_headers=False))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive(), within_s=10, what="the web application started")
    assert server.started, "the web application ended at its start"
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(15)
        listening.close()
