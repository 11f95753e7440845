"""What was asked and given for a token, compiled for one catalog whatever stands beside it."""

from __future__ import annotations

from tests import builders

from authz_service.compiler.approvals import Approval, Closed, compile_approvals
from authz_service.tokens.grants import Approvals, Grant, GrantRequest, GrantState, RequestState
from authz_service.tokens.model import TokenId

CATALOG = builders.catalog(builders.permission("issue:read", 0), builders.permission("issue:write", 1))
JOBS = TokenId("tok_1")
READ, WRITE = ("issue:read", 7), ("issue:write", 7)


def asked(number: int, state: RequestState, *pairs, catalog: str = "forge", group: int = 5, **more) -> GrantRequest:
    return GrantRequest(number, JOBS, catalog, group, state, frozenset(pairs), **more)


def given(number: int, state: GrantState, *pairs, catalog: str = "forge", group: int = 5, **more) -> Grant:
    return Grant(number, JOBS, catalog, group, state, frozenset(pairs), **more)


def test_what_is_of_another_catalog_hides_nothing_that_comes_after_it():
    found = Approvals(
        (asked(1, RequestState.PENDING, WRITE, catalog="other"), asked(2, RequestState.PENDING, WRITE)),
        (given(1, GrantState.ACTIVE, WRITE, catalog="other"), given(2, GrantState.ACTIVE, READ)),
    )
    assert compile_approvals(found, CATALOG) == {5: Approval({7: 1}, {7: 2}, ())}


def test_what_was_closed_last_comes_first():
    found = Approvals(
        (
            asked(1, RequestState.DENIED, READ, closed_no=1),
            asked(2, RequestState.APPROVED, READ, WRITE, given=frozenset([READ]), closed_no=3),
            asked(3, RequestState.CANCELLED, READ, closed_no=4),
        ),
        (given(1, GrantState.REVOKED, READ, closed_no=2), given(2, GrantState.REVOKED, WRITE, group=6, closed_no=9)),
    )
    assert compile_approvals(found, CATALOG) == {
        5: Approval(closed=((Closed.DENIED, {7: 2}), (Closed.REVOKED, {7: 1}), (Closed.DENIED, {7: 1}))),
        6: Approval(closed=((Closed.REVOKED, {7: 2}),)),
    }


def test_what_the_catalog_no_longer_has_is_neither_given_nor_asked():
    found = Approvals(grants=(given(1, GrantState.ACTIVE, READ, ("issue:forget", 7), ("issue:write", 8)),))
    assert compile_approvals(found, CATALOG)[5].active == {7: 1, 8: 2}
