"""The page of the HTTP surface, from the published OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reference_tables import NOTE, table

DOCUMENT = Path(__file__).resolve().parents[1] / "openapi" / "openapi.json"
FAILED = "4"
"""What the statuses begin with that every operation may answer alike."""


def api_page() -> str:
    """Every operation by its tag, then every shape that one takes or gives."""
    document = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    tags: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            said = list(_operation(f"{method.upper()} {path}", operation))
            tags.setdefault(next(iter(operation.get("tags", [])), "other"), []).append("\n\n".join(said))
    parts = [
        "# The HTTP surface",
        NOTE,
        (
            "From [the published document](../../openapi/openapi.json). Callers show their"
            " token as `Authorization: Bearer …`. A refusal is `application/problem+json` with a stable `code`; a"
            " question"
            " that is denied is a 200."
        ),
    ]
    for tag, operations in sorted(tags.items()):
        parts += [f"## {tag.capitalize()}", *operations]
    parts.append("## Shapes")
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts += list(_shape(name, schema))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _operation(title: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"### `{title}`"
    yield f"{operation.get('summary', '')}. {operation.get('description', '')}".strip()
    fields = [
        (f"`{one['name']}`", one["in"], _kind(one["schema"]), one.get("description", ""))
        for one in operation.get("parameters", [])
    ]
    bodies = operation.get("requestBody", {}).get("content", {})
    fields += [("body", kind, _kind(one.get("schema", {})), "") for kind, one in bodies.items()]
    if fields:
        yield table(("takes", "in", "kind", "what it says"), fields)
    good = [f"{status}{_given(answer)}" for status, answer in sorted(operation["responses"].items()) if status < FAILED]
    other = [status for status in sorted(operation["responses"]) if status >= FAILED]
    yield "Answers " + ", ".join(good) + (f"; refusals {', '.join(other)}." if other else ".")


def _given(answer: Mapping[str, Any]) -> str:
    kinds = [_kind(one["schema"]) for one in answer.get("content", {}).values() if "schema" in one]
    return f" ({', '.join(dict.fromkeys(kinds))})" if kinds else ""


def _shape(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {name}"
    if schema.get("description"):
        yield str(schema["description"])
    if "enum" in schema:
        yield "One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + "."
    required = set(schema.get("required", ()))
    fields = [
        (f"`{field}`", _kind(one), "" if field in required else "may be left out", one.get("description", ""))
        for field, one in schema.get("properties", {}).items()
    ]
    if fields:
        yield table(("member", "kind", "", "what it says"), fields)


def _kind(schema: Mapping[str, Any]) -> str:
    """In a word; a shape by its name."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_kind(one) for one in schema[several]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type") or "anything")
