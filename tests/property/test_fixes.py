"""The smallest fix: what is named allows by the naive reference, and nothing smaller would have done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given, note
from tests.property.drawn import DECISIONS, Drawn, decisions, draw, drawn_worlds
from tests.reference import naive, people, places
from tests.reference.rows import Rows

from authz_service.catalog.model import Catalog
from authz_service.directory.model import NodeId, NodeKind
from authz_service.engine.decide import decide, explain
from authz_service.engine.fix import find_fixes, turns_on_hidden
from authz_service.engine.model import Request
from authz_service.engine.remedies import FIXABLE
from authz_service.engine.steps import Fix, Step, StepKind, change_token
from authz_service.tokens.grants import Grant, GrantState, Pair
from authz_service.tokens.model import Reach, ReachKind, Scope, Token, TokenId, TokenKind

SHARE = 40
"""To try every single change of a small world takes as long as some hundred decisions."""


def after(rows: Rows, *steps: Step) -> Rows:
    """The rows once somebody has done what the steps say."""
    for step in steps:
        rows = after_one(rows, step)
    return rows


def after_one(rows: Rows, step: Step) -> Rows:
    if step.kind is StepKind.MAKE_ADMIN:
        return replace(rows, users=[replace(one, admin=True) if one.id == step.user else one for one in rows.users])
    if step.kind is StepKind.RELAX_POLICY:
        return replace(rows, policies=[one for one in rows.policies if not is_same(one.node, step.nodes[0])])
    if step.kind is StepKind.APPROVE and step.token is not None:
        return with_grant(rows, step.token, step.nodes[0], {(name, step.nodes[1]) for name in step.permissions})
    if step.user is not None and step.role is not None:
        return with_role(rows, step.user, step.nodes[0], step.role)
    tokens = [change_token(one, step) if one.id == step.token else one for one in rows.tokens]
    return replace(rows, tokens=tokens)


def is_same(stored: NodeId, named: NodeId) -> bool:
    """Names without a directory are stored as they were written and compared by the catalog (C9)."""
    return stored == named or (isinstance(stored, str) and stored.lower() == named)


def with_role(rows: Rows, user: NodeId, node: NodeId, role: str) -> Rows:
    others = [row for row in rows.memberships if row[:2] != (user, node)]
    return replace(rows, memberships=[*others, (user, node, role)])


def with_grant(rows: Rows, token: TokenId, group: NodeId, pairs: set[Pair]) -> Rows:
    """Every catalog of the token gets it: the question is about one of them."""
    grants = list(rows.grants)
    for catalog in {catalog.name for catalog in rows.catalogs}:
        before = [one for one in grants if (one.token, one.group, one.catalog) == (token, group, catalog)]
        active = [one for one in before if one.state is GrantState.ACTIVE]
        given = frozenset(pairs).union(*(one.pairs for one in active))
        grants = [one for one in grants if one not in active]
        grants.append(Grant(100_000 + len(grants), token, catalog, group, GrantState.ACTIVE, given))
    return replace(rows, grants=grants)


def with_token(rows: Rows, token: Token) -> Rows:
    return replace(rows, tokens=[token if one.id == token.id else one for one in rows.tokens])


def denials(drawn: Drawn) -> Iterator[tuple[Token, Request, tuple[Fix, ...]]]:
    """The drawn questions that a change of rights might answer otherwise, with the fixes that are named."""
    for token_id, request in drawn.questions:
        token = drawn.world.token(token_id)
        if token is None:
            continue
        decision = decide(token, drawn.world, request)
        if not decision.allowed and not decision.hide and decision.reason in FIXABLE:
            yield token, request, find_fixes(token, drawn.world, request, decision)


@given(drawn=drawn_worlds())
@decisions(DECISIONS // 10)
def test_every_fix_that_is_named_allows_once_it_is_made_and_is_named_once(drawn: Drawn):
    for token, request, fixes in denials(drawn):
        assert len({frozenset(fix.steps) for fix in fixes}) == len(fixes), (drawn, token.id, request, fixes)
        for fix in fixes:
            changed = after(drawn.rows, *fix.steps)
            answer = naive.decide(changed, token.id, request)
            if not answer.allowed:
                note(f"{drawn}: {token.id} asks {request}: {fix.sentence()} leaves {answer}")
            assert answer.allowed


@given(drawn=drawn_worlds())
@decisions(DECISIONS // 16)
def test_no_part_of_a_fix_is_more_than_it_takes(drawn: Drawn):
    for token, request, fixes in denials(drawn):
        for fix in fixes:
            for smaller in parts_of(drawn.rows, fix):
                answer = naive.decide(after(drawn.rows, *smaller), token.id, request)
                if answer.allowed:
                    note(f"{drawn}: {token.id} asks {request}: {Fix(smaller).sentence()} does, not {fix.sentence()}")
                assert not answer.allowed


def parts_of(rows: Rows, fix: Fix) -> Iterator[tuple[Step, ...]]:
    """The fix with one step less; a single step also with one permission, one place or some role less."""
    for position in range(len(fix.steps)):
        yield fix.steps[:position] + fix.steps[position + 1 :]
    if len(fix.steps) > 1:
        return
    step = fix.steps[0]
    if step.kind in (StepKind.ADD_PERMISSIONS, StepKind.ADD_SCOPE):
        for name in step.permissions:
            yield (replace(step, permissions=tuple(other for other in step.permissions if other != name)),)
    if step.kind in (StepKind.ADD_NODES, StepKind.ADD_SCOPE):
        for node in step.nodes:
            yield (replace(step, nodes=tuple(other for other in step.nodes if other != node)),)
    if step.role is not None:
        for catalog in rows.catalogs:
            for lower in included(catalog, step.role) - {step.role}:
                # A role of the same name may stand for less in another catalog: only one catalog is asked.
                if all(lower in included(other, step.role) for other in rows.catalogs if other.roles):
                    yield (replace(step, role=lower),)


def included(catalog: Catalog, role: str) -> set[str]:
    found, waiting = {role}, [role]
    while waiting:
        inner = catalog.roles.get(waiting.pop())
        more = set() if inner is None else set(inner.includes) & catalog.roles.keys() - found
        found |= more
        waiting += more
    return found


@given(drawn=drawn_worlds())
@decisions(DECISIONS // SHARE)
def test_where_a_single_change_would_do_a_single_change_is_named(drawn: Drawn):
    for token, request, fixes in denials(drawn):
        hidden = turns_on_hidden(token, drawn.world, request)
        if hidden or any(len(fix.steps) == 1 for fix in fixes):
            continue
        for changed, what in single_changes(drawn.rows, token, request):
            answer = naive.decide(changed, token.id, request)
            if answer.allowed:
                note(f"{drawn}: {token.id} asks {request}: {what} would do; named: {[one.sentence() for one in fixes]}")
            assert not answer.allowed


@given(drawn=drawn_worlds())
@decisions(DECISIONS // 20)
def test_no_fix_is_named_where_a_place_has_a_part_that_the_owner_does_not_see(drawn: Drawn):
    for token, request, fixes in denials(drawn):
        catalog = naive.catalog_of(drawn.rows, token, request.catalog)
        assert catalog is not None
        if catalog.upstream or not fixes:
            continue
        named = [text for fix in fixes for step in fix.steps for text in step.targets]
        _, trace = explain(token, drawn.world, request)
        items = [item for traced in trace for one in traced.sets for item in one.items]
        named += [item.target for item in items if item.target is not None and item.node != token.owner]
        for text in named:
            place = places.written_place(drawn.rows, catalog, text)
            assert place is not None
            assert people.sees(drawn.rows, catalog, token.owner, place)


def single_changes(rows: Rows, token: Token, request: Request) -> Iterator[tuple[Rows, str]]:
    """Every change of one scope by one permission or place, every new scope of one permission, every membership.

    Places that the owner does not see are left out: no fix may name them.
    """
    catalog = naive.catalog_of(rows, token, request.catalog)
    assert catalog is not None
    names = [permission.name for permission in catalog.permissions]
    nodes = seen_nodes(rows, catalog, token)
    if token.kind is TokenKind.LEGACY:
        for name in catalog.bundles:
            yield with_token(rows, replace(token, legacy_scopes=(*token.legacy_scopes, name))), f"bundle {name}"
    else:
        for changed in changed_scopes(token, catalog, names, nodes):
            yield with_token(rows, changed), str(changed.scopes)
    if not catalog.upstream and isinstance(token.owner, int):
        for node in rows.nodes:
            if node.id in nodes and node.kind in (NodeKind.PROJECT, NodeKind.GROUP):
                for role in catalog.roles:
                    yield with_role(rows, token.owner, node.id, role), f"{role} on {node.name}"


def changed_scopes(token: Token, catalog: Catalog, names: list[str], nodes: list[NodeId]) -> Iterator[Token]:
    for position, scope in enumerate(token.scopes):
        if scope.catalog != catalog.name:
            continue
        rest = (token.scopes[:position], token.scopes[position + 1 :])
        for name in names:
            wider = replace(scope, permissions=(*scope.permissions, name))
            yield replace(token, scopes=(*rest[0], wider, *rest[1]))
        if scope.reach.kind is ReachKind.SELECTED:
            for node in nodes:
                wider = replace(scope, reach=Reach(ReachKind.SELECTED, (*scope.reach.nodes, node)))
                yield replace(token, scopes=(*rest[0], wider, *rest[1]))
    for name in names:
        reaches = [Reach(ReachKind.SELECTED, (node,)) for node in nodes]
        reaches += [Reach(kind) for kind in (ReachKind.USER, ReachKind.INSTANCE)]
        for reach in reaches:
            yield replace(token, scopes=(*token.scopes, Scope(catalog.name, reach, (name,))))


def seen_nodes(rows: Rows, catalog: Catalog, token: Token) -> list[NodeId]:
    if catalog.upstream:
        spoken = {node for scope in token.scopes for node in scope.reach.nodes if isinstance(node, str)}
        return sorted(spoken, key=str)
    found = []
    for node in rows.nodes:
        if node.source == places.source_of(catalog) and node.kind is not NodeKind.INSTANCE:
            place = places.place_of(rows, node)
            if people.sees(rows, catalog, token.owner, place):
                found.append(node.id)
    return found


def test_drawn_worlds_have_fixes_of_every_kind_and_length():
    kinds: set[StepKind] = set()
    lengths: Counter[int] = Counter()
    for seed in range(300):
        for _, _, fixes in denials(draw(seed)):
            kinds |= {step.kind for fix in fixes for step in fix.steps}
            lengths.update(len(fix.steps) for fix in fixes)
            lengths[0] += not fixes
        if set(StepKind) == kinds and {0, 1, 2} <= set(lengths) and lengths[1] > 60:
            return
    raise AssertionError((kinds, lengths))


def test_a_fix_of_a_child_names_the_token_that_fails():
    for seed in range(200):
        drawn = draw(seed)
        for token, _, fixes in denials(drawn):
            named: set[TokenId | None] = {step.token for fix in fixes for step in fix.steps}
            if token.parent is not None and token.parent in named:
                return
    raise AssertionError("no drawn world has a denial by a parent that can be fixed")
