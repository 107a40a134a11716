"""One embedded PostgreSQL for the whole run, with a migrated template; every test clones a database of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from photochanger import schema, slots
from photochanger.config import Config
from photochanger.db import Database
from photochanger.embedded import EmbeddedPostgres
from photochanger.storage.local import LocalStorage
from tests.installation import Installation

if TYPE_CHECKING:
    from tests.stores import Bucket

TEMPLATE = "photochanger_template"
_server: EmbeddedPostgres | None = None
_folder: Path | None = None


def pytest_configure(config: pytest.Config) -> None:
    """The controller (or the only process) starts PostgreSQL and migrates the template."""
    global _server, _folder
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    _folder = Path(tempfile.mkdtemp(prefix="pc-tests-", dir="/tmp"))
    _folder.chmod(0o755)
    _server = EmbeddedPostgres(_folder / "pg")
    config.stash[SERVER] = url = _server.start()
    with psycopg.connect(url, autocommit=True) as connection:
        # Its databases live for one test; what must outlast a crash is tried on servers of their own.
        connection.execute("ALTER SYSTEM SET fsync = off")
        # A machine's own zone, as a server set up on it has; what it counts as a day is not what a studio does.
        connection.execute("ALTER SYSTEM SET timezone = 'Asia/Kolkata'")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute(f"CREATE DATABASE {TEMPLATE}".encode())
    schema.migrate(at(url, TEMPLATE))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist hands the server's URL to every worker."""
    node.workerinput["server_url"] = node.config.stash[SERVER]


def pytest_unconfigure(config: pytest.Config) -> None:
    if _server is not None and _folder is not None:
        _server.stop()
        shutil.rmtree(_folder, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table of every way a provider can fail, as the tests have just seen it."""
    rows = sorted(
        value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "provider call"
    )
    if not rows:
        return
    terminalreporter.section("providers: what became of every mode of their simulators")
    terminalreporter.write_line(f"{'provider':<10} {'mode':<30} {'ends as':<20} {'again':<6} calls  words")
    for provider, mode, code, again, calls, words in rows:
        terminalreporter.write_line(f"{provider:<10} {mode:<30} {code:<20} {again:<6} {calls:>5}  {str(words)[:90]}")


SERVER = pytest.StashKey[str]()


def at(server_url: str, database: str) -> str:
    """The server's URL with another database."""
    head, _, query = server_url.partition("?")
    return f"{head.rsplit('/', 1)[0]}/{database}?{query}"


@pytest.fixture(scope="session")
def server_url(request: pytest.FixtureRequest) -> str:
    """The shared PostgreSQL server. Never stop or restart it; start your own for that."""
    given = getattr(request.config, "workerinput", None)
    return str(given["server_url"]) if given else request.config.stash[SERVER]


@pytest.fixture
def empty_database(server_url: str) -> Iterator[str]:
    """The URL of a database without any table."""
    yield from database(server_url, "template1")


@pytest.fixture
def database_url(server_url: str) -> Iterator[str]:
    """The URL of a migrated database of this test's own."""
    yield from database(server_url)


def database(server_url: str, template: str = TEMPLATE) -> Iterator[str]:
    """The URL of a database of one's own, dropped afterwards."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        yield at(server_url, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def config(tmp_path: Path, database_url: str) -> Config:
    return Config(home=tmp_path, database_url=database_url)


@pytest.fixture
async def db(database_url: str, anyio_backend: str) -> AsyncIterator[Database]:
    """A migrated database with the first slots."""
    database = Database(database_url, connections=8, application_name="test")
    await slots.create_first(database)
    yield database
    await database.close()


@pytest.fixture
def storage(config: Config) -> LocalStorage:
    store = LocalStorage(config.media)
    store.prepare()
    return store


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket of this test's own, which the environment names."""
    from tests.stores import Bucket  # takes a second that the other tests need not wait

    made = Bucket()
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def shared(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation shared by the tests of one group: do not change its settings or kill its parts."""
    for url in database(server_url):
        with Installation(tmp_path_factory.mktemp("home"), database_url=url) as installation:
            yield installation


@pytest.fixture
def installation(database_url: str, tmp_path: Path) -> Iterator[Installation]:
    """A running installation of this test's own."""
    with Installation(tmp_path / "home", database_url=database_url) as running:
        yield running
