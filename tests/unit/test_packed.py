"""Packed scopes are the scopes that they were made of, however they are read."""

from __future__ import annotations

import pytest

from authz_service.cache.packed import PackedScopes
from authz_service.tokens.model import Reach, ReachKind, Scope

SCOPES = (
    Scope("gitlab", Reach(ReachKind.SELECTED, (7, 2**40)), ("job:read", "job:run")),
    Scope("orders", Reach(ReachKind.SELECTED, ("group:ünï", "project:a/b")), ("order:read",)),
    Scope("gitlab", Reach(ReachKind.ALL_MEMBERSHIPS), ()),
)


@pytest.mark.parametrize("scopes", [(), SCOPES[:1], SCOPES])
def test_packed_scopes_read_as_they_were_written(scopes):
    packed = PackedScopes(scopes)
    assert packed == scopes
    assert scopes == tuple(packed)
    assert (len(packed), bool(packed), list(reversed(packed))) == (len(scopes), bool(scopes), list(reversed(scopes)))
    assert packed[:1] == scopes[:1]
    assert hash(packed) == hash(PackedScopes(list(scopes)))
    assert repr(packed) == repr(scopes)


def test_packed_scopes_tell_others_apart():
    packed = PackedScopes(SCOPES)
    assert packed != SCOPES[:2]
    assert packed != 3
    assert packed[-1].reach.kind is ReachKind.ALL_MEMBERSHIPS
    with pytest.raises(IndexError):
        packed[3]
