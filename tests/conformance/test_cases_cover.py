"""The cases leave nothing out: every rule, every reason, and a page that shows which case shows what."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tests.support.cases import load_cases

from authz_service.engine.model import Reason

ROOT = Path(__file__).parent.parent.parent
SEMANTICS = (ROOT / "docs" / "semantics.md").read_text(encoding="utf-8")
RULES = re.findall(r"^- \*\*([A-Z]\d+)\*\*", SEMANTICS, re.MULTILINE)
ELSEWHERE = YAML(typ="safe", pure=True).load((ROOT / "tests" / "conformance" / "elsewhere.yaml").read_text())
CASES = load_cases()
CITED = {rule for case in CASES for rule in case.rules}


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule[0] in "CDTAP"])
def test_a_rule_is_shown_by_a_case_or_a_named_test(rule: str):
    if rule in ELSEWHERE["pending"]:
        assert rule not in CITED
    else:
        assert rule in CITED or rule in ELSEWHERE["rules"]


def test_cases_and_lists_cite_rules_that_exist():
    assert set(RULES) >= CITED | set(ELSEWHERE["rules"]) | set(ELSEWHERE["pending"])


@pytest.mark.parametrize("test", [test for tests in ELSEWHERE["rules"].values() for test in tests])
def test_a_test_that_is_named_for_a_rule_exists(test: str):
    path, _, name = test.partition("::")
    assert re.search(rf"^(?:async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("reason", list(Reason))
def test_a_reason_is_the_answer_of_a_case(reason: Reason):
    assert any(case.expected.reason is reason for case in CASES)


def test_no_two_cases_of_a_file_have_one_name():
    assert [name for name, count in Counter(case.id for case in CASES).items() if count > 1] == []


def test_the_page_shows_the_cases_of_today():
    subprocess.run([sys.executable, "tools/case_index.py", "--check"], cwd=ROOT, check=True)
