"""The words of the pages: whole in every language, and no visible word outside the catalogues."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, nodes

from photochanger.failures import BY_CODE
from web.pages import LANGUAGES, WEB, words
from web.pages.audit import TARGETS

TEMPLATES = sorted((WEB / "templates").glob("*.html"))
#: What is the same in every language.
NAMES = ("PhotoChanger",)
#: Attributes people see or hear.
SPOKEN = ("alt", "title", "placeholder", "aria-label", "aria-description", "data-words", "label")


#: What a template says words with; the first argument is the key.
VOICES = ("t", "tn", "marked")
MODULES = WEB / "static" / "js"
#: Words that a form made from a schema says where the page has them: titles, help, options, what is wrong.
OF_SCHEMAS = ("field.", "help.", "option.", "wrong.")


def asked_keys() -> set[str]:
    """The keys the templates, the pages' code and the modules ask for; every one of a family where only its begin is
    written out."""
    keys: set[str] = set()
    for path in sorted((WEB / "pages").glob("*.py")):
        keys |= of_code(path.read_text())
    for path in TEMPLATES:
        tree = Environment(autoescape=True).parse(path.read_text())
        keys |= {key for key in block_of(path.read_text()) if key.startswith(OF_SCHEMAS)}
        for call in tree.find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and call.node.name in VOICES:
                keys |= keys_of(call.args[0])
    keys |= family("said.*")  # sentences of failures: ``test_details`` knows them
    for path in sorted(MODULES.glob("*.js")):
        keys |= {key for pattern in said_in(path) for key in family(pattern)}
    return keys


def of_code(source: str) -> set[str]:
    """Keys in Python: ``words(…)["key"]``, ``say(language, "key")``, and a notice's, ``notice="name"``."""
    keys = set(re.findall(r'words\([^)]*\)\)?\["([\w.]+)"\]', source))
    keys |= {key for key in re.findall(r'\bsay(?:_count)?\(\s*[\w.]+,\s*"([\w.]+)"', source) if "." in key}
    for prefix in re.findall(r'\bsay(?:_count)?\(\s*[\w.]+,\s*f"([\w.]+)\{', source):
        keys |= family(f"{prefix}*")
    for name in re.findall(r'notice="(\w+)"', source):
        keys |= {f"{name}.title", f"{name}.text"}
    return keys


def keys_of(key: nodes.Expr) -> set[str]:
    """One key where it is written out; a family where it is ``"status." ~ one``; a notice's by ``of_code``."""
    if isinstance(key, nodes.Const):
        return {key.value}
    assert isinstance(key, nodes.Concat), "a key this test cannot follow"
    first = key.nodes[0]
    if isinstance(first, nodes.Const):
        return family(f"{first.value}*")
    assert isinstance(first, nodes.Name)
    assert first.name == "notice"
    return set()


def family(pattern: str) -> set[str]:
    """The keys that begin so; there must be some."""
    if not pattern.endswith("*"):
        return {pattern}
    found = {key for key in words("en") if key.startswith(pattern[:-1])}
    assert found, f"no word begins with {pattern}"
    return found


def said_in(path: Path) -> set[str]:
    """The keys, and families, that one module says; ``field.<name>`` and the like where the page has them."""
    source = path.read_text()
    keys = set(re.findall(r'\b(?:word|count)\("([\w.]+)"', source))
    return keys | {f"{prefix}*" for prefix in re.findall(r"\b(?:word|count)\(`([\w.]+)\$\{", source)}


def with_imports(path: Path, seen: set[Path] | None = None) -> set[Path]:
    """A module and all it imports."""
    seen = set() if seen is None else seen
    if path not in seen:
        seen.add(path)
        for name in re.findall(r'(?:from|import\(|import) "\./([\w-]+\.js)"', path.read_text()):
            with_imports(MODULES / name, seen)
    return seen


def block_of(source: str) -> set[str]:
    """The keys of the data block of a page of the frame: ``{% set say = [...] %}``, and what every page has."""
    keys = {"ui.*", "failure.*"}
    for assigned in Environment(autoescape=True).parse(source).find_all(nodes.Assign):
        if isinstance(assigned.target, nodes.Name) and assigned.target.name == "say":
            assert isinstance(assigned.node, nodes.List)
            keys |= {one.value for one in assigned.node.items if isinstance(one, nodes.Const)}
    return {found for key in keys for found in family(key)}


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


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_page_brings_the_words_that_its_modules_say(path: Path) -> None:
    source = path.read_text()
    if "frame.html" not in source:
        return
    modules = {MODULES / name for name in re.findall(r'src="/static/js/([\w-]+\.js)"', source)} | {MODULES / "shell.js"}
    said = {key for module in modules for one in with_imports(module) for key in said_in(one)}
    assert {key for pattern in said for key in family(pattern)} - block_of(source) == set()


def test_whatever_the_audit_names_has_its_word() -> None:
    assert family("target.*") == {f"target.{kind}" for kind in TARGETS}


def test_every_failure_has_its_words() -> None:
    assert family("failure.*") == {f"failure.{code}" for code in BY_CODE}


@pytest.mark.parametrize("key", sorted(words("en")))
def test_every_language_fills_in_the_same_names(key: str) -> None:
    names = [set(re.findall(r"\{(\w+)\}", words(language)[key])) for language in LANGUAGES]
    assert names == names[:1] * len(names)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_counted_word_has_all_its_forms(language: str) -> None:
    forms = {"en": 2, "ru": 3}[language]
    counted = {key: value for key, value in words(language).items() if "|" in value}
    assert {key for key, value in counted.items() if len(value.split("|")) != forms} == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_word_is_empty_or_given_twice(language: str) -> None:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    catalogue = json.loads((WEB / "locales" / f"{language}.json").read_text(), object_pairs_hook=once)
    assert [key for key, value in catalogue.items() if not value.strip()] == []


def test_russian_is_written_in_russian() -> None:
    assert [key for key, value in words("ru").items() if not re.search("[а-яё]", value, re.IGNORECASE)] == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_no_template_says_anything_by_itself(path: Path) -> None:
    assert hard_coded(path.read_text()) == []


@pytest.mark.parametrize(
    "template",
    ["<p>Hello</p>", "<p>{{ t('jobs.title') }} Привет</p>", '<img alt="A cat">', "{% if x %}<b>or</b>{% endif %}"],
)
def test_a_word_in_a_template_would_be_found(template: str) -> None:
    assert hard_coded(template) != []
