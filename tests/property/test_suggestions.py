"""A suggested token makes its calls, nothing in it is to spare, and what it was not asked for it does not allow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given, note
from tests.property.drawn import DECISIONS, Drawn, decisions, draw, drawn_worlds
from tests.property.worlds import NOW
from tests.reference import naive, places
from tests.reference.rows import Rows

from authz_service.catalog.model import Catalog
from authz_service.directory.model import NodeKind
from authz_service.engine.model import PermissionRequest, Reason, Request
from authz_service.engine.suggest import Suggestion, needs_of, suggest
from authz_service.tokens.model import Conditions, Reach, ReachKind, Scope, Token, TokenId, TokenKind

DRAFT = TokenId("tok_draft")
CALLS = 6


def bare_of(token: Token) -> Token:
    """Who asks, with nothing in hand."""
    return replace(
        token,
        id=DRAFT,
        kind=TokenKind.FINE_GRAINED,
        scopes=(),
        legacy_scopes=(),
        parent=None,
        resource_owner=None,
        conditions=Conditions(),
        expires_at=None,
        not_before=None,
        revoked_at=None,
    )


def with_draft(rows: Rows, token: Token) -> Rows:
    return replace(rows, tokens=[*rows.tokens, token])


def allows(rows: Rows, token: Token, request: Request) -> bool:
    return naive.decide(with_draft(rows, token), DRAFT, request).allowed


def suggestions(drawn: Drawn) -> Iterator[tuple[Token, Catalog, list[Request], Suggestion]]:
    """Of each token's questions, some together: what its owner would need for them."""
    asked: dict[tuple[TokenId, str], list[Request]] = {}
    for token_id, request in drawn.questions:
        asked.setdefault((token_id, request.catalog), []).append(replace(request, version=None))
    for (token_id, name), requests in asked.items():
        token = drawn.world.token(token_id)
        catalog = None if token is None else naive.catalog_of(drawn.rows, token, name)
        if token is None or catalog is None:
            continue
        bare = bare_of(token)
        chosen = requests[:CALLS]
        first = [needs_of(bare, drawn.world, request) for request in chosen]
        known = tuple(
            dict.fromkeys(want.atom.where for needs in first for need in needs for way in need for want in way)
        )
        needs = [need for request in chosen for need in needs_of(bare, drawn.world, request, known)]
        yield bare, catalog, chosen, suggest(catalog, bare, needs)


def written(bare: Token, found: Suggestion) -> Token:
    return replace(bare, scopes=found.scopes, resource_owner=found.resource_owner)


def everything(rows: Rows, bare: Token, catalog: Catalog) -> Token:
    """All permissions everywhere: what this token is denied, no token of this owner is allowed."""
    names = tuple(permission.name for permission in catalog.permissions)
    nodes = tuple(node.id for node in rows.nodes)
    if catalog.upstream:
        nodes = tuple({node for token in rows.tokens for scope in token.scopes for node in scope.reach.nodes})
    scopes = [Scope(catalog.name, Reach(kind), names) for kind in ReachKind if kind is not ReachKind.SELECTED]
    return replace(bare, scopes=(*scopes, Scope(catalog.name, Reach(ReachKind.SELECTED, nodes), names)))


@given(drawn=drawn_worlds())
@decisions(DECISIONS // 10)
def test_a_suggested_token_makes_every_call_that_its_owner_could_make(drawn: Drawn):
    for bare, catalog, calls, found in suggestions(drawn):
        if catalog.single_owner or catalog.upstream:
            continue  # several resource owners need several tokens; upstream, `everything` cannot be written
        most = everything(drawn.rows, bare, catalog)
        for request in calls:
            if allows(drawn.rows, most, request) and not allows(drawn.rows, written(bare, found), request):
                note(f"{drawn}: {bare.owner} asks {request}: {found.scopes} is not enough")
                raise AssertionError(request)


@given(drawn=drawn_worlds())
@decisions(DECISIONS // 16)
def test_a_suggested_token_holds_nothing_for_calls_that_memberships_deny(drawn: Drawn):
    """Each call alone: what it is given either makes it, or waits for something that no membership gives."""
    for token_id, request in drawn.questions:
        token = drawn.world.token(token_id)
        catalog = None if token is None else naive.catalog_of(drawn.rows, token, request.catalog)
        if token is None or catalog is None or catalog.single_owner:
            continue
        bare = bare_of(token)
        asked = replace(request, version=None)
        found = suggest(catalog, bare, needs_of(bare, drawn.world, asked))
        if not found.scopes:
            continue
        answer = naive.decide(with_draft(drawn.rows, written(bare, found)), DRAFT, asked)
        assert answer.reason not in (Reason.OWNER_NOT_MEMBER, Reason.OWNER_ROLE_TOO_LOW), (drawn, request, found)


@given(drawn=drawn_worlds())
@decisions(DECISIONS // 16)
def test_nothing_of_a_suggested_token_is_to_spare(drawn: Drawn):
    """Without any one of its permissions or places, some call that it makes would be denied."""
    for bare, catalog, calls, found in suggestions(drawn):
        if any(one.when and one.implies for one in catalog.permissions):
            continue  # what implies others only sometimes is not relied on for them
        token = written(bare, found)
        made = [request for request in calls if allows(drawn.rows, token, request)]
        if len(made) < len(calls) or found.unmet:
            continue  # a call that fails for another reason may be what a part was meant for
        for smaller in less_of(token):
            if all(allows(drawn.rows, smaller, request) for request in made):
                note(f"{drawn}: {calls}: {smaller.scopes} does too, {token.scopes} was suggested")
                raise AssertionError(smaller.scopes)


def less_of(token: Token) -> Iterator[Token]:
    for position, scope in enumerate(token.scopes):
        for name in scope.permissions:
            fewer = tuple(other for other in scope.permissions if other != name)
            yield with_scope(token, position, replace(scope, permissions=fewer))
        if len(scope.reach.nodes) > 1:
            for node in scope.reach.nodes:
                nodes = tuple(other for other in scope.reach.nodes if other != node)
                yield with_scope(token, position, replace(scope, reach=Reach(scope.reach.kind, nodes)))


def with_scope(token: Token, position: int, scope: Scope) -> Token:
    return replace(token, scopes=(*token.scopes[:position], scope, *token.scopes[position + 1 :]))


@given(drawn=drawn_worlds())
@decisions(DECISIONS // 16)
def test_a_suggested_token_denies_what_no_call_asked_for(drawn: Drawn):
    """Of bare questions: exactly those it was made for, and what these imply there or below."""
    for bare, catalog, _, _ in suggestions(drawn):
        asked = [
            replace(request, version=None)
            for token_id, request in drawn.questions
            if isinstance(request.ask, PermissionRequest) and request.catalog == catalog.name
        ]
        wanted, others = asked[::2], asked[1::2]
        needs = [need for request in wanted for need in needs_of(bare, drawn.world, request)]
        token = written(bare, suggest(catalog, bare, needs))
        given = {(name, node) for scope in token.scopes for name in scope.permissions for node in scope.reach.nodes}
        kinds = {scope.reach.kind for scope in token.scopes}
        for request in others:
            if not allows(drawn.rows, token, request) or allows(drawn.rows, bare, request):
                continue
            assert is_asked_for(drawn.rows, catalog, request, given, kinds)


@given(drawn=drawn_worlds())
@decisions(DECISIONS // 20)
def test_a_suggested_token_passes_exactly_its_calls(drawn: Drawn):
    """Tried on every permission at every place: those it was made for, what these confer there or below, and no more.

    What a token that holds nothing may do as well (A7) is nobody's gift.
    """
    random = drawn.random
    for token in drawn.rows.tokens:
        for name in token.catalogs:
            catalog = naive.catalog_of(drawn.rows, token, name)
            if catalog is None or catalog.upstream or token.parent is not None or random.random() < 0.6:
                continue
            bare = bare_of(token)
            every = every_question(drawn.rows, catalog)
            calls = random.sample(sorted(every), min(len(every), random.randint(1, 4)))
            needs = [need for call in calls for need in needs_of(bare, drawn.world, every[call])]
            found = suggest(catalog, bare, needs)
            if catalog.single_owner and found.resource_owner is None:
                continue  # several resource owners need several tokens
            suggested = written(bare, found)
            made = {
                call for call in calls if allows(drawn.rows, everywhere(drawn.rows, suggested, catalog), every[call])
            }
            for call, request in every.items():
                allowed = allows(drawn.rows, suggested, request)
                if call in made and not allowed:
                    note(f"{drawn}: {token.id} of {name}: {suggested.scopes} is not enough for {call}")
                    raise AssertionError(call)
                if allowed and not any(confers(drawn.rows, catalog, one, call) for one in calls):
                    assert allows(drawn.rows, bare, request), (drawn, token.id, calls, call, suggested.scopes)


Call = tuple[str, str]
"""A permission and the text of a place."""


def every_question(rows: Rows, catalog: Catalog) -> dict[Call, Request]:
    texts = ["instance"]
    own = [node for node in rows.nodes if node.source == places.source_of(catalog)]
    texts += [places.place_of(rows, node).text for node in own if node.kind is not NodeKind.INSTANCE]
    return {
        (permission.name, text): Request(catalog.name, PermissionRequest(permission.name, text), NOW)
        for permission in catalog.permissions
        for text in texts
    }


def everywhere(rows: Rows, suggested: Token, catalog: Catalog) -> Token:
    """With all permissions everywhere that this token's resource owner lets it reach, if it has one."""
    return replace(everything(rows, suggested, catalog), resource_owner=suggested.resource_owner)


def confers(rows: Rows, catalog: Catalog, given: Call, asked: Call) -> bool:
    """Whether whoever holds one at its place holds the other at its own (C2, T2)."""
    above = places.written_place(rows, catalog, given[1])
    place = places.written_place(rows, catalog, asked[1])
    assert above is not None
    assert place is not None
    conferring = catalog.holders[place.kind][catalog.by_name[asked[0]].number]
    covers = above.id in place.chain if place.kind in (NodeKind.PROJECT, NodeKind.GROUP) else above.id == place.id
    return covers and bool(conferring >> catalog.by_name[given[0]].number & 1)


def is_asked_for(
    rows: Rows, catalog: Catalog, request: Request, given: set[tuple[str, object]], kinds: set[ReachKind]
) -> bool:
    """Whether the place lies at or under one that a call named, with a permission that confers this one."""
    assert isinstance(request.ask, PermissionRequest)
    assert request.ask.target is not None
    place = places.written_place(rows, catalog, request.ask.target)
    assert place is not None
    if place.kind.value in ("user", "instance"):
        return ReachKind(place.kind.value) in kinds
    number = catalog.by_name[request.ask.permission].number
    conferring = catalog.holders[place.kind][number]
    names = {permission.name for permission in catalog.permissions if conferring >> permission.number & 1}
    return any(name in names and node in place.chain for name, node in given)


def test_drawn_calls_have_needs_of_every_kind():
    reaches: set[ReachKind] = set()
    shared = several = 0
    for seed in range(25):
        for _, _, calls, found in suggestions(draw(seed)):
            reaches |= {scope.reach.kind for scope in found.scopes}
            shared += any(len(scope.reach.nodes) > 1 for scope in found.scopes)
            several += len(found.scopes) > 1 and len(calls) > 1
            assert found.exact
    assert {ReachKind.SELECTED, ReachKind.USER, ReachKind.INSTANCE, ReachKind.ALL_MEMBERSHIPS} <= reaches
    assert shared
    assert several
