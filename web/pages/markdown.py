"""Which Markdown the contract's words may use: paragraphs, lists, code and bold; all else is shown as written."""

from __future__ import annotations

import re
from collections.abc import Iterator

from markupsafe import Markup, escape

_MARKED = re.compile(r"(?P<ticks>`+)(?P<code>.+?)(?<!`)(?P=ticks)(?!`)|\*\*(?P<bold>.+?)\*\*", re.DOTALL)
_ITEM = re.compile(r"\s*(?:[-*]|(?P<number>\d+)[.)])\s+(?P<text>.*)")


def inline(text: str) -> Markup:
    """Code and bold within a line.

    >>> inline("set `a<b` to **no `x`**")
    Markup('set <code>a&lt;b</code> to <strong>no <code>x</code></strong>')
    """
    whole, end = Markup(), 0
    for found in _MARKED.finditer(text):
        whole += escape(text[end : found.start()])
        if found["code"] is not None:
            whole += Markup("<code>{}</code>").format(found["code"].strip())
        else:
            whole += Markup("<strong>{}</strong>").format(inline(found["bold"]))
        end = found.end()
    return whole + escape(text[end:])


def blocks(text: str) -> Markup:
    """Paragraphs and lists.

    >>> blocks("First\\nline.\\n\\n- one\\n- two\\n  more")
    Markup('<p>First line.</p><ul><li>one</li><li>two more</li></ul>')
    """
    return Markup().join(block for part in re.split(r"\n\s*\n", text.strip()) for block in _blocks(part) if part)


def _blocks(part: str) -> Iterator[Markup]:
    """A part without empty lines: a paragraph, a list, or a list behind a paragraph."""
    words: list[str] = []
    items: list[str] = []
    ordered = False
    for line in part.splitlines():
        item = _ITEM.fullmatch(line)
        if item is not None:
            ordered = ordered or (not items and item["number"] is not None)
            items.append(item["text"])
        elif items:
            items[-1] += f" {line.strip()}"
        else:
            words.append(line.strip())
    if words:
        yield Markup("<p>{}</p>").format(inline(" ".join(words)))
    if items:
        lines = Markup().join(Markup("<li>{}</li>").format(inline(item)) for item in items)
        yield Markup("<ol>{}</ol>").format(lines) if ordered else Markup("<ul>{}</ul>").format(lines)
