"""Places where a fault test may kill the process: named by the environment, absent otherwise."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from photochanger.config import Config


class Failpoints:
    """``hit(name)`` kills this process when ``PHOTOCHANGER_FAILPOINT`` names it.

    The value is ``name=/a/folder``: while the folder holds a file called ``name``, the point fires, and takes the
    file with it, so that a test decides how often.
    """

    def __init__(self, config: Config) -> None:
        self._folder: dict[str, Path] = {}
        for one in filter(None, config.failpoint.split(",")):
            name, _, folder = one.partition("=")
            self._folder[name] = Path(folder)

    def hit(self, name: str) -> None:
        if name not in self._folder:
            return
        for armed in self._folder[name].glob(f"{name}*"):
            try:
                armed.unlink()
            except FileNotFoundError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)
