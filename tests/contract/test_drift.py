"""Holds the contract against the code: schemas, routes, failure codes, and what the failures look like."""

from __future__ import annotations

import contextlib
import inspect
import json
import shutil
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema_rs
import pytest
from openapi_spec_validator import validate

from photochanger import failures, settings, templates
from photochanger.db import Database
from photochanger.failures import BY_CODE, Failure
from photochanger.failures import FieldError as WrongField
from photochanger.image_pool import ImagePool
from photochanger.settings import SERVERS_OWN, Settings
from photochanger.slots import first_slots
from photochanger.storage.local import LocalStorage
from spec import drift
from tests.photos import photo
from web import models, problems

CODES = sorted(problems.STATUS)
HTTPS_OWN = (405, 406, 408, 416)
JOB = "7b0c3d1e-58f4-4a86-9e3b-0f3f3c1f8a11"
#: Never raised themselves: what they have in common is in their children.
ABSTRACT = {failures.ProviderFailure}


def classes() -> list[type[Failure]]:
    return [
        found
        for _, found in inspect.getmembers(failures, inspect.isclass)
        if issubclass(found, Failure) and found is not Failure and found not in ABSTRACT
    ]


def schema(name: str) -> jsonschema_rs.Draft202012Validator:
    whole = json.loads(schema_text(name))
    assert whole["$schema"] == drift.DIALECT
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)


def schema_text(name: str) -> str:
    return (drift.CONTRACTS / drift.SCHEMAS / f"{name}.json").read_text()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the contract that a test may spoil."""
    contracts = Path(shutil.copytree(drift.CONTRACTS, tmp_path / "spec" / "contracts"))
    drift.served(contracts).parent.mkdir(parents=True)
    shutil.copy(drift.served(), drift.served(contracts))
    return contracts


def spoil(contracts: Path, old: str, new: str) -> None:
    openapi = contracts / drift.OPENAPI
    text = openapi.read_text()
    assert old in text
    openapi.write_text(text.replace(old, new, 1))


# -- contract and code ----------------------------------------------------------------------------------------------


def test_contract_and_code_agree() -> None:
    assert drift.differences() == []


def test_the_contract_is_valid_openapi_3_1() -> None:
    document = drift.load()
    assert document["openapi"].startswith("3.1.")
    validate(document)


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [operation["operationId"] for _, _, operation in drift.operations(drift.load())]
    assert len(names) == len(set(names)) == 83


def test_every_answer_names_its_request_id() -> None:
    document = drift.load()
    without = [
        (method, path, status)
        for method, path, operation in drift.operations(document)
        for status, answer in operation["responses"].items()
        if "X-Request-Id" not in drift.resolved(document, answer).get("headers", {})
    ]
    assert without == []


def test_every_failure_is_described_as_a_problem() -> None:
    document = drift.load()
    without = [
        (method, path, status)
        for method, path, operation in drift.operations(document)
        for status, answer in operation["responses"].items()
        if int(status) >= 400
        and method != "HEAD"
        and "application/problem+json" not in drift.resolved(document, answer)["content"]
    ]
    assert without == []


def test_examples_are_what_their_schemas_say() -> None:
    document = drift.load()
    checked = 0
    for _, _, operation in drift.operations(document):
        for answer in [operation.get("requestBody", {}), *operation["responses"].values()]:
            for media in drift.resolved(document, answer).get("content", {}).values():
                examples = [one["value"] for one in media.get("examples", {}).values()]
                for example in [*examples, *([media["example"]] if "example" in media else [])]:
                    whole = {**media["schema"], "components": document["components"]}
                    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(example)
                    checked += 1
    assert checked == 80


def test_every_link_leads_to_an_operation() -> None:
    document = drift.load()
    names = {operation["operationId"] for _, _, operation in drift.operations(document)}
    links = [
        link["operationId"]
        for _, _, operation in drift.operations(document)
        for answer in operation["responses"].values()
        for link in drift.resolved(document, answer).get("links", {}).values()
    ]
    assert len(links) >= 25
    assert set(links) <= names


def test_the_named_entities_have_a_schema_file() -> None:
    names = {schema["title"]: name for name, schema in drift.schema_files().items()}
    wanted = {"Slot", "JobView", "MediaObject", "TemplateMedia", "Result", "Settings", "AuthToken", "Problem"}
    assert wanted <= names.keys()
    assert (names["JobView"], names["Problem"]) == ("job", "error")


# -- the drift check itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\n  /healthz:\n", "\n  /health:\n", "GET /healthz is answered and is not in openapi.yaml"),
        ("\n  /healthz:\n", "\n  /health:\n", "GET /health is in openapi.yaml and is not answered"),
        ("  sync_timeout: 504", "  sync_timeout: 503", "sync_timeout is 503 in x-failure-codes and 504"),
        ("  worker_lost: 503\n", "", "worker_lost is None in x-failure-codes and 503"),
        ("x-codes: [invalid_password]", "x-codes: [forbidden]", "forbidden is listed under 401 and answers 403"),
        ("    Accepted:\n", "    Taken:\n", "schema Accepted is not what its model says"),
        ("    Accepted:\n", "    Taken:\n", "schema Taken has no model"),
    ],
)
def test_a_difference_is_named_and_fails_the_check(
    copied: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    spoil(copied, old, new)
    assert drift.main([], copied) == 1
    assert said in capsys.readouterr().err


def test_a_spoilt_schema_file_is_named(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / drift.SCHEMAS / "slot.json").write_text("{}\n")
    (copied / drift.SCHEMAS / "old.json").write_text("{}\n")
    assert drift.main([], copied) == 1
    said = capsys.readouterr().err
    assert "schemas/slot.json is not what its model says" in said
    assert "schemas/old.json has no model" in said


def test_writing_mends_the_generated_parts_and_keeps_the_rest_byte_for_byte(copied: Path) -> None:
    before = (copied / drift.OPENAPI).read_text()
    spoil(copied, "    Accepted:\n", "    Taken:\n")
    spoil(copied, "# Every failure code", "# Word by hand. Every failure code")
    (copied / drift.SCHEMAS / "old.json").write_text("{}\n")
    assert drift.main(["--write"], copied) == 0
    assert (copied / drift.OPENAPI).read_text() == before.replace(
        "# Every failure code", "# Word by hand. Every failure code"
    )
    assert not (copied / drift.SCHEMAS / "old.json").exists()


def test_what_the_server_gives_out_is_the_contract_and_is_made_anew(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert json.loads(drift.served(copied).read_text()) == drift.load()
    spoil(copied, "The process answers.", "The process does answer.")
    assert drift.main([], copied) == 1
    assert "web/static/openapi.json is not what openapi.yaml says" in capsys.readouterr().err
    assert drift.main(["--write"], copied) == 0
    assert json.loads(drift.served(copied).read_text()) == drift.load(copied)


def test_an_unknown_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert drift.main(["--wrong"]) == 2
    assert "usage" in capsys.readouterr().err


# -- failures and statuses ------------------------------------------------------------------------------------------


def test_every_failure_class_has_a_status_and_every_status_a_class() -> None:
    assert {found.code for found in classes()} == set(problems.STATUS) == set(BY_CODE)


def test_no_two_failure_classes_share_a_code() -> None:
    codes = [found.code for found in classes()]
    assert len(codes) == len(set(codes))


def test_every_code_is_in_the_contract() -> None:
    document = drift.load()
    assert document["x-failure-codes"] == problems.STATUS
    assert set(document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]) == set(problems.STATUS)


@pytest.mark.parametrize("code", CODES)
def test_every_problem_is_one_by_the_schema(code: str) -> None:
    failure = BY_CODE[code]("What happened")
    failure.errors = (WrongField("route.rungs.0", "unknown", "is not known"),)
    plain, full = problems.problem(BY_CODE[code]()), problems.problem(failure, job_id=JOB)
    for body in (plain, full):
        schema("error").validate(body)
        assert body["status"] == problems.STATUS[code]
        assert body.keys() <= models.Problem.model_fields.keys()
    assert models.Problem.model_validate(full).job_id == UUID(JOB)
    assert "job_id" not in plain
    assert "errors" not in plain


@pytest.mark.parametrize("status", HTTPS_OWN)
def test_a_problem_of_https_own_statuses_is_one_by_the_schema(status: int) -> None:
    body = problems.problem(BY_CODE["invalid_request"](), status=status)
    schema("error").validate(body)
    assert body["status"] == status


@pytest.mark.parametrize(
    "change",
    [{"code": "nonsense"}, {"status": 200}, {"retryable": "yes"}, {"job_id": "x"}, {"job_id": None}, {"errors": []}],
)
def test_what_is_no_problem_is_refused_by_the_schema(change: dict[str, Any]) -> None:
    body = {**problems.problem(BY_CODE["conflict"]()), **change}
    assert not schema("error").is_valid(body)


# -- schemas and what the core holds --------------------------------------------------------------------------------


def test_every_first_slot_is_a_slot_by_the_schema() -> None:
    for slot in first_slots():
        schema("slot").validate(slot.model_dump(mode="json"))


def test_the_default_settings_are_settings_by_the_schema_and_nothing_secret_is() -> None:
    public = Settings().model_dump(mode="json", exclude=set(SERVERS_OWN))
    schema("settings").validate(public)
    for private in SERVERS_OWN:
        assert not schema("settings").is_valid({**public, private: None})
    assert "hash" not in schema_text("settings").lower()


@pytest.mark.anyio
async def test_a_setting_the_schema_does_not_have_cannot_be_saved(db: Database) -> None:
    assert not schema("settings").is_valid({"no_such": 1})
    with pytest.raises(failures.InvalidSettings):
        await settings.save(db, {"no_such": 1})


@pytest.mark.anyio
async def test_a_stored_template_is_template_media_by_the_schema(
    db: Database, storage: LocalStorage, tmp_path: Path
) -> None:
    frame = tmp_path / "frame.png"
    frame.write_bytes(photo(64, 48, "PNG"))
    with contextlib.closing(ImagePool(1)) as pool:
        await templates.add(db, storage, pool, frame, name="A frame")
    [row] = await templates.listing(db)
    schema("template_media").validate(json.loads(models.TemplateMedia.model_validate(row).model_dump_json()))
    assert row.keys() == models.TemplateMedia.model_fields.keys()
