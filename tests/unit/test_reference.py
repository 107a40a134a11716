"""The contract as the server gives it out: the file, the page with every operation, its commands and its words."""

from __future__ import annotations

import gzip
import html
import re
import shlex
from typing import Any

import falcon.asgi
import falcon.testing
import orjson
import pytest

from spec import drift
from spec.shapes import Schema
from web.api import contract, curl
from web.api.contract import Contract
from web.api.description import Description
from web.api.reference import ContractFile, Reference
from web.pages import LANGUAGES, PAGE_HEADERS, Pages, markdown, words

CONTRACT = drift.load()
OPERATIONS = [operation["operationId"] for _, _, operation in drift.operations(CONTRACT)]
EVIL = "<script>alert('1')</script>"
#: Bytes of the page as a browser gets it, without its style and script.
MAX_PAGE_BYTES = 200_000


@pytest.fixture(scope="module")
def client() -> falcon.testing.TestClient:
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
    app.add_route("/api/openapi.json", ContractFile())
    app.add_route("/api/docs", Reference(Pages()))
    return falcon.testing.TestClient(app)


@pytest.fixture(scope="module")
def pages(client: falcon.testing.TestClient) -> dict[str, str]:
    return {
        language: client.simulate_get("/api/docs", headers={"Accept-Language": language}).text for language in LANGUAGES
    }


def small(**operation: Any) -> Contract:
    """A contract with one operation."""
    node = {"operationId": "one", "responses": {}, **operation}
    schemes = {
        "session": {"type": "apiKey", "in": "cookie", "name": "session"},
        "token": {"type": "http", "scheme": "bearer"},
        "login": {"type": "http", "scheme": "basic"},
        "key": {"type": "apiKey", "in": "header", "name": "X-Key"},
    }
    document = {
        "info": {"title": "Small", "version": "1"},
        "paths": {"/things/{id}": {"put": node}},
        "components": {"securitySchemes": schemes},
    }
    return Contract(orjson.dumps(document))


def command(**operation: Any) -> list[str]:
    """The words of the command of a contract's one operation, as a shell reads them."""
    its = small(**operation)
    [(method, path, node)] = its.operations()
    return shlex.split(curl.line("http://host", method, path, node, its).replace("\\\n", ""))


def answer_page(monkeypatch: pytest.MonkeyPatch, its: Contract, host: str = "host") -> str:
    monkeypatch.setattr("web.api.description.present", lambda: Description(its))
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
    app.add_route("/api/docs", Reference(Pages()))
    return str(falcon.testing.TestClient(app).simulate_get("/api/docs", headers={"Host": host}).text)


# -- the file -------------------------------------------------------------------------------------------------------


def test_the_file_is_the_contract_and_is_asked_for_each_time(client: falcon.testing.TestClient) -> None:
    answer = client.simulate_get("/api/openapi.json")
    assert answer.json == CONTRACT
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("asked", ["{}", '"other", {}', "W/{}", "*"])
def test_who_has_the_file_is_told_so(client: falcon.testing.TestClient, asked: str) -> None:
    tag = client.simulate_get("/api/openapi.json").headers["etag"]
    answer = client.simulate_get("/api/openapi.json", headers={"If-None-Match": asked.format(tag)})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == tag


def test_who_has_another_file_gets_this_one(client: falcon.testing.TestClient) -> None:
    answer = client.simulate_get("/api/openapi.json", headers={"If-None-Match": '"other"'})
    assert answer.status_code == 200


# -- the page -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("method", "path", "operation"), list(drift.operations(CONTRACT)), ids=OPERATIONS)
def test_the_page_has_every_operation(
    pages: dict[str, str], language: str, method: str, path: str, operation: Schema
) -> None:
    name = operation["operationId"]
    assert f'<a href="#{name}"><b class="{method.lower()}">{method}</b>' in pages[language]
    found = re.search(rf'<article id="{name}">(.*?)</article>', pages[language], re.DOTALL)
    assert found is not None
    text = html.unescape(re.sub(r"<[^>]+>", " ", found[1]))
    assert path in text
    assert operation["summary"] in text
    assert f"curl {'--head ' if method == 'HEAD' else ''}" in text
    for status, answer in operation["responses"].items():
        whole = drift.resolved(CONTRACT, answer)
        assert status in text
        assert set(whole.get("x-codes", [])) <= set(re.findall(r"\w+", text))
        for header in whole.get("headers", {}):
            assert header in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_has_every_schema_and_failure_code_and_leads_nowhere_else(
    pages: dict[str, str], language: str
) -> None:
    page = pages[language].replace("<wbr>", "")
    for name in CONTRACT["components"]["schemas"]:
        assert f'<article id="schema-{name}">' in page
    for code, status in CONTRACT["x-failure-codes"].items():
        assert f"<td><code>{code}</code></td><td>{status}</td>" in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
    assert set(re.findall(r'(?:href|src)="(?!#)([^"]+)"', page)) == {
        "/",
        "/api/openapi.json",
        "/static/icon.svg",
        "/static/reference.css",
        "/static/reference.js",
        "/static/style.css",
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_is_small_and_obeys_the_pages_own_policy(client: falcon.testing.TestClient, language: str) -> None:
    answer = client.simulate_get("/api/docs", headers={"Accept-Language": language})
    assert answer.status_code == 200
    packed = client.simulate_get("/api/docs", headers={"Accept-Language": language, "Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.content) < MAX_PAGE_BYTES
    assert gzip.decompress(packed.content) == answer.content
    assert {name: answer.headers[name.lower()] for name in PAGE_HEADERS} == PAGE_HEADERS
    assert " style=" not in answer.text
    assert re.findall(r"<script(?! type=\"module\" src=)", answer.text) == []


def test_russian_readers_are_told_that_the_contract_is_english(pages: dict[str, str]) -> None:
    assert words("ru")["reference.english"] in pages["ru"]
    assert words("en")["reference.english"] not in pages["en"]
    assert '<p class="summary" lang="en">' in pages["ru"]


def test_whatever_the_contract_says_is_shown_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"description": EVIL, "example": EVIL}
    schema = {"type": "object", "properties": {EVIL: {"enum": [EVIL], "default": EVIL, **said}}}
    its = small(
        summary=EVIL,
        tags=[EVIL],
        **{"x-permission": EVIL},
        description=f"`{EVIL}` **{EVIL}**\n\n- {EVIL}",
        parameters=[{"name": EVIL, "in": "query", "required": True, "schema": {"pattern": EVIL, "type": EVIL}, **said}],
        requestBody={"description": EVIL, "content": {EVIL: {"schema": schema, "example": EVIL}}},
        responses={"200": {**said, "x-codes": [EVIL], "headers": {EVIL: said}, "content": {EVIL: {"schema": schema}}}},
    )
    page = answer_page(monkeypatch, its)
    assert EVIL not in page
    assert page.count(html.escape(EVIL, quote=False)) + page.count("&lt;script&gt;alert(&#39;1&#39;)") > 15


def test_the_host_a_client_claims_is_text_and_one_word_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    page = answer_page(monkeypatch, small(), host="x'$(reboot)<b>")
    [shown] = re.findall(r'<pre class="curl"><code>(.*?)</code>', page)
    assert "<b>" not in shown
    assert len(shlex.split(html.unescape(shown))) == 4


def test_an_operation_says_which_permission_and_sign_in_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    its = small(**{"x-permission": "slots.write", "security": [{"session": []}, {"token": []}]})
    page = answer_page(monkeypatch, its)
    assert "<code>slots.write</code>" in page
    assert "<code>session | token</code>" in page


# -- the command ----------------------------------------------------------------------------------------------------


def test_a_command_has_what_is_required_and_nothing_else() -> None:
    string = {"schema": {"type": "string"}}
    parameters = [
        {"name": "id", "in": "path", "required": True, "example": "a/b", **string},
        {"name": "q", "in": "query", "required": True, **string},
        {"name": "page", "in": "query", **string},
        {"name": "If-Match", "in": "header", "required": True, "schema": {"type": "string", "examples": ['"7"']}},
    ]
    words = command(parameters=parameters)
    assert words == ["curl", "-X", "PUT", "http://host/things/a%2Fb?q=Q", "-H", 'If-Match: "7"']


@pytest.mark.parametrize(
    ("scheme", "option"),
    [
        ("session", ["-b", "session=SESSION"]),
        ("token", ["-H", "Authorization: Bearer TOKEN"]),
        ("login", ["-u", "NAME:PASSWORD"]),
        ("key", ["-H", "X-Key: KEY"]),
    ],
)
def test_a_command_signs_in(scheme: str, option: list[str]) -> None:
    assert command(security=[{scheme: []}])[-2:] == option


def test_a_command_sends_the_example_or_what_the_schema_requires() -> None:
    fields = {
        "name": {"type": "string"},
        "at": {"type": "string", "format": "date-time"},
        "count": {"type": "integer", "minimum": 3},
        "kind": {"enum": ["a", "b"]},
        "parts": {"type": "array", "minItems": 1, "items": {"type": "boolean"}},
        "left": {"type": "string"},
    }
    schema = {"type": "object", "required": [name for name in fields if name != "left"], "properties": fields}

    def sent(media: dict[str, Any]) -> Any:
        return orjson.loads(command(requestBody={"content": {"application/json": media}})[-1])

    assert sent({"schema": schema, "example": {"name": "it's"}}) == {"name": "it's"}
    assert sent({"schema": schema}) == {
        "name": "NAME",
        "at": "2026-11-21T19:04:11Z",
        "count": 3,
        "kind": "a",
        "parts": [True],
    }


def test_the_command_of_an_ingest_can_be_pasted() -> None:
    its = contract.present()
    [found] = [one for one in its.operations() if one[2]["operationId"] == "ingestPhoto"]
    assert curl.line("http://h", *found, its).replace(" \\\n ", "") == (
        "curl -X POST http://h/ingest/slot-001 -F password=PASSWORD -F fileToUpload=@photo.jpg -o picture.jpg"
    )


# -- the words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one\ntwo\n\nthree", "<p>one two</p><p>three</p>"),
        ("1. a\n2. b", "<ol><li>a</li><li>b</li></ol>"),
        ("so:\n- a\n- b", "<p>so:</p><ul><li>a</li><li>b</li></ul>"),
        ("``a`b``", "<p><code>a`b</code></p>"),
        ("a `b and **c", "<p>a `b and **c</p>"),
        ("[a](javascript:b) <i>", "<p>[a](javascript:b) &lt;i&gt;</p>"),
        ("", ""),
    ],
)
def test_markdown_is_a_few_marks_and_else_text(text: str, shown: str) -> None:
    assert markdown.blocks(text) == shown
