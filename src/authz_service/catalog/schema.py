"""The format of catalog files as a JSON Schema, for editors: what the table of keys says, and nothing else.

A file that the schema refuses is refused by the loader too; the loader finds much that no schema can.
"""

from __future__ import annotations

import re
from typing import Any, Final

from authz_service.catalog import format as table
from authz_service.catalog.shapes import Choice, Either, Fields, Flag, Keyed, Many, Nothing, Plain, Shape, Text, Whole

DRAFT: Final = "http://json-schema.org/draft-07/schema#"
"""What editors understand best."""
_DEFINITIONS: Final = "definitions"
_SEVERAL_LINES: Final = {"type": "string", "pattern": "\\n", "description": "one value a line"}


def json_schema() -> dict[str, Any]:
    """The whole schema as plain values; the same table gives the same schema."""
    writer = _Writer()
    top = writer.write(table.CATALOG)
    return {
        "$schema": DRAFT,
        "title": "A catalog",
        "description": "What an API has: its permissions, where each exists, and which operation needs which.",
        **top,
        _DEFINITIONS: dict(sorted(writer.definitions.items())),
    }


class _Writer:
    """Writes shapes; those that the table has a name for become definitions."""

    def __init__(self) -> None:
        named = {
            name: shape for name, shape in vars(table).items() if isinstance(shape, Either | Keyed | Fields | Many)
        }
        del named["CATALOG"]
        self._names = {id(shape): name.lower() for name, shape in named.items()}
        self.definitions: dict[str, Any] = {}

    def refer(self, shape: Shape) -> dict[str, Any]:
        """The shape, by reference where it has a name."""
        name = self._names.get(id(shape))
        if name is None:
            return self.write(shape)
        if name not in self.definitions:
            self.definitions[name] = {}  # keeps its place while what is inside is written
            self.definitions[name] = self.write(shape)
        return {"$ref": f"#/{_DEFINITIONS}/{name}"}

    def write(self, shape: Shape) -> dict[str, Any]:
        match shape:
            case Text():
                return _text(shape)
            case Choice():
                return {"enum": list(shape.words)}
            case Flag():
                return {"type": "boolean"}
            case Whole():
                return {"type": "integer", "minimum": shape.least, "maximum": shape.most}
            case Plain():
                return {"type": ["string", "integer", "boolean"]}
            case Nothing():
                return {"type": "null"}
            case Many():
                item = self.refer(shape.item)
                # A mapping stands in a list even where it is the only one.
                alone = (
                    item if isinstance(shape.item, Text | Choice) else {"allOf": [item, {"not": {"type": "object"}}]}
                )
                return {"anyOf": [alone, {"type": "array", "items": item, "maxItems": shape.longest}, _SEVERAL_LINES]}
            case Keyed():
                return {
                    "type": "object",
                    "propertyNames": {key: value for key, value in _text(shape.key).items() if key != "type"},
                    "additionalProperties": self.refer(shape.value),
                    "maxProperties": shape.longest,
                }
            case Fields():
                return self._fields(shape)
            case Either():
                return {"anyOf": [self.refer(each) for each in shape.shapes]}
        raise AssertionError("every shape is one of these")

    def _fields(self, shape: Fields) -> dict[str, Any]:
        needed = [key.name for key in shape.keys if key.required]
        return {
            "type": "object",
            "properties": {key.name: {"description": key.note, **self._inside(key.shape)} for key in shape.keys},
            **({"required": needed} if needed else {}),
            "additionalProperties": False,
        }

    def _inside(self, shape: Shape) -> dict[str, Any]:
        """Draft 7 ignores what stands beside a reference, so that a described one is wrapped."""
        written = self.refer(shape)
        return {"allOf": [written]} if "$ref" in written else written


def _text(shape: Text) -> dict[str, Any]:
    return {
        "type": "string",
        "description": shape.what,
        "maxLength": shape.longest,
        **({"minLength": 1} if shape.pattern is None else {"pattern": _whole(shape.pattern)}),
    }


def _whole(pattern: re.Pattern[str]) -> str:
    return f"^(?:{pattern.pattern})$"
