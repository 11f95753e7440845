"""Targets as texts: what is written is read back, and the reader agrees with the reference's own about every text."""

from __future__ import annotations

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tests.property.drawn import DECISIONS
from tests.reference import places

from authz_service.directory.model import NodeKind, TargetText, format_target, is_path, parse_target

SEGMENTS = st.text("abzAZ059_.-", min_size=1, max_size=8)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join)
TEXTS = st.one_of(
    st.text(max_size=20),
    PATHS,
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["project", "group", "user", "instance", "Project", "team", ""]),
        st.sampled_from([":", "::", "", "/", " :"]),
        st.one_of(PATHS, st.text("0123456789²٣", max_size=70), st.text(max_size=5)),
    ),
)
SOME = settings(max_examples=max(50, DECISIONS // 20))


@given(text=TEXTS)
@example(text="instance")
@example(text="project:")
@example(text="project:" + "1" * 64)
@example(text="project:" + "1" * 65)
@example(text="group:" + "/".join("a" * 21))
@example(text="group:" + "/".join("a" * 22))
@example(text="user:" + "a" * 255)
@example(text="user:" + "a" * 256)
@example(text="project:" + "/".join(["a" * 170] * 6))
@example(text="project:a/b\n")
@example(text="..")
@SOME
def test_a_text_names_what_the_reference_says_it_names(text: str):
    found = parse_target(text)
    expected = places.read_target(text)
    if found is None or expected is None:
        assert found is None
        assert expected is None
        return
    kind, name = expected
    assert found.kind is kind
    assert (found.path or found.external_id or "") == name
    assert (found.external_id is not None) is places.is_digits(name)


@given(text=TEXTS)
@SOME
def test_the_service_and_the_reference_agree_on_what_a_path_is(text: str):
    assert is_path(text) is places.is_path(text)


@given(kind=st.sampled_from([NodeKind.PROJECT, NodeKind.GROUP]), path=PATHS)
@SOME
def test_a_formatted_path_is_read_back(kind: NodeKind, path: str):
    assume(is_path(path) and not path.isdigit())
    assert parse_target(format_target(kind, path)) == TargetText(kind, path=path)


@given(kind=st.sampled_from([NodeKind.PROJECT, NodeKind.GROUP, NodeKind.USER]), number=st.integers(0, 10**20))
@SOME
def test_a_formatted_id_is_read_back_with_every_digit(kind: NodeKind, number: int):
    for digits in (str(number), f"0{number}"):
        assert parse_target(format_target(kind, digits)) == TargetText(kind, external_id=digits)


def test_the_instance_is_read_back():
    assert parse_target(format_target(NodeKind.INSTANCE, "")) == TargetText(NodeKind.INSTANCE)
