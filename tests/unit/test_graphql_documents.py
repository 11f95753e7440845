"""Documents within limits, and every way in which one is refused."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz_service.catalog.graphql_documents import (
    MAX_DEPTH,
    MAX_DIRECTIVES,
    MAX_FRAGMENTS,
    MAX_OPERATIONS,
    BadDocumentError,
    DocumentFault,
    parse_document,
    read_variables,
)

REFUSED = {
    "syntax": ("{ project", DocumentFault.SYNTAX),
    "nothing": ("", DocumentFault.SYNTAX),
    "a null byte": ("{ a \x00 }", DocumentFault.SYNTAX),
    "an empty selection": ("{ a { } }", DocumentFault.SYNTAX),
    "a megabyte": ("{ " + "a " * 500_000 + "}", DocumentFault.TOO_LARGE),
    "many tokens": ("{ " + "a " * 6_000 + "}", DocumentFault.TOO_LARGE),
    "a thousand aliases": ("{ " + " ".join(f"a{n}: b" for n in range(1000)) + " }", DocumentFault.TOO_MANY_ALIASES),
    "deep selections": ("{a" * (MAX_DEPTH + 1) + "}" * (MAX_DEPTH + 1), DocumentFault.TOO_DEEP),
    "deep lists": ("{ a(b: " + "[" * 4_000 + ") }", DocumentFault.TOO_DEEP),
    "many directives": ("{ a " + "@b " * (MAX_DIRECTIVES + 1) + "}", DocumentFault.TOO_MANY_DIRECTIVES),
    "many fragments": (
        "{ a } " + " ".join(f"fragment F{n} on A {{ b }}" for n in range(MAX_FRAGMENTS + 1)),
        DocumentFault.TOO_MANY_FRAGMENTS,
    ),
    "many operations": (
        " ".join(f"query Q{n} {{ a }}" for n in range(MAX_OPERATIONS + 1)),
        DocumentFault.TOO_MANY_OPERATIONS,
    ),
    "a fragment in itself": ("{ ...A } fragment A on Q { ...A }", DocumentFault.FRAGMENT_CYCLE),
    "fragments in each other": (
        "{ ...A } fragment A on Q { ...B } fragment B on Q { c { ...A } }",
        DocumentFault.FRAGMENT_CYCLE,
    ),
    "a cycle that nobody spreads": ("{ a } fragment A on Q { ...A }", DocumentFault.FRAGMENT_CYCLE),
    "an unknown fragment": ("{ ...A }", DocumentFault.FRAGMENT_UNKNOWN),
    "fragments alone": ("fragment A on Q { a }", DocumentFault.NO_OPERATION),
    "a type": ("type A { b: C } query Q { a }", DocumentFault.NOT_EXECUTABLE),
    "an argument twice": ("{ a(b: 1, b: 2) }", DocumentFault.DUPLICATE_NAME),
    "a key twice": ("{ a(b: {c: [{d: 1, d: 2}]}) }", DocumentFault.DUPLICATE_NAME),
    "a key twice in a directive": ("{ a @b(c: {d: 1, d: 2}) }", DocumentFault.DUPLICATE_NAME),
    "a condition twice": ("{ a @skip(if: true) @skip(if: false) }", DocumentFault.DUPLICATE_NAME),
    "a variable twice": ("query Q($a: ID, $a: ID) { b }", DocumentFault.DUPLICATE_NAME),
    "a fragment twice": ("{ ...A } fragment A on Q { a } fragment A on Q { b }", DocumentFault.DUPLICATE_NAME),
    "an operation twice": ("query A { a } mutation A { b }", DocumentFault.DUPLICATE_NAME),
    "an operation without a name beside another": ("{ a } query B { b }", DocumentFault.DUPLICATE_NAME),
    "a carriage return that may end a comment": ("{ a #\r @skip(if: true)\n }", DocumentFault.AMBIGUOUS),
    "a carriage return between tokens": ("{ a\rb }", DocumentFault.AMBIGUOUS),
    "a carriage return in a block string": ('{ a(b: """c\rd""") }', DocumentFault.AMBIGUOUS),
    "two carriage returns and one line feed": ("{ a #\r\r\n b }", DocumentFault.AMBIGUOUS),
    "a quote in a comment": ('{ a\n #"\n @skip(if: true)\n #"\n }', DocumentFault.AMBIGUOUS),
    "quotes in a comment": ('{ a } # an "a"', DocumentFault.AMBIGUOUS),
    "a quote in a block string": ('{ a(b: """c " d\n""") }', DocumentFault.AMBIGUOUS),
    "quotes in a block string": ('{ a(b: """ \\""" """) }', DocumentFault.AMBIGUOUS),
    "a string that ends in a backslash": ('{ a(b: "c\\\\") # \n @skip(if: true) }', DocumentFault.AMBIGUOUS),
    "strings side by side": ('{ a(b: ["c"""]) # \n @skip(if: true) }', DocumentFault.AMBIGUOUS),
    "a block string beside a string": ('{ a(b: ["""c""""d"]) }', DocumentFault.AMBIGUOUS),
    "a comment before a colon": ("{ a # 1b\n : c }", DocumentFault.AMBIGUOUS),
    "comments before a colon": ("{ a # 1b\n , # d\n : c }", DocumentFault.AMBIGUOUS),
}
READ = {
    "a comment before each end of line": "{ a # it's fine\r\n b # yes\n }",
    "a comment at the end": "{ a } # it's fine",
    "a quote that is escaped": '{ a(b: "c \\" # d \\u0022 \\\\ e") }',
    "a block string of lines": '{ a(b: """\n  c # d\r\n  e\\n\n""") }',
    "strings in a list": '{ a(b: ["", "c" "d", """""", """e"""]) }',
    "other ends of lines": '{ a(b: "c\u2028d\u0085e") # f\u2028 g\x0b h\n i }',
}


@pytest.mark.parametrize(("text", "code"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_single_reading_is_refused_with_its_code(text: str, code: DocumentFault):
    with pytest.raises(BadDocumentError) as caught:
        parse_document(text)
    assert code in {fault.code for fault in caught.value.faults}
    for fault in caught.value.faults:
        assert fault.message[:1].islower() or fault.message[0] == "`"
        assert not fault.message.endswith(".")
        assert len(fault.message) < 500


@pytest.mark.parametrize("text", READ.values(), ids=READ)
def test_what_all_readers_end_in_one_place_is_read(text: str):
    assert parse_document(text).operations
    assert mended(text) == text


def mended(text: str) -> str:
    """As servers in Ruby mend newlines in strings, before they parse: quotes are counted, and nothing else is known."""
    found, inside = [], False
    for part in re.findall(r'(?:\\"|[^"\n\r]|""")+|"|\n|\r', text):
        inside ^= part == '"'
        found.append({"\n": "\\n", "\r": "\\r"}.get(part, part) if inside else part)
    return "".join(found)


LETTERS = st.lists(
    st.sampled_from(("a", "#", " ", "\\\\", '\\"', "\n", "\r\n", "\r", '"', ":", "\\", "\\u0022")), max_size=4
).map("".join)
PARTS = st.one_of(
    LETTERS.map(lambda text: f'"{text}"'),
    LETTERS.map(lambda text: f'"""{text}"""'),
    LETTERS.map(lambda text: f"#{text}\n"),
    st.sampled_from((" ", "\n", ",", "1", "a")),
)


@settings(max_examples=2000)
@given(st.lists(PARTS, max_size=6))
def test_no_document_that_is_read_is_mended_by_who_only_counts_quotes(parts: list[str]):
    text = "{ a(b: [" + "".join(parts) + "]) # c\n @skip(if: true) }"
    try:
        parse_document(text)
    except BadDocumentError:
        return
    assert mended(text) == text


def test_all_faults_are_told_at_once():
    with pytest.raises(BadDocumentError) as caught:
        parse_document("{ a(b: 1, b: 2) ...A ...C } fragment A on Q { ...A }")
    assert {fault.code for fault in caught.value.faults} == {
        DocumentFault.DUPLICATE_NAME,
        DocumentFault.FRAGMENT_CYCLE,
        DocumentFault.FRAGMENT_UNKNOWN,
    }


def test_every_fault_of_reading_is_shown():
    """The rest are found later: in variables, in what is selected, and in requests."""
    later = {
        DocumentFault.MISSING,
        DocumentFault.UNREADABLE,
        DocumentFault.TOO_MANY_FIELDS,
        DocumentFault.TOO_MANY_DOCUMENTS,
        DocumentFault.OPERATION_UNKNOWN,
        DocumentFault.OPERATION_NEEDED,
        DocumentFault.VARIABLE_MISSING,
        DocumentFault.VARIABLE_UNKNOWN,
        DocumentFault.VARIABLE_INVALID,
        DocumentFault.NOTHING_SELECTED,
        DocumentFault.MUTATION_BY_GET,
    }
    assert {code for _, code in REFUSED.values()} | later == set(DocumentFault)


def test_the_worst_texts_take_no_longer_than_plain_ones():
    """A bound in processor time, generous beyond any doubt: what is quadratic here takes minutes."""
    before = time.process_time()
    for text, _ in REFUSED.values():
        with pytest.raises(BadDocumentError):
            parse_document(text)
    assert time.process_time() - before < 10


def test_an_operation_is_found_by_name_and_one_alone_needs_none():
    two = parse_document("query A { a } mutation B { b }")
    assert (two.mutates("A"), two.mutates("B")) == (False, True)
    for name in (None, ""):
        with pytest.raises(BadDocumentError) as caught:
            two.operation(name)
        assert caught.value.faults[0].code is DocumentFault.OPERATION_NEEDED
    with pytest.raises(BadDocumentError) as caught:
        two.operation("C")
    assert caught.value.faults[0].code is DocumentFault.OPERATION_UNKNOWN
    assert parse_document("mutation { a }").mutates(None)


def test_variables_take_defaults_and_all_that_are_missing_are_named():
    document = parse_document('query Q($a: ID = "x", $b: ID!, $c: ID! = "y", $d: [ID!]!, $e: ID) { f }')
    operation = document.operation(None)
    with pytest.raises(BadDocumentError) as caught:
        read_variables(operation, {"d": None})
    assert [fault.code for fault in caught.value.faults] == [DocumentFault.VARIABLE_MISSING] * 2
    values = read_variables(operation, {"b": "z", "d": ["w"], "other": 1}).values
    assert {name: values[name] for name in "abcd"} == {"a": "x", "b": "z", "c": "y", "d": ["w"]}
    assert "other" not in values
