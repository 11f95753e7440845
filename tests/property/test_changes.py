"""What a change to a token or to the directory may do to decisions, and what it must never do."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random

from hypothesis import example, given, note
from tests.property.drawn import DECISIONS, Drawn, decisions, draw, drawn_worlds
from tests.property.worlds import DAY, NOW, UPSTREAM_NODES
from tests.reference.rows import Rows
from tests.support.memory_world import MemoryWorld, decide_in

from authz_service.directory.model import DEFAULT_SOURCE, NodeKind, UserState
from authz_service.engine.decide import decide
from authz_service.engine.model import Decision, OperationRequest, PermissionRequest, Reason, Request
from authz_service.tokens.model import Conditions, Reach, ReachKind, Scope, Token, TokenId, TokenKind

SOME = decisions(DECISIONS // 10)
WITHOUT_SCOPES = {Reason.GRANTED_OPEN, Reason.GRANTED_PUBLIC_READ}
NO_PATH = re.compile(r"(?:(?:project|group|user):)?\d+|instance")


@given(drawn=drawn_worlds())
@SOME
def test_more_scopes_never_turn_an_allow_into_a_deny(drawn: Drawn):
    random = drawn.random

    def widened(token: Token) -> Token:
        if token.kind is TokenKind.LEGACY:
            return token
        return replace(token, scopes=(*token.scopes, drawn_scope(random, drawn.rows, token)))

    never(drawn, drawn.decide(), drawn.decide(drawn.with_tokens(widened)), lost=True)


def drawn_scope(random: Random, rows: Rows, token: Token) -> Scope:
    name = random.choice(list(token.catalogs))
    catalog = next(one for one in rows.catalogs if (one.name, one.version) == (name, token.catalogs[name]))
    kind = random.choice(list(ReachKind))
    nodes = UPSTREAM_NODES if catalog.upstream else tuple(node.id for node in rows.nodes)
    chosen = tuple(random.sample(nodes, 2)) if kind is ReachKind.SELECTED else ()
    permissions = [permission.name for permission in catalog.permissions if random.random() < 0.6]
    return Scope(name, Reach(kind, chosen), tuple(permissions))


@given(drawn=drawn_worlds())
@example(drawn=draw(523))
@example(drawn=draw(291913626))
@SOME
def test_taking_away_never_turns_a_deny_into_an_allow(drawn: Drawn):
    """Less in a token's scopes, a dead token, another condition, a blocked owner.

    A token that ends earlier may come within a policy's limit of lives: it is allowed then as the limit wants it.
    Memberships are left alone: whoever loses a low role in a public project becomes a visitor there (A8).
    """
    random = drawn.random
    changed = drawn.with_tokens(lambda token: narrowed(random, token))
    blocked = random.choice(drawn.rows.users).id
    users = [
        replace(user, state=UserState.BLOCKED) if user.id == blocked and random.random() < 0.5 else user
        for user in changed.users
    ]
    before, after = drawn.decide(), drawn.decide(replace(changed, users=users))
    ends = {token.id: token.expires_at for token in drawn.rows.tokens}
    sooner = {token.id for token in changed.tokens if token.expires_at != ends[token.id]}
    within = [
        old.reason is Reason.LIFETIME_EXCEEDS_POLICY and old.failed_token in sooner and new.allowed
        for old, new in zip(before, after, strict=True)
    ]
    never(
        drawn, before, [old if fits else new for old, new, fits in zip(before, after, within, strict=True)], lost=False
    )


def narrowed(random: Random, token: Token) -> Token:
    scopes = [narrowed_scope(random, scope) for scope in token.scopes if random.random() < 0.7]
    token = replace(
        token,
        scopes=tuple(scopes),
        legacy_scopes=tuple(name for name in token.legacy_scopes if random.random() < 0.7),
    )
    match random.randrange(12):
        case 0 if token.revoked_at is None:
            return replace(token, revoked_at=NOW)
        case 1:
            return replace(token, expires_at=NOW if token.expires_at is None else min(token.expires_at, NOW))
        case 2 if token.not_before is None:
            return replace(token, not_before=NOW + DAY)
        case 3 if not token.conditions.networks:
            return replace(token, conditions=Conditions(("192.0.2.0/24",)))
    return token


def narrowed_scope(random: Random, scope: Scope) -> Scope:
    nodes = tuple(node for node in scope.reach.nodes if random.random() < 0.7)
    permissions = tuple(name for name in scope.permissions if random.random() < 0.7)
    return replace(scope, reach=replace(scope.reach, nodes=nodes), permissions=permissions)


def never(drawn: Drawn, before: list[Decision], after: list[Decision], *, lost: bool) -> None:
    """No allow became a deny (`lost`), or no deny an allow."""
    for asked, old, new in zip(drawn.questions, before, after, strict=True):
        if old.allowed is not new.allowed and old.allowed is lost:
            note(f"{drawn}: {asked}")
            note(f"before: {old}")
            note(f"after:  {new}")
            raise AssertionError("an allow was lost" if lost else "a deny became an allow")


@given(drawn=drawn_worlds())
@SOME
def test_a_token_without_scopes_does_only_what_anyone_may(drawn: Drawn):
    bare = drawn.with_tokens(lambda token: replace(token, scopes=(), legacy_scopes=()))
    for (token, request), decision in zip(drawn.questions, drawn.decide(bare), strict=True):
        note(f"{drawn}: {token} asks {request}: {decision}")
        assert not decision.allowed or decision.reason in WITHOUT_SCOPES


@given(drawn=drawn_worlds())
@SOME
def test_a_child_is_never_allowed_what_its_parent_is_denied(drawn: Drawn):
    random = drawn.random
    parents = [token.id for token in drawn.rows.tokens if token.parent is None]

    def adopted(token: Token) -> Token:
        """More children than are drawn: every other token of the world gets one of the others above it."""
        if token.parent is None and parents and token.id not in parents[:2] and random.random() < 0.7:
            return replace(token, parent=random.choice(parents[:2]))
        return token

    rows = drawn.with_tokens(adopted)
    world = MemoryWorld(rows)
    for token_id, request in drawn.questions:
        token = world.token(token_id)
        parent = None if token is None or token.parent is None else world.token(token.parent)
        if token is None or parent is None or token.catalogs.get(request.catalog) is None:
            continue
        if parent.catalogs.get(request.catalog) != token.catalogs[request.catalog]:
            continue
        if decide_in(world, token.id, request).allowed:
            note(f"{drawn}: {token_id} under {parent.id} asks {request}")
            assert decide_in(world, parent.id, request).allowed


@given(drawn=drawn_worlds())
@SOME
def test_a_dead_ancestor_is_the_end_of_its_children(drawn: Drawn):
    random = drawn.random
    dead = random.choice(drawn.rows.tokens).id
    rows = drawn.with_tokens(
        lambda token: replace(token, revoked_at=NOW) if token.id == dead else replace(token, parent=dead)
    )
    for decision in drawn.decide(rows):
        assert not decision.allowed


@given(drawn=drawn_worlds())
@SOME
def test_renaming_changes_no_decision_about_a_place_named_by_its_id(drawn: Drawn):
    nodes = [
        node if node.kind is NodeKind.INSTANCE else replace(node, name=f"renamed-{node.id}")
        for node in drawn.rows.nodes
    ]
    users = [replace(user, username=f"renamed-{user.id}") for user in drawn.rows.users]
    renamed = MemoryWorld(replace(drawn.rows, nodes=nodes, users=users))
    for token, request in drawn.questions:
        if not all(NO_PATH.fullmatch(text) for text in written(request)):
            continue
        before = decide_in(drawn.world, token, request)
        after = decide_in(renamed, token, request)
        note(f"{drawn}: {token} asks {request}")
        assert (after.allowed, after.reason, after.hide) == (before.allowed, before.reason, before.hide)
        assert (after.absent, after.failed_token) == (before.absent, before.failed_token)


def written(request: Request) -> list[str]:
    """Everything in a request that might be a path."""
    ask = request.ask
    found = [] if ask.target is None else [ask.target]
    if isinstance(ask, OperationRequest):
        found += [text for name, text in ask.parameters.items() if name not in ("status", "soft")]
    return found


@given(drawn=drawn_worlds())
@SOME
def test_node_ids_of_another_type_select_nothing(drawn: Drawn):
    """A directory id is a number: its digits as a text are no id, and cover no more than no node at all."""

    def with_nodes(token: Token, *, as_text: bool) -> Token:
        scopes = [
            replace(scope, reach=replace(scope.reach, nodes=tuple(map(str, scope.reach.nodes)) if as_text else ()))
            for scope in token.scopes
        ]
        return replace(token, scopes=tuple(scopes))

    texts = MemoryWorld(drawn.with_tokens(lambda token: with_nodes(token, as_text=True)))
    empty = MemoryWorld(drawn.with_tokens(lambda token: with_nodes(token, as_text=False)))
    upstream = {catalog.name for catalog in drawn.rows.catalogs if catalog.upstream}
    for token, request in drawn.questions:
        if request.catalog not in upstream:
            assert decide_in(texts, token, request).allowed is decide_in(empty, token, request).allowed


@given(drawn=drawn_worlds())
@SOME
def test_external_ids_compare_exactly(drawn: Drawn):
    """`project:042` is not `project:42`, and no project is found by a group's id."""
    known = {(node.source, node.kind, node.external_id) for node in drawn.rows.nodes}
    catalog = next(catalog for catalog in drawn.rows.catalogs if catalog.name == "forge")
    users = [replace(user, state=UserState.ACTIVE) for user in drawn.rows.users]
    world = MemoryWorld(replace(drawn.rows, users=users))
    token = Token(TokenId("tok_free"), users[0].id, {"forge": catalog.version})
    for external_id in [node.external_id for node in drawn.rows.nodes if node.external_id is not None]:
        for kind in (NodeKind.PROJECT, NodeKind.GROUP, NodeKind.USER):
            for digits in (external_id, f"0{external_id}", f"{external_id}0"):
                ask = PermissionRequest(catalog.permissions[0].name, f"{kind.value}:{digits}")
                decision = decide(token, world, Request("forge", ask, NOW))
                exists = (DEFAULT_SOURCE, kind, digits) in known
                assert (decision.reason is Reason.TARGET_UNKNOWN) is not exists
