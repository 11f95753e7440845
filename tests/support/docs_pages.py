"""Pages of the documentation as what can be run and checked: their blocks of code, and the marks before them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
MARKS = ("not run", "run", "file", "is", "exits", "answers", "keep", "service")
FIRST = ("README.md", "docs/tutorial.md", "docs/your-own-api.md", "docs/moving-from-coarse-tokens.md", "docs/client.md")
_COMMENT = re.compile(r"<!--\s*(.*?)\s*-->", re.DOTALL)
_MARK = re.compile(rf"({'|'.join(MARKS)}):\s*(.*)", re.DOTALL)
_SAVE = re.compile(r"[Ss]ave (?:this|it) as `([^`]+)`[:.]$")


@dataclass(frozen=True)
class Block:
    """One block of code; `line` is where it begins, from 1 on.

    What nobody sees, commands and settings, has the language `run` or `service`.
    """

    page: str
    line: int
    language: str
    text: str
    marks: Mapping[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def why_not_run(self) -> str | None:
        return self.marks.get("not run")


@cache
def pages() -> tuple[str, ...]:
    """All of them, by their paths in the repository."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return tuple(str(page.relative_to(ROOT)) for page in found)


@cache
def blocks(page: str) -> tuple[Block, ...]:
    return tuple(read_blocks(page, (ROOT / page).read_text(encoding="utf-8")))


def read_blocks(page: str, text: str) -> Iterator[Block]:
    """In their order, those in lists and quotations too."""
    lines = text.splitlines()
    marks: dict[str, str] = {}
    for token in MarkdownIt("commonmark").parse(text):
        begins = token.map[0] if token.map else 0
        if token.type == "html_block":
            for said in _COMMENT.findall(token.content):
                mark = _MARK.fullmatch(said)
                if mark is None:
                    continue
                if mark[1] in ("run", "service"):
                    yield Block(page, begins + 1, mark[1], mark[2] + "\n")
                else:
                    marks[mark[1]] = " ".join(mark[2].split())
        elif token.type in ("fence", "code_block"):
            saved = _SAVE.search("\n".join(lines[:begins]).rstrip())
            if saved:
                marks.setdefault("file", saved[1])
            language = token.info.split()[0] if token.info.strip() else ""
            yield Block(page, begins + 1, language, token.content, marks)
            marks = {}
        elif token.type.endswith("_open") and token.type not in ("list_item_open", "bullet_list_open"):
            if marks:
                yield Block(page, begins + 1, "", "", {"stray": ", ".join(marks)})
            marks = {}


def _guides() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The other pages right below docs/, in two halves for two workers."""
    found = [page for page in pages() if page.count("/") == 1 and page not in FIRST]
    return tuple(found[::2]), tuple(found[1::2])


GUIDES = _guides()
FOLDERS = tuple(page for page in pages() if page.count("/") > 1)
