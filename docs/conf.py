"""How Sphinx makes the site of these pages: strictly, from Markdown alone, with nothing fetched from other hosts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from authz_service import __version__

project = "authz-service"
release = version = __version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
language = "en"
nitpicky = True

myst_heading_anchors = 4  # links such as `tokens.md#bring-your-own` lead where they do in the repository
suppress_warnings = ["misc.highlighting_failure"]  # `…` and `$NAME` in shown JSON are no JSON

html_theme = "furo"
html_title = "authz-service"
html_copy_source = False
html_show_copyright = False

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(((?:\.\./)+[^)#\s]+)(#[^)\s]*)?\)")
_LISTED = re.compile(r"^- \[[^\]]*\]\(([\w/.-]+)\.md\)", re.MULTILINE)


def read_source(_: Any, docname: str, source: list[str]) -> None:
    """What the site needs and the pages, which are read in the repository too, should not say."""
    source[0] = _LINK.sub(lambda found: _name_outside(docname, found), source[0])
    if docname == root_doc:
        source[0] += _navigation(source[0])


def _name_outside(docname: str, found: re.Match[str]) -> str:
    """Files that lie outside of the site are named there and not linked; one that does not exist fails the build."""
    target = (DOCS / docname).parent.joinpath(found[2]).resolve()
    if target.is_relative_to(DOCS):
        return found[0]
    if not target.exists():
        raise ValueError(f"{docname}: `{found[2]}` leads nowhere")
    path = target.relative_to(ROOT)
    return found[1] if path.name in found[1] else f"{found[1]} (`{path}`)"


def _navigation(text: str) -> str:
    """The first page's own lists, section by section, and whole folders; a page in neither is an error of the build."""
    parts = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, listed = section.partition("\n")
        parts.append((title, _LISTED.findall(listed)))
    listed = {page for _, pages in parts for page in pages}
    for folder in ("operations", "decisions"):
        pages = sorted(f"{folder}/{page.stem}" for page in (DOCS / folder).glob("*.md"))
        parts.append((folder.capitalize(), [page for page in pages if page not in listed]))
    fence = "```"
    return "".join(
        f"\n{fence}{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(pages) + f"\n{fence}\n"
        for title, pages in parts
        if pages
    )


def setup(app: Any) -> None:
    app.connect("source-read", read_source)
