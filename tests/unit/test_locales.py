"""The words of the pages: whole in every language, and no visible word outside the catalogues."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, nodes

from web.pages import LANGUAGES, WEB, words

TEMPLATES = sorted((WEB / "templates").glob("*.html"))
#: What is the same in every language.
NAMES = ("PhotoChanger", "/ingest/slot-001")
#: Attributes people see or hear.
SPOKEN = ("alt", "title", "placeholder", "aria-label", "aria-description", "data-words", "label")


def asked_keys() -> set[str]:
    """The keys the templates and ``web.pages`` ask for, notices by each of their names."""
    source = (WEB / "pages" / "__init__.py").read_text()
    notices = set(re.findall(r'notice="(\w+)"', source))
    keys = set(re.findall(r'words\([^)]*\)\)?\["([\w.]+)"\]', source))
    for path in TEMPLATES:
        for call in Environment(autoescape=True).parse(path.read_text()).find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and call.node.name == "t":
                keys |= keys_of(call.args[0], notices)
    return keys


def keys_of(key: nodes.Expr, notices: set[str]) -> set[str]:
    """One key where it is written out; one for each notice where it is ``notice ~ ".title"``."""
    if isinstance(key, nodes.Const):
        return {key.value}
    assert isinstance(key, nodes.Concat), "a key this test cannot follow"
    name, rest = key.nodes
    assert isinstance(name, nodes.Name)
    assert name.name == "notice"
    assert isinstance(rest, nodes.Const)
    assert notices
    return {notice + rest.value for notice in notices}


class Visible(HTMLParser):
    """Collects what a reader would see or hear of a template without its expressions."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if value and name in SPOKEN]

    def handle_data(self, data: str) -> None:
        self.found.append(data)


def hard_coded(template: str) -> list[str]:
    """The words of a template that come from no catalogue."""
    reader = Visible()
    reader.feed(re.sub(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", "", template, flags=re.DOTALL))
    text = " ".join(reader.found)
    for name in NAMES:
        text = text.replace(name, "")
    return re.findall(r"[^\W\d_]+", text)


def test_every_language_has_the_same_keys() -> None:
    keys = {language: set(words(language)) for language in LANGUAGES}
    assert keys == dict.fromkeys(LANGUAGES, keys["en"])
    assert {path.stem for path in (WEB / "locales").glob("*.json")} == set(LANGUAGES)


def test_the_catalogues_hold_what_the_pages_ask_for_and_nothing_else() -> None:
    assert asked_keys() == set(words("en"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_word_is_empty_or_given_twice(language: str) -> None:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    catalogue = json.loads((WEB / "locales" / f"{language}.json").read_text(), object_pairs_hook=once)
    assert [key for key, value in catalogue.items() if not value.strip()] == []


def test_russian_is_written_in_russian() -> None:
    assert [key for key, value in words("ru").items() if not re.search("[а-яё]", value)] == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_no_template_says_anything_by_itself(path: Path) -> None:
    assert hard_coded(path.read_text()) == []


@pytest.mark.parametrize(
    "template",
    ["<p>Hello</p>", "<p>{{ t('home.text') }} Привет</p>", '<img alt="A cat">', "{% if x %}<b>or</b>{% endif %}"],
)
def test_a_word_in_a_template_would_be_found(template: str) -> None:
    assert hard_coded(template) != []
