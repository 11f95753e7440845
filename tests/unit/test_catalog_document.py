"""What a catalog's text may be made of, before anything in it means something."""

from __future__ import annotations

import pytest

from authz_service.catalog import document
from authz_service.catalog.document import MAX_DEPTH, Leaf, Section, parse_document
from authz_service.catalog.faults import Faults
from authz_service.errors import CatalogInvalidError


def faults_of(text):
    faults = Faults("f.yaml")
    parse_document(text, faults)
    with pytest.raises(CatalogInvalidError) as caught:
        faults.raise_if_any()
    return [(fault.where, str(fault.code)) for fault in caught.value.faults]


def read(text):
    faults = Faults("f.yaml")
    document = parse_document(text, faults)
    faults.raise_if_any()
    assert isinstance(document, Section)
    return document


def test_plain_words_and_whole_numbers_are_what_they_look_like_and_all_else_is_text():
    written = "a: true\nb: null\nc: 12\nd: yes\ne: 2024-01-01\nf: 1.5\ng: 007\nh: '12'\ni:\nj: -3\nk: 1e3\nl: 0x10\n"
    values = {entry.key: entry.value.value for entry in read(written).entries if isinstance(entry.value, Leaf)}
    assert values == {
        "a": True, "b": None, "c": 12, "d": "yes", "e": "2024-01-01", "f": "1.5", "g": "007", "h": "12",
        "i": None, "j": -3, "k": "1e3", "l": "0x10",
    }  # fmt: skip


def test_values_keep_their_order_and_know_their_lines():
    tree = read("b: 1\n# a comment\na:\n  - x\n  - {c: y}\n")
    assert [(entry.key, entry.line) for entry in tree.entries] == [("b", 1), ("a", 3)]
    assert [item.line for item in tree.find("a").items] == [4, 5]


def test_windows_line_ends_and_a_byte_order_mark_change_nothing():
    assert read("\ufeffa: 1\r\nb: 2\r\n") == read("a: 1\nb: 2\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [("f.yaml:1", "bad_type")]),
        ("# nothing but a comment\n", [("f.yaml:1", "bad_type")]),
        ("- a\n", [("f.yaml:1", "bad_type")]),
        ("text\n", [("f.yaml:1", "bad_type")]),
        ("a: 1\nb: [1\n", [("f.yaml:3", "bad_syntax")]),
        ("a: 1\n b: 2\n", [("f.yaml:2", "bad_syntax")]),
        ("a: @x\n", [("f.yaml:1", "bad_syntax")]),
        ("a: 1\n\tb: 2\n", [("f.yaml:2", "bad_character")]),
        ("a: 1\tx\nb:\t2\n", [("f.yaml:1", "bad_character"), ("f.yaml:2", "bad_character")]),
        ("a: \0\n", [("f.yaml:1", "bad_character")]),
        ("a: 1\n\nb: \x85\n", [("f.yaml:3", "bad_character")]),
        ("a: 1\u2028b: 2\n", [("f.yaml:1", "bad_character")]),
        ("a: \ud800\n", [("f.yaml:1", "bad_character")]),
        ("a: 1\rb: 2\n", [("f.yaml:1", "bad_character")]),
        ("a: \x1b[31m\n", [("f.yaml:1", "bad_character")]),
        ("a: &x 1\n", [("f.yaml:1", "yaml_refused")]),
        ("a: 1\nb: *x\n", [("f.yaml:2", "yaml_refused")]),
        ("a: !!int 1\n", [("f.yaml:1", "yaml_refused")]),
        ("a: !python/object:os.system 1\n", [("f.yaml:1", "yaml_refused")]),
        ("%YAML 1.1\n---\na: 1\n", [("f.yaml:1", "yaml_refused")]),
        ("%YAML 1.0\n---\na: 1\n", [("f.yaml:1", "yaml_refused")]),
        ("%TAG ! x:\n---\na: 1\n", [("f.yaml:1", "yaml_refused")]),
        ("a: 1\n---\nb: 2\n", [("f.yaml:2", "yaml_refused")]),
        ("a: 1\nb: 2\na: 3\n", [("f.yaml:3", "duplicate_key")]),
        ("a: {x: 1, x: 2}\n", [("f.yaml:1", "duplicate_key")]),
        ("1: a\ntrue: b\n~: c\n[x]: d\n", [(f"f.yaml:{line}", "key_not_text") for line in (1, 2, 3, 4)]),
        ("a: " + "[" * (MAX_DEPTH + 1), [("f.yaml:1", "too_large")]),
    ],
)  # fmt: skip
def test_text_that_could_mean_more_than_it_shows_is_refused_with_its_line(text, expected):
    assert faults_of(text) == expected


def test_a_bomb_of_aliases_is_refused_at_its_first_anchor():
    bomb = "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(20))
    assert faults_of(bomb) == [("f.yaml:1", "yaml_refused")]


def test_a_text_of_too_many_values_or_bytes_is_refused(monkeypatch):
    monkeypatch.setattr(document, "MAX_VALUES", 100)  # the true limit takes seconds to reach
    assert faults_of("a: [" + "1," * 99 + "]") == [("f.yaml:1", "too_large")]
    assert read("a: [" + "1," * 97 + "]").find("a") is not None
    assert faults_of("#" + "é" * (4 * 1024 * 1024)) == [("f.yaml:1", "too_large")]


def test_a_path_with_braces_in_a_flow_mapping_gets_the_advice_to_quote_it():
    faults = Faults("f.yaml")
    parse_document("a: {project: GET /shops/{shop}}\n", faults)
    with pytest.raises(CatalogInvalidError) as caught:
        faults.raise_if_any()
    assert "needs quotes" in caught.value.faults[0].message
