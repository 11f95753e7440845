from __future__ import annotations

import pytest

from authz_service.cli.asking import parse_words
from authz_service.cli.printing import UsageFault
from authz_service.client import Ask


@pytest.mark.parametrize(
    ("words", "ask"),
    [
        (["job:read"], Ask("job", "read")),
        (["job:read", "acme/web"], Ask("job", "read", "acme/web")),
        (["job:read", "project:42"], Ask("job", "read", "project:42")),
        (["read", "job"], Ask("job", "read")),
        (["read", "job", "acme/web"], Ask("job", "read", "acme/web")),
        (["read", "job", "user:dana"], Ask("job", "read", "user:dana")),
    ],
)
def test_both_orders_ask_the_same(words, ask):
    assert parse_words(words) == ask


@pytest.mark.parametrize(
    "words", [[], ["read"], ["a:b:c"], ["job:read", "x", "y"], ["read", "user:dana"], ["a", "b", "c", "d"]]
)
def test_anything_else_is_not_guessed_at(words):
    with pytest.raises(UsageFault):
        parse_words(words)
