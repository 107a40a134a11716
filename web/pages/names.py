"""What people call the providers and what these do, in the reader's language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from photochanger.providers import registry
from web.pages import words


def provider_name(language: str, name: str) -> str:
    """
    >>> provider_name("ru", "local"), provider_name("ru", "openai"), provider_name("ru", "gone")
    ('Встроенный', 'OpenAI', 'gone')
    """
    driver = registry().get(name)
    return driver.title.get(language, name) if driver else name


def copy_name(language: str) -> str:
    """What a copy is called, with its model's name as ``{name}``."""
    return words(language)["slot.copy_name"]


def made_by(language: str, kind: str | None, settings: Mapping[str, Any] | None = None) -> str:
    """What makes, or made, a picture. ``kind``: ``provider/operation``, nobody where it is empty; ``settings``: of its
    rung, where they are known, for which filter it is.

    >>> made_by("en", "local/filter", {"filter": "sepia"}), made_by("ru", "gemini/image_edit"), made_by("en", "x/y")
    ('Built-in · Filter (sepia)', 'Gemini · Правка', 'x · y')
    """
    if not kind:
        return "–"
    provider, _, operation = kind.partition("/")
    driver = registry().get(provider)
    known = driver.operations.get(operation) if driver else None
    title = known.name.get(language, operation) if known else operation
    if chosen := (settings or {}).get("filter"):
        title += f" ({words(language).get(f'option.{chosen}', chosen)})"
    return f"{provider_name(language, provider)} · {title}"
