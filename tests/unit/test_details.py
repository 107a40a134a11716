"""What failures say is said in every language: the catalogue's sentences are those of the code, and all of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from photochanger import failures
from photochanger.config import PROJECT
from web.pages import words
from web.pages.details import told

#: Rooms whose failures a job, a call or a breaker ends with.
ROOMS = ("access", "admission", "breakers", "db", "gate", "image_pool", "images", "jobs", "rungs", "vault")
CORE = PROJECT / "photochanger"
SOURCES = [
    *sorted((CORE / "providers").glob("*.py")),
    *sorted((PROJECT / "actors").glob("*.py")),
    PROJECT / "web" / "ingest.py",
    *(CORE / f"{room}.py" for room in ROOMS),
]
#: Rooms whose validators say what is wrong with a field of a page.
VALIDATORS = [CORE / f"{room}.py" for room in ("accounts", "config", "settings")]
#: Failures of requests that make no job.
OF_REQUESTS = ("InvalidRequest", "Conflict", "NotFound", "UnsupportedMediaType")
NAMES = {name for name, one in vars(failures).items() if isinstance(one, type) and issubclass(one, failures.Failure)}
NAMES |= {"Refused", "AnswerTooLarge"}
NAMES -= set(OF_REQUESTS)
#: What stands for a value. A provider is one word, and so is this; and what may follow a sentence, or not.
VALUE, TAILS = "Zz", ("", ": Zz", " (Zz)")


def sayings(tree: ast.AST) -> Iterator[ast.expr]:
    """What failures are made with, what a job is ended with, and what is first put together as ``words``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in NAMES:
                yield from node.args[:1]
            elif name in ("cancel", "leave", "_finish"):
                yield from (one.value for one in node.keywords if one.arg == "detail")
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "words":
            yield node.value


def sentences(said: ast.expr) -> Iterator[str]:
    """It with a value for each expression, and every tail for one that is called so."""
    if isinstance(said, ast.Call):  # "…".strip()
        said = getattr(said.func, "value", said)
    if isinstance(said, ast.Constant):
        yield str(said.value)
    elif isinstance(said, ast.JoinedStr):
        for tail in TAILS:
            yield "".join(_part(one, tail) for one in said.values)


def _part(one: ast.expr, tail: str) -> str:
    if isinstance(one, ast.Constant):
        return str(one.value)
    assert isinstance(one, ast.FormattedValue)
    return tail if ast.unparse(one.value) in ("tail", "named", "field") else VALUE


def _is_ours(sentence: str) -> bool:
    """What is put together of values only is looked at where these are said."""
    return re.search("[a-z]", sentence.replace(VALUE, "")) is not None


SAID = sorted(
    {
        (text, path.name)
        for path in SOURCES
        for said in sayings(ast.parse(path.read_text()))
        for text in sentences(said)
        if _is_ours(text)
    }
)


@pytest.mark.parametrize(("text", "where"), [pytest.param(*one, id=one[0]) for one in SAID])
def test_what_a_failure_says_is_said_in_russian(text: str, where: str) -> None:
    assert re.search("[а-я]", told("ru", text)), f"{where}: web/locales has no said.* for: {text}"


def wrong_fields() -> Iterator[tuple[str, str]]:
    """What is said of one field where no ``wrong.<code>`` says it: by validators, and by the accounts' own."""
    for path in VALIDATORS:
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            said = {"ValueError": 0, "_wrong": 1}.get(name)
            if isinstance(node, ast.Call) and said is not None:
                yield from ((text, path.name) for text in sentences(node.args[said]) if _is_ours(text))


@pytest.mark.parametrize(("text", "where"), [pytest.param(*one, id=one[0]) for one in sorted(set(wrong_fields()))])
def test_what_is_wrong_with_a_field_is_a_sentence_in_every_language(text: str, where: str) -> None:
    assert text[0].isupper(), f"{where}: no sentence: {text}"
    assert re.search("[а-я]", told("ru", text)), f"{where}: web/locales has no said.* for: {text}"


def test_no_sentence_is_left_over() -> None:
    sources = [path for part in ("photochanger", "web", "actors") for path in (PROJECT / part).rglob("*.py")]
    everything = re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text() for path in sources))  # long strings
    for key, sentence in words("en").items():
        if key.startswith("said."):
            longest = max(re.split(r"\{\w+\}", sentence), key=len).strip(" :()")
            assert longest in everything, f"{key}: nobody says {sentence!r}"
