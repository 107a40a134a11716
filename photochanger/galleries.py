"""Windows in which guests may look at the pictures of a slot, or of all: opened for minutes, made longer,
closed at once."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID, uuid4

from photochanger import audit
from photochanger.db import Database, Row, fetch
from photochanger.failures import Conflict, FieldError, InvalidSettings, NotFound, SlotNotFound

USUAL_MINUTES = 15
MOST_MINUTES = 24 * 60

_COLUMNS = """
share.id, share.slot_id, slot.name AS slot_name, share.opened_by, share.opened_at, share.expires_at, share.closed_at,
share.closed_at IS NULL AND share.expires_at > clock_timestamp() AS is_open, clock_timestamp() AS now
"""
_MOST = timedelta(minutes=MOST_MINUTES)
#: ``minutes``: how much later it ends now.
_EXTEND = """
WITH was AS (
    SELECT id, expires_at FROM gallery_share
    WHERE id = %(id)s AND closed_at IS NULL AND expires_at > clock_timestamp() FOR UPDATE
)
UPDATE gallery_share SET expires_at = %(end)s FROM was
WHERE gallery_share.id = was.id AND %(end)s > clock_timestamp() AND %(end)s <= clock_timestamp() + %(most)s
RETURNING slot_id, round(extract(epoch FROM gallery_share.expires_at - was.expires_at) / 60)::int AS minutes
"""
_FROM = "FROM gallery_share share LEFT JOIN slot ON slot.id = share.slot_id"


async def open_share(db: Database, *, slot_id: str | None, minutes: int, actor: str) -> Row:
    """Opens a window of ``minutes`` on one slot's pictures, on all where no slot is named.

    Raises:
        SlotNotFound: there is no such slot.
    """
    share_id = uuid4()
    async with db.transaction() as connection:
        if slot_id is not None and not await fetch(connection, "SELECT FROM slot WHERE id = %(id)s", {"id": slot_id}):
            raise SlotNotFound(f"There is no slot {slot_id[:64]!r}")
        await fetch(
            connection,
            "INSERT INTO gallery_share (id, slot_id, opened_by, expires_at) "
            "VALUES (%(id)s, %(slot_id)s, %(actor)s, clock_timestamp() + %(lasts)s)",
            {"id": share_id, "slot_id": slot_id, "actor": actor, "lasts": timedelta(minutes=minutes)},
        )
        detail = {"slot_id": slot_id, "minutes": minutes}
        await audit.record(
            connection, actor=actor, action="gallery.opened", target=f"gallery/{share_id}", detail=detail
        )
    return await find(db, share_id)


async def extend(db: Database, share_id: UUID, *, expires_at: datetime, actor: str) -> Row:
    """Has an open window end at another time; its links, and QR codes of them, stay good.

    Raises:
        NotFound: there was none.
        Conflict: it has ended, or was closed.
        InvalidSettings: that is past, or too far away.
    """
    async with db.transaction() as connection:
        moved = await fetch(connection, _EXTEND, {"id": share_id, "end": expires_at, "most": _MOST})
        if moved:
            detail = {"slot_id": moved[0]["slot_id"], "minutes": moved[0]["minutes"]}
            target = f"gallery/{share_id}"
            await audit.record(connection, actor=actor, action="gallery.extended", target=target, detail=detail)
    share = await find(db, share_id)
    if not moved and not share["is_open"]:
        raise Conflict("The gallery has ended")
    if not moved:
        words = f"It must be within the next {MOST_MINUTES // 60} hours"
        raise InvalidSettings(f"expires_at: {words}", errors=[FieldError("expires_at", "too_far", words)])
    return share


async def close(db: Database, share_id: UUID, *, actor: str) -> Row:
    """Ends a window now; it may have ended already.

    Raises:
        NotFound: there was none.
    """
    async with db.transaction() as connection:
        closed = await fetch(
            connection,
            "UPDATE gallery_share SET closed_at = clock_timestamp() WHERE id = %(id)s AND closed_at IS NULL "
            "AND expires_at > clock_timestamp() RETURNING slot_id",
            {"id": share_id},
        )
        if closed:
            target, detail = f"gallery/{share_id}", {"slot_id": closed[0]["slot_id"]}
            await audit.record(connection, actor=actor, action="gallery.closed", target=target, detail=detail)
    return await find(db, share_id)


async def find(db: Database, share_id: UUID) -> Row:
    """One window, and whether it ``is_open``.

    Raises:
        NotFound: there is none.
    """
    rows = await db.fetch(f"SELECT {_COLUMNS} {_FROM} WHERE share.id = %(id)s", {"id": share_id})
    if not rows:
        raise NotFound("There is no such gallery")
    return rows[0]


async def listing(
    db: Database, *, only_open: bool, after: tuple[datetime, UUID] | None = None, limit: int = 50
) -> list[Row]:
    """Windows, the one that ends last first; those behind ``after`` (end and id)."""
    return await db.fetch(
        f"SELECT {_COLUMNS} {_FROM} "
        "WHERE (NOT %(open)s OR (share.closed_at IS NULL AND share.expires_at > clock_timestamp())) "
        "AND (%(at)s::timestamptz IS NULL OR (share.expires_at, share.id) < (%(at)s, %(id)s::uuid)) "
        "ORDER BY share.expires_at DESC, share.id DESC LIMIT %(limit)s",
        {"open": only_open, "at": after and after[0], "id": after and after[1], "limit": limit},
    )


async def sweep(db: Database, *, days: int) -> int:
    """Forgets windows that ended ``days`` ago."""
    rows = await db.fetch(
        "DELETE FROM gallery_share WHERE expires_at < clock_timestamp() - %(days)s * interval '1 day' RETURNING id",
        {"days": days},
    )
    return len(rows)
