"""The naive reference: docs/semantics.md written down once more, rule by rule, from rows, slowly.

It shares data types with the service and not one line of its logic. Where it and the engine differ, one of them
breaks a rule.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tests.reference import people, places
from tests.reference.attributes import Facts, trials
from tests.reference.items import A2, A3, ORDER, PASSED, Items, Outcome
from tests.reference.places import Place
from tests.reference.rows import Rows

from authz_service.catalog.model import (
    AnyOperation,
    Bundle,
    Catalog,
    Condition,
    Operation,
    RequirementSet,
    Target,
    TargetKind,
)
from authz_service.directory.model import NodeId, NodeKind, UserState
from authz_service.engine.model import Decision, Missing, OperationRequest, PermissionRequest, Reason, Request
from authz_service.tokens.model import Reach, ReachKind, Scope, Token, TokenId, TokenKind

MAX_ANCESTORS = 32
BOUNDARY_ORDER = [NodeKind.PROJECT, NodeKind.GROUP, NodeKind.USER, NodeKind.INSTANCE]


def decide(rows: Rows, token_id: TokenId, request: Request) -> Decision:
    """The decision, but for `target`, which is for messages only."""
    shown = token_of(rows, token_id)
    if shown is None:
        return Decision(False, Reason.UNKNOWN_TOKEN)
    catalog = catalog_of(rows, shown, request.catalog)
    fault = token_fault(rows, shown, catalog, request)
    if fault is None and (catalog is None or (request.version is not None and request.version != catalog.version)):
        fault = Reason.CATALOG_MISMATCH
    if fault is not None or catalog is None:
        return Decision(False, fault or Reason.CATALOG_MISMATCH, failed_token=shown.id)
    answer = judge(rows, shown, catalog, request)
    if not answer.allowed:
        return replace(answer, failed_token=shown.id)
    line = [shown]
    while line[-1].parent is not None:
        ancestor = token_of(rows, line[-1].parent)
        if ancestor is None or ancestor in line or len(line) > MAX_ANCESTORS:
            return Decision(False, Reason.TOKEN_REVOKED, failed_token=line[-1].parent)
        fault = token_fault(rows, ancestor, catalog, request)
        if fault is not None:
            return Decision(False, fault, failed_token=ancestor.id)
        own = judge(rows, ancestor, catalog, request)
        if not own.allowed:
            return replace(own, failed_token=ancestor.id)
        line.append(ancestor)
    return answer


def decide_user(rows: Rows, user: NodeId, catalog: Catalog, request: Request) -> Decision:
    """A13: a token that holds everything everywhere, in a world without policies, for which T6 does not count."""
    account = people.user_of(rows, user)
    if account is None or account.state is not UserState.ACTIVE:
        return Decision(False, Reason.OWNER_INACTIVE)
    if catalog.upstream:
        return Decision(False, Reason.OWNER_NOT_MEMBER)
    names = tuple(permission.name for permission in catalog.permissions)
    nodes = tuple(node.id for node in rows.nodes)
    reaches = (Reach(ReachKind.SELECTED, nodes), Reach(ReachKind.USER), Reach(ReachKind.INSTANCE))
    scopes = tuple(Scope(catalog.name, reach, names) for reach in reaches)
    everything = Token(TokenId("everything"), user, {catalog.name: catalog.version}, scopes=scopes)
    bare = Rows(rows.nodes, rows.users, rows.memberships, [everything], [catalog])
    return judge(bare, everything, replace(catalog, single_owner=False), request)


def token_of(rows: Rows, token_id: TokenId) -> Token | None:
    return next((token for token in rows.tokens if token.id == token_id), None)


def catalog_of(rows: Rows, token: Token, name: str) -> Catalog | None:
    """The version the token was made under (C8)."""
    for catalog in rows.catalogs:
        if catalog.name == name and token.catalogs.get(name) == catalog.version:
            return catalog
    return None


def token_fault(rows: Rows, token: Token, catalog: Catalog | None, request: Request) -> Reason | None:
    """A1, from revocation on."""
    if token.revoked_at is not None:
        return Reason.TOKEN_REVOKED
    if token.expires_at is not None and request.now >= token.expires_at:
        return Reason.TOKEN_EXPIRED
    if token.not_before is not None and request.now < token.not_before:
        return Reason.TOKEN_NOT_YET_VALID
    if isinstance(token.owner, int) or (catalog is not None and not catalog.upstream):
        user = people.user_of(rows, token.owner)
        if user is None or user.state is not UserState.ACTIVE:
            return Reason.OWNER_INACTIVE
    if token.conditions.networks and not in_networks(request.client_address, token.conditions.networks):
        return Reason.CONDITION_FAILED
    return None


def in_networks(address: str | None, networks: tuple[str, ...]) -> bool:
    if address is None:
        return False
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in ipaddress.ip_network(network) for network in networks)


def judge(rows: Rows, token: Token, catalog: Catalog, request: Request) -> Decision:
    """A2 to A8 for one token of the line, over all trials of absent attributes (C5)."""
    facts = Facts(rows, catalog, token.owner, request)
    absent = []
    for when, place in Hearing(rows, token, catalog, request, facts).conditions_in_play():
        absent += facts.absent(when, place)
    answers = [Hearing(rows, token, catalog, request, replace(facts, trial=trial)).answer() for trial in trials(absent)]
    allowed = [answer.allowed for answer in answers]
    if all(allowed) or not any(allowed):
        return answers[0]
    denial = next(answer for answer in answers if not answer.allowed)
    names = tuple(sorted({name for name, _ in absent}))
    return Decision(False, Reason.ATTRIBUTE_MISSING, hide=denial.hide, absent=names)


@dataclass(frozen=True)
class Hearing(Items):
    """One token, one question, one trial."""

    def answer(self) -> Decision:
        if isinstance(self.request.ask, PermissionRequest):
            return self.answer_permission(self.request.ask)
        if self.request.ask.bad_path:
            return Decision(False, Reason.BAD_PATH)
        if self.request.ask.bad_document:
            return Decision(False, Reason.BAD_DOCUMENT)
        operation = self.catalog.operations.get(self.request.ask.operation)
        if operation is None:
            return self.answer_unlisted(self.request.ask)
        return self.answer_operation(operation)

    # What is in play (C5)

    def conditions_in_play(self) -> Iterator[tuple[Condition, Place | None]]:
        ask = self.request.ask
        if isinstance(ask, PermissionRequest):
            permission = self.holding.permission(ask.permission)
            place = None if ask.target is None else places.written_place(self.rows, self.catalog, ask.target)
            if permission is not None and place is not None:
                for holder in self.holding.conferring(permission, place.kind):
                    yield holder.when, place
            return
        operation = self.catalog.operations.get(ask.operation)
        for choice in () if operation is None else operation.sets:
            yield choice.when, self.read_at(choice.items[0])
            for item in choice.items:
                named = self.find(item.target)[1]
                for place in [self.read_at(item), *self.candidates(item, named)]:
                    for holder in self.holding.conferring(self.permission_of(item), item.boundary):
                        yield holder.when, place

    # The three kinds of question

    def answer_permission(self, ask: PermissionRequest) -> Decision:
        permission = self.holding.permission(ask.permission)
        if permission is None:
            return Decision(False, Reason.PERMISSION_UNKNOWN)
        if ask.target is None:
            return Decision(False, Reason.TARGET_REQUIRED)
        place = places.written_place(self.rows, self.catalog, ask.target)
        if place is None:
            return Decision(False, Reason.TARGET_UNKNOWN, hide=not self.catalog.upstream)
        if place.kind not in permission.boundaries:
            return Decision(False, Reason.BOUNDARY_MISMATCH, hide=self.unseen(place))
        outcome = self.at_place(permission, place, None, exceptions=True)
        if outcome.stage == PASSED:
            return granted(exceptional=outcome.exceptional)
        missing = (Missing(permission.name, place.kind, place.text),) if outcome.stage == A3 else ()
        return Decision(False, outcome.reason, missing, self.unseen(place))

    def answer_operation(self, operation: Operation) -> Decision:
        if operation.closed and self.token.kind is TokenKind.FINE_GRAINED:
            return Decision(False, Reason.OPERATION_CLOSED)
        not_open: Decision | None = None
        if operation.open and not (operation.mutates and operation.open_at and not operation.reviewed):
            not_open = self.answer_open(operation.open_at)
            if not_open.allowed:
                return not_open
        if not operation.sets:
            if not_open is not None:
                return not_open
            reason = Reason.OPERATION_CLOSED if operation.closed else Reason.PERMISSION_MISSING
            return self.answer_given_target(lambda bundle: operation.id in bundle.operations, reason)
        return self.answer_sets(operation)

    def answer_open(self, target: Target | None) -> Decision:
        """C4: `open` that names a node needs it public, or A4."""
        if target is None:
            return Decision(True, Reason.GRANTED_OPEN)
        reason, place = self.find(target)
        if place is None:
            hide = reason is Reason.TARGET_UNKNOWN and not self.catalog.upstream
            return Decision(False, reason or Reason.TARGET_UNKNOWN, hide=hide)
        public = people.is_public(self.rows, place)
        fault = None if public else self.owner_fault(None, place, None)
        if public and self.rulings.ends_public_reads(place):
            fault = Reason.POLICY_FORBIDS_KIND
        if fault is not None:
            return Decision(False, fault, hide=self.unseen(place))
        return Decision(True, Reason.GRANTED_OPEN)

    def answer_unlisted(self, ask: OperationRequest) -> Decision:
        """C7: an operation in no table."""
        covering = {AnyOperation.ALL} if ask.mutates else {AnyOperation.ALL, AnyOperation.READ}
        return self.answer_given_target(lambda bundle: bundle.any_operation in covering, ask.unlisted)

    def answer_given_target(self, covers: Callable[[Bundle], bool], otherwise: Reason) -> Decision:
        """C7: by the place the caller gives, where some bundle covers the call."""
        if not any(covers(bundle) for bundle in self.holding.bundles()):
            return Decision(False, otherwise)
        reason, place = self.find(Target(TargetKind.CALLER))
        if place is None:
            hide = reason is Reason.TARGET_UNKNOWN and not self.catalog.upstream
            return Decision(False, reason or Reason.TARGET_UNKNOWN, hide=hide)
        fault = self.owner_fault(None, place, None)
        counts = any(covers(bundle) for bundle in self.holding.bundles_counting_at(place))
        if not counts or (place.kind is NodeKind.USER and not self.holding.is_own_account(place)):
            fault = Reason.OUTSIDE_REACH
        fault = fault or self.rulings.fault_of_kind(place)
        if fault is not None:
            return Decision(False, fault, hide=self.unseen(place))
        return Decision(True, Reason.GRANTED)

    # Sets

    def answer_sets(self, operation: Operation) -> Decision:
        matching = [choice for choice in operation.sets if choice.when and self.set_matches(choice)]
        in_play = matching or [choice for choice in operation.sets if not choice.when]
        if not in_play:
            hide = any(self.set_hides(choice) for choice in operation.sets)
            return Decision(False, Reason.PERMISSION_MISSING, hide=hide)
        outcomes = [self.try_set(operation, choice) for choice in in_play]
        passed = [outcome for outcome in outcomes if outcome.stage == PASSED]
        if any(not outcome.exceptional for outcome in passed):
            return granted(exceptional=False)
        reads_public = operation.public_read and (operation.reviewed or not operation.mutates)
        if passed or (reads_public and any(self.is_public_set(choice) for choice in in_play)):
            return granted(exceptional=True)
        furthest = max(outcome.stage for outcome in outcomes)
        best: tuple[int, int] | None = None
        for position, (choice, outcome) in enumerate(zip(in_play, outcomes, strict=True)):
            rank = (BOUNDARY_ORDER.index(choice.items[0].boundary), position)
            if outcome.stage == furthest and (best is None or rank < best):
                best = rank
        assert best is not None
        chosen = outcomes[best[1]]
        return Decision(False, chosen.reason, chosen.missing, chosen.hide)

    def set_matches(self, choice: RequirementSet) -> bool:
        first = choice.items[0]
        return self.facts.matches(choice.when, self.read_at(first))

    def set_hides(self, choice: RequirementSet) -> bool:
        """A10: whether some target of the set is unknown, or unseen by the owner."""
        if self.catalog.upstream:
            return False
        for item in choice.items:
            reason, place = self.find(item.target)
            unknown = place is None and reason is Reason.TARGET_UNKNOWN
            if unknown or (place is not None and self.unseen(place)):
                return True
        return False

    def try_set(self, operation: Operation, choice: RequirementSet) -> Outcome:
        hide = self.set_hides(choice)
        unresolved = [reason for reason, _ in map(self.locate, choice.items) if reason is not None]
        if unresolved:
            return Outcome(A2, min(unresolved, key=ORDER.index), hide=hide)
        outcomes = [
            self.try_item(operation, item, choice.min_role if position == 0 else None)
            for position, item in enumerate(choice.items)
        ]
        stage = min(outcome.stage for outcome in outcomes)
        if stage == PASSED:
            return Outcome(PASSED, Reason.GRANTED, any(outcome.exceptional for outcome in outcomes))
        reason = min((outcome.reason for outcome in outcomes if outcome.stage != PASSED), key=ORDER.index)
        missing = [
            Missing(self.permission_of(item).name, item.boundary, self.text_of(item))
            for item, outcome in zip(choice.items, outcomes, strict=True)
            if outcome.stage == A3
        ]
        return Outcome(stage, reason, missing=tuple(missing), hide=hide)

    def is_public_set(self, choice: RequirementSet) -> bool:
        """A7, `public_read` of an operation."""
        for item in choice.items:
            reason, place = self.locate(item)
            if item.target.kind not in (TargetKind.PARAMETER, TargetKind.CALLER):
                return False
            if reason is not None or place is None or not people.is_public(self.rows, place):
                return False
            if self.stands_for_projects(item, place):
                return False
            if not self.facts.matches(self.permission_of(item).when, place) or self.rulings.ends_public_reads(place):
                return False
        return True


def granted(*, exceptional: bool) -> Decision:
    return Decision(True, Reason.GRANTED_PUBLIC_READ if exceptional else Reason.GRANTED)
