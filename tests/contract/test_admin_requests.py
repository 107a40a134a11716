"""Requests made up from the contract, for the admin API and the galleries, by somebody who may do everything."""

from __future__ import annotations

import contextlib
import json
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest
import requests
import schemathesis
from hypothesis import Phase, seed, settings
from hypothesis.errors import FlakyStrategyDefinition
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi import checks as openapi_checks

from ops.simulators import KEY
from photochanger.config import Config
from spec import drift
from tests.api import PASSWORD, Api, api
from tests.conftest import database
from tests.contract.test_schemathesis import BOUNDED, CONTRACT, REFUSALS, SEED, SOUND, TIMEOUT_S, Case, conforms, get
from tests.installation import Installation
from tests.photos import photo

pytestmark = pytest.mark.xdist_group("admin requests")

EXAMPLES = 12
#: What well-formed requests about things that are not there, or not as they would have to be, are answered.
FITS = ["2xx", "304", "401", "403", "404", "409", "410", "412", "416", "422", "429"]
CONFIG = schemathesis.Config.from_dict(
    {
        "seed": SEED,
        "generation": {"allow-x00": False},
        "checks": {
            "negative_data_rejection": {"expected-statuses": [*REFUSALS, "412", "428"]},
            "positive_data_acceptance": {"expected-statuses": FITS},
        },
    }
)
schema = schemathesis.openapi.from_dict(CONTRACT, config=CONFIG)
REFUSES, ACCEPTS = openapi_checks.negative_data_rejection, openapi_checks.positive_data_acceptance

OPERATIONS = {
    operation["operationId"]: operation
    for _, path, operation in drift.operations(CONTRACT)
    if path.startswith(("/api/", "/public/galleries/"))
}
#: A stream has no end; it is asked for below.
ENDLESS = {"watchEvents"}
#: These change how everything after them is answered: they are sent to a server of their own.
APART = {"changeSettings", "changeProvider"}
#: These end the session that they come in: each comes in one of its own.
ENDING = {"logout", "changeMyPassword"}
#: What JSON Schema cannot say: that pictures are some, that years are of this century, that a search has a word in it,
#: that numbers among free settings are not huge.
NOT_ALWAYS_TAKEN = {
    *("testSlot", "registerMedia", "registerTemplate", "getGlobalStats", "getSlotStats"),
    *("listJobs", "cancelJobs", "createSlot", "changeSlot"),
}
#: Everything in a form is text, whatever a schema says of it.
FORMS = {"testSlot", "registerMedia", "registerTemplate"}
#: A hash takes its time.
HASHING = {"createUser", "setUserPassword", "rotateIngestPassword", "login"}


SLOT, TEMPLATE = "/api/slots/{slot_id}", "/api/template-media/{template_id}"
ROUTE: dict[str, Any] = {"rungs": [{"provider": "local", "operation": "filter", "settings": {"filter": "sepia"}}]}


@dataclass
class Server:
    """A server with accounts: who may do everything, and who loses a session with every request."""

    url: str
    headers: dict[str, str]
    session: requests.Session = field(default_factory=requests.Session)

    def sign_in(self, name: str) -> dict[str, str]:
        answer = httpx.post(f"{self.url}/api/login", json={"name": name, "password": PASSWORD}, trust_env=False)
        assert answer.status_code == 200, answer.text
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    def ask(self, case: Case, checks: list[CheckFunction]) -> None:
        ending = case.operation.definition.raw["operationId"] in ENDING
        headers = self.sign_in("leaver") if ending else self.headers
        case.call_and_validate(
            base_url=self.url, session=self.session, headers=headers, checks=checks, timeout=TIMEOUT_S
        )


def server(known: Api) -> Server:
    for name in ("keeper", "leaver"):
        known.account(name)
    made = Server(known.url, {})
    made.session.trust_env = False
    made.headers = made.sign_in("keeper")
    return made


@pytest.fixture(scope="module")
def house(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Its providers have nobody's address, so that no made-up request leaves this machine."""
    for url in database(server_url):
        with Installation(tmp_path_factory.mktemp("home"), database_url=url) as running:
            nobody = {name: {"base_url": "http://127.0.0.1:9"} for name in ("gemini", "openai", "turbotext")}
            running.done("settings", "t_original_retention_h=1", f"providers={json.dumps(nobody)}")
            running.done("secrets", "set", "openai", stdin=KEY)
            for _ in range(3):
                assert running.post(photo(64, 48)).status_code == 200
            yield running


@pytest.fixture(scope="module")
def everything(house: Installation) -> Iterator[Server]:
    assert house._database_url is not None
    with httpx.Client(base_url=house.url, trust_env=False) as client:
        yield server(Api(house.url, house._database_url, client))


@pytest.fixture(scope="module")
def apart(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    for url in database(server_url):
        with api(Config(home=tmp_path_factory.mktemp("home"), database_url=url)) as running:
            yield server(running)


# -- one real answer of every kind ----------------------------------------------------------------------------------


def test_the_stream_is_the_one_that_the_contract_describes(everything: Server) -> None:
    described = OPERATIONS["watchEvents"]["responses"]["200"]
    events = described["content"]["text/event-stream"]["x-events"]
    assert events.keys() == {"hello", "job", "queue", "missed"}
    found = set()
    with (
        httpx.Client(trust_env=False, timeout=20) as client,
        client.stream("GET", f"{everything.url}/api/events", headers=everything.headers) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                found.add(value)
            if found >= {"hello", "queue"}:
                break
    assert found <= events.keys()


def test_a_gallery_is_answered_as_the_contract_describes(everything: Server) -> None:
    path, one = "/public/galleries/{share_id}", "/public/galleries/{share_id}/pictures/{job_id}"
    with httpx.Client(base_url=everything.url, headers=everything.headers, trust_env=False) as keeper:
        share = conforms("/api/gallery-shares", keeper.post("/api/gallery-shares", json={}), status=201).json()
        pictures = conforms(path, get(share["url"]), status=200).json()["items"]
        url = everything.url + pictures[0]["url"]
        whole = conforms(one, get(url), status=200)
        conforms(one, get(everything.url + pictures[0]["thumbnail_url"]), status=200)
        conforms(one, get(url, if_none_match=whole.headers["etag"]), status=304)
        conforms(one, get(url, range="bytes=1-5"), status=206)
        conforms(one, get(url, range="bytes=999999999-"), status=416)
        conforms(one, get(f"{url}&size=1"), status=400)
        conforms(path, get(f"{share['url']}&limit=0"), status=400)
        conforms(path, get(f"{share['url']}x"), status=404)
        conforms("/api/gallery-shares/{share_id}", keeper.delete(f"/api/gallery-shares/{share['id']}"), status=200)
        conforms(path, get(share["url"]), status=410)
        conforms(one, get(url), status=410)


def test_what_is_no_json_is_answered_as_the_contract_describes(house: Installation, everything: Server) -> None:
    job = house.post(photo(64, 48)).headers["x-job-id"]
    with httpx.Client(base_url=everything.url, headers=everything.headers, trust_env=False, timeout=30) as keeper:
        conforms("/api/jobs/{job_id}/original", keeper.get(f"/api/jobs/{job}/original"), status=200)
        conforms("/api/stats/global", keeper.get("/api/stats/global?format=csv"), status=200)
        conforms("/api/jobs/{job_id}/rerun", keeper.post(f"/api/jobs/{job}/rerun"), status=202)
        form = {"file": photo(300, 200, "PNG")}
        made = conforms(
            "/api/template-media/register", keeper.post("/api/template-media/register", files=form), status=201
        )
        picture = f"{made.headers['location']}/picture"
        small = conforms(f"{TEMPLATE}/picture", keeper.get(f"{picture}?size=160"), status=200)
        tag = {"If-None-Match": small.headers["etag"]}
        conforms(f"{TEMPLATE}/picture", keeper.get(f"{picture}?size=160", headers=tag), status=304)
        conforms(f"{TEMPLATE}/picture", keeper.get(picture), status=200)
        conforms("/api/media/register", keeper.post("/api/media/register", files=form), status=201)
        tried = keeper.post("/api/slots/slot-001/test-run", files=form)
        conforms("/api/slots/{slot_id}/test-run", tried, status=200)


def test_versions_and_uses_are_answered_as_the_contract_describes(everything: Server) -> None:
    with httpx.Client(base_url=everything.url, headers=everything.headers, trust_env=False, timeout=30) as keeper:
        made = conforms("/api/slots", keeper.post("/api/slots", json={"name": "One", "route": ROUTE}), status=201)
        url = made.headers["location"]
        conforms(SLOT, keeper.patch(url, json={}, headers={"If-Match": '"9"'}), status=412)
        conforms(SLOT, keeper.patch(url, json={}), status=428)
        conforms(SLOT, keeper.patch(url, json={}, headers={"If-Match": "x"}), status=400)
        conforms(SLOT, keeper.patch(url, json={"name": "Two"}, headers={"If-Match": '"1"'}), status=200)
        conforms("/api/slots", keeper.post("/api/slots", json={**made.json(), "version": None}), status=422)
        template = keeper.post("/api/template-media/register", files={"file": photo(300, 200, "PNG")}).json()["id"]
        framed = {"rungs": [{"provider": "local", "operation": "frame", "settings": {"template": template}}]}
        assert keeper.patch(url, json={"route": framed}, headers={"If-Match": '"2"'}).status_code == 200
        conforms(TEMPLATE, keeper.delete(f"/api/template-media/{template}"), status=409)
        conforms(TEMPLATE, keeper.delete(f"/api/template-media/{template}?force=true"), status=200)
        conforms(SLOT, keeper.get(url), status=200)


# -- made up --------------------------------------------------------------------------------------------------------


def accepts(case: Case) -> list[CheckFunction]:
    """Where a page has ended, only the page before it knows."""
    name = case.operation.definition.raw["operationId"]
    return [] if name in NOT_ALWAYS_TAKEN or "after" in (case.query or ()) else [ACCEPTS]


def own(function: Any) -> Any:
    """The same function again: Hypothesis keeps its settings on it."""
    return types.FunctionType(function.__code__, globals(), function.__name__)


def made_up_requests(case: Case, everything: Server) -> None:
    name = case.operation.definition.raw["operationId"]
    refuses = [] if name in FORMS else [REFUSES]
    everything.ask(case, [*SOUND, *refuses, *accepts(case)])


def requests_apart(case: Case, apart: Server) -> None:
    # Whatever limit was just set may refuse the next one.
    apart.ask(case, SOUND)


for operation_id in sorted(OPERATIONS.keys() - ENDLESS):
    asked = requests_apart if operation_id in APART else made_up_requests
    how = BOUNDED
    if operation_id in HASHING | ENDING | APART:
        how = settings(BOUNDED, phases=(Phase.generate,))
    bounded = seed(SEED)(settings(how, max_examples=EXAMPLES)(own(asked)))
    name = f"test_made_up_requests_of_{operation_id}_are_answered_as_the_contract_says"
    globals()[name] = schema.include(operation_id=operation_id).parametrize()(bounded)


# -- one after the other --------------------------------------------------------------------------------------------

#: What is not made up in a chain, so that it leads to something.
BODIES: dict[str, Callable[[], Any]] = {
    "createSlot": lambda: {"name": "Made in a chain", "route": ROUTE},
    "changeSlot": lambda: {"name": "Changed in a chain"},
    "createUser": lambda: {"name": f"u-{uuid4().hex[:12]}", "permissions": ["jobs:read"]},
    "openShare": lambda: {"minutes": 5},
    **{name: lambda: {"fileToUpload": photo(64, 48)} for name in ("testSlot", "registerMedia", "registerTemplate")},
}
#: Walks of five chains each, at most.
WALKS = 16
#: What a chain of requests must not do to the server that it goes on with.
NOT_IN_CHAINS = APART | ENDING | ENDLESS | {"login", "refresh", "rotateIngestPassword", "endIngestGrace"}


def test_what_one_answer_leads_to_is_answered_as_the_contract_says(everything: Server) -> None:
    followed: dict[str, set[int]] = {}
    broken: list[BaseException] = []
    wanted = {"getSlot", "changeSlot", "archiveSlot", "closeShare", "getTemplate", "getJobDetail", "changeUser"}

    def walked() -> set[str]:
        return {name for name in wanted if 200 in followed.get(name, ())}

    for number in range(WALKS):
        # Hypothesis wants the same answers to the same requests; what is not there any more is no fault.
        with contextlib.suppress(FlakyStrategyDefinition):
            seed(SEED + number)(chains(everything, followed, broken)).run(
                settings=settings(BOUNDED, max_examples=5, stateful_step_count=10)
            )
        assert broken == []
        if walked() == wanted:
            break
    assert walked() == wanted


def linked() -> set[str]:
    """The operations that lead on to others, and those. Schemathesis adds links of its own to what it was given."""
    written = drift.load()
    found = set()
    for _, _, operation in drift.operations(written):
        for answer in operation["responses"].values():
            for link in drift.resolved(written, answer).get("links", {}).values():
                found |= {operation["operationId"], link["operationId"]}
    return found & OPERATIONS.keys() - NOT_IN_CHAINS


def chains(everything: Server, followed: dict[str, set[int]], broken: list[BaseException]) -> Any:
    """Requests, each with what an answer before it has led to; the statuses by operation, and what did not conform."""

    class Chain(schema.include(operation_id=sorted(linked())).as_state_machine()):  # type: ignore[misc]
        def before_call(self, case: Case) -> None:
            name = case.operation.definition.raw["operationId"]
            if case.path_parameters and case.path_parameters.get("name") in ("keeper", "leaver"):
                case.path_parameters["name"] = "nobody"
            if name in BODIES:
                case.body = BODIES[name]()
            elif name == "listJobs":
                case.query = {}
            if name in FORMS:
                case.media_type = "multipart/form-data"

        def get_call_kwargs(self, case: Case) -> dict[str, Any]:
            return {
                "base_url": everything.url,
                "session": everything.session,
                "headers": everything.headers,
                "timeout": TIMEOUT_S,
            }

        def validate_response(self, response: Any, case: Case, **how: Any) -> None:
            name = case.operation.definition.raw["operationId"]
            followed.setdefault(name, set()).add(response.status_code)
            try:
                case.validate_response(response, checks=SOUND, headers=everything.headers)
            except BaseException as error:
                broken.append(error)
                raise

    return Chain
