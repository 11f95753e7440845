"""What docs/operations/sizing.md promises of the chart's defaults, reckoned from what was measured."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.support.chart import MANAGED, ROOT, default_values, merged, render_text

from authz_service.config import Settings

PAGE = (ROOT / "docs" / "operations" / "sizing.md").read_text()
MIB = 1 << 20


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sizing", ROOT / "tools" / "sizing.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_says_what_was_measured():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "sizing.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_worker_with_all_the_tokens_it_may_keep_fits_into_the_chart_s_limit(tool):
    scale = tool.load("scale")
    fresh = max(step["fresh_mib"] for step in scale["steps"])
    full = fresh * MIB + Settings().cache_tokens * tool.bytes_of_a_token(scale)
    limit = int(default_values()["resources"]["limits"]["memory"].removesuffix("Mi")) * MIB
    assert default_values()["settings"]["AUTHZ_WORKERS"] == 1
    assert full <= limit
    assert "cpu" not in default_values()["resources"]["limits"], "it would stall the proof of freshness"


def test_the_sum_of_connections_is_the_chart_s(tool):
    settings = Settings(database_url="postgresql://x/y")
    assert settings.connections == settings.pool_size + 2 == 12
    replicas = default_values()["replicas"]
    together = (replicas + 1) * settings.connections
    assert f"For three replicas that is {together}." in PAGE
    notes = render_text(merged(MANAGED))["NOTES.txt"]
    assert re.search(rf"\b{together} connections", notes)


def test_every_setting_that_the_operations_pages_name_exists():
    known = {f"AUTHZ_{name.upper()}" for name in Settings.model_fields} | {"AUTHZ_TOKEN", "AUTHZ_URL"}
    for name in ("deploying", "sizing", "observing"):
        text = (ROOT / "docs" / "operations" / f"{name}.md").read_text()
        for setting in re.findall(r"\bAUTHZ_[A-Z_]*[A-Z]\b", text):
            assert setting in known, f"{name}.md names {setting}"


def test_every_file_that_the_operations_pages_link_to_exists():
    for name in ("deploying", "sizing", "observing"):
        page = ROOT / "docs" / "operations" / f"{name}.md"
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{name}.md links to {link}"


def test_every_value_that_the_operations_pages_name_is_one_of_the_chart():
    for name in ("deploying", "sizing", "observing"):
        text = (ROOT / "docs" / "operations" / f"{name}.md").read_text()
        tops = "|".join(key for key, value in default_values().items() if isinstance(value, dict))
        for path in re.findall(rf"`((?:{tops})(?:\.[A-Za-z]+)+)`", text):
            found = default_values()
            for step in path.split("."):
                assert step in found, f"{name}.md names the value {path}"
                found = found[step]


def test_every_test_that_the_operations_pages_name_exists():
    for name in ("deploying", "sizing", "observing"):
        text = (ROOT / "docs" / "operations" / f"{name}.md").read_text()
        named = re.findall(r"`(tests/[\w/.]+\.py)`", text)
        assert named
        assert all(Path(ROOT / file).is_file() for file in named), named
