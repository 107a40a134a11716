"""The contract as the server has it: the JSON that ``python -m spec.drift --write`` makes of ``openapi.yaml``."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from typing import Any

import orjson

from web.pages import WEB

FILE = WEB / "static" / "openapi.json"
METHODS = ("get", "head", "post", "put", "patch", "delete")

Node = dict[str, Any]


class Contract:
    """One OpenAPI 3.1 document. ``data``: its bytes as they are served."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.etag = hashlib.sha256(data).hexdigest()
        self.document: Node = orjson.loads(data)

    def resolved(self, node: Node) -> Node:
        """``node``, or what its ``$ref`` points at, with the members beside the reference."""
        while "$ref" in node:
            found: Any = self.document
            for part in node["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            node = {**found, **{key: value for key, value in node.items() if key != "$ref"}}
        return node

    def components(self, kind: str) -> dict[str, Node]:
        """Named parts: ``schemas``, ``headers``, ``securitySchemes`` …"""
        found: dict[str, Node] = self.document.get("components", {}).get(kind, {})
        return found

    def operations(self) -> Iterator[tuple[str, str, Node]]:
        """Method, path and description of every operation, its parameters resolved and those of its path among them."""
        for path, item in self.document["paths"].items():
            for method in METHODS:
                if method in item:
                    around = [*item.get("parameters", []), *item[method].get("parameters", [])]
                    yield method.upper(), path, {**item[method], "parameters": [self.resolved(one) for one in around]}

    def sign_in(self, operation: Node) -> list[list[str]]:
        """The ways to sign in: the schemes to be satisfied together, by alternative. Empty: nobody has to."""
        ways: list[Node] = operation["security"] if "security" in operation else self.document.get("security", [])
        return [sorted(way) for way in ways if way]


@functools.cache
def present() -> Contract:
    """The contract of this version, read once.

    Raises:
        OSError: it was never written.
    """
    return Contract(FILE.read_bytes())
