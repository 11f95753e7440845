"""The site of the documentation: it builds without one warning, and loads nothing from anywhere else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.docs_pages import ROOT

_LOADED = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=\"([^\"]+)\"[^>]*>")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-W",
            "--keep-going",
            "-q",
            "-d",
            folder / "doctrees",
            "docs",
            folder / "html",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_no_page_loads_anything_from_another_host(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        for found in _LOADED.finditer(page.read_text(encoding="utf-8")):
            if 'rel="canonical"' not in found[0]:
                assert not re.match(r"(?:[a-z]+:)?//", found[1]), f"{page.name} loads {found[1]}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//", style.read_text(encoding="utf-8")), style.name


def test_the_navigation_has_every_page_of_the_folder(site):
    shown = (site / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix(".html")
        assert name.name == "index.html" or f'href="{name}"' in shown, name


def test_the_search_of_the_site_knows_its_pages_and_needs_no_server(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert "Approvals, step by step" in index
    assert "From an empty machine to a protected API" in index
