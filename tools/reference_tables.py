"""Tables and pages of docs/reference/, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

NOTE = "<!-- written by tools/reference.py; `make reference` writes it anew -->"


def page(title: str, intro: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"# {title}\n\n{NOTE}\n\n{intro}\n\n{table(headers, rows)}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
