"""What failures say in detail, in the reader's language. It is stored and told to programs in English, as it was said;
the catalogue's ``said.*`` are the sentences it is made of."""

from __future__ import annotations

import functools
import re
from dataclasses import replace

import falcon.asgi

from photochanger.failures import Failure
from web.api.authority import SESSION_COOKIE
from web.pages import LANGUAGES, language_of, names, say, words

#: Names in a sentence that may stand for sentences of ours again; all others are told as they are.
_AGAIN = ("why", "rule", "reason", "error", "span")
_PREFIX = "said."
_ONE_WORD, _ANYTHING = r"\S+", r".+?"
_NAME = re.compile(r"\{(\w+)\}")


def told(language: str, detail: str) -> str:
    """
    >>> told("ru", "The provider's picture cannot be used: The picture has more than 40 MiB")
    'Изображение провайдера непригодно: Изображение больше 40 МиБ'
    >>> told("ru", "Something of a later version"), told("en", "The photo is empty")
    ('Something of a later version', 'The photo is empty')
    """
    if language == LANGUAGES[0]:
        return detail
    for pattern, key in _sentences():
        if match := pattern.fullmatch(detail):
            values = {name: _value(language, name, text) for name, text in match.groupdict().items()}
            return say(language, key, **values)
    return detail


def for_page(req: falcon.asgi.Request, detail: str) -> str:
    """``told`` in the account's language where a page of ours asks; programs, by their tokens, are told in English."""
    return told(language_for(req), detail)


def language_for(req: falcon.asgi.Request) -> str:
    """The account's language where a page of ours asks; English for programs, which come by their tokens."""
    by_page = req.get_header("Authorization") is None and SESSION_COOKIE in req.cookies
    return language_of(req) if by_page else LANGUAGES[0]


def tell_page(req: falcon.asgi.Request, failure: Failure) -> None:
    """All that a failure says ``for_page``: its detail, and what is wrong with each field."""
    given = failure.errors
    failure.errors = tuple(replace(one, message=for_page(req, one.message)) for one in given)
    if given and failure.detail == f"{given[0].field}: {given[0].message}":
        failure.detail = f"{given[0].field}: {failure.errors[0].message}"
    else:
        failure.detail = for_page(req, failure.detail)


def _value(language: str, name: str, text: str) -> str:
    if name == "provider":
        return names.provider_name(language, text)
    return told(language, text) if name in _AGAIN else text


@functools.cache
def _sentences() -> list[tuple[re.Pattern[str], str]]:
    """Every sentence as a pattern; those that say most come first."""
    found = [(key, text) for key, text in words(LANGUAGES[0]).items() if key.startswith(_PREFIX)]
    found.sort(key=lambda one: len(_NAME.sub("", one[1])), reverse=True)
    return [(re.compile(_pattern(text), re.DOTALL), key) for key, text in found]


def _pattern(text: str) -> str:
    """A provider's name is one word; what comes last may be long; everything else ends where the sentence goes on."""
    parts = _NAME.split(text)  # words and names in turn
    said = [re.escape(part) for part in parts[::2]]
    heard = [f"(?P<{name}>{_ONE_WORD if name == 'provider' else _ANYTHING})" for name in parts[1::2]]
    return "".join(part for pair in zip(said, [*heard, ""], strict=True) for part in pair)
