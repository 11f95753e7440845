from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from authz_service.api.admin.shapes import End, Moment
from authz_service.cli.asking import parse_words
from authz_service.cli.manage import moment
from authz_service.cli.printing import UsageFault, complain_of
from authz_service.client import Ask
from authz_service.errors import Fault, InvalidInputError


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


def test_a_fault_that_the_message_says_already_is_said_once(capsys):
    said = "the password is shorter than 12 characters; take a longer one"
    complain_of(InvalidInputError(said, faults=[Fault("/password", "invalid_password", said)]))
    assert capsys.readouterr().err == f"authz: {said}\n"
    complain_of(InvalidInputError("two: a; b", faults=[Fault("A", "x", "a"), Fault("B", "x", "b")]))
    assert capsys.readouterr().err == "authz: two\n  A: a\n  B: b\n"


def test_a_day_counts_to_its_end_in_utc():
    assert moment("2026-12-31") == "2027-01-01T00:00:00Z"
    assert TypeAdapter(End).validate_python("2026-12-31") == datetime(2027, 1, 1, tzinfo=UTC)
    assert TypeAdapter(Moment).validate_python("2026-12-31") == datetime(2026, 12, 31, tzinfo=UTC)
    assert TypeAdapter(End).validate_python("2026-12-31T10:00:00+02:00") == datetime(2026, 12, 31, 8, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-12-31T10:00", "2026-12-31 10:00:05", "20261231", "2026-W53"])
def test_a_time_without_a_zone_is_refused_with_advice_that_works(text):
    with pytest.raises(UsageFault) as refused:
        moment(text)
    assert "has no time zone" in refused.value.message
    advised = re.findall("`([^`]+)`", refused.value.message)[1]
    assert moment(advised).endswith("Z")


@pytest.mark.parametrize("text", ["2026-12-31Z", "2026-13-01", "9999-12-31", "soon", "0001-01-01T00:00:00+14:00"])
def test_what_is_no_time_is_told_what_is_one(text):
    with pytest.raises(UsageFault) as refused:
        moment(text)
    assert "is no time; write `30d`, `2027-01-31`" in refused.value.message
    for kind in (End, Moment):
        if text != "9999-12-31" or kind is End:
            with pytest.raises(ValidationError, match="write a day, as `2027-01-31`"):
                TypeAdapter(kind).validate_python(text)
