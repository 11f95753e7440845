"""What a trust rule expects of a claim: compared without ever trying twice (M5)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from authz_service.admin.job_tokens import LONGEST_CLAIM, Claims, is_like


def claims(**every: object) -> Claims:
    return Claims("https://issuer.test", ("here",), "one", datetime.now(UTC), every)


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("*a*a*a*b", "a" * 10_000, False),
        ("*a*a*a*b", "a" * 10_000 + "b", True),
        ("*a*a*a*b", "a" * 5_000 + "/" + "a" * 5_000 + "b", False),
        ("a*b*b*b*c", "a" + "b" * 10_000, False),
    ],
)
def test_the_worst_pattern_ends_on_a_long_text(pattern, text, fits):
    assert is_like(text, pattern) is fits


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("release-*", "release-", True),
        ("release-*", "release-1/2", False),
        ("ab*ba", "aba", False),
        ("ab*ba", "abba", True),
        ("*/x*", "a/x", True),
        ("*/x*", "a/y/x", False),
        ("*b/*c", "abb/c", True),
        ("a**b", "ab", True),
        ("a*\n", "a\n", True),
        ("a*", "a\n", True),
        ("a.c", "abc", False),
    ],
)
def test_a_star_is_any_characters_but_a_slash(pattern, text, fits):
    assert is_like(text, pattern) is fits


def test_a_claim_that_is_too_long_fits_nothing():
    longest, longer = "a" * LONGEST_CLAIM, "a" * (LONGEST_CLAIM + 1)
    assert claims(ref=longest).fit({"ref": {"like": "a*"}})
    assert not claims(ref=longer).fit({"ref": {"like": "a*"}})
    assert not claims(ref=longer).fit({"ref": longer})
    assert claims(ref=longer).is_too_long("ref")
    assert not claims(ref=longest).is_too_long("ref")
    assert not claims(ref=["a"] * 9_999).is_too_long("ref")
