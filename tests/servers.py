"""The web application in a thread of the test's own process, for what must be fetched from it over HTTP."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from ops.simulators import Quiet
from photochanger.config import Config
from web.app import create_app


@contextmanager
def web(config: Config) -> Iterator[str]:
    """Runs the application on a free port; its URL."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = create_app(config)
    server = Quiet(uvicorn.Config(app, lifespan="on", log_config=None, log_level="error"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    thread.start()
    give_up = time.monotonic() + 10
    while not server.started:
        assert thread.is_alive(), "the web application did not start"
        assert time.monotonic() < give_up, "the web application did not start in time"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(15)
        listening.close()
