"""What the reference says of the contract: its operations by tag, its schemas and failures, made ready to be shown.

Types and limits are written in signs that need no translation (``string[]``, ``integer | null``, ``1 … 5``); the words
of the contract stay as they are.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from photochanger.failures import BY_CODE
from web.api import contract as contracts
from web.api import curl
from web.api.contract import Contract, Node
from web.pages import markdown

#: Bounds by kind: lower, upper.
_BOUNDS = {
    "range": ("minimum", "maximum"),
    "length": ("minLength", "maxLength"),
    "items": ("minItems", "maxItems"),
    "fields": ("minProperties", "maxProperties"),
}
_SIGNS = {"anyOf": Markup(" | "), "oneOf": Markup(" | "), "allOf": Markup(" &amp; ")}


@dataclass(frozen=True)
class Shape:
    """A schema: ``type`` in signs, with links to named schemas; ``limits`` by kind (``default``, ``length``, …);
    ``fields`` of an object that has no name of its own."""

    type: Markup
    limits: list[tuple[str, str]]
    fields: list[Field]
    forms: list[Markup]
    description: Markup


@dataclass(frozen=True)
class Field:
    """A named part: of a request (``place``: path, query, header, cookie), of an object, of an answer's headers."""

    name: str
    required: bool
    shape: Shape
    description: Markup
    place: str = ""


@dataclass(frozen=True)
class Media:
    type: str
    shape: Shape


@dataclass(frozen=True)
class Header:
    """A header of an operation's answers. ``statuses`` is empty where all have it; ``component`` names its shared
    description, else ``field`` is its own."""

    name: str
    component: str
    field: Field | None
    statuses: list[str]


@dataclass(frozen=True)
class Answer:
    status: str
    description: Markup
    codes: list[str]
    content: list[Media]


@dataclass(frozen=True)
class Example:
    """``of``: the status or media type it belongs to; ``name`` where there are several."""

    of: str
    name: str
    text: str


@dataclass(frozen=True)
class Operation:
    id: str
    method: str
    path: str
    summary: Markup
    description: Markup
    permission: str
    sign_in: list[str]
    parameters: list[Field]
    body: Answer | None
    body_required: bool
    answers: list[Answer]
    headers: list[Header]
    sent: list[Example]
    answered: list[Example]
    node: Node = field(repr=False)


@dataclass(frozen=True)
class Tag:
    name: str
    description: Markup
    operations: list[Operation]


@dataclass(frozen=True)
class Code:
    code: str
    status: int
    meaning: str
    retryable: bool


class Description:
    """Everything the page shows of a contract."""

    def __init__(self, contract: Contract) -> None:
        self._its = contract
        info = contract.document["info"]
        self.title: str = info["title"]
        self.version: str = info["version"]
        self.about = markdown.blocks(info.get("description", ""))
        self.tags = self._tags()
        self.codes = [_code(*one) for one in contract.document.get("x-failure-codes", {}).items()]
        self.schemas = [self._named(name, node) for name, node in contract.components("schemas").items()]
        self.headers = [self._field(name, node) for name, node in contract.components("headers").items()]

        #: The headers a shared description is used for, by its name.
        self.called = {
            one.name: sorted(
                {h.name for tag in self.tags for op in tag.operations for h in op.headers if h.component == one.name}
            )
            for one in self.headers
        }

    def curl(self, operation: Operation, address: str) -> str:
        """The command that asks a server at ``address``."""
        return curl.line(address, operation.method, operation.path, operation.node, self._its)

    def _tags(self) -> list[Tag]:
        """In the contract's order; an operation is shown under its first tag."""
        said = {tag["name"]: tag.get("description", "") for tag in self._its.document.get("tags", [])}
        tags = {name: Tag(name, markdown.blocks(words), []) for name, words in said.items()}
        for method, path, node in self._its.operations():
            name = next(iter(node.get("tags", [])), "")
            tag = tags.setdefault(name, Tag(name, Markup(), []))
            tag.operations.append(self._operation(method, path, node))
        return [tag for tag in tags.values() if tag.operations]

    def _operation(self, method: str, path: str, node: Node) -> Operation:
        body = self._its.resolved(node.get("requestBody", {}))
        return Operation(
            id=node["operationId"],
            method=method,
            path=path,
            summary=markdown.inline(node.get("summary", "")),
            description=markdown.blocks(node.get("description", "")),
            permission=str(node.get("x-permission", "")),
            sign_in=[" + ".join(way) for way in self._its.sign_in(node)],
            parameters=[self._field(one["name"], one, place=one["in"]) for one in node["parameters"]],
            body=self._answer("", body) if body else None,
            body_required=body.get("required", False),
            answers=[self._answer(status, answer) for status, answer in node["responses"].items()],
            headers=self._headers(node["responses"]),
            sent=[one for media, inner in body.get("content", {}).items() for one in self._examples(media, inner)],
            answered=[one for status, answer in node["responses"].items() for one in self._of_answer(status, answer)],
            node=node,
        )

    def _answer(self, status: str, node: Node) -> Answer:
        whole = self._its.resolved(node)
        content = [Media(name, self._shape(one.get("schema", {}))) for name, one in whole.get("content", {}).items()]
        return Answer(status, markdown.blocks(whole.get("description", "")), whole.get("x-codes", []), content)

    def _of_answer(self, status: str, node: Node) -> list[Example]:
        content = self._its.resolved(node).get("content", {})
        return [example for media in content.values() for example in self._examples(status, media)]

    def _examples(self, of: str, media: Node) -> list[Example]:
        found = [Example(of, "", _pretty(media["example"]))] if "example" in media else []
        for name, node in media.get("examples", {}).items():
            found.append(Example(of, name, _pretty(self._its.resolved(node).get("value"))))
        return found

    def _headers(self, responses: Node) -> list[Header]:
        """Each header once, with the statuses that have it."""
        found: dict[tuple[str, str], tuple[Node, list[str]]] = {}
        for status, answer in responses.items():
            for name, node in self._its.resolved(answer).get("headers", {}).items():
                key = name, node.get("$ref", "") or json.dumps(node, sort_keys=True)
                found.setdefault(key, (node, []))[1].append(status)
        return [self._header(name, node, statuses, len(responses)) for (name, _), (node, statuses) in found.items()]

    def _header(self, name: str, node: Node, statuses: list[str], answers: int) -> Header:
        component = node.get("$ref", "").rpartition("/")[2]
        own = None if component else self._field(name, node)
        return Header(name, component, own, [] if len(statuses) == answers else statuses)

    def _named(self, name: str, node: Node) -> Field:
        shape = self._shape(node)
        return Field(name, False, shape, shape.description)

    def _field(self, name: str, node: Node, *, place: str = "", required: bool | None = None) -> Field:
        """A parameter, header or property; a property's schema is the node itself."""
        inner = node.get("schema", node)
        shape = self._shape(inner if inner is node else {**inner, **_own_example(node)})
        words = markdown.blocks(node["description"]) if "description" in node else shape.description
        needed = bool(node.get("required", False)) if required is None else required
        return Field(name, needed, shape, words, place)

    def _shape(self, node: Node) -> Shape:
        at = node.get("items", node) if "$ref" not in node else {}
        at = next((one for one in at.get("anyOf", []) if one.get("type") != "null"), at) if "$ref" not in at else {}
        inner = at if "properties" in at or "oneOf" in at else {}
        required = set(inner.get("required", []))
        fields = [
            self._field(name, one, required=name in required) for name, one in inner.get("properties", {}).items()
        ]
        forms = [markdown.inline(" + ".join(f"`{name}`" for name in one["required"])) for one in _only_required(inner)]
        return Shape(_type(node), _limits(node), fields, forms, markdown.blocks(node.get("description", "")))


def _own_example(node: Node) -> Node:
    """The example that a parameter or header gives beside its schema, as its schema would give it."""
    named = [one.get("value") for one in node.get("examples", {}).values()]
    given = [node["example"]] if "example" in node else named
    return {"examples": given} if given else {}


def _only_required(node: Node) -> list[Node]:
    """Alternatives that differ in nothing but which fields are there."""
    found: list[Node] = [one for one in node.get("oneOf", []) if set(one) == {"required"}]
    return found


def _type(node: Node) -> Markup:
    """The type in signs: ``integer | null``, ``string[]``; named schemas are links to their anchors."""
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return Markup('<a href="#schema-{0}">{0}</a>').format(name)
    for key, sign in _SIGNS.items():
        if key in node and "properties" not in node:
            return sign.join(dict.fromkeys(_type(one) for one in node[key]))
    kind = node.get("type", _told(node))
    if kind == "array":
        inner = _type(node.get("items", {}))
        return Markup("({})[]").format(inner) if " | " in inner else Markup("{}[]").format(inner)
    if kind == "object" and isinstance(node.get("additionalProperties"), dict) and "properties" not in node:
        return Markup("{{*: {}}}").format(_type(node["additionalProperties"]))
    kinds = kind if isinstance(kind, list) else [kind]
    form = f" ({node['format']})" if "format" in node else ""
    return Markup("{}{}").format(" | ".join(kinds), form)


def _told(node: Node) -> str:
    """The type that a schema does not say, by what it does."""
    sample = node["const"] if "const" in node else next(iter(node.get("enum", [])), None)
    if isinstance(sample, str):
        return "string"
    return "object" if "properties" in node else "any"


def _limits(node: Node) -> list[tuple[str, str]]:
    """What bounds a value, by kind; of the branch beside null where there is one."""
    branches = [one for one in node.get("anyOf", []) if one.get("type") != "null"]
    at = {**branches[0], **node} if len(branches) == 1 and "$ref" not in branches[0] else node
    found = [(kind, _between(at, *keys)) for kind, keys in _BOUNDS.items()]
    if "const" in at or "enum" in at:
        found.append(("values", "  ".join(_json(one) for one in at.get("enum", [at.get("const")]))))
    if "pattern" in at:
        found.append(("pattern", at["pattern"]))
    if node.get("default") is not None:
        found.append(("default", _json(node["default"])))
    if at.get("additionalProperties") is False:
        found.append(("closed", ""))
    given = [node["example"]] if "example" in node else node.get("examples", [])
    found += [("example", one if isinstance(one, str) else _json(one)) for one in given]
    return [(kind, text) for kind, text in found if text or kind == "closed"]


def _between(node: Node, lower: str, upper: str) -> str:
    """
    >>> _between({"minimum": 1, "maximum": 5}, "minimum", "maximum")
    '1 … 5'
    """
    least, most = node.get(lower), node.get(upper)
    if least is not None and most is not None:
        return f"{least} … {most}"
    ends = [f"≥ {least}"] if least is not None else [f"≤ {most}"] if most is not None else []
    if lower == "minimum":
        ends = [*([f"> {node['exclusiveMinimum']}"] if "exclusiveMinimum" in node else []), *ends]
        ends += [f"< {node['exclusiveMaximum']}"] if "exclusiveMaximum" in node else []
    return ", ".join(ends)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _pretty(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def _code(code: str, status: int) -> Code:
    failure = BY_CODE[code]() if code in BY_CODE else None
    return Code(code, status, failure.title() if failure else "", failure.retryable if failure else False)


@functools.cache
def present() -> Description:
    """Of this version's contract, made once."""
    return Description(contracts.present())
