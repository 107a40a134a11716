"""What a change of a JSON Schema breaks: for clients that send what it describes, or for those that are answered it.

What was taken must still be taken: a schema of requests may only widen. What is answered must still be understood: a
schema of answers may only narrow, and keeps its fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]

ALL = frozenset({"string", "number", "boolean", "object", "array"})
#: Keywords that bound a value from below and from above, with what their absence means.
LOWER = {"minimum": None, "exclusiveMinimum": None, "minLength": 0, "minItems": 0, "minProperties": 0}
UPPER = dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"))
#: Keywords of which nobody can say whether another value is wider.
OPAQUE = ("pattern", "format", "multipleOf", "uniqueItems")
#: What makes a schema without a type one of this type.
TELLING = {"properties": "object", "required": "object", "additionalProperties": "object", "items": "array"}
_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}


@dataclass(frozen=True)
class Change:
    """One difference in words; ``breaks`` tells whether a client that kept to the released contract may fail."""

    where: str
    what: str
    breaks: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def resolved(document: Schema, node: Schema) -> Schema:
    """``node``, or what its ``$ref`` points at, with the members beside the reference."""
    while "$ref" in node:
        found: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = {**found, **{key: value for key, value in node.items() if key != "$ref"}}
    return node


def merged(document: Schema, schema: Schema) -> Schema:
    """``schema`` without references and ``allOf``; a field that several parts describe must be as all of them say."""
    whole = resolved(document, schema)
    parts = [merged(document, part) for part in whole.get("allOf", [])]
    result: Schema = {}
    for part in [*parts, {key: value for key, value in whole.items() if key != "allOf"}]:
        fields = {**result.get("properties", {})}
        for name, value in part.get("properties", {}).items():
            fields[name] = {"allOf": [fields[name], value]} if name in fields else value
        required = [*result.get("required", []), *part.get("required", [])]
        result = {**result, **part}
        result |= ({"properties": fields} if fields else {}) | ({"required": required} if required else {})
    return result


def without_null(schema: Schema) -> tuple[Schema, bool]:
    """``schema`` without its null, and whether it had one.

    >>> without_null({"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None})
    ({'default': None, 'type': 'integer'}, True)
    >>> without_null({"type": ["string", "null"]})
    ({'type': ['string']}, True)
    """
    for key in ("anyOf", "oneOf"):
        branches = schema.get(key, [])
        rest = [branch for branch in branches if branch.get("type") != "null"]
        if len(rest) < len(branches):
            around = {name: value for name, value in schema.items() if name != key}
            return ({**around, **rest[0]} if len(rest) == 1 else {**around, key: rest}), True
    nullable = schema.get("nullable", False)
    if isinstance(schema.get("type"), list) and "null" in schema["type"]:
        schema, nullable = {**schema, "type": [one for one in schema["type"] if one != "null"]}, True
    if None in schema.get("enum", []):
        schema, nullable = {**schema, "enum": [one for one in schema["enum"] if one is not None]}, True
    return schema, nullable


def types(schema: Schema) -> frozenset[str]:
    """The types a value may have; told by its values or its keywords where the schema does not say."""
    said = schema.get("type")
    if said is not None:
        return frozenset([said] if isinstance(said, str) else said)
    allowed = values(schema)
    if allowed is not None:
        return frozenset(_NAMES[type(json.loads(value))] for value in allowed)
    told = {name for key, name in TELLING.items() if key in schema}
    return frozenset(told) or ALL


def values(schema: Schema) -> list[str] | None:
    """The only values there may be, as JSON; None where there may be any."""
    if "const" in schema:
        return [json.dumps(schema["const"], ensure_ascii=False)]
    return [json.dumps(one, ensure_ascii=False) for one in schema["enum"]] if "enum" in schema else None


def variants(schema: Schema) -> list[Schema]:
    """What ``anyOf`` or ``oneOf`` offer."""
    found: list[Schema] = [*schema.get("anyOf", []), *schema.get("oneOf", [])]
    return found


class Shapes:
    """Compares schemas of the released document with those of the present one. A component is judged once as it is
    sent and once as it is answered, and named by its own name."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old = old
        self._new = new
        self._seen: set[tuple[str, str, bool]] = set()

    def compared(self, where: str, old: Schema, new: Schema, *, sent: bool) -> Iterator[Change]:
        """Every difference between two schemas. ``sent``: by clients; else they are answered it."""
        (old, was), (new, is_now) = without_null(old), without_null(new)
        if was != is_now:
            yield Change(where, "may be null now" if is_now else "is never null any more", breaks=was is sent)
        if "$ref" in old or "$ref" in new:
            yield from self._referred(where, old, new, sent=sent)
            return
        old, new = merged(self._old, old), merged(self._new, new)
        if variants(old) or variants(new):
            yield from self._variants(where, old, new, sent=sent)
        if bool(variants(old)) == bool(variants(new)):
            yield from self._keywords(where, old, new, sent=sent)

    def _referred(self, where: str, old: Schema, new: Schema, *, sent: bool) -> Iterator[Change]:
        names = old.get("$ref", ""), new.get("$ref", "")
        if all(names):
            if (*names, sent) in self._seen:
                return
            self._seen.add((*names, sent))
        if names[0] == names[1]:
            where = f"schema {names[0].rpartition('/')[2]}, as it is {'sent' if sent else 'answered'}"
        yield from self.compared(where, resolved(self._old, old), resolved(self._new, new), sent=sent)

    def _variants(self, where: str, old: Schema, new: Schema, *, sent: bool) -> Iterator[Change]:
        olds, news = variants(old) or [old], variants(new) or [new]
        for one in olds if sent else news:
            other = next((other for other in (news if sent else olds) if self._fits(one, other, sent=sent)), None)
            if other is None:
                yield Change(where, f"{'no longer takes' if sent else 'may now be'} {_short(one)}")
            else:
                pair = (one, other) if sent else (other, one)
                yield from self.compared(where, *pair, sent=sent)
        if len(olds) != len(news):
            yield Change(where, f"had {len(olds)} forms and has {len(news)}", breaks=False)

    def _fits(self, one: Schema, other: Schema, *, sent: bool) -> bool:
        trial = Shapes(self._old, self._new)
        trial._seen = set(self._seen)
        pair = (one, other) if sent else (other, one)
        return not any(change.breaks for change in trial.compared("", *pair, sent=sent))

    def _keywords(self, where: str, old: Schema, new: Schema, *, sent: bool) -> Iterator[Change]:
        was, is_now = types(old), types(new)
        if was != is_now:
            inner, outer = (was, is_now) if sent else (is_now, was)
            lost = inner - outer - ({"integer"} if "number" in outer else set())
            yield Change(where, f"its type was {_listed(was)} and is {_listed(is_now)}", breaks=bool(lost))
            if lost:
                return
        yield from self._values(where, old, new, sent=sent)
        yield from _bounds(where, old, new, sent=sent)
        yield from self._fields(where, old, new, sent=sent)
        yield from self._nested(where, old, new, sent=sent)

    def _values(self, where: str, old: Schema, new: Schema, *, sent: bool) -> Iterator[Change]:
        was, is_now = values(old), values(new)
        if was is None and is_now is None:
            return
        if was is None:
            yield Change(where, f"is only {_listed(is_now)} now", breaks=sent)
        elif is_now is None:
            yield Change(where, f"was only {_listed(was)} and may be anything now", breaks=not sent)
        else:
            yield from self._other_values(where, was, is_now, sent=sent)

    def _other_values(self, where: str, was: list[str], is_now: list[str], *, sent: bool) -> Iterator[Change]:
        gone = [value for value in was if value not in is_now]
        come = [value for value in is_now if value not in was]
        if gone:
            yield Change(where, f"is never {_listed(gone)} any more", breaks=sent)
        if come:
            yield Change(where, f"may be {_listed(come)} now", breaks=not sent and not self._codes(was, come))

    def _codes(self, was: list[str], come: list[str]) -> bool:
        """Whether this is the list of failure codes, which is announced as one that grows."""
        old, new = self._old.get("x-failure-codes", {}), self._new.get("x-failure-codes", {})
        return (
            bool(old) and {json.loads(one) for one in was} == set(old) and {json.loads(one) for one in come} <= set(new)
        )

    def _fields(self, where: str, old: Schema, new: Schema, *, sent: bool) -> Iterator[Change]:
        was, is_now = old.get("properties", {}), new.get("properties", {})
        needed, needs = set(old.get("required", [])), set(new.get("required", []))
        for name in sorted(was.keys() - is_now.keys()):
            yield Change(where, f"field {name} is gone")
        for name in sorted(is_now.keys() - was.keys() - (needs if sent else set())):
            yield Change(where, f"field {name} is new", breaks=False)
        for name in sorted(needs - needed):
            yield Change(where, f"field {name} is required now", breaks=sent)
        for name in sorted(needed - needs - (was.keys() - is_now.keys())):
            yield Change(where, f"field {name} may be missing now", breaks=not sent)
        for name in was:
            if name in is_now:
                yield from self.compared(f"{where} → {name}", was[name], is_now[name], sent=sent)

    def _nested(self, where: str, old: Schema, new: Schema, *, sent: bool) -> Iterator[Change]:
        for key, mark in (("additionalProperties", "*"), ("items", "[]")):
            if key not in old and key not in new:
                continue
            was, is_now = _opened(old.get(key, True)), _opened(new.get(key, True))
            if was is not None and is_now is not None:
                yield from self.compared(f"{where} → {mark}", was, is_now, sent=sent)
            elif was is not is_now:
                closed = is_now is None
                words = "takes no other fields any more" if closed else "may have other fields now"
                yield Change(where, words, breaks=closed and sent)


def _bounds(where: str, old: Schema, new: Schema, *, sent: bool) -> Iterator[Change]:
    for key, absent in {**LOWER, **UPPER}.items():
        was, is_now = old.get(key, absent), new.get(key, absent)
        if was != is_now:
            tighter = was is None or (is_now is not None and (is_now > was if key in LOWER else is_now < was))
            yield Change(where, f"its {key} was {_word(was)} and is {_word(is_now)}", breaks=sent and tighter)
    for key in OPAQUE:
        was, is_now = old.get(key), new.get(key)
        if was != is_now:
            lost = is_now is not None if sent else was is not None and key == "format"
            yield Change(where, f"its {key} was {_word(was)} and is {_word(is_now)}", breaks=lost)


def _opened(schema: Schema | bool) -> Schema | None:
    """What further members must be; None where there may be none."""
    return ({} if schema else None) if isinstance(schema, bool) else schema


def _word(value: object) -> str:
    return "not there" if value is None else str(value)


def _listed(words: Any) -> str:
    return ", ".join(sorted(words)) if words != ALL else "any"


def _short(schema: Schema) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    return json.dumps(schema, ensure_ascii=False, sort_keys=True)
