"""A token that is narrowed to what it used still makes every call it made, and none that it could not make before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import example, given, note
from tests.property.drawn import DECISIONS, Drawn, decisions, draw, drawn_worlds
from tests.reference import naive
from tests.reference.rows import Rows

from authz_service.catalog.model import Catalog
from authz_service.directory.model import INSTANCE_ID
from authz_service.engine.decide import decide
from authz_service.engine.model import Request
from authz_service.engine.shrink import Used, shrink
from authz_service.tokens.model import Token, TokenKind
from authz_service.tokens.policy import MANAGEMENT


def used_of(drawn: Drawn, token: Token, catalog: Catalog, request: Request) -> tuple[list[Used], bool] | None:
    """What an allow rested on, as usage keeps it, and whether that is all it rested on; None for a denial."""
    decision = decide(token, drawn.world, request)
    if not decision.allowed:
        return None
    found = []
    for permission, text in decision.used:
        if text == "anywhere":
            found.append(Used(permission, None))
        elif catalog.upstream:
            found.append(Used(permission, text))
        elif text == "instance":
            found.append(Used(permission, INSTANCE_ID))
        else:
            kind, _, path = text.partition(":")
            node = drawn.world.find(catalog.source or "default", None, path)
            assert node is not None
            assert node.kind.value == kind
            found.append(Used(permission, node.id))
    return found, bool(found)


def narrowed(drawn: Drawn) -> Iterator[tuple[Token, Token, Catalog, list[Request]]]:
    """Each fine-grained token before and after, with the calls that it made."""
    for token in drawn.rows.tokens:
        if token.kind is not TokenKind.FINE_GRAINED or token.parent is not None or len(token.catalogs) > 1:
            continue
        name = next(iter(token.catalogs))
        catalog = naive.catalog_of(drawn.rows, token, name)
        if catalog is None or name == MANAGEMENT:
            continue  # management's scopes are left as they are
        asked = [request for token_id, request in drawn.questions if token_id == token.id and request.catalog == name]
        made, uses = [], []
        for request in asked[::2]:
            used = used_of(drawn, token, catalog, request)
            if used is not None:
                made.append(request)
                uses += used[0]
        if made:
            after = replace(token, scopes=shrink(token, catalog, drawn.world, made[0], uses).scopes)
            yield token, after, catalog, made


def with_token(rows: Rows, token: Token) -> Rows:
    return replace(rows, tokens=[token if one.id == token.id else one for one in rows.tokens])


@given(drawn=drawn_worlds())
@example(drawn=draw(7846))
@example(drawn=draw(24925))
@decisions(DECISIONS // 5)
def test_a_narrowed_token_makes_every_call_that_it_made(drawn: Drawn):
    for before, after, _, made in narrowed(drawn):
        rows = with_token(drawn.rows, after)
        for request in made:
            if not naive.decide(rows, after.id, request).allowed:
                note(f"{drawn}: {before.id} made {request} by {before.scopes}, not by {after.scopes}")
                raise AssertionError(request)


@given(drawn=drawn_worlds())
@example(drawn=draw(1740))
@decisions(DECISIONS // 10)
def test_a_narrowed_token_makes_no_call_that_it_could_not_make_before(drawn: Drawn):
    for before, after, catalog, _ in narrowed(drawn):
        rows = with_token(drawn.rows, after)
        for _, asked in drawn.questions:
            request = replace(asked, version=None)
            if request.catalog != catalog.name or naive.decide(drawn.rows, before.id, request).allowed:
                continue
            if naive.decide(rows, after.id, request).allowed:
                note(f"{drawn}: {before.id} now makes {request}: {before.scopes} became {after.scopes}")
                raise AssertionError(request)


def test_narrowing_takes_something_away_from_most_drawn_tokens():
    smaller = total = 0
    for seed in range(25):
        for before, after, catalog, _ in narrowed(draw(seed)):
            total += 1
            smaller += len(held(after, catalog)) < len(held(before, catalog))
    assert total > 20
    assert smaller > total / 2


def held(token: Token, catalog: Catalog) -> set[tuple[object, str]]:
    """(place or reach, permission) of what is known."""
    return {
        (where, name)
        for scope in token.scopes
        for where in scope.reach.nodes or (scope.reach.kind,)
        for name in scope.permissions
        if name in catalog.by_name
    }
