"""Slots: named configurations with a stable id, their route of rungs and their options."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import psycopg
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from photochanger import access, audit, providers, settings, templates
from photochanger.db import Database, Row, fetch
from photochanger.failures import Concern, Conflict, FieldError, InvalidSettings, SlotNotFound, VersionMismatch
from photochanger.providers import Price
from photochanger.settings import Settings

FIRST_SLOTS = 15
#: Of slots made later, where nobody chooses one.
_NEXT_ID = """
SELECT 'slot-' || lpad(n::text, greatest(3, length(n::text)), '0') AS id
FROM (SELECT 1 + coalesce(max(substring(id FROM '^slot-([0-9]{1,6})$')::int), 0) AS n FROM slot) AS highest
"""
SlotId = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]
NAME_CHARACTERS = 80
SlotName = Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS)]
#: What a copy of a slot is called.
COPY = "{name} (copy)"


class Rung(BaseModel):
    """One step of a route. ``timeout_s``: the most one call may take, within the job's own budget. ``pause_s``: how
    long to wait before another try where the provider does not say. ``on_refusal``: whether the next rung may still
    make a picture of what this one's model refused."""

    model_config = ConfigDict(extra="forbid")

    provider: str
    operation: str
    settings: dict[str, Any] = {}
    timeout_s: Annotated[float, Field(gt=0, le=60)] | None = None
    max_tries: Annotated[int, Field(ge=1, le=5)] = 2
    pause_s: Annotated[float, Field(ge=0, le=10)] = 0.5
    on_refusal: Literal["next", "fail"] = "next"


class Route(BaseModel):
    """What is done to a photo: the rungs in order."""

    model_config = ConfigDict(extra="forbid")

    rungs: Annotated[list[Rung], Field(min_length=1, max_length=5)]
    hedge: bool = False


#: An instant that is still one in every time zone, and in PostgreSQL.
Evening = Annotated[AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), le=datetime(2200, 1, 1, tzinfo=UTC))]


class BudgetPeriod(BaseModel):
    """Money for a named stretch of time, like one evening; ``amount`` in the currency of the providers' prices."""

    model_config = ConfigDict(extra="forbid")

    #: A part of a limit's key, whose parts a slash divides.
    name: Annotated[str, Field(pattern=r"^[^\x00-\x20/\x7f-\xa0][^\x00-\x1f/\x7f-\x9f]{0,59}$")]
    begins_at: Evening
    ends_at: Evening
    amount: Price

    @model_validator(mode="after")
    def _forwards(self) -> BudgetPeriod:
        if self.ends_at <= self.begins_at:
            raise PydanticCustomError("ends_first", "The end must come after the beginning")
        return self


class Options(BaseModel):
    """How a slot answers. ``on_disconnect``: what becomes of the job when the camera hangs up. ``join_duplicates``: a
    photo that comes again while its job may still answer it joins that job, instead of being paid for twice.
    ``keep_late_result``: a call that runs at the deadline may finish, and its picture is kept for the guest although
    the camera has had its 504. ``budget_*``: what this slot's calls may cost, in the currency of the providers' prices;
    a call that would go over it is not made."""

    model_config = ConfigDict(extra="forbid")

    on_disconnect: Literal["keep", "cancel"] = "keep"
    answer: Literal["picture", "multipart"] = "picture"
    join_duplicates: bool = True
    keep_late_result: bool = False
    budget_per_day: Price | None = None
    budget_period: BudgetPeriod | None = None


class Slot(BaseModel):
    """A slot as it is read, edited and printed."""

    model_config = ConfigDict(extra="forbid")

    id: SlotId
    name: SlotName
    is_active: bool
    version: int = 1
    route: Route
    options: Options = Options()


def check_route(route: Route, current: Settings) -> Route:
    """The route with every rung's settings checked by its operation's schema and the provider's catalogue, and filled
    with defaults.

    Raises:
        InvalidSettings: unknown providers or operations, settings that cannot work, providers that must fetch their
            pictures from us while nobody has said how they reach us; ``errors`` names all of them.
    """
    checked: list[Rung] = []
    wrong: list[FieldError] = []
    for number, rung in enumerate(route.rungs):
        whole, errors = _checked(rung, f"route.rungs.{number}", current)
        checked.append(whole)
        wrong += errors
    if wrong:
        raise _refused(wrong)
    return route.model_copy(update={"rungs": checked})


def _checked(rung: Rung, at: str, current: Settings) -> tuple[Rung, Sequence[FieldError]]:
    """The rung filled with defaults, and what is wrong with it; ``at``: its place."""
    known = providers.registry()
    provider = known.get(rung.provider)
    if provider is None:
        return rung, [_unknown(f"{at}.provider", rung.provider, list(known))]
    operation = provider.operations.get(rung.operation)
    if operation is None:
        return rung, [_unknown(f"{at}.operation", rung.operation, list(provider.operations))]
    try:
        filled = operation.settings.model_validate(rung.settings).model_dump(mode="json")
    except ValidationError as error:
        return rung, settings.invalid(error, at=f"{at}.settings").errors
    options = access.options_of(provider, current)
    wrong = [
        FieldError(f"{at}.settings.{field}", "refused", words) for field, words in provider.refusals(filled, options)
    ]
    if operation.needs_public_url and not current.public_base_url:
        words = (
            f"{rung.provider} fetches the photos from this server: set public_base_url to its address "
            "on the internet first"
        )
        wrong.append(FieldError(f"{at}.provider", "needs_public_url", words))
    return rung.model_copy(update={"settings": filled}), wrong


def warnings(route: Route, current: Settings) -> list[Concern]:
    """What an administrator should know about a route that may be saved all the same."""
    found: list[Concern] = []
    for rung in route.rungs:
        provider = providers.registry()[rung.provider]
        options = access.options_of(provider, current)
        usual_s, patience_s = provider.usual_for(rung.settings, options), current.t_sync_response_s
        if usual_s > patience_s:
            step = f"{rung.provider}/{rung.operation}"
            words = f"{step} usually takes {usual_s:g} s; the camera waits {patience_s:g} s"
            found.append(Concern("slow", words, {"step": step, "usual_s": usual_s, "patience_s": patience_s}))
        found += provider.concerns(rung.settings, options)
    return found


def _refused(errors: Sequence[FieldError]) -> InvalidSettings:
    return InvalidSettings(f"{errors[0].field}: {errors[0].message}", errors=errors)


def _unknown(field: str, value: str, known: list[str]) -> FieldError:
    return FieldError(field, "unknown", f"{value!r} is not known; choose one of: {', '.join(known)}")


def first_slots() -> list[Slot]:
    """A fresh database's slots: the first shows what the system does, the others wait to be set up."""
    sepia = Route(rungs=[Rung(provider="local", operation="filter", settings={"filter": "sepia"})])
    original = Route(rungs=[Rung(provider="local", operation="original")])
    return [
        Slot(
            id=f"slot-{number:03}",
            name=f"Slot {number}",
            is_active=number == 1,
            route=check_route(sepia if number == 1 else original, Settings()),
        )
        for number in range(1, FIRST_SLOTS + 1)
    ]


_COLUMNS = "id, name, is_active, version, route, options"


def _slot(row: Row) -> Slot:
    return Slot.model_validate(row)


async def next_id(db: Database) -> str:
    """The id that the next slot gets where nobody chooses one."""
    return str((await db.fetch(_NEXT_ID))[0]["id"])


async def create_first(db: Database) -> None:
    """Writes the first slots into a database that has none."""
    async with db.transaction() as connection:
        for slot in first_slots():
            await connection.execute(
                b"INSERT INTO slot (id, name, is_active, route, options) VALUES (%s, %s, %s, %s, %s) "
                b"ON CONFLICT (id) DO NOTHING",
                (
                    slot.id,
                    slot.name,
                    slot.is_active,
                    Jsonb(slot.route.model_dump()),
                    Jsonb(slot.options.model_dump(mode="json")),
                ),
            )


async def all_slots(db: Database) -> dict[str, Slot]:
    """Every slot that is not archived, by id."""
    rows = await db.fetch(f"SELECT {_COLUMNS} FROM slot WHERE archived_at IS NULL ORDER BY id")  # noqa: S608
    return {row["id"]: _slot(row) for row in rows}


async def names(db: Database) -> dict[str, str]:
    """What every slot is called now, by id; the archived ones too."""
    return {row["id"]: row["name"] for row in await db.fetch("SELECT id, name FROM slot ORDER BY id")}


async def get(db: Database, slot_id: str) -> Slot:
    """One slot that is in use.

    Raises:
        SlotNotFound: there is none, or it is archived.
    """
    slot, is_archived = await get_any(db, slot_id)
    if is_archived:
        raise SlotNotFound(f"{slot_id} is archived")
    return slot


async def get_any(db: Database, slot_id: str) -> tuple[Slot, bool]:
    """One slot, and whether it is archived.

    Raises:
        SlotNotFound: there is none.
    """
    rows = await db.fetch(f"SELECT {_COLUMNS}, archived_at FROM slot WHERE id = %(id)s", {"id": slot_id})  # noqa: S608
    if not rows:
        raise SlotNotFound(f"There is no slot {slot_id[:64]!r}")
    archived_at = rows[0].pop("archived_at")
    return _slot(rows[0]), archived_at is not None


_LISTING = f"""
SELECT {_COLUMNS} FROM slot
WHERE (archived_at IS NOT NULL) = %(archived)s AND id > %(after)s
  AND (%(is_active)s::boolean IS NULL OR is_active = %(is_active)s)
  AND (%(search)s::text IS NULL OR strpos(lower(name), lower(%(search)s)) > 0 OR strpos(id, lower(%(search)s)) > 0)
  AND ((%(provider)s::text IS NULL AND %(operation)s::text IS NULL) OR EXISTS (
      SELECT FROM jsonb_array_elements(route->'rungs') AS rung
      WHERE coalesce(rung->>'provider' = %(provider)s, true) AND coalesce(rung->>'operation' = %(operation)s, true)))
ORDER BY id LIMIT %(limit)s
"""  # noqa: S608 - our own constant


async def listing(
    db: Database,
    *,
    provider: str | None = None,
    operation: str | None = None,
    search: str | None = None,
    is_active: bool | None = None,
    is_archived: bool = False,
    after: str = "",
    limit: int = 50,
) -> list[Slot]:
    """Slots by id, after ``after``: those of which some rung has the provider and operation, and whose name or id
    holds ``search``."""
    params = {
        "provider": provider,
        "operation": operation,
        "search": search,
        "is_active": is_active,
        "archived": is_archived,
        "after": after,
        "limit": limit,
    }
    return [_slot(row) for row in await db.fetch(_LISTING, params)]


async def create(
    db: Database,
    *,
    slot_id: str | None = None,
    name: str,
    is_active: bool = False,
    route: Route,
    options: Options | None = None,
    actor: str = audit.COMMAND_LINE,
    copy_of: str | None = None,
) -> Slot:
    """Makes a slot; without an id of its own it gets the next number.

    Raises:
        InvalidSettings: nothing was made.
        Conflict: the id is taken, by an archived slot too: what cameras are set to never becomes something else.
    """
    route = check_route(route, await settings.load(db))
    try:
        async with db.transaction() as connection:
            await connection.execute(b"LOCK slot IN SHARE ROW EXCLUSIVE MODE")  # two at once would take one number
            await _lock_templates(connection, route)
            chosen = slot_id or (await fetch(connection, _NEXT_ID))[0]["id"]
            rows = await fetch(
                connection,
                "INSERT INTO slot (id, name, is_active, route, options) "  # noqa: S608
                f"VALUES (%(id)s, %(name)s, %(is_active)s, %(route)s, %(options)s) RETURNING {_COLUMNS}",
                _values(chosen, name, is_active, route, options or Options()),
            )
            await settings.set_lanes(connection)
            detail = {"copy_of": copy_of} if copy_of else {}
            await audit.record(connection, actor=actor, action="slot.created", target=f"slot/{chosen}", detail=detail)
    except psycopg.errors.UniqueViolation:
        raise Conflict(f"There is a slot {slot_id} already, or was one") from None
    return _slot(rows[0])


async def duplicate(db: Database, slot_id: str, *, actor: str, called: str = COPY) -> Slot:
    """A copy under the next number, switched off; ``called``: its name, with the slot's as ``{name}``.

    Raises:
        SlotNotFound, InvalidSettings: nothing was made.
    """
    slot = await get(db, slot_id)
    room = NAME_CHARACTERS - len(called.format(name=""))
    name = called.format(name=slot.name[:room])
    return await create(db, name=name, route=slot.route, options=slot.options, actor=actor, copy_of=slot_id)


async def save(db: Database, slot: Slot, *, actor: str = audit.COMMAND_LINE) -> Slot:
    """Saves a slot over the version it was read at. Running jobs keep their snapshot.

    Raises:
        SlotNotFound, InvalidSettings: nothing was saved.
        VersionMismatch: somebody saved in between.
    """
    route = check_route(slot.route, await settings.load(db))
    async with db.transaction() as connection:
        await _lock_templates(connection, route)
        was = await _locked(connection, slot.id, slot.version)
        saved = await fetch(
            connection,
            f"UPDATE slot SET name = %(name)s, is_active = %(is_active)s, route = %(route)s, options = %(options)s, "  # noqa: S608
            f"version = version + 1, updated_at = clock_timestamp() WHERE id = %(id)s RETURNING {_COLUMNS}",
            _values(slot.id, slot.name, slot.is_active, route, slot.options),
        )
        await settings.set_lanes(connection)
        now = _slot(saved[0])
        changed = [
            name for name in ("name", "is_active", "route", "options") if getattr(was, name) != getattr(now, name)
        ]
        detail = {"version": now.version, "changed": changed}
        await audit.record(connection, actor=actor, action="slot.saved", target=f"slot/{slot.id}", detail=detail)
    return now


async def archive(db: Database, slot_id: str, version: int, *, actor: str) -> Slot:
    """Takes a slot out of use: it is off and in no list; its jobs and pictures stay, its id stays taken.

    Raises:
        SlotNotFound, VersionMismatch: nothing was changed.
    """
    async with db.transaction() as connection:
        await _locked(connection, slot_id, version)
        rows = await _set_archived(connection, slot_id, "is_active = false, archived_at = clock_timestamp()")
        await settings.set_lanes(connection)
        await audit.record(connection, actor=actor, action="slot.archived", target=f"slot/{slot_id}")
    return rows


async def restore(db: Database, slot_id: str, version: int, *, actor: str) -> Slot:
    """Brings an archived slot back, switched off.

    Raises:
        SlotNotFound, VersionMismatch: nothing was changed.
    """
    async with db.transaction() as connection:
        await _locked(connection, slot_id, version, is_archived=True)
        rows = await _set_archived(connection, slot_id, "archived_at = NULL")
        await audit.record(connection, actor=actor, action="slot.restored", target=f"slot/{slot_id}")
    return rows


async def _set_archived(connection: AsyncConnection[Any], slot_id: str, changes: str) -> Slot:
    rows = await fetch(
        connection,
        f"UPDATE slot SET {changes}, version = version + 1, updated_at = clock_timestamp() "  # noqa: S608
        f"WHERE id = %(id)s RETURNING {_COLUMNS}",
        {"id": slot_id},
    )
    return _slot(rows[0])


async def _locked(connection: AsyncConnection[Any], slot_id: str, version: int, *, is_archived: bool = False) -> Slot:
    """The slot as it is, locked, where it is at ``version``."""
    rows = await fetch(
        connection,
        f"SELECT {_COLUMNS} FROM slot WHERE id = %(id)s AND (archived_at IS NOT NULL) = %(archived)s FOR UPDATE",  # noqa: S608
        {"id": slot_id, "archived": is_archived},
    )
    if not rows:
        raise SlotNotFound(f"There is no slot {slot_id[:64]!r}")
    if rows[0]["version"] != version:
        raise VersionMismatch(f"{slot_id} is at version {rows[0]['version']} now", version=rows[0]["version"])
    return _slot(rows[0])


async def _lock_templates(connection: AsyncConnection[Any], route: Route) -> None:
    """Locked, so that none is deleted before the slot that names it is saved."""
    wanted = [
        (f"route.rungs.{number}.settings.{name}", one)
        for number, rung in enumerate(route.rungs)
        for name, group in templates.named(rung.settings).items()
        for one in group
    ]
    rows = await fetch(
        connection,
        "SELECT id::text FROM template_media WHERE id = ANY(%(ids)s::uuid[]) FOR SHARE",
        {"ids": [one for _, one in wanted]},
    )
    there = {row["id"] for row in rows}
    if gone := [
        FieldError(at, "template_gone", f"There is no template {one}") for at, one in wanted if one not in there
    ]:
        raise _refused(gone)


def _values(slot_id: str, name: str, is_active: bool, route: Route, options: Options) -> dict[str, Any]:
    return {
        "id": slot_id,
        "name": name,
        "is_active": is_active,
        "route": Jsonb(route.model_dump(mode="json")),
        "options": Jsonb(options.model_dump(mode="json")),
    }
