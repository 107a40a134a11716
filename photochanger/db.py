"""The one way to the database: pooled psycopg connections, single statements, and transactions everything can join."""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from photochanger.failures import StorageFull, Unavailable

set_json_loads(orjson.loads)

Params = Mapping[str, Any]
Row = dict[str, Any]

#: Seconds to wait for PostgreSQL to accept a connection, and for a free one in the pool: a guest is told
#: ``unavailable`` within two seconds.
CONNECT_TIMEOUT_S = 2
POOL_TIMEOUT_S = 1.3
#: How a connection finds that its server is gone without a word, as after a power cut: within some five seconds, by
#: libpq's own names (times in seconds, of ``tcp_user_timeout`` in milliseconds).
FINDS_OUT: Mapping[str, Any] = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 3000,
}
#: How the server finds the same of us, and that a process of ours is paused within a transaction: whoever waits for
#: what it holds goes on. Instants are read in UTC, whatever the zone of the machine PostgreSQL was set up on.
_SETTINGS = {
    "timezone": "UTC",
    "idle_in_transaction_session_timeout": "5s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}
#: What psycopg raises when a connection is lost; the last, when it was paused within a transaction.
_LOST = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.IdleInTransactionSessionTimeout)
#: Seconds after which the pool stops trying to reconnect by itself; the next request tries again at once.
RECONNECT_S = 1.0
RETRY_PAUSE_S = 0.1


class Database:
    """A pool in autocommit: a statement is its own transaction unless ``transaction()`` is opened."""

    def __init__(self, url: str, *, connections: int, application_name: str) -> None:
        self.url = url
        self._pool = AsyncConnectionPool(
            url,
            min_size=1,
            max_size=connections,
            timeout=POOL_TIMEOUT_S,
            reconnect_timeout=RECONNECT_S,
            check=self._refuse_dead,
            configure=_settle,
            open=False,
            kwargs={"autocommit": True, "application_name": application_name, **FINDS_OUT},
        )
        self._weeding: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """A pooled psycopg connection, in autocommit.

        Raises:
            Unavailable: PostgreSQL cannot be reached, or the connection was lost.
            StorageFull: its disk is full.
        """
        try:
            await self._pool.open()
            async with self._pool.connection() as connection:
                yield connection
        except psycopg.errors.DiskFull as error:
            raise StorageFull("The disk that holds the database is full") from error
        except (*_LOST, PoolTimeout) as error:
            raise Unavailable("The database cannot be reached", retry_after_s=2) from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """A connection with an open transaction: commits at the end, rolls back on an exception."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def fetch(self, sql: str, params: Params | None = None, *, patience_s: float = 0.0) -> list[Row]:
        """Runs one statement and returns its rows.

        ``patience_s``: keep trying that long while PostgreSQL is away. Give it only with statements that may run
        twice: the answer to one that was committed can be lost with the connection.

        Raises:
            Unavailable: PostgreSQL cannot be reached.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + patience_s
        while True:
            try:
                async with self.connection() as connection:
                    return await fetch(connection, sql, params)
            except Unavailable:
                if loop.time() + RETRY_PAUSE_S >= give_up:
                    raise
                await asyncio.sleep(RETRY_PAUSE_S)

    async def close(self) -> None:
        if self._weeding is not None:
            self._weeding.cancel()
        await self._pool.close()

    async def _refuse_dead(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Finds a connection whose server is gone without a round trip: an idle socket has nothing to say but EOF.
        Where one is dead, all are looked at: the next to ask would find three of them before it gives up."""
        idle = select.poll()
        idle.register(connection.fileno(), select.POLLIN)
        if not idle.poll(0):
            return
        if self._weeding is None or self._weeding.done():
            self._weeding = asyncio.create_task(self._pool.check())
        await connection.close()  # the pool would put it back: libpq has not noticed yet
        raise psycopg.OperationalError("the server closed the connection")


async def fetch(connection: psycopg.AsyncConnection[Any], sql: str, params: Params | None = None) -> list[Row]:
    """Runs one statement on ``connection``; the rows as dictionaries, none when it returns nothing."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(sql.encode(), params)
        return await cursor.fetchall() if cursor.description is not None else []


async def _settle(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in _SETTINGS.items()).encode())
