"""Whether a password is an account's, and how long whoever has failed must wait before another try.

A try counts as failed from its beginning until its password was right, so that many at once are no way around. An
unknown account is treated as a known one, in words and in time.
"""

from __future__ import annotations

from photochanger import accounts, audit, logs, network
from photochanger.db import Database, Row, fetch
from photochanger.failures import InvalidCredentials, LoginThrottled

#: Failures are remembered for this long.
WINDOW_S = 600
#: Failures of one address at one account after which the address waits until the first of them is forgotten.
OF_ADDRESS = 5
#: Failures of one address within a minute, at whatever accounts, after which it waits until the first is a minute old.
OF_ADDRESS_A_MINUTE = 10
#: Failures at one account, from anywhere, after which every further try waits, twice as long each time.
OF_ACCOUNT = 10
LONGEST_WAIT_S = 60
#: What a password is held against where there is no account: nobody's, at the hasher's present parameters.
NOBODYS_HASH = "$argon2id$v=19$m=65536,t=3,p=4$9Tuy/l72Csdxm8nsR4wseA$xggL+1/p3DxXtu0Mu48DZ3a5W9JbEEWVRxU7obwm8bE"
#: Stands for every name that no account can have.
_NO_NAME = ""
#: First keys of the advisory locks under which failures are counted, taken in this order; the second is the hash of
#: the account, and of the address.
_LOCK_ACCOUNT, _LOCK_ADDRESS = 0x50434C67, 0x50434C68
_BATCH = 1000

_STANDING = """
SELECT count(*) AS failures,
       extract(epoch FROM clock_timestamp() - max(at))::float8 AS since_s,
       extract(epoch FROM (array_agg(at ORDER BY at DESC) FILTER (WHERE address = %(subscriber)s))[%(most)s]
               + %(window)s * interval '1 second' - clock_timestamp())::float8 AS address_waits_s,
       (SELECT extract(epoch FROM (array_agg(at ORDER BY at DESC))[%(a_minute)s] + interval '1 minute'
                       - clock_timestamp())::float8
        FROM login_failure WHERE address = %(subscriber)s AND at > clock_timestamp() - interval '1 minute'
       ) AS minute_waits_s,
       EXISTS (SELECT FROM session WHERE account = %(account)s AND address = %(address)s) AS is_known
FROM login_failure WHERE account = %(account)s AND at > clock_timestamp() - %(window)s * interval '1 second'
"""


async def prove(db: Database, name: str, password: str, *, address: str) -> Row:
    """The active account that ``name`` and ``password`` are of: ``name``, ``password_hash``, ``must_change``.

    Raises:
        InvalidCredentials: they are none's.
        LoginThrottled: too many were wrong; the password was not looked at.
    """
    lower = name.strip().lower()
    account = lower if accounts.NAME.fullmatch(lower) else _NO_NAME
    await _begin(db, account, address)
    rows = await db.fetch(
        "SELECT name, password_hash, must_change, is_active FROM account WHERE name = %(name)s", {"name": account}
    )
    right = await accounts.verify(password, rows[0]["password_hash"] if rows else NOBODYS_HASH)
    if not (right and rows and rows[0]["is_active"]):
        await _failed(db, rows[0]["name"] if rows else None, address)
        raise InvalidCredentials()
    await db.fetch(
        "DELETE FROM login_failure WHERE account = %(account)s AND address = %(subscriber)s",
        {"account": account, "subscriber": network.subscriber(address)},
    )
    return rows[0]


async def _begin(db: Database, account: str, address: str) -> None:
    params = {
        "account": account,
        "address": address,
        "subscriber": network.subscriber(address),
        "window": WINDOW_S,
        "most": OF_ADDRESS,
        "a_minute": OF_ADDRESS_A_MINUTE,
    }
    async with db.transaction() as connection:
        for lock, key in ((_LOCK_ACCOUNT, account), (_LOCK_ADDRESS, params["subscriber"])):
            await connection.execute(b"SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (lock, key))
        wait_s = _wait_s((await fetch(connection, _STANDING, params))[0])
        if wait_s <= 0:
            await connection.execute(
                b"INSERT INTO login_failure (account, address) VALUES (%(account)s, %(subscriber)s)", params
            )
    if wait_s > 0:
        logs.event("login.throttled", address=address, again_in_s=round(wait_s, 1))
        raise LoginThrottled("Too many wrong passwords; wait before another try", retry_after_s=wait_s)


def _wait_s(standing: Row) -> float:
    """Seconds until the next try may be made. An address that the account has signed in from waits for its own
    failures only."""
    waits = [standing["address_waits_s"] or 0.0, standing["minute_waits_s"] or 0.0]
    beyond = standing["failures"] - OF_ACCOUNT
    if beyond >= 0 and not standing["is_known"]:
        waits.append(min(LONGEST_WAIT_S, 2 ** min(beyond, 6)) - standing["since_s"])
    return max(waits)


async def _failed(db: Database, account: str | None, address: str) -> None:
    """A name that is no account's is written nowhere: it may be a password in the wrong field."""
    logs.event("login.failed", account=account, address=address)
    await audit.record(db, actor=None, action="login.failed", target=f"user/{account}" if account else "user")


async def sweep(db: Database) -> int:
    """Deletes the failures that are forgotten; how many."""
    removed = 0
    while True:
        rows = await db.fetch(
            "DELETE FROM login_failure WHERE id IN (SELECT id FROM login_failure "
            "WHERE at < clock_timestamp() - %(window)s * interval '1 second' LIMIT %(batch)s) RETURNING id",
            {"window": WINDOW_S, "batch": _BATCH},
        )
        removed += len(rows)
        if len(rows) < _BATCH:
            return removed
