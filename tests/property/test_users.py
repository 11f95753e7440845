"""A user as such is decided as rule A13 says: the same by the engine and by the naive reference, in drawn worlds."""

from __future__ import annotations

from hypothesis import given, note
from tests.property.drawn import DECISIONS, Drawn, decisions, drawn_worlds
from tests.reference import naive

from authz_service.engine.users import decide_user


@given(drawn=drawn_worlds())
@decisions(DECISIONS // 5)
def test_a_user_as_such_is_decided_as_the_reference_does(drawn: Drawn):
    versions = {catalog.name: catalog for catalog in drawn.rows.catalogs}
    for _, request in drawn.questions:
        catalog = versions.get(request.catalog)
        if catalog is None:
            continue
        user = drawn.random.choice([*drawn.rows.users]).id
        expected = naive.decide_user(drawn.rows, user, catalog, request)
        found = decide_user(user, catalog, drawn.world, request)
        note(f"{drawn}: {user} asks {request}: {expected} and {found}")
        assert (found.allowed, found.reason, found.missing) == (expected.allowed, expected.reason, expected.missing)
        assert (found.hide, found.absent) == (expected.hide, expected.absent)


@given(drawn=drawn_worlds())
@decisions(DECISIONS // 10)
def test_what_a_fine_grained_token_may_by_itself_its_owner_may_too(drawn: Drawn):
    """But for what lies upstream: scopes and policies only ever take away (A13)."""
    for token_id, request in drawn.questions:
        token = drawn.world.token(token_id)
        catalog = None if token is None else naive.catalog_of(drawn.rows, token, request.catalog)
        if token is None or catalog is None or catalog.upstream or token.legacy_scopes:
            continue
        if naive.decide(drawn.rows, token_id, request).allowed:
            note(f"{drawn}: {token_id} asks {request}")
            assert decide_user(token.owner, catalog, drawn.world, request).allowed
