"""Whatever an OpenAPI document holds: a draft without a fault, or a refusal that says where; never anything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from authz_service.catalog.drafting import draft_catalog
from authz_service.catalog.loader import load_catalog
from authz_service.catalog.model import TargetKind
from authz_service.catalog.openapi import read_openapi
from authz_service.errors import InvalidInputError

SEGMENTS = st.one_of(
    st.sampled_from(["shops", "{shop}", "orders", "{order}", "v1", "api", "me", "{user id}", "{a}.{b}", "a:b", "all"]),
    st.text(max_size=8),
)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
TEXTS = st.text(max_size=30)
CALLS = st.fixed_dictionaries(
    {},
    optional={
        "summary": TEXTS,
        "tags": st.lists(TEXTS, max_size=2),
        "deprecated": st.booleans(),
        "security": st.sampled_from([[], [{}], [{"key": []}]]),
    },
)
METHODS = st.sampled_from(["get", "post", "put", "patch", "delete", "head", "options", "trace"])
DOCUMENTS = st.fixed_dictionaries(
    {
        "openapi": st.sampled_from(["3.0.0", "3.1.0"]),
        "info": st.fixed_dictionaries({"title": TEXTS}),
        "paths": st.dictionaries(
            PATHS, st.dictionaries(METHODS, CALLS, min_size=1, max_size=3), min_size=1, max_size=8
        ),
    },
    optional={"servers": st.lists(st.fixed_dictionaries({"url": TEXTS}), max_size=1), "security": st.just([{"a": []}])},
)


T = TypeVar("T")
FEW = settings(max_examples=60)
"""Each draft is read back as YAML."""


def outcome(work: Callable[[], T]) -> T | None:
    """What the work gives, or None where it is refused, which names the faults."""
    try:
        return work()
    except InvalidInputError as refused:
        faults = refused.faults or [refused.message]
    assert all(faults)
    return None


@given(document=DOCUMENTS)
@FEW
def test_a_draft_has_no_fault_and_guesses_no_target(document: dict[str, Any]):
    api = read_openapi(json.dumps(document), file="openapi.json")
    text = outcome(lambda: draft_catalog(api))
    if text is None:
        return
    catalog = load_catalog(text)
    assert len(catalog.operations) + text.count("\n# left out: ") <= len(api.calls)
    targets = {item.target.kind for each in catalog.operations.values() for one in each.sets for item in one.items}
    assert targets == {TargetKind.CALLER}
    assert not any(each.open or each.public_read for each in catalog.operations.values())


@given(document=ANYTHING, part=st.sampled_from(["", "paths", "servers", "info", "security"]))
def test_odd_documents_are_refused_with_their_faults(document: Any, part: str):
    given_document = document if not part else {"openapi": "3.1.0", "paths": {"/a": {"get": {}}}, part: document}
    text = outcome(lambda: draft_catalog(read_openapi(json.dumps(given_document), file="openapi.json")))
    if text is not None:
        load_catalog(text)


@given(text=st.text(max_size=200))
def test_odd_texts_are_refused_too(text: str):
    outcome(lambda: read_openapi(text, file="openapi.yaml"))
