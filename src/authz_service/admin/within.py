"""Whether one token's scopes hold what another asks for: reach for reach, owner for owner (M2, T4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_

from authz_service.admin.faults import Faults
from authz_service.admin.issuing import Issue
from authz_service.admin.reaches import ReadScope
from authz_service.catalog.model import Catalog, Condition, Permission, RequirementSet, bits
from authz_service.compiler.compile import compile_lookup
from authz_service.compiler.lookup import LegacyHoldings, Lookup
from authz_service.directory.model import NodeId, NodeKind, Scalar, User
from authz_service.engine.model import World
from authz_service.engine.places import Place, effective_roles, is_member
from authz_service.pdp.authority_facts import TransactionWorld
from authz_service.pdp.check import ANY_CATALOG
from authz_service.tokens.model import Reach, ReachKind, Scope, Token, TokenKind


async def find_beyond(
    world: TransactionWorld, holder: Token, issue: Issue, code: str, *, only: str | None = None
) -> Faults:
    """All that the issue asks for and the holder's scopes do not hold now; each a fault with this code.

    With `only`, what is asked for in other catalogs is not looked at.

    The holder's own owner must be fit for a node only where the new token acts for somebody else: for the same owner
    rule A4 asks that again at each use.
    """
    return await world.answer(lambda facts: _find_beyond(facts, holder, issue, code, only))


def _find_beyond(facts: World, holder: Token, issue: Issue, code: str, only: str | None) -> Faults:
    faults = Faults()
    judged = {name: catalog for name, catalog in issue.catalogs.items() if only in (None, name)}
    for name, catalog in judged.items():
        own = holder.catalogs.get(name)
        # By another version a name may hold more, or need a lower role: nobody moves to it by issuing (C8).
        if own != catalog.version:
            fix = "" if own is None else f"; it is for `{name}@{own}`"
            message = f"`{catalog.label}` is not among the catalogs of the token that issues this one{fix}"
            faults.add("/catalog", code, message)
    if issue.token.kind is TokenKind.LEGACY:
        _check_legacy(holder, issue, judged.values(), code, faults)
    for position, read in enumerate(issue.scopes):
        if read.catalog.name in judged and holder.catalogs.get(read.catalog.name) == read.catalog.version:
            holdings = _Holdings(facts, holder, issue.token, read.catalog)
            for index, message in holdings.find_lacking(read, issue.resource_owner):
                where = f"/scopes/{position}" + ("" if index is None else f"/permissions/{index}")
                faults.add(where, code, message)
    lacking = (
        [] if ANY_CATALOG in holder.evaluates else [one for one in issue.token.evaluates if one not in holder.evaluates]
    )
    for one in lacking:
        where = f"/evaluates/{issue.token.evaluates.index(one)}"
        faults.add(where, code, f"the token that issues this one may not ask about `{one}` itself")
    return faults


async def keep_held(world: TransactionWorld, holder: Token, issue: Issue) -> Token:
    """The issue's token with that part alone, of its scopes and what it may ask about, which the holder holds now too.

    A place of a scope that holds a part of the scope's permissions becomes a scope of its own.
    """
    return await world.answer(lambda facts: _keep_held(facts, holder, issue))


def _keep_held(facts: World, holder: Token, issue: Issue) -> Token:
    scopes: list[Scope] = []
    for read in issue.scopes:
        if holder.catalogs.get(read.catalog.name) == read.catalog.version:
            scopes += _Holdings(facts, holder, issue.token, read.catalog).keep_held(read, issue.resource_owner)
    legacy = [
        name
        for name in issue.token.legacy_scopes
        if all(
            _carries_all(holder, replace(issue.token, legacy_scopes=(name,)), catalog)
            for catalog in issue.catalogs.values()
        )
    ]
    evaluates = [one for one in issue.token.evaluates if one in holder.evaluates or ANY_CATALOG in holder.evaluates]
    return replace(issue.token, scopes=tuple(scopes), legacy_scopes=tuple(legacy), evaluates=tuple(evaluates))


def _check_legacy(holder: Token, issue: Issue, catalogs: Iterable[Catalog], code: str, faults: Faults) -> None:
    """A coarse token comes only from a coarse token of the same owner that carries as much."""
    for catalog in catalogs:
        if not _carries_all(holder, issue.token, catalog):
            faults.add(
                "/legacy_scopes", code, "the token that issues this one does not carry these legacy scopes itself"
            )


def _carries_all(holder: Token, token: Token, catalog: Catalog) -> bool:
    wanted = compile_lookup(token, catalog)
    held = compile_lookup(holder, catalog)
    return (
        _same_owner(holder, token, catalog)
        and _carries(held.legacy, wanted.legacy)
        and _carries(held.legacy_public, wanted.legacy_public)
    )


def _carries(held: LegacyHoldings | None, wanted: LegacyHoldings | None) -> bool:
    return wanted is None or (
        held is not None
        and not wanted.permissions & ~held.permissions
        and wanted.operations <= held.operations
        and wanted.any_read <= held.any_read
        and wanted.any_write <= held.any_write
    )


def _same_owner(holder: Token, wanted: Token, catalog: Catalog) -> bool:
    """Names without a directory compare as the catalog compares paths (C9)."""
    if catalog.upstream and not catalog.case_sensitive:
        return str(holder.owner).lower() == str(wanted.owner).lower()
    return holder.owner == wanted.owner


@dataclass(slots=True)
class _Holdings:
    """What the holder holds in one catalog, seen from the token that is asked for."""

    facts: World
    holder: Token
    wanted: Token
    catalog: Catalog
    _satisfiable: Sequence[RequirementSet] | None = field(default=None, init=False)

    def find_lacking(self, read: ReadScope, resource_owner: Place | None) -> Iterator[tuple[int | None, str]]:
        """Index of a permission (None: the scope as a whole), and what to say of it."""
        catalog, kind = self.catalog, read.scope.reach.kind
        if catalog.single_owner and kind is not ReachKind.INSTANCE and not self._within_owner(resource_owner):
            yield None, "the token that issues this one has another resource owner"
            return
        lookup = compile_lookup(self.holder, catalog)
        for index, name in enumerate(read.scope.permissions):
            permission = catalog.by_name[name]
            if kind is not ReachKind.SELECTED:
                if not self._confers(self._reach_mask(lookup, kind), permission, read.boundaries):
                    yield (
                        index,
                        f"the token that issues this one does not hold `{name}` in the reach `{kind}` of this owner",
                    )
                continue
            for place in read.places:
                if not self._holds_at(lookup, place, permission):
                    yield index, f"the token that issues this one does not hold `{name}` on `{place.text}`"

    def keep_held(self, read: ReadScope, resource_owner: Place | None) -> Iterator[Scope]:
        """The parts of a scope that the holder holds, those places together that keep the same permissions."""
        kind = read.scope.reach.kind
        if self.catalog.single_owner and kind is not ReachKind.INSTANCE and not self._within_owner(resource_owner):
            return
        lookup = compile_lookup(self.holder, self.catalog)
        parts: dict[tuple[str, ...], list[NodeId]] = {}
        if kind is not ReachKind.SELECTED:
            mask = self._reach_mask(lookup, kind)
            parts[self._names(read, lambda one: self._confers(mask, one, read.boundaries))] = []
        for place in read.places:
            names = self._names(read, lambda one: self._holds_at(lookup, place, one))  # noqa: B023
            parts.setdefault(names, []).append(place.id)
        for names, nodes in parts.items():
            if names:
                yield Scope(read.scope.catalog, Reach(kind, tuple(nodes)), names)

    def _names(self, read: ReadScope, held: Callable[[Permission], bool]) -> tuple[str, ...]:
        return tuple(name for name in read.scope.permissions if held(self.catalog.by_name[name]))

    def _within_owner(self, wanted: Place | None) -> bool:
        if self.holder.kind is TokenKind.LEGACY:
            return True
        return wanted is not None and self.holder.resource_owner in wanted.chain

    def _confers(self, mask: int, permission: Permission, boundaries: Iterable[NodeKind]) -> bool:
        """Whether the mask confers the permission at each of the boundaries at which it exists.

        What confers it only when an attribute matches does not count: the new token would not ask for the attribute.
        """
        for boundary in boundaries:
            if boundary in permission.boundaries:
                conferring = self.catalog.holders[boundary][permission.number] & ~self.catalog.conditional
                if not mask & (conferring | 1 << permission.number):
                    return False
        return True

    @property
    def _own(self) -> bool:
        return _same_owner(self.holder, self.wanted, self.catalog)

    def _owner(self) -> User | None:
        return None if self.catalog.upstream else self.facts.user(self.holder.owner)

    def _reach_mask(self, lookup: Lookup, kind: ReachKind) -> int:
        """What is held in a whole reach. Every reach but selected nodes is some owner's own."""
        if not self._own:
            return 0
        if lookup.legacy is not None:
            owner = self._owner()
            whole = kind is not ReachKind.INSTANCE or (owner is not None and owner.admin)
            return lookup.legacy.permissions if whole else 0
        match kind:
            case ReachKind.ALL_MEMBERSHIPS:
                return lookup.all_memberships
            case ReachKind.PERSONAL_PROJECTS:
                namespace = lookup.selected.get(self.holder.owner, 0)
                return lookup.personal_projects | lookup.all_memberships | namespace
            case ReachKind.USER:
                return lookup.user
            case ReachKind.INSTANCE:
                return lookup.instance
            case ReachKind.SELECTED:
                raise AssertionError("selected nodes are looked at one by one")

    def _holds_at(self, lookup: Lookup, place: Place, permission: Permission) -> bool:
        mask = 0
        for node in place.chain:
            mask |= lookup.selected.get(node, 0)
        owner = self._owner()
        rows = self._is_member_below_too(place)
        if self._own:
            if self._is_personal(place):
                mask |= lookup.personal_projects
            if rows:
                mask |= lookup.all_memberships
            if lookup.legacy is not None and (rows or owner is None or owner.admin):
                mask |= lookup.legacy.permissions
        elif owner is None or not (owner.admin or (rows and self._fit(place, permission))):
            return False
        boundaries = {NodeKind.PROJECT} if place.kind is not NodeKind.GROUP else {NodeKind.PROJECT, NodeKind.GROUP}
        return self._confers(mask, permission, boundaries)

    def _is_personal(self, place: Place) -> bool:
        if self.catalog.upstream:
            return False
        namespace = place.chain if place.kind is NodeKind.USER else place.chain[1:]
        return namespace == (self.holder.owner,)

    def _is_member_below_too(self, place: Place) -> bool:
        """Whether the holder's owner has a membership there and, at a group, with it at all that lies below."""
        if self.catalog.upstream:
            return False
        return is_member(place, self.holder.owner, self._memberships_below_too(place), self.catalog)

    def _memberships_below_too(self, place: Place) -> Mapping[NodeId, str]:
        """Those of the holder's owner that count at all that a scope on the place covers (C6)."""
        memberships = self.facts.memberships(self.holder.owner)
        if place.kind is NodeKind.PROJECT:
            return memberships
        stationary = self.catalog.stationary_roles
        return {node: role for node, role in memberships.items() if role not in stationary}

    def _fit(self, place: Place, permission: Permission) -> bool:
        """Whether the holder's owner has each role that using the permission there may take (M2, A4).

        Nobody has a service account do what they may not do themselves.
        """
        owner = self.holder.owner
        roles = effective_roles(place, owner, self._memberships_below_too(place), self.catalog)
        satisfying = self.catalog.roles_satisfying
        return all(
            (needed.min_role is None or satisfying.get(needed.min_role, frozenset()) & roles)
            and all(role in roles for role in needed.named)
            for needed in self._roles_needed(permission)
        )

    def _roles_needed(self, permission: Permission) -> Iterator[_Roles]:
        """Of all that the permission confers (C2), and of the requirement sets that begin with one of these (C6)."""
        catalog = self.catalog
        for boundary in (NodeKind.PROJECT, NodeKind.GROUP):
            conferred = catalog.confers[boundary][permission.number]
            for number in bits(conferred):
                given = catalog.permissions[number]
                yield _Roles.of(given.boundaries[boundary], given.when)
            for choice in self._choices():
                first = choice.items[0]
                if first.boundary is boundary and conferred >> catalog.by_name[first.permission].number & 1:
                    yield _Roles.of(choice.min_role, choice.when)

    def _choices(self) -> Sequence[RequirementSet]:
        """The sets that ask for a role and that the wanted token could satisfy, wherever its places are."""
        if self._satisfiable is None:
            catalog = self.catalog
            scopes = [scope for scope in self.wanted.scopes if scope.catalog == catalog.name]
            named = {name for scope in scopes for name in scope.permissions} & catalog.by_name.keys()
            numbers = [catalog.by_name[name].number for name in named]
            held = {where: reduce(or_, (row[one] for one in numbers), 0) for where, row in catalog.confers.items()}
            self._satisfiable = [
                choice
                for operation in catalog.operations.values()
                for choice in operation.sets
                if (choice.min_role is not None or _Roles.of(None, choice.when).named)
                and all(
                    catalog.by_name[item.permission].reads_public
                    or held[item.boundary] >> catalog.by_name[item.permission].number & 1
                    for item in choice.items
                )
            ]
        return self._satisfiable


@dataclass(frozen=True, slots=True)
class _Roles:
    """A `min_role`, which other roles may include, and the roles that a `when` names, which none includes (C5)."""

    min_role: str | None
    named: tuple[Scalar, ...]

    @classmethod
    def of(cls, min_role: str | None, when: Condition) -> _Roles:
        return cls(min_role, tuple(value for name, value in when if name == "subject.role"))
