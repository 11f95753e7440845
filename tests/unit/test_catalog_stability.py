"""Reading the same text twice gives the same catalog, and whatever is read fails only as it is meant to."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from authz_service.catalog.format import CATALOG
from authz_service.catalog.loader import load_catalog
from authz_service.catalog.model import BOUNDARIES
from authz_service.errors import CatalogInvalidError
from authz_service.store.shipped import shipped_texts

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True)
PLACES = st.lists(st.sampled_from([boundary.value for boundary in BOUNDARIES]), min_size=1, max_size=4, unique=True)
TREES = st.dictionaries(NAMES, st.dictionaries(NAMES, PLACES, min_size=1, max_size=4), min_size=1, max_size=6)


def faults_of(text):
    """The faults of a text, None when it loads."""
    try:
        load_catalog(text, file="f")
    except CatalogInvalidError as error:
        return error.faults
    return None


def written(tree):
    lines = ["catalog: a", "version: 1", "permissions:"]
    for resource, actions in tree.items():
        lines.append(f"  '{resource}':")
        lines += [f"    '{action}': [{', '.join(places)}]" for action, places in actions.items()]
    return "\n".join(lines) + "\n"


@settings(max_examples=40)
@given(TREES)
def test_equal_text_gives_equal_catalogs_numbered_in_the_order_of_the_file(tree):
    first, second = load_catalog(written(tree)), load_catalog(written(tree))
    assert first == second
    names = [f"{resource}:{action}" for resource, actions in tree.items() for action in actions]
    assert [each.name for each in first.permissions] == names
    assert [each.number for each in first.permissions] == list(range(len(names)))


@settings(max_examples=40)
@given(TREES, NAMES)
def test_a_permission_added_at_the_end_moves_no_number(tree, name):
    before = load_catalog(written(tree))
    after = load_catalog(written(tree) + f"categories: {{later: {{zz{name}: {{read: project}}}}}}\n")
    assert after.permissions[: len(before.permissions)] == before.permissions


def test_shipped_texts_read_twice_are_equal():
    for _, text in shipped_texts():
        assert load_catalog(text) == load_catalog(text)


KEYS = st.sampled_from([key.name for key in CATALOG.keys]) | st.text(max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(
    ["project", "issue:read", "GET /projects/:id", "GET /a -> self", "all", "read", "a", "Query.a", "caller"]
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | SCALARS.map(str), inner, max_size=4)
    ),
    max_leaves=12,
)


def flow(value):
    """Any value as YAML's flow style, texts in quotes or plain as they come."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(key)}: {flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(each) for each in value) + "]"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return {None: "null", True: "true", False: "false"}.get(value, str(value))


@settings(max_examples=60)
@given(st.dictionaries(KEYS, VALUES, max_size=8))
def test_whatever_shape_a_file_has_it_loads_or_is_refused_with_lines(document):
    text = "".join(f"{flow(key)}: {flow(value)}\n" for key, value in {"catalog": "a", "version": 1, **document}.items())
    faults = faults_of(text)
    assert faults != ()
    for fault in faults or ():
        file, _, line = fault.where.partition(":")
        assert file == "f"
        assert 1 <= int(line) <= text.count("\n") + 1


@settings(max_examples=60)
@given(st.text(max_size=200))
def test_whatever_text_comes_it_is_refused_and_never_breaks_the_reader(text):
    assert faults_of(text)


@settings(max_examples=40)
@given(st.data())
def test_a_shipped_text_with_a_line_taken_out_loads_or_is_refused(data):
    lines = shipped_texts()[0][1].splitlines(keepends=True)
    gone = data.draw(st.integers(0, len(lines) - 1))
    assert faults_of("".join(lines[:gone] + lines[gone + 1 :])) != ()
