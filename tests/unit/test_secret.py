from __future__ import annotations

import copy
import hashlib
import hmac
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_service.tokens.secret import (
    DEFAULT_PREFIX,
    TokenSecret,
    digest,
    is_token_id,
    new_secret,
    new_token_id,
    parse_secret,
)

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def a_secret(prefix: str = DEFAULT_PREFIX, kid: str = "k1") -> str:
    return new_secret(prefix, kid).reveal()


def test_a_secret_has_the_published_shape():
    assert re.fullmatch(r"azt_k1_[0-9A-Za-z]{43}[0-9A-Za-z]{6}", a_secret())


def test_a_double_click_selects_the_whole_secret():
    assert re.fullmatch(r"\w+", a_secret(), re.ASCII)


def test_no_two_secrets_are_equal():
    assert len({a_secret() for _ in range(200)}) == 200


def test_what_was_made_is_read_back():
    secret = new_secret("acme", "k2")
    parsed = parse_secret(secret.reveal())
    assert parsed is not None
    assert (parsed.prefix, parsed.kid, parsed.secret) == ("acme", "k2", secret)


def test_another_prefix_than_the_one_asked_for_is_no_secret():
    text = a_secret("acme")
    assert parse_secret(text, prefix="acme") is not None
    assert parse_secret(text, prefix="azt") is None


@given(st.integers(0, 49 + len("azt_k1_") - 1), st.sampled_from(ALPHABET + "_-. \u00e9"))
def test_one_changed_character_is_noticed(place: int, letter: str):
    text = a_secret()
    changed = text[:place] + letter + text[place + 1 :]
    if changed != text:
        assert parse_secret(changed) is None


def test_a_checksum_covers_prefix_and_kid():
    _, _, rest = a_secret("azt", "k1").split("_")
    assert parse_secret(f"azt_k2_{rest}") is None
    assert parse_secret(f"azu_k1_{rest}") is None


@pytest.mark.parametrize("around", ["{} ", " {}", "{}\n", "\n{}", "{}\0", "{}=", "\ufeff{}", "Bearer {}"])
def test_a_secret_is_never_trimmed(around: str):
    assert parse_secret(around.format(a_secret())) is None


@given(st.text(max_size=200))
def test_no_text_makes_the_parser_raise(text: str):
    assert parse_secret(text) is None


@pytest.mark.parametrize(
    "text",
    ["", "_", "azt", "azt__", "azt_k1_", "azt_K1_" + "a" * 49, "azt_toolong12_" + "a" * 49, "a" * 100_000, "\ud800"],
)
def test_a_text_of_another_shape_is_no_secret(text: str):
    assert parse_secret(text) is None


@pytest.mark.parametrize("prefix", ["", "has_underscore", "\u00e4", "x" * 17, "a b"])
def test_a_prefix_that_would_not_read_back_is_refused(prefix: str):
    with pytest.raises(ValueError, match="prefix"):
        new_secret(prefix, "k1")


@pytest.mark.parametrize("kid", ["", "K1", "k_1", "123456789", "\u0663"])
def test_a_kid_that_would_not_read_back_is_refused(kid: str):
    with pytest.raises(ValueError, match="kid"):
        new_secret("azt", kid)


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r:>60}".format, "{:>60}".format, lambda s: f"{s}"])
def test_printing_a_secret_shows_its_prefix_alone(show):
    secret = new_secret("azt", "k1")
    random = secret.reveal().rpartition("_")[2]
    shown = show(secret)
    assert "azt_k1_" in shown
    assert not any(random[at : at + 4] in shown for at in range(len(random) - 3))


def test_printing_what_is_no_secret_shows_nothing_of_it():
    assert repr(TokenSecret("hunter2_hunter2_hunter2")) == "…"


@pytest.mark.parametrize("how", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_secret_is_not_copied_by_accident(how):
    with pytest.raises(TypeError, match="secret"):
        how(new_secret("azt", "k1"))


def test_a_secret_equals_itself_and_no_text():
    text = a_secret()
    assert TokenSecret(text) == TokenSecret(text)
    assert TokenSecret(text) != TokenSecret(a_secret())
    assert TokenSecret(text) != text
    assert len({TokenSecret(text), TokenSecret(text)}) == 1


def test_the_digest_is_keyed_by_the_pepper():
    secret = new_secret("azt", "k1")
    found = digest(secret, b"pepper")
    assert found == hmac.new(b"pepper", secret.reveal().encode(), hashlib.sha256).digest()
    assert found != digest(secret, b"salt")


def test_a_token_id_has_its_public_shape():
    assert is_token_id(new_token_id())
    assert len({new_token_id() for _ in range(200)}) == 200


@pytest.mark.parametrize(
    "text", ["", "tok_", "tok_" + "a" * 21, "tok_" + "a" * 23, "tok_" + "-" * 22, "TOK_" + "a" * 22]
)
def test_a_text_of_another_shape_is_no_token_id(text: str):
    assert not is_token_id(text)
