"""Whether the contract breaks a client that keeps to the last released one.

``python -m spec.breaking`` names every breaking change against ``contracts/released/openapi.yaml`` and exits with 1;
``--all`` names the changes that break nobody too. A break that is meant stands in ``contracts/released/accepted.yaml``
with its reason; an entry there that names no break is itself an error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from spec.drift import CONTRACTS, load
from spec.shapes import Change, Schema, Shapes, resolved

RELEASED = "released"
ACCEPTED = "accepted.yaml"
METHODS = ("get", "head", "post", "put", "patch", "delete")
#: Members of a security scheme by which a client signs in.
SIGN_IN = ("type", "in", "name", "scheme")


def changes(old: Schema, new: Schema) -> list[Change]:
    """Every difference between the released contract and the present one, the breaking ones first."""
    found = dict.fromkeys(_Comparison(old, new).changes())
    return sorted(found, key=lambda change: not change.breaks)


class _Comparison:
    def __init__(self, old: Schema, new: Schema) -> None:
        self._old = old
        self._new = new
        self._shapes = Shapes(old, new)
        self._seen: set[str] = set()

    def changes(self) -> Iterator[Change]:
        old, new = _operations(self._old), _operations(self._new)
        for name in sorted(old.keys() - new.keys()):
            yield Change(name, "is gone")
        for name in sorted(new.keys() - old.keys()):
            yield Change(name, "is new", breaks=False)
        for name in old:
            if name in new:
                yield from self._operation(name, old[name], new[name])
        yield from self._codes()
        yield from self._sign_in()

    def _operation(self, where: str, old: Schema, new: Schema) -> Iterator[Change]:
        for key in ("operationId", "x-permission"):
            if key in old and old[key] != new.get(key):
                yield Change(where, f"its {key} was {old[key]} and is {new.get(key, 'not there')}")
        yield from self._security(where, old, new)
        yield from self._parameters(where, old["parameters"], new["parameters"])
        yield from self._body(where, old.get("requestBody"), new.get("requestBody"))
        yield from self._answers(where, old["responses"], new["responses"])

    def _shared(self, where: str, old: Schema, new: Schema) -> str | None:
        """Where to say what has changed: at a component both refer to, once; None where that was done."""
        name: str | None = old.get("$ref")
        if name is None or name != new.get("$ref"):
            return where
        if name in self._seen:
            return None
        self._seen.add(name)
        return name.removeprefix("#/components/")

    def _security(self, where: str, old: Schema, new: Schema) -> Iterator[Change]:
        was = _ways_in(old.get("security", self._old.get("security")))
        are = _ways_in(new.get("security", self._new.get("security")))
        for way in was:
            if not any(other <= way for other in are):
                yield Change(where, f"is not answered {_signed_in(way)} any more")
        for way in are:
            if way not in was:
                yield Change(where, f"is answered {_signed_in(way)} now", breaks=False)

    def _parameters(self, where: str, old: list[Schema], new: list[Schema]) -> Iterator[Change]:
        was, are = self._named(self._old, old), self._named(self._new, new)
        for name in sorted(was.keys() - are.keys()):
            yield Change(where, f"{name} is gone")
        for name in sorted(are.keys() - was.keys()):
            needed = resolved(self._new, are[name]).get("required", False)
            yield Change(where, f"{name} is new{' and required' if needed else ''}", breaks=needed)
        for name in sorted(was.keys() & are.keys()):
            at = self._shared(f"{where}, {name}", was[name], are[name])
            if at is not None:
                yield from self._parameter(at, resolved(self._old, was[name]), resolved(self._new, are[name]))

    def _named(self, document: Schema, parameters: list[Schema]) -> dict[str, Schema]:
        """Parameters by place and name; the names of headers in small letters, as nobody tells them apart."""
        named = {}
        for parameter in parameters:
            whole = resolved(document, parameter)
            name = whole["name"].lower() if whole["in"] == "header" else whole["name"]
            named[f"{whole['in']} {name}"] = parameter
        return named

    def _parameter(self, where: str, old: Schema, new: Schema) -> Iterator[Change]:
        yield from _now_required(where, old, new)
        yield from self._shapes.compared(where, old.get("schema", {}), new.get("schema", {}), sent=True)
        yield from self._content(where, old, new, sent=True)

    def _body(self, where: str, old: Schema | None, new: Schema | None) -> Iterator[Change]:
        was, is_now = resolved(self._old, old or {}), resolved(self._new, new or {})
        if old is None and new is not None:
            needed = is_now.get("required", False)
            yield Change(where, f"a body is new{' and required' if needed else ''}", breaks=needed)
        elif old is not None and new is None:
            yield Change(where, "its body is gone")
        else:
            at = self._shared(f"{where}, body", old or {}, new or {})
            if at is not None:
                yield from _now_required(at, was, is_now)
                yield from self._content(at, was, is_now, sent=True)

    def _content(self, where: str, old: Schema, new: Schema, *, sent: bool) -> Iterator[Change]:
        was, is_now = old.get("content", {}), new.get("content", {})
        for media in sorted(was.keys() - is_now.keys()):
            yield Change(where, f"{media} is gone")
        for media in sorted(is_now.keys() - was.keys()):
            yield Change(where, f"{media} is new", breaks=False)
        for media in was:
            if media in is_now:
                pair = was[media].get("schema", {}), is_now[media].get("schema", {})
                yield from self._shapes.compared(f"{where} {media}", *pair, sent=sent)

    def _answers(self, where: str, old: Schema, new: Schema) -> Iterator[Change]:
        for status in sorted(old.keys() - new.keys()):
            yield Change(where, f"is not answered with {status} any more", breaks=status.startswith("2"))
        for status in sorted(new.keys() - old.keys()):
            yield Change(where, f"may be answered with {status} now", breaks=False)
        for status in old:
            if status in new:
                at = self._shared(f"{where}, {status}", old[status], new[status])
                if at is not None:
                    yield from self._answer(at, resolved(self._old, old[status]), resolved(self._new, new[status]))

    def _answer(self, where: str, old: Schema, new: Schema) -> Iterator[Change]:
        yield from self._content(where, old, new, sent=False)
        was, are = _headers(old), _headers(new)
        for name in sorted(was.keys() - are.keys()):
            yield Change(where, f"header {name} is gone")
        for name in sorted(are.keys() - was.keys()):
            yield Change(where, f"header {name} is new", breaks=False)
        for name in sorted(was.keys() & are.keys()):
            at = self._shared(f"{where}, header {name}", was[name], are[name])
            if at is not None:
                yield from self._header(at, resolved(self._old, was[name]), resolved(self._new, are[name]))

    def _header(self, where: str, old: Schema, new: Schema) -> Iterator[Change]:
        was, is_now = old.get("required", False), new.get("required", False)
        if was != is_now:
            yield Change(where, "may be missing now" if was else "is always there now", breaks=was)
        yield from self._shapes.compared(where, old.get("schema", {}), new.get("schema", {}), sent=False)

    def _codes(self) -> Iterator[Change]:
        old, new = self._old.get("x-failure-codes", {}), self._new.get("x-failure-codes", {})
        for code in sorted(new.keys() - old.keys()):
            yield Change("x-failure-codes", f"{code} is new", breaks=False)
        for code, status in old.items():
            if new.get(code) != status:
                other = f"was answered with {status} and is with {new[code]}" if code in new else "is gone"
                yield Change("x-failure-codes", f"{code} {other}")

    def _sign_in(self) -> Iterator[Change]:
        old, new = (one.get("components", {}).get("securitySchemes", {}) for one in (self._old, self._new))
        for name in sorted(old.keys() & new.keys()):
            if any(old[name].get(key) != new[name].get(key) for key in SIGN_IN):
                yield Change(f"securitySchemes/{name}", "is another way to sign in now")


def _operations(document: Schema) -> dict[str, Schema]:
    """Every operation by method and path, with the parameters of its path."""
    found = {}
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                around = [*item.get("parameters", []), *item[method].get("parameters", [])]
                found[f"{method.upper()} {path}"] = {**item[method], "parameters": around}
    return found


def _ways_in(security: list[dict[str, Any]] | None) -> list[frozenset[str]]:
    """The schemes a client must satisfy, by alternative; an empty one where nobody has to sign in."""
    return [frozenset(way) for way in security or [{}]]


def _signed_in(way: frozenset[str]) -> str:
    return f"with {' and '.join(sorted(way))}" if way else "without signing in"


def _headers(answer: Schema) -> dict[str, Schema]:
    return {name.lower(): header for name, header in answer.get("headers", {}).items()}


def _now_required(where: str, old: Schema, new: Schema) -> Iterator[Change]:
    was, is_now = old.get("required", False), new.get("required", False)
    if was != is_now:
        yield Change(where, "is required now" if is_now else "may be left out now", breaks=is_now)


def accepted(released: Path) -> dict[str, str]:
    """The breaks that are meant, with their reasons.

    Raises:
        ValueError: an entry without its change or its reason, or a change that is there twice.
    """
    entries: dict[str, str] = {}
    for entry in yaml.safe_load((released / ACCEPTED).read_text()) or []:
        if not isinstance(entry, dict) or set(entry) != {"change", "reason"} or not all(map(_said, entry.values())):
            raise ValueError(f"{ACCEPTED}: an entry is a change and a reason, in words: {entry}")
        if entry["change"] in entries:
            raise ValueError(f"{ACCEPTED}: twice: {entry['change']}")
        entries[entry["change"]] = entry["reason"]
    return entries


def _said(words: object) -> bool:
    return isinstance(words, str) and bool(words.strip())


def complaints(found: list[Change], meant: dict[str, str]) -> list[str]:
    """The breaks that nobody has accepted, and the accepted ones that are none."""
    breaks = [str(change) for change in found if change.breaks]
    broken = [f"breaks clients: {words}" for words in breaks if words not in meant]
    return [*broken, *(f"{ACCEPTED}: breaks nothing: {words}" for words in meant if words not in breaks)]


def main(arguments: list[str], contracts: Path = CONTRACTS) -> int:
    """The exit status: 1 when something breaks or is accepted for nothing, 2 for wrong arguments."""
    if arguments not in ([], ["--all"]):
        print("usage: python -m spec.breaking [--all]", file=sys.stderr)
        return 2
    released = contracts / RELEASED
    found = changes(load(released), load(contracts))
    try:
        wrong = complaints(found, accepted(released))
    except ValueError as error:
        wrong = [str(error)]
    if arguments:
        for change in found:
            if not change.breaks:
                print(f"breaks nobody: {change}")
    for words in wrong:
        print(words, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
