"""Slots: named configurations with a stable id, their route of rungs and their options."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from psycopg.types.json import Jsonb
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from photochanger import access, providers, settings, templates
from photochanger.db import Database, Row, fetch
from photochanger.failures import FieldError, InvalidSettings, SlotNotFound, VersionMismatch
from photochanger.providers import Price
from photochanger.settings import Settings

FIRST_SLOTS = 15


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


class BudgetPeriod(BaseModel):
    """Money for a named stretch of time, like one evening; ``amount`` in the currency of the providers' prices."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9 ._-]{0,59}$")]
    begins_at: AwareDatetime
    ends_at: AwareDatetime
    amount: Price

    @model_validator(mode="after")
    def _forwards(self) -> BudgetPeriod:
        if self.ends_at <= self.begins_at:
            raise ValueError("ends_at must come after begins_at")
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

    id: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]
    name: Annotated[str, Field(min_length=1, max_length=80)]
    is_active: bool
    version: int = 1
    route: Route
    options: Options = Options()


def check_route(route: Route, current: Settings) -> Route:
    """The route with every rung's settings checked by its operation's schema and the provider's catalogue, and filled
    with defaults.

    Raises:
        InvalidSettings: an unknown provider or operation, settings that cannot work, or a provider that must fetch
            its pictures from us while nobody has said how it reaches us.
    """
    known = providers.registry()
    checked = []
    for number, rung in enumerate(route.rungs):
        at = f"route.rungs.{number}"
        provider = known.get(rung.provider)
        if provider is None:
            raise _unknown(f"{at}.provider", rung.provider, list(known))
        operation = provider.operations.get(rung.operation)
        if operation is None:
            raise _unknown(f"{at}.operation", rung.operation, list(provider.operations))
        try:
            whole = operation.settings.model_validate(rung.settings)
        except ValidationError as error:
            raise settings.invalid(error, at=f"{at}.settings") from None
        filled = whole.model_dump(mode="json")
        options = access.options_of(provider, current)
        if refusals := [(f"{at}.settings.{field}", words) for field, words in provider.refusals(filled, options)]:
            raise InvalidSettings(
                ": ".join(refusals[0]), errors=[FieldError(field, "refused", words) for field, words in refusals]
            )
        if operation.needs_public_url and not current.public_base_url:
            words = (
                f"{rung.provider} fetches the photos from this server: set public_base_url to its address "
                "on the internet first"
            )
            raise InvalidSettings(words, errors=[FieldError(f"{at}.provider", "needs_public_url", words)])
        checked.append(rung.model_copy(update={"settings": filled}))
    return route.model_copy(update={"rungs": checked})


def warnings(route: Route, current: Settings) -> list[str]:
    """What an administrator should know about a route that may be saved all the same."""
    found = []
    for rung in route.rungs:
        provider = providers.registry()[rung.provider]
        options = access.options_of(provider, current)
        usual_s = provider.usual_for(rung.settings, options)
        if usual_s > current.t_sync_response_s:
            found.append(
                f"{rung.provider}/{rung.operation} usually takes {usual_s:g} s; "
                f"the camera waits {current.t_sync_response_s:g} s"
            )
        found += provider.concerns(rung.settings, options)
    return found


def _unknown(field: str, value: str, known: list[str]) -> InvalidSettings:
    words = f"{value!r} is not known; choose one of: {', '.join(known)}"
    return InvalidSettings(f"{field}: {words}", errors=[FieldError(field, "unknown", words)])


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


async def save(db: Database, slot: Slot) -> Slot:
    """Saves a slot over the version it was read at. Running jobs keep their snapshot.

    Raises:
        SlotNotFound, InvalidSettings: nothing was saved.
        VersionMismatch: somebody saved in between.
    """
    current = await settings.load(db)
    route = check_route(slot.route, current)
    async with db.transaction() as connection:
        wanted = {one for rung in route.rungs for group in templates.named(rung.settings).values() for one in group}
        # Locked, so that none is deleted before the slot that names it is saved.
        found = await fetch(
            connection,
            "SELECT id::text FROM template_media WHERE id = ANY(%(ids)s::uuid[]) FOR SHARE",
            {"ids": list(wanted)},
        )
        if missing := wanted - {row["id"] for row in found}:
            raise InvalidSettings(f"There is no template {min(missing)}")
        rows = await fetch(connection, "SELECT version FROM slot WHERE id = %(id)s FOR UPDATE", {"id": slot.id})
        if not rows:
            raise SlotNotFound(f"There is no slot {slot.id}")
        if rows[0]["version"] != slot.version:
            raise VersionMismatch(f"{slot.id} is at version {rows[0]['version']} now")
        saved = await fetch(
            connection,
            f"UPDATE slot SET name = %(name)s, is_active = %(is_active)s, route = %(route)s, options = %(options)s, "  # noqa: S608
            f"version = version + 1, updated_at = clock_timestamp() WHERE id = %(id)s RETURNING {_COLUMNS}",
            {
                "id": slot.id,
                "name": slot.name,
                "is_active": slot.is_active,
                "route": Jsonb(route.model_dump(mode="json")),
                "options": Jsonb(slot.options.model_dump(mode="json")),
            },
        )
        await settings.set_lanes(connection, current)
    return _slot(saved[0])
