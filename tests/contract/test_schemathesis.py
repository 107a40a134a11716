"""Holds the running installation against the contract: requests made up from it, and one real answer of every kind."""

from __future__ import annotations

import contextlib
import email
import email.policy
import hashlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import httpx
import psutil
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from schemathesis.checks import CheckFunction
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks

from photochanger.permissions import PERMISSIONS
from spec import drift
from tests.api import HASHED, PASSWORD
from tests.installation import INGEST_PASSWORD, Installation, result_link, until
from tests.photos import opened, photo, png_header
from web import models
from web.api import sign_in

pytestmark = pytest.mark.xdist_group("shared")

SEED = int(os.environ.get("PHOTOCHANGER_FUZZ_SEED", "20261123"))
#: Requests made up for each operation and kind.
EXAMPLES = int(os.environ.get("PHOTOCHANGER_FUZZ_EXAMPLES", "40"))
#: Seconds one made-up request may take; the longest wait of an ingest is 48 s and none of these gets that far.
TIMEOUT_S = 20
#: Wrong passwords are counted by address: the guesses come from another one than the other tests' cameras.
ADDRESS = "127.0.0.2"
#: Headers of every answer of the server's own.
ALWAYS = {"date", "content-type", "content-length", "connection"}

INGEST, JOB, CANCEL, RESULT, MEDIA = (
    "/ingest/{slot_id}",
    "/public/jobs/{job_id}",
    "/public/jobs/{job_id}/cancel",
    "/public/results/{job_id}",
    "/public/media/{media_id}",
)

CONTRACT = drift.load()
#: What cannot be accepted is refused with one of these; 413 is the answer to more than the limits allow.
REFUSALS = ["400", "401", "403", "404", "409", "410", "413", "415", "416", "422", "429"]
CONFIG = schemathesis.Config.from_dict(
    {
        "seed": SEED,
        "checks": {
            "negative_data_rejection": {"expected-statuses": REFUSALS},
            # made-up names and passwords are wrong ones, and too many of those have to wait
            "positive_data_acceptance": {"expected-statuses": ["2xx", "401", "403", "404", "409", "429"]},
        },
    }
)
[SIZES] = [one["schema"]["enum"] for one in CONTRACT["paths"][RESULT]["parameters"] if one.get("name") == "size"]
schema = schemathesis.openapi.from_dict(CONTRACT, config=CONFIG)

ANSWERS: list[CheckFunction] = [
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]
SOUND: list[CheckFunction] = [
    *ANSWERS,
    schemathesis.checks.not_a_server_error,
    openapi_checks.unsupported_method,
    openapi_checks.allow_header_conformance,
]
REFUSES, ACCEPTS = openapi_checks.negative_data_rejection, openapi_checks.positive_data_acceptance
BOUNDED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)

Case = schemathesis.Case[Any]


@dataclass(frozen=True)
class Links:
    """The links of one job whose picture is made."""

    job_id: str
    result: str
    status: str
    cancel: str

    def token(self, which: str) -> str:
        link = {"result": self.result, "status": self.status, "cancel": self.cancel}[which]
        return parse_qs(urlsplit(link).query)["token"][0]


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    class FromElsewhere(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, source_address=(ADDRESS, 0), **kwargs)

    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", FromElsewhere())
        yield session


@pytest.fixture(scope="module")
def made(shared: Installation) -> Links:
    accepted = shared.post(photo(), headers={"Prefer": "respond-async"}).json()
    state = httpx.get(accepted["status_url"], headers={"Prefer": "wait=30"}, timeout=40, trust_env=False).json()
    assert state["status"] == "succeeded", state
    return Links(accepted["job_id"], accepted["result_url"], accepted["status_url"], accepted["cancel_url"])


# -- made-up requests -----------------------------------------------------------------------------------------------


@seed(SEED)
@BOUNDED
def made_up_requests(case: Case, shared: Installation, session: requests.Session) -> None:
    # A made-up photo is none, so a well-formed form of random bytes is rightly refused; real photos come below.
    accepts = [] if case.operation.definition.raw["operationId"] == "ingestPhoto" else [ACCEPTS]
    case.call_and_validate(base_url=shared.url, session=session, checks=[*SOUND, REFUSES, *accepts], timeout=TIMEOUT_S)


# One test a name: those of one ``parametrize`` share a node id, and pytest-xdist runs only one of them.
# Those of the admin API come from somebody who is signed in: in test_admin_requests.
for _, path, operation in drift.operations(CONTRACT):
    if path.startswith(("/api/", "/public/galleries/")):
        continue
    only = schema.include(operation_id=operation["operationId"])
    name = f"test_made_up_requests_of_{operation['operationId']}_are_answered_as_the_contract_says"
    globals()[name] = only.parametrize()(made_up_requests)


def made_up(path: str, method: str, mode: GenerationMode, **pinned: Any) -> st.SearchStrategy[Case]:
    """Requests of one operation with some of their parts given; the rest is made up."""
    return schema[path][method].as_strategy(generation_mode=mode, **pinned)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_a_genuine_link_conforms_with_whatever_is_asked_of_it(
    shared: Installation, session: requests.Session, made: Links, method: str, mode: GenerationMode
) -> None:
    pinned = {"path_parameters": {"job_id": made.job_id}, "query": {"token": made.token("result")}}

    @seed(SEED)
    @BOUNDED
    @given(case=made_up(RESULT, method, mode, **pinned))
    def ask(case: Case) -> None:
        if case.headers and case.headers.get("If-None-Match") == "*":  # its 304 would be taken for a refusal
            del case.headers["If-None-Match"]
        # What does not apply is not read: a wrong word for download beside a size is no reason to refuse.
        checks = [*SOUND, *([ACCEPTS] if mode is GenerationMode.POSITIVE else [])]
        case.call_and_validate(base_url=shared.url, session=session, checks=checks, timeout=TIMEOUT_S)

    ask()


def test_a_real_photo_conforms_with_whatever_else_is_in_its_form(
    shared: Installation, session: requests.Session
) -> None:
    slot = {"path_parameters": {"slot_id": "slot-001"}}
    numbers = itertools.count()

    @seed(SEED)
    @settings(BOUNDED, max_examples=10)
    @given(
        case=made_up(INGEST, "POST", GenerationMode.POSITIVE, **slot),
        fields=st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=200), max_size=5),
    )
    def send(case: Case, fields: Mapping[str, str]) -> None:
        taken = {"password", "fileToUpload", "file", "image", "photo"}
        form = {f"{name}-{next(numbers)}": value for name, value in fields.items() if name not in taken}
        body: Any = {**form, "password": INGEST_PASSWORD, "fileToUpload": photo(64, 48)}
        case.body = body
        case.media_type = "multipart/form-data"
        case.call_and_validate(base_url=shared.url, session=session, checks=[*SOUND, ACCEPTS], timeout=TIMEOUT_S)

    send()


# -- one real answer of every kind ----------------------------------------------------------------------------------


def conforms(path: str, answer: httpx.Response, *, status: int) -> httpx.Response:
    """The answer, held against the contract: status, type, body, and no header that the contract does not have."""
    assert answer.status_code == status, answer.text
    read = httpx.Response(
        status, headers=answer.headers, content=answer.content, request=httpx.Request(answer.request.method, answer.url)
    )
    read.elapsed = answer.elapsed
    parts = dict.fromkeys(re.findall(r"{(\w+)}", path), "any")
    schema[path][answer.request.method].Case(path_parameters=parts).validate_response(read, checks=ANSWERS)
    described = CONTRACT["paths"][path][answer.request.method.lower()]["responses"][str(status)]
    known = {name.lower() for name in drift.resolved(CONTRACT, described).get("headers", {})}
    assert set(answer.headers) - ALWAYS - known == set()
    return answer


def get(url: str, **headers: str) -> httpx.Response:
    named = {"accept-encoding": "identity"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.get(url, headers=named, timeout=70, trust_env=False)


def test_a_photo_is_answered_with_the_picture_the_contract_describes(shared: Installation) -> None:
    answer = conforms(INGEST, shared.post(photo()), status=200)
    assert UUID(answer.headers["x-job-id"])
    assert answer.headers["content-type"] == "image/jpeg"


def test_a_photo_that_is_not_waited_for_is_accepted_as_the_contract_describes(shared: Installation) -> None:
    answer = conforms(INGEST, shared.post(photo(), headers={"Prefer": "respond-async"}), status=202)
    accepted = models.Accepted.model_validate_json(answer.content)
    assert answer.headers["location"] == accepted.status_url
    assert answer.headers["preference-applied"] == "respond-async"
    assert len({accepted.status_url, accepted.result_url, accepted.cancel_url}) == 3


def test_the_state_of_a_job_is_what_the_contract_describes(made: Links) -> None:
    state = models.JobState.model_validate_json(conforms(JOB, get(made.status), status=200).content)
    assert state.status == "succeeded"
    assert state.failure is None
    assert state.result is not None
    assert state.result.served_by == "local/filter"
    assert len(get(state.result.url).content) == state.result.bytes


@contextlib.contextmanager
def no_worker(installation: Installation) -> Iterator[None]:
    """Jobs stay pending inside."""
    worker = psutil.Process(installation.worker_pid())
    worker.suspend()
    try:
        yield
    finally:
        worker.resume()


def test_an_unfinished_job_is_what_the_contract_describes_until_it_is_cancelled(installation: Installation) -> None:
    with no_worker(installation):
        taken = conforms(INGEST, installation.post(photo(), headers={"Prefer": "wait=0"}), status=202).json()
        answer = conforms(JOB, get(taken["status_url"], prefer="wait=1"), status=200)
        assert answer.headers["preference-applied"] == "wait=1"
        assert models.JobState.model_validate_json(answer.content).status == "pending"
        assert conforms(RESULT, get(taken["result_url"]), status=404).headers["retry-after"] == "1"
        page = conforms(RESULT, get(taken["result_url"], accept="text/html"), status=200)
        assert page.headers["content-type"].startswith("text/html")
        cancelled = conforms(CANCEL, httpx.post(taken["cancel_url"], trust_env=False), status=200)
        again = conforms(CANCEL, httpx.post(taken["cancel_url"], trust_env=False), status=200)
    state = models.JobState.model_validate_json(cancelled.content)
    assert state.status == "cancelled"
    assert state.result is None
    assert state.failure is not None
    assert (state.failure.code, state.failure.status, state.failure.job_id) == ("cancelled", 409, state.job_id)
    assert again.json() == cancelled.json()


def test_a_photo_nobody_works_on_is_answered_as_the_contract_describes(installation: Installation) -> None:
    installation.sql("INSERT INTO app_settings (key, value) VALUES ('t_sync_response_s', '10')")
    with no_worker(installation):
        not_ready = until(
            lambda: (answer := get(f"{installation.url}/readyz")).status_code == 503 and answer,
            within_s=20,
            what="a readyz that says no",
        )
        assert not_ready
        [wrong] = conforms("/readyz", not_ready, status=503).json()["errors"]
        assert (wrong["field"], wrong["code"]) == ("queue", "not_ready")
        late = conforms(INGEST, installation.post(photo()), status=504)
    problem = models.Problem.model_validate_json(late.content)
    assert problem.code == "sync_timeout"
    assert problem.retryable
    assert str(problem.job_id) == late.headers["x-job-id"]


def test_a_job_that_has_ended_cannot_be_cancelled(made: Links) -> None:
    answer = conforms(CANCEL, httpx.post(made.cancel, trust_env=False), status=409)
    assert models.Problem.model_validate_json(answer.content).code == "conflict"


def test_temporary_media_are_what_the_contract_describes(shared: Installation) -> None:
    data = photo(64, 48)
    media_id = uuid4().hex + "0" * 8
    sent = shared.post(photo(), headers={"Prefer": "respond-async"}).json()
    (shared.home / "media" / "media" / f"{sent['job_id']}-x.jpg").write_bytes(data)
    with no_worker(shared):
        running = shared.post(photo(), headers={"Prefer": "respond-async"}).json()
        for job, number in ((running, "a"), (sent, "b")):
            shared.sql(
                "INSERT INTO media_object (id, job_id, storage_key, mime, bytes, expires_at) "
                "VALUES (%s, %s, %s, 'image/jpeg', %s, clock_timestamp() + interval '9 s')",
                *(media_id[:-1] + number, job["job_id"], f"media/{sent['job_id']}-x.jpg", len(data)),
            )
        url = f"{shared.url}{MEDIA.format(media_id=media_id[:-1])}"
        assert conforms(MEDIA, get(f"{url}a"), status=200).content == data
        conforms(MEDIA, httpx.head(f"{url}a", trust_env=False), status=200)
        assert conforms(MEDIA, get(f"{url}c"), status=404).json()["code"] == "media_not_found"
    httpx.get(sent["status_url"], headers={"Prefer": "wait=30"}, timeout=40, trust_env=False)
    assert conforms(MEDIA, get(f"{url}b"), status=410).json()["code"] == "media_expired"
    conforms(MEDIA, httpx.head(f"{url}b", trust_env=False), status=410)


@pytest.mark.parametrize(("path", "which"), [(JOB, "cancel"), (JOB, "result"), (CANCEL, "status"), (RESULT, "status")])
def test_another_links_token_does_not_fit(shared: Installation, made: Links, path: str, which: str) -> None:
    url = f"{shared.url}{path.format(job_id=made.job_id)}?token={made.token(which)}"
    answer = httpx.post(url, trust_env=False) if path == CANCEL else get(url)
    code = "result_not_found" if path == RESULT else "job_not_found"
    assert conforms(path, answer, status=404).json()["code"] == code


def test_the_link_gives_the_picture_as_the_contract_describes(made: Links) -> None:
    whole = conforms(RESULT, get(made.result), status=200)
    assert whole.headers["etag"] == f'"{hashlib.sha256(whole.content).hexdigest()}"'
    head = conforms(RESULT, httpx.head(made.result, trust_env=False), status=200)
    assert head.headers["content-length"] == str(len(whole.content))
    assert conforms(RESULT, get(made.result, if_none_match=whole.headers["etag"]), status=304).content == b""
    assert conforms(RESULT, get(made.result, range="bytes=5-9"), status=206).content == whole.content[5:10]
    download = conforms(RESULT, get(f"{made.result}&download=1"), status=200)
    assert download.headers["content-disposition"].startswith("attachment;")


@pytest.mark.parametrize("size", SIZES)
def test_the_link_gives_every_size_the_contract_offers(made: Links, size: int) -> None:
    answer = conforms(RESULT, get(f"{made.result}&size={size}"), status=200)
    assert answer.headers["content-type"] == "image/webp"
    assert max(opened(answer.content).size) <= size


def test_people_get_a_page_by_the_same_link(made: Links) -> None:
    answer = conforms(RESULT, get(made.result, accept="text/html"), status=200)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "etag" not in answer.headers


def test_an_expired_result_is_gone_as_the_contract_describes(shared: Installation) -> None:
    sent = shared.post(photo())
    shared.sql(
        "UPDATE job SET result_expires_at = clock_timestamp() - interval '1 s' WHERE id = %s", sent.headers["x-job-id"]
    )
    gone = conforms(RESULT, get(result_link(sent)), status=410)
    assert gone.json()["code"] == "result_expired"
    conforms(RESULT, get(result_link(sent), accept="text/html"), status=410)
    conforms(RESULT, httpx.head(result_link(sent), trust_env=False), status=410)


@pytest.mark.parametrize(
    ("asked", "status"),
    [({"range": "bytes=999999999-"}, 416), ({"query": "size=321"}, 400), ({"query": "download=maybe"}, 400)],
)
def test_a_refusal_says_nothing_about_the_picture_it_refuses(made: Links, asked: dict[str, str], status: int) -> None:
    url = f"{made.result}&{asked['query']}" if "query" in asked else made.result
    headers = {name: value for name, value in asked.items() if name != "query"}
    assert conforms(RESULT, get(url, **headers), status=status).json()["code"] == "invalid_request"


def test_a_date_that_cannot_be_read_is_no_condition(made: Links) -> None:
    conforms(RESULT, get(made.result, if_modified_since="yesterday"), status=200)


def test_a_range_of_a_head_is_ignored(made: Links) -> None:
    answer = httpx.head(made.result, headers={"Range": "bytes=5-9"}, trust_env=False)
    conforms(RESULT, answer, status=200)


@pytest.mark.parametrize(
    ("status", "code", "sent"),
    [
        (400, "invalid_request", {"password": None}),
        (400, "invalid_image", {"photo": b""}),
        (400, "invalid_image", {"photo": photo()[:2000]}),
        (401, "invalid_password", {"password": "not the password"}),
        (404, "slot_not_found", {"slot": "no-such-slot"}),
        (404, "slot_disabled", {"slot": "slot-002"}),
        (413, "image_too_large", {"photo": png_header(60_000, 60_000)}),
        (413, "payload_too_large", {"note": "x" * 70_000}),
        (415, "unsupported_media_type", {"photo": b"no picture at all"}),
    ],
)
def test_a_photo_that_is_refused_is_answered_as_the_contract_describes(
    shared: Installation, status: int, code: str, sent: dict[str, Any]
) -> None:
    answer = conforms(INGEST, shared.post(**{"photo": photo(64, 48), **sent}), status=status)
    problem = models.Problem.model_validate_json(answer.content)
    assert (problem.code, problem.status) == (code, status)


def test_a_body_that_is_no_form_is_refused_as_the_contract_describes(shared: Installation) -> None:
    answer = httpx.post(f"{shared.url}/ingest/slot-001", json={"photo": "x"}, trust_env=False)
    assert conforms(INGEST, answer, status=415).json()["code"] == "unsupported_media_type"


def test_a_form_with_a_file_name_in_another_encoding_is_no_fault_of_ours(shared: Installation) -> None:
    """As a camera program on a Windows with a Cyrillic or Western code page sends it."""
    name = "Фото 1.jpg".encode("cp1251")
    part = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    body = part % (b"password", b"", INGEST_PASSWORD.encode())
    body += part % (b"fileToUpload", b'; filename="' + name + b'"', photo(64, 48)) + b"--b--\r\n"
    answer = httpx.post(
        f"{shared.url}/ingest/slot-001",
        content=body,
        headers={"Content-Type": "multipart/form-data; boundary=b"},
        timeout=60,
        trust_env=False,
    )
    conforms(INGEST, answer, status=200)


def test_a_slot_may_answer_in_breeze_booths_shape(installation: Installation) -> None:
    installation.sql("UPDATE slot SET options = options || '{\"answer\": \"multipart\"}' WHERE id = 'slot-001'")
    answer = until(
        lambda: (sent := installation.post(photo())).headers["content-type"].startswith("multipart/") and sent,
        within_s=20,
        what="an answer in parts",
    )
    assert answer
    conforms(INGEST, answer, status=200)
    message = email.message_from_bytes(
        f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode() + answer.content, policy=email.policy.HTTP
    )
    block, picture = message.iter_parts()
    described = models.PictureBlock.model_validate_json(block.get_content())
    assert str(described.job_id) == answer.headers["x-job-id"]
    assert opened(picture.get_content()).format == "JPEG"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/api/openapi.json", "/api/docs"])
def test_what_needs_nothing_is_answered_as_the_contract_describes(shared: Installation, path: str) -> None:
    conforms(path, get(f"{shared.url}{path}"), status=200)


def test_who_has_the_contract_is_told_so_as_the_contract_describes(shared: Installation) -> None:
    answer = get(f"{shared.url}/api/openapi.json")
    assert answer.json() == CONTRACT
    conforms("/api/openapi.json", get(str(answer.url), if_none_match=answer.headers["etag"]), status=304)


def test_health_and_readiness_are_what_their_models_say(shared: Installation) -> None:
    assert models.Health.model_validate_json(get(f"{shared.url}/healthz").content).status == "ok"
    assert models.Ready.model_validate_json(get(f"{shared.url}/readyz").content).checks.queue == "ok"


# -- the admin API --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keeper(shared: Installation) -> Iterator[httpx.Client]:
    """Somebody who may do everything, signed in."""
    shared.sql(
        "INSERT INTO account (name, password_hash, permissions, must_change) VALUES ('keeper', %s, %s, false)",
        HASHED,
        list(PERMISSIONS),
    )
    with httpx.Client(base_url=shared.url, trust_env=False, timeout=30) as client:
        answer = client.post("/api/login", json={"name": "keeper", "password": PASSWORD})
        token = sign_in.AuthToken.model_validate_json(conforms("/api/login", answer, status=200).content)
        client.headers["Authorization"] = f"Bearer {token.access_token}"
        yield client


def test_accounts_are_answered_as_the_contract_describes(keeper: httpx.Client) -> None:
    one = "/api/users/{name}"
    made = conforms("/api/users", keeper.post("/api/users", json={"name": "anna", "language": "ru"}), status=201)
    assert made.headers["location"] == "/api/users/anna"
    conforms("/api/users", keeper.post("/api/users", json={"name": "anna"}), status=409)
    conforms("/api/users", keeper.post("/api/users", json={"name": "-"}), status=422)
    conforms("/api/users", keeper.post("/api/users", content="x"), status=415)
    conforms("/api/users", keeper.get("/api/users?limit=1"), status=200)
    conforms("/api/users", keeper.get("/api/users?limit=0"), status=400)
    conforms(one, keeper.get("/api/users/anna"), status=200)
    conforms(one, keeper.get("/api/users/nobody"), status=404)
    conforms(one, keeper.patch("/api/users/anna", json={"permissions": ["audit:read"]}), status=200)
    conforms(f"{one}/password", keeper.post("/api/users/anna/password", json={}), status=200)
    conforms(f"{one}/sign-out", keeper.post("/api/users/anna/sign-out"), status=204)
    conforms(f"{one}/sign-out", keeper.post("/api/users/nobody/sign-out"), status=404)
    conforms("/api/audit", keeper.get("/api/audit?action=user.&since=2026-01-01T00:00:00Z"), status=200)
    conforms("/api/audit", keeper.get("/api/audit?since=yesterday"), status=400)


def test_ones_own_account_is_answered_as_the_contract_describes(keeper: httpx.Client) -> None:
    conforms("/api/me", keeper.get("/api/me"), status=200)
    conforms("/api/me", keeper.patch("/api/me", json={"language": "ru"}), status=200)
    wrong = {"old": "wrong password", "new": "another password"}
    conforms("/api/me/password", keeper.post("/api/me/password", json=wrong), status=401)


def test_signing_in_and_out_is_answered_as_the_contract_describes(shared: Installation, keeper: httpx.Client) -> None:
    url = f"{shared.url}/api"
    wrong = httpx.post(f"{url}/login", json={"name": "nobody", "password": "x"}, trust_env=False)
    conforms("/api/login", wrong, status=401)
    conforms("/api/refresh", httpx.post(f"{url}/refresh", trust_env=False), status=403)
    conforms("/api/refresh", httpx.post(f"{url}/refresh", headers={"Origin": shared.url}, trust_env=False), status=401)
    conforms("/api/me", httpx.get(f"{url}/me", trust_env=False), status=401)
    del keeper.headers["Authorization"]
    refreshed = conforms("/api/refresh", keeper.post("/api/refresh", headers={"Origin": shared.url}), status=200)
    conforms("/api/logout", httpx.post(f"{url}/logout", trust_env=False), status=401)
    keeper.headers["Authorization"] = f"Bearer {refreshed.json()['access_token']}"
    conforms("/api/logout", keeper.post("/api/logout"), status=204)


# -- what is not there ----------------------------------------------------------------------------------------------


def test_an_address_that_is_not_in_the_contract_is_a_problem(shared: Installation) -> None:
    answer = get(f"{shared.url}/nothing/here")
    assert answer.status_code == 404
    assert models.Problem.model_validate_json(answer.content).code == "not_found"


@pytest.mark.parametrize("path", list(CONTRACT["paths"]))
def test_a_method_that_is_not_in_the_contract_is_a_problem_that_names_those_that_are(
    shared: Installation, path: str
) -> None:
    known = {method for method, at, _ in drift.operations(CONTRACT) if at == path}
    other = next(method for method in ("DELETE", "PUT", "PATCH") if method not in known)
    answer = httpx.request(other, shared.url + re.sub("{[^}]+}", "x", path), trust_env=False)
    assert answer.status_code == 405
    assert models.Problem.model_validate_json(answer.content).status == 405
    assert set(answer.headers["allow"].split(", ")) == {*known, "OPTIONS"}
