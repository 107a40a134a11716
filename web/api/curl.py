"""How an operation is asked by ``curl``: what a reader pastes into a shell, with words in capitals to be replaced."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from web.api.contract import Contract, Node

#: What stands for a value of a format.
_FORMATS = {
    "uuid": "7b0c3d1e-58f4-4a86-9e3b-0f3f3c1f8a11",
    "date-time": "2026-11-21T19:04:11Z",
    "date": "2026-11-21",
    "uri": "https://photos.example.com",
}
_PLAIN: dict[str, Any] = {"integer": 1, "number": 1, "boolean": True, "null": None}
#: Where an answer goes that no terminal can show.
FILES = {
    "image/jpeg": "picture.jpg",
    "image/png": "picture.png",
    "image/webp": "picture.webp",
    "application/zip": "pictures.zip",
}
_DEEPEST = 6


def example(node: Node, contract: Contract, name: str = "value", depth: int = 0) -> Any:
    """A value for a parameter, a media type or a schema: its own example where it has one, else one made up, with
    those fields only that are required."""
    node = contract.resolved(node)
    given = _given(node)
    if given:
        return given[0]
    if "schema" in node:
        return example(node["schema"], contract, name, depth)
    branch = next((node[key][0] for key in ("anyOf", "oneOf", "allOf") if node.get(key)), None)
    if branch is not None and "properties" not in node:
        return example(branch, contract, name, depth)
    if node.get("type") == "array":
        return [example(node.get("items", {}), contract, name, depth + 1)] * bool(node.get("minItems"))
    if node.get("type") == "object" or "properties" in node:
        fields = node.get("properties", {}) if depth < _DEEPEST else {}
        needed = [key for key in node.get("required", []) if key in fields]
        return {key: example(fields[key], contract, key, depth + 1) for key in needed}
    return _scalar(node, name)


def _given(node: Node) -> list[Any]:
    """What the contract itself gives as a value."""
    examples = node.get("examples", [])
    named = [one.get("value") for one in examples.values()] if isinstance(examples, dict) else examples
    own = [node[key] for key in ("example", "const") if key in node]
    default = [node["default"]] if node.get("default") is not None else []
    return [*own, *named, *default, *node.get("enum", [])]


def _scalar(node: Node, name: str) -> Any:
    kind = node.get("type", "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind in _PLAIN:
        return node.get("minimum", _PLAIN[kind])
    return _FORMATS.get(node.get("format", ""), re.sub(r"\W+", "_", name).upper())


def line(address: str, method: str, path: str, operation: Node, contract: Contract) -> str:
    """The command, an option a line, with the parameters that are required and those of which there is one example.
    ``operation``: as ``contract.operations()`` gives it."""
    needed = [one for one in operation["parameters"] if one.get("required") or "example" in one]
    values = {(one["in"], one["name"]): str(example(one, contract, one["name"])) for one in needed}
    for (place, name), value in values.items():
        if place == "path":
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
    query = "&".join(f"{name}={quote(value)}" for (place, name), value in values.items() if place == "query")
    target = shlex.quote(f"{address}{path}{'?' if query else ''}{query}")
    verb = {"GET": "", "HEAD": "--head "}.get(method, f"-X {method} ")
    options = [_option("-H", f"{name}: {value}") for (place, name), value in values.items() if place == "header"]
    options += [*_sign_in(operation, contract), *_body(operation, contract), *_output(operation, contract)]
    return " \\\n  ".join([f"curl {verb}{target}", *options])


def _option(name: str, value: str) -> str:
    return f"{name} {shlex.quote(value)}"


def _sign_in(operation: Node, contract: Contract) -> Iterator[str]:
    """The first way to sign in."""
    for name in next(iter(contract.sign_in(operation)), []):
        scheme = contract.components("securitySchemes").get(name, {})
        if scheme.get("type") == "http":
            yield (
                _option("-u", "NAME:PASSWORD")
                if scheme.get("scheme") == "basic"
                else _option("-H", "Authorization: Bearer TOKEN")
            )
        elif scheme.get("in") == "cookie":
            yield _option("-b", f"{scheme['name']}=SESSION")
        elif scheme.get("in") == "header":
            yield _option("-H", f"{scheme['name']}: KEY")


def _body(operation: Node, contract: Contract) -> Iterator[str]:
    """The first media type of the request's body."""
    content = contract.resolved(operation.get("requestBody", {})).get("content", {})
    for media, node in list(content.items())[:1]:
        if media.startswith("multipart/"):
            yield from _form(node, contract)
        elif "json" in media:
            yield _option("-H", f"Content-Type: {media}")
            yield _option("-d", json.dumps(example(node, contract), ensure_ascii=False))
        else:
            yield _option("-H", f"Content-Type: {media}")
            yield _option("--data-binary", "@FILE")


def _form(node: Node, contract: Contract) -> Iterator[str]:
    """The fields that are required, and the first of those one of which is."""
    schema = contract.resolved(node.get("schema", {}))
    forms: list[Node] = schema.get("oneOf", [])
    needed = [name for node in [schema, *forms[:1]] for name in node.get("required", [])]
    for name, field in schema.get("properties", {}).items():
        if name in needed:
            value = "@photo.jpg" if field.get("format") == "binary" else example(field, contract, name)
            yield _option("-F", f"{name}={value}")


def _output(operation: Node, contract: Contract) -> Iterator[str]:
    """A file for what no terminal can show."""
    for status, answer in operation["responses"].items():
        content = contract.resolved(answer).get("content", {})
        if status.startswith("2") and content:
            first = next(iter(content))
            if first in FILES:
                yield _option("-o", FILES[first])
            return
