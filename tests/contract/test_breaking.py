"""What counts as a break of the contract: every kind of change in both directions, on a small document."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from spec import breaking, drift
from spec.shapes import Schema

DOCUMENT: Schema = yaml.safe_load("""
x-failure-codes: { not_found: 404, queue_full: 503 }
security: []
paths:
  /photos/{id}:
    parameters:
      - { name: id, in: path, required: true, schema: { type: string } }
    get:
      operationId: getPhoto
      parameters:
        - { name: size, in: query, schema: { type: integer, enum: [160, 320] } }
        - { name: Prefer, in: header, schema: { type: string } }
      responses:
        "200":
          headers:
            ETag: { required: true, schema: { type: string } }
          content:
            application/json: { schema: { $ref: "#/components/schemas/Photo" } }
            image/jpeg: { schema: { type: string, format: binary } }
        "404": { $ref: "#/components/responses/Missing" }
    put:
      operationId: changePhoto
      x-permission: photos.write
      security: [{ session: [] }, { token: [] }]
      requestBody:
        content:
          application/json: { schema: { $ref: "#/components/schemas/Change" } }
          text/plain: { schema: { type: string } }
      responses:
        "204": { description: Done. }
        "404": { $ref: "#/components/responses/Missing" }
components:
  securitySchemes:
    session: { type: apiKey, in: cookie, name: session }
    token: { type: http, scheme: bearer }
  responses:
    Missing:
      content:
        application/problem+json: { schema: { $ref: "#/components/schemas/Problem" } }
  schemas:
    Problem:
      type: object
      required: [code]
      properties: { code: { enum: [not_found, queue_full] }, detail: { type: string } }
    Photo:
      type: object
      required: [state, size, owner]
      properties:
        state: { enum: [made, waiting] }
        size: { type: integer, maximum: 100 }
        owner: { anyOf: [{ $ref: "#/components/schemas/Owner" }, { type: "null" }] }
        made_at: { type: string, format: date-time }
        parts: { type: array, items: { $ref: "#/components/schemas/Photo" } }
    Owner:
      allOf:
        - { type: object, required: [name], properties: { name: { type: string } } }
        - { properties: { note: { type: string } } }
    Change:
      type: object
      required: [title]
      properties:
        title: { type: string, minLength: 1, maxLength: 80 }
        mode: { enum: [soft, hard] }
        strength: { anyOf: [{ type: number, maximum: 10 }, { type: "null" }] }
        target: { oneOf: [{ type: string }, { type: integer }] }
        extra: { type: object, additionalProperties: { type: string } }
""")

GONE = object()
PATH = "paths./photos/{id}"
ANSWER = f"{PATH}.get.responses.200"
SENT = "components.schemas.Change"
ANSWERED = "components.schemas.Photo"
IN_CHANGE = "schema Change, as it is sent"
IN_PHOTO = "schema Photo, as it is answered"

#: What is set in the document, and the words for it.
BREAKS: list[tuple[dict[str, Any], str]] = [
    ({PATH: GONE}, "GET /photos/{id}: is gone"),
    ({f"{PATH}.put": GONE}, "PUT /photos/{id}: is gone"),
    ({f"{PATH}.get.operationId": "readPhoto"}, "GET /photos/{id}: its operationId was getPhoto and is readPhoto"),
    ({f"{PATH}.get.security": [{"token": []}]}, "GET /photos/{id}: is not answered without signing in any more"),
    ({"security": [{"token": []}]}, "GET /photos/{id}: is not answered without signing in any more"),
    ({f"{PATH}.put.security": [{"token": []}]}, "PUT /photos/{id}: is not answered with session any more"),
    ({f"{PATH}.put.x-permission": "photos.own"}, "its x-permission was photos.write and is photos.own"),
    ({"components.securitySchemes.token.scheme": "basic"}, "securitySchemes/token: is another way to sign in now"),
    ({f"{PATH}.get.parameters.0": GONE}, "GET /photos/{id}: query size is gone"),
    ({f"{PATH}.get.parameters.0.required": True}, "GET /photos/{id}, query size: is required now"),
    ({f"{PATH}.get.parameters.0.name": "edge"}, "GET /photos/{id}: query size is gone"),
    ({f"{PATH}.get.parameters.0.schema.enum": [160]}, "GET /photos/{id}, query size: is never 320 any more"),
    ({f"{PATH}.get.parameters.1.schema.pattern": "^a"}, "header prefer: its pattern was not there and is ^a"),
    ({f"{PATH}.parameters.0.schema.format": "uuid"}, "GET /photos/{id}, path id: its format was not there and is uuid"),
    (
        {f"{PATH}.get.parameters.+": {"name": "q", "in": "query", "required": True}},
        "GET /photos/{id}: query q is new and required",
    ),
    ({f"{PATH}.put.requestBody": GONE}, "PUT /photos/{id}: its body is gone"),
    ({f"{PATH}.put.requestBody.required": True}, "PUT /photos/{id}, body: is required now"),
    ({f"{PATH}.get.requestBody": {"required": True}}, "GET /photos/{id}: a body is new and required"),
    ({f"{PATH}.put.requestBody.content.text/plain": GONE}, "PUT /photos/{id}, body: text/plain is gone"),
    ({f"{SENT}.required": ["title", "mode"]}, f"{IN_CHANGE}: field mode is required now"),
    ({f"{SENT}.properties.new": {}, f"{SENT}.required": ["title", "new"]}, f"{IN_CHANGE}: field new is required now"),
    ({f"{SENT}.properties.mode": GONE}, f"{IN_CHANGE}: field mode is gone"),
    ({f"{SENT}.properties.mode.enum": ["soft"]}, f'{IN_CHANGE} → mode: is never "hard" any more'),
    ({f"{SENT}.properties.title.enum": ["a"]}, f'{IN_CHANGE} → title: is only "a" now'),
    ({f"{SENT}.properties.title.type": "integer"}, f"{IN_CHANGE} → title: its type was string and is integer"),
    ({f"{SENT}.properties.title.maxLength": 40}, f"{IN_CHANGE} → title: its maxLength was 80 and is 40"),
    ({f"{SENT}.properties.title.minLength": 2}, f"{IN_CHANGE} → title: its minLength was 1 and is 2"),
    ({f"{SENT}.properties.strength.anyOf.0.minimum": 0}, f"{IN_CHANGE} → strength: its minimum was not there and is 0"),
    ({f"{SENT}.properties.strength.anyOf.0.type": "integer"}, "its type was number and is integer"),
    ({f"{SENT}.properties.strength.anyOf.1": GONE}, f"{IN_CHANGE} → strength: is never null any more"),
    ({f"{SENT}.properties.target.oneOf.1": GONE}, f'{IN_CHANGE} → target: no longer takes {{"type": "integer"}}'),
    ({f"{SENT}.additionalProperties": False}, f"{IN_CHANGE}: takes no other fields any more"),
    ({f"{SENT}.properties.extra.additionalProperties.maxLength": 9}, f"{IN_CHANGE} → extra → *: its maxLength"),
    ({f"{ANSWER}": GONE}, "GET /photos/{id}: is not answered with 200 any more"),
    ({f"{ANSWER}.content.image/jpeg": GONE}, "GET /photos/{id}, 200: image/jpeg is gone"),
    ({f"{ANSWER}.headers.ETag": GONE}, "GET /photos/{id}, 200: header etag is gone"),
    ({f"{ANSWER}.headers.ETag.required": False}, "GET /photos/{id}, 200, header etag: may be missing now"),
    ({f"{ANSWERED}.properties.made_at": GONE}, f"{IN_PHOTO}: field made_at is gone"),
    ({f"{ANSWERED}.required": ["state", "owner"]}, f"{IN_PHOTO}: field size may be missing now"),
    ({f"{ANSWERED}.properties.size.type": ["integer", "null"]}, f"{IN_PHOTO} → size: may be null now"),
    ({f"{ANSWERED}.properties.size.type": "number"}, f"{IN_PHOTO} → size: its type was integer and is number"),
    ({f"{ANSWERED}.properties.made_at.format": "date"}, f"{IN_PHOTO} → made_at: its format was date-time and is date"),
    ({f"{ANSWERED}.properties.state.enum": ["made", "waiting", "lost"]}, f'{IN_PHOTO} → state: may be "lost" now'),
    ({f"{ANSWERED}.properties.state": {"type": "string"}}, f"{IN_PHOTO} → state: was only"),
    ({f"{ANSWERED}.properties.owner.anyOf.+": {"type": "string"}}, f"{IN_PHOTO} → owner: may now be"),
    ({f"{ANSWERED}.properties.parts.items": {"type": "string"}}, f"{IN_PHOTO} → parts → []: its type"),
    ({"components.schemas.Owner.allOf.1": GONE}, "schema Owner, as it is answered: field note is gone"),
    ({"components.schemas.Owner.allOf.0.required": []}, "schema Owner, as it is answered: field name may be missing"),
    (
        {"components.responses.Missing.content": {"application/json": {}}},
        "responses/Missing: application/problem+json is gone",
    ),
    ({"components.schemas.Problem.properties.code.enum.+": "made_up"}, 'code: may be "made_up" now'),
    ({"x-failure-codes.queue_full": 429}, "x-failure-codes: queue_full was answered with 503 and is with 429"),
    ({"x-failure-codes.queue_full": GONE}, "x-failure-codes: queue_full is gone"),
]

COMPATIBLE: list[tuple[dict[str, Any], str]] = [
    ({"paths./new": {"get": {"operationId": "new", "responses": {}}}}, "GET /new: is new"),
    ({f"{PATH}.put.security": [{"session": []}, {"token": []}, {}]}, "is answered without signing in now"),
    ({f"{PATH}.get.parameters.+": {"name": "q", "in": "query"}}, "GET /photos/{id}: query q is new"),
    ({f"{PATH}.get.parameters.1.name": "prefer", f"{PATH}.get.summary": "A photo"}, ""),
    ({f"{PATH}.get.parameters.0.schema.enum": [160, 320, 640]}, "query size: may be 640 now"),
    ({f"{PATH}.get.requestBody": {"content": {}}}, "GET /photos/{id}: a body is new"),
    ({f"{PATH}.put.requestBody.content.image/png": {}}, "PUT /photos/{id}, body: image/png is new"),
    ({f"{SENT}.required": []}, f"{IN_CHANGE}: field title may be missing now"),
    ({f"{SENT}.properties.new": {}}, f"{IN_CHANGE}: field new is new"),
    ({f"{SENT}.properties.mode.enum": ["soft", "hard", "odd"]}, f'{IN_CHANGE} → mode: may be "odd" now'),
    ({f"{SENT}.properties.mode": {"type": "string"}}, f"{IN_CHANGE} → mode: was only"),
    ({f"{SENT}.properties.title.type": ["string", "null"]}, f"{IN_CHANGE} → title: may be null now"),
    ({f"{SENT}.properties.title.maxLength": 90}, f"{IN_CHANGE} → title: its maxLength was 80 and is 90"),
    ({f"{SENT}.properties.title.minLength": 0}, f"{IN_CHANGE} → title: its minLength was 1 and is 0"),
    ({f"{SENT}.properties.target.oneOf.+": {"type": "boolean"}}, f"{IN_CHANGE} → target: had 2 forms and has 3"),
    ({f"{PATH}.get.responses.404": GONE}, "GET /photos/{id}: is not answered with 404 any more"),
    ({f"{PATH}.get.responses.410": {}}, "GET /photos/{id}: may be answered with 410 now"),
    ({f"{ANSWER}.headers.Vary": {}}, "GET /photos/{id}, 200: header vary is new"),
    ({f"{ANSWER}.content.image/webp": {}}, "GET /photos/{id}, 200: image/webp is new"),
    ({f"{ANSWERED}.properties.new": {}}, f"{IN_PHOTO}: field new is new"),
    ({f"{ANSWERED}.required": ["state", "size", "owner", "parts"]}, f"{IN_PHOTO}: field parts is required now"),
    ({f"{ANSWERED}.properties.state.enum": ["made"]}, f'{IN_PHOTO} → state: is never "waiting" any more'),
    ({f"{ANSWERED}.properties.owner.anyOf.1": GONE}, f"{IN_PHOTO} → owner: is never null any more"),
    ({f"{ANSWERED}.properties.size.maximum": 200}, f"{IN_PHOTO} → size: its maximum was 100 and is 200"),
    (
        {"components.schemas.Problem.properties.code.enum.+": "no_workers", "x-failure-codes.no_workers": 503},
        'code: may be "no_workers" now',
    ),
]

#: The same thing said in other words.
ALIKE: list[dict[str, Any]] = [
    {f"{SENT}.properties.strength": {"type": ["number", "null"], "maximum": 10}},
    {f"{SENT}.properties.mode.type": "string"},
    {f"{ANSWERED}.properties.owner": {"anyOf": [{"type": "null"}, {"$ref": "#/components/schemas/Owner"}]}},
    {
        "components.schemas.Owner": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string"}, "note": {"type": "string"}},
        }
    },
    {f"{ANSWER}.content.application/json.schema": {"allOf": [{"$ref": "#/components/schemas/Photo"}]}},
    {f"{ANSWER}.headers": {"etag": {"required": True, "schema": {"type": "string"}, "description": "Other words."}}},
]


def changed(changes: dict[str, Any]) -> Schema:
    """The document with values set, added to a list (``+``) or taken away at paths of keys and numbers."""
    document = copy.deepcopy(DOCUMENT)
    for path, value in changes.items():
        *way, last = path.split(".")
        at: Any = document
        for key in way:
            at = at[int(key)] if isinstance(at, list) else at[key]
        if last == "+":
            at.append(value)
        elif value is GONE:
            del at[int(last) if isinstance(at, list) else last]
        else:
            at[last] = value
    return document


def said(changes: dict[str, Any], *, breaks: bool) -> list[str]:
    found = breaking.changes(DOCUMENT, changed(changes))
    return [str(change) for change in found if change.breaks is breaks]


@pytest.mark.parametrize(("changes", "words"), BREAKS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_break_is_found_and_named_once(changes: dict[str, Any], words: str) -> None:
    assert len([found for found in said(changes, breaks=True) if words in found]) == 1


@pytest.mark.parametrize(("changes", "words"), COMPATIBLE, ids=lambda value: value if isinstance(value, str) else "")
def test_a_change_that_breaks_nobody_is_named_as_one(changes: dict[str, Any], words: str) -> None:
    assert said(changes, breaks=True) == []
    assert not words or len([found for found in said(changes, breaks=False) if words in found]) == 1


@pytest.mark.parametrize("changes", ALIKE, ids=lambda changes: next(iter(changes)))
def test_other_words_for_the_same_are_no_change(changes: dict[str, Any]) -> None:
    assert breaking.changes(DOCUMENT, changed(changes)) == []


def test_every_break_is_a_compatible_change_or_another_break_the_other_way_round() -> None:
    for changes, _ in BREAKS:
        assert breaking.changes(changed(changes), DOCUMENT), changes


# -- the check of the real contract ---------------------------------------------------------------------------------


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the contract that a test may spoil, and nothing accepted yet."""
    contracts = Path(shutil.copytree(drift.CONTRACTS, tmp_path / "contracts"))
    shutil.copy(contracts / breaking.RELEASED / drift.OPENAPI, contracts / drift.OPENAPI)
    accept(contracts, [])
    return contracts


def accept(contracts: Path, entries: list[Any]) -> None:
    (contracts / breaking.RELEASED / breaking.ACCEPTED).write_text(yaml.safe_dump(entries))


def spoil(contracts: Path) -> str:
    """Takes a route away; the words for that."""
    openapi = contracts / drift.OPENAPI
    openapi.write_text(openapi.read_text().replace("\n  /healthz:\n", "\n  /health:\n"))
    return "GET /healthz: is gone"


def test_the_contract_breaks_no_client_of_the_released_one() -> None:
    assert breaking.main([]) == 0


def test_a_break_fails_the_check(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = spoil(copied)
    assert breaking.main([], copied) == 1
    said = capsys.readouterr()
    assert said.err == f"breaks clients: {words}\n"
    assert said.out == ""


def test_what_breaks_nobody_is_told_on_demand(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(copied)
    assert breaking.main(["--all"], copied) == 1
    assert "breaks nobody: GET /health: is new" in capsys.readouterr().out


def test_a_break_that_is_meant_passes_with_its_reason(copied: Path) -> None:
    accept(copied, [{"change": spoil(copied), "reason": "Nobody has asked it for a year."}])
    assert breaking.main([], copied) == 0


def test_an_accepted_break_that_is_none_fails_the_check(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accept(copied, [{"change": "GET /healthz: is gone", "reason": "It was planned."}])
    assert breaking.main([], copied) == 1
    assert capsys.readouterr().err == "accepted.yaml: breaks nothing: GET /healthz: is gone\n"


@pytest.mark.parametrize(
    "entries",
    [
        [{"change": "GET /healthz: is gone"}],
        [{"change": "GET /healthz: is gone", "reason": " "}],
        ["GET /healthz: is gone"],
        [{"change": "GET /healthz: is gone", "reason": "Meant."}] * 2,
    ],
)
def test_nothing_is_accepted_without_a_reason_or_twice(
    copied: Path, capsys: pytest.CaptureFixture[str], entries: list[Any]
) -> None:
    spoil(copied)
    accept(copied, entries)
    assert breaking.main([], copied) == 1
    assert "accepted.yaml: " in capsys.readouterr().err


def test_an_unknown_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert breaking.main(["--wrong"]) == 2
    assert "usage" in capsys.readouterr().err
