"""The compiled twins of the shipped catalogs: they say what the YAML says, or are not looked at."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import catalog
from tests.property.catalogs import CatalogMaker

from authz_service.store import shipped
from authz_service.store.shipped import (
    COMPILED_SUFFIX,
    compile_shipped,
    digest_of,
    pack,
    shipped_catalogs,
    shipped_texts,
    unpack,
)

DATA = Path(shipped.__file__).resolve().parents[1] / "catalog" / "data"
DIGEST = digest_of("catalog: forge")


def test_the_twins_are_up_to_date():
    written = {file.name: file.read_bytes() for file in DATA.glob(f"*{COMPILED_SUFFIX}")}
    wanted = compile_shipped()
    stale = [name for name in written.keys() | wanted.keys() if written.get(name) != wanted.get(name)]
    assert stale == [], "run `make catalogs`"


def test_shipped_catalogs_are_what_their_texts_say_in_the_same_order():
    for found, (label, text) in zip(shipped_catalogs(), shipped_texts(), strict=True):
        said = shipped._load(label, text)
        assert found == said
        assert list(found.operations) == list(said.operations)
        assert list(found.bundles) == list(said.bundles)
        assert [list(each.boundaries) for each in found.permissions] == [
            list(each.boundaries) for each in said.permissions
        ]


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), upstream=st.booleans())
def test_whatever_a_catalog_holds_comes_back_from_its_packed_form(seed, upstream):
    made = CatalogMaker(Random(seed)).make("forge", upstream=upstream)
    back = unpack(pack(made, DIGEST), DIGEST)
    assert back == made
    assert list(back.operations) == list(made.operations)
    assert [type(value) for each in back.permissions for _, value in each.when] == [
        type(value) for each in made.permissions for _, value in each.when
    ]


def test_equal_catalogs_give_equal_bytes():
    one, other = (CatalogMaker(Random(7)).make("forge") for _ in range(2))
    assert pack(one, DIGEST) == pack(other, DIGEST)


def test_a_twin_of_another_text_is_not_used():
    packed = pack(catalog(), DIGEST)
    assert unpack(packed, DIGEST) == catalog()
    assert unpack(packed, digest_of("catalog: forge\n")) is None


def test_a_twin_of_other_code_is_not_used(monkeypatch):
    monkeypatch.setattr(shipped, "_digest_of_reader", lambda: b"before the loader changed")
    assert digest_of("catalog: forge") != DIGEST


@pytest.mark.parametrize("keep", [0, 10, 32, 40, -1])
def test_a_broken_twin_is_not_used(keep):
    packed = pack(catalog(), DIGEST)
    assert unpack(packed[:keep], DIGEST) is None
    assert unpack(packed[:keep] + b"\x00" * (len(packed) - len(packed[:keep])), DIGEST) is None
