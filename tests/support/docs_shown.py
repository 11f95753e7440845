"""Whether something printed or answered is what a page shows, where `…` stands for whatever it leaves out."""

from __future__ import annotations

import json
import re
from typing import Any

ANYTHING = "…"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def same_text(printed: str, shown: str) -> bool:
    """`…` is anything, in one line or several; runs of spaces are one, and empty lines are none."""

    def plain(text: str) -> str:
        return "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())

    pattern = ".*".join(re.escape(part) for part in plain(shown).split(ANYTHING))
    return re.fullmatch(pattern, plain(printed), re.DOTALL) is not None


def read_loose(text: str) -> Any:
    """JSON in which `…` may stand for a value, for further members, and for further elements. Raises ValueError."""
    written: list[str] = []
    inside: list[str] = []
    wants_key = False
    position = 0
    while position < len(text):
        char = text[position]
        if char == '"':
            end = _end_of_string(text, position)
            written.append(text[position:end])
            position = end
            continue
        if char == ANYTHING:
            char = f'"{ANYTHING}": null' if wants_key else f'"{ANYTHING}"'
        elif char in "{[":
            inside.append(char)
        elif char in "}]" and inside:
            inside.pop()
        if char in "{,:[":
            wants_key = char in "{," and inside[-1:] == ["{"]
        written.append(char)
        position += 1
    return json.loads("".join(written))


def _end_of_string(text: str, begins: int) -> int:
    position = begins + 1
    while position < len(text) and text[position] != '"':
        position += 2 if text[position] == "\\" else 1
    return position + 1


def differences(real: Any, shown: Any, at: str = "$") -> list[str]:
    """Where they differ; nothing where they do not. Two moments are equal, whenever they are."""
    match shown:
        case str() if shown == ANYTHING:
            return []
        case str() if isinstance(real, str):
            if same_text(real, shown) or (_TIME.fullmatch(real) and _TIME.fullmatch(shown)):
                return []
        case dict() if isinstance(real, dict):
            return _between_objects(real, shown, at)
        case list() if isinstance(real, list):
            return _between_lists(real, shown, at)
        case _ if type(real) is type(shown) and real == shown:
            return []
    return [
        f"{at} is {json.dumps(real, ensure_ascii=False)}, and the page says {json.dumps(shown, ensure_ascii=False)}"
    ]


def _between_objects(real: dict[str, Any], shown: dict[str, Any], at: str) -> list[str]:
    named = [name for name in shown if name != ANYTHING]
    found = [f"{at} has no `{name}`" for name in named if name not in real]
    if ANYTHING not in shown:
        found += [f"{at} has `{name}`, which the page leaves out without `…`" for name in real if name not in shown]
    for name in named:
        if name in real:
            found += differences(real[name], shown[name], f"{at}.{name}")
    return found


def _between_lists(real: list[Any], shown: list[Any], at: str) -> list[str]:
    if ANYTHING not in shown:
        if len(real) != len(shown):
            return [f"{at} has {len(real)} elements, and the page shows {len(shown)}"]
        pairs = list(zip(real, shown, strict=True))
    else:
        gap = shown.index(ANYTHING)
        after = shown[gap + 1 :]
        if len(real) < gap + len(after):
            return [f"{at} has {len(real)} elements only"]
        pairs = list(zip(real[:gap], shown[:gap], strict=True))
        pairs += zip(real[len(real) - len(after) :], after, strict=True)
    return [said for number, pair in enumerate(pairs) for said in differences(*pair, f"{at}[{number}]")]
