"""``python -m ops.load``: sends many photos at once through a simulated provider and prints what became of them."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import psycopg
from PIL import Image, ImageFilter
from psycopg.conninfo import conninfo_to_dict

from ops.load import report
from ops.load.cameras import Answer
from ops.load.stage import BUILD, SLOT, Simulated, database, installed, kill, simulated, spawn
from ops.load.watch import EVERY_S, Watch
from ops.simulators import add_chances
from ops.simulators.openai import OpenAI
from photochanger.config import PROJECT
from tests.installation import INGEST_PASSWORD, Installation

#: Seconds beyond the server's own deadline after which a camera gives up.
BEYOND_S = 15.0
_CHANCES = ("latency_s", "jitter_s", "tail_share", "tail_factor", "mix", "seed")
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def main() -> int:
    options = _options()
    os.chdir(PROJECT)
    BUILD.mkdir(parents=True, exist_ok=True)
    for number in _ENDINGS:
        signal.signal(number, _stop)
    with (BUILD / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("load: another load run is under way in this folder")
        try:
            return _run(options)
        except KeyboardInterrupt:
            print("\nload: stopped", file=sys.stderr)
            return 130
        except (AssertionError, RuntimeError, psycopg.Error) as error:
            print(f"load: {error}", file=sys.stderr)
            return 1
        finally:
            _nothing_left()


def _run(options: argparse.Namespace) -> int:
    photo = _photo(options.pixels)
    head = _head(options, photo)
    print("\n".join(head), flush=True)
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(database(options.database_url))
        provider = stack.enter_context(simulated())
        installation = stack.enter_context(installed(url, provider, options))
        stack.callback(_deaf)
        before = provider.counted()
        provider.behave(**{name: getattr(options, name) for name in _CHANCES})
        watch = stack.enter_context(contextlib.closing(Watch(url, provider, installation)))
        found = _sent(options, installation, photo, watch)
        counted = _since(before, provider)
    tables = [report.answers(found), report.figures(found, watch.samples, counted)]
    print("".join(f"\n{report.text(table)}\n" for table in tables), flush=True)
    if options.markdown:
        options.markdown.write_text(report.markdown(head, tables))
    return 0


def _sent(options: argparse.Namespace, installation: Installation, photo: Path, watch: Watch) -> list[Answer]:
    """Runs the cameras in a process of their own, and looks around until they have all their answers.

    Raises:
        RuntimeError: they did not end as they should.
    """
    argv: list[Any] = ["ops.load.cameras", "--port", installation.port, "--slot", SLOT, "--photo", photo]
    argv += ["--within", options.t_sync + BEYOND_S]
    if options.photos:
        argv += ["--photos", options.photos, "--over", options.over]
    else:
        argv += ["--clients", options.clients, "--seconds", options.seconds, *(["--heed"] if options.heed else [])]
    cameras = spawn(argv, env={**os.environ, "LOAD_PASSWORD": INGEST_PASSWORD}, stdout=subprocess.PIPE)
    try:
        output = None
        while output is None:
            watch.look()
            with contextlib.suppress(subprocess.TimeoutExpired):
                output, _ = cameras.communicate(timeout=EVERY_S)
        watch.look()
    finally:
        kill(cameras)
    if cameras.returncode:
        raise RuntimeError(f"the cameras ended with status {cameras.returncode}")
    return [Answer(*one) for one in json.loads(output)]


def _since(before: Mapping[str, Any], provider: Simulated) -> dict[str, Any]:
    """What the provider has counted since ``before``: paid calls are one number."""
    now = provider.counted()
    calls = now["calls"].get("edit", 0) - before["calls"].get("edit", 0)
    return {"calls": calls, "most_flying": now["most_flying"], "hang_ups": now["hang_ups"] - before["hang_ups"]}


# -- the end -----------------------------------------------------------------------------------------------------------


def _stop(number: int, frame: FrameType | None) -> None:
    """Once is enough: cleaning up is not to be interrupted again."""
    _deaf()
    raise KeyboardInterrupt


def _deaf() -> None:
    for number in _ENDINGS:
        signal.signal(number, signal.SIG_IGN)


def _nothing_left() -> None:
    """Kills children that were being started when the run was stopped; whatever they start dies with them."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            child.kill()
            child.wait(5)


# -- the beginning -----------------------------------------------------------------------------------------------------


def _photo(pixels: tuple[int, int]) -> Path:
    """A JPEG of noise, as hard to compress as a photo: 1024×768 make about 100 KB."""
    path = BUILD / "photo.jpg"
    noise = Image.effect_noise(pixels, 30).convert("RGB").filter(ImageFilter.GaussianBlur(1.5))
    noise.save(path, "JPEG", quality=87)
    return path


def _head(options: argparse.Namespace, photo: Path) -> list[str]:
    width, height = options.pixels
    return [
        f"{os.cpu_count()} cores, {platform.machine()}; Python {platform.python_version()}; "
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"photos of {width}×{height} pixels, {photo.stat().st_size / 1000:.0f} KB",
        f"`{shlex.join(['python', '-m', 'ops.load', *sys.argv[1:]])}`",
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ops.load", description=__doc__)
    photos = parser.add_argument_group("photos: clients that send one after another, or --photos that just come")
    photos.add_argument("--clients", type=_between(1, 2000), default=8, help="at once (%(default)s)")
    photos.add_argument("--seconds", type=_between(0.1, 3600), default=10.0, help="how long (%(default)s)")
    photos.add_argument("--heed", action="store_true", help="a refused client waits as long as Retry-After says")
    photos.add_argument("--photos", type=_between(1, 100_000), help="so many, whatever became of those before")
    photos.add_argument("--over", type=_between(0.0, 3600), default=1.0, help="evenly in so many seconds (%(default)s)")
    photos.add_argument("--pixels", type=_pixels, default=(1024, 768), metavar="WxH", help="their size (1024x768)")
    add_chances(parser, OpenAI)
    parser.set_defaults(latency_s=1.0)
    server = parser.add_argument_group("the server")
    server.add_argument("--usual", type=_between(0.01, 600), help="seconds a call is said to take (latency + jitter/2)")
    server.add_argument("--permits", type=_between(1, 10_000), help="the provider's option max_concurrent")
    server.add_argument("--t-sync", type=_between(10.0, 60), default=48.0, help="t_sync_response_s (%(default)s)")
    server.add_argument("--fallback", action="store_true", help="a second rung: local/original")
    server.add_argument("--threads", type=_between(1, 1000), help="PHOTOCHANGER_WORKER_THREADS")
    server.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="a setting; may be repeated")
    server.add_argument(
        "--database-url", type=_loopback, metavar="URL", help="of a PostgreSQL server here (an embedded one)"
    )
    parser.add_argument(
        "--markdown", type=lambda name: Path(name).resolve(), metavar="FILE", help="write the tables here too"
    )
    return parser.parse_args()


def _between(least: float, most: float) -> Callable[[str], float]:
    """A number in bounds; whole where ``least`` is."""

    def number(text: str) -> float:
        value = type(least)(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least:g} and {most:g}")
        return value

    return number


def _pixels(text: str) -> tuple[int, int]:
    width, height = map(int, text.split("x"))
    if not (16 <= width <= 10_000 and 16 <= height <= 10_000):
        raise argparse.ArgumentTypeError(f"{text} is not between 16x16 and 10000x10000")
    return width, height


def _loopback(url: str) -> str:
    host = str(conninfo_to_dict(url).get("host", "/"))
    if not host.startswith("/") and host not in _LOOPBACK:
        raise argparse.ArgumentTypeError(f"{host} is not this machine")
    return url


if __name__ == "__main__":
    sys.exit(main())
