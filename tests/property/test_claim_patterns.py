"""A claim's pattern means what a regular expression of the same shape means, without its ways to try again."""

from __future__ import annotations

import re
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.drawn import DECISIONS

from authz_service.admin.job_tokens import is_like

SOME = settings(max_examples=max(200, DECISIONS // 5))


def by_expression(text: str, pattern: str) -> bool:
    written = "[^/]*".join(re.escape(part) for part in pattern.split("*"))
    return re.fullmatch(written, text, re.DOTALL) is not None


@given(text=st.text("ab/\n.", max_size=12), pattern=st.text("ab/*.\n", max_size=9))
@SOME
def test_a_pattern_is_like_what_its_expression_matches(text: str, pattern: str):
    assert is_like(text, pattern) == by_expression(text, pattern)


def test_all_short_patterns_are_like_what_their_expressions_match():
    texts = ["".join(one) for size in range(6) for one in product("ab/", repeat=size)]
    for pattern in ("".join(one) for size in range(6) for one in product("ab/*", repeat=size) if "*" in one):
        written = re.compile("[^/]*".join(re.escape(part) for part in pattern.split("*")), re.DOTALL)
        for text in texts:
            assert is_like(text, pattern) == (written.fullmatch(text) is not None), (text, pattern)
