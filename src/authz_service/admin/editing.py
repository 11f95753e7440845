"""Edits: what narrows a token counts at once, what widens it is judged as a creation (M2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.approvals import settle_token
from authz_service.admin.authority import Authority
from authz_service.admin.drafts import (
    ANY_NAME,
    ScopeDraft,
    TokenDraft,
    check_lifetime,
    check_plain,
    ends_later,
    read_networks,
)
from authz_service.admin.faults import shown
from authz_service.admin.issuing import Issue, IssueReader
from authz_service.admin.management import Actor, Management
from authz_service.admin.overlaps import narrow_replaced, networks_within
from authz_service.admin.policy_checks import require_admitted
from authz_service.admin.reaches import ReadScope, ScopeReader
from authz_service.admin.stored import read_stored, require_below, require_works
from authz_service.admin.tokens import details_of, entry_of, find_seen, require_may_issue, show_record
from authz_service.admin.views import etag_of
from authz_service.admin.within import find_beyond
from authz_service.catalog.model import Catalog
from authz_service.errors import ConflictError, ForbiddenError, PreconditionFailedError
from authz_service.pdp.check import parse_catalog
from authz_service.store import audit, changes, token_families, tokens
from authz_service.store.changes import ChangeSet, Stamp
from authz_service.store.events import EventKind, append_event, event_of_token
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.model import Token, TokenId, TokenKind
from authz_service.tokens.secret import is_token_id

EDIT: Final = "token:edit"


@dataclass(frozen=True, slots=True)
class TokenChange:
    """`given` names the fields of the draft that count; the others stay as they are.

    These are texts, dates, conditions, scopes of either kind, `evaluates` and `may_rotate_self`: the rest is never
    edited (M2).
    """

    given: frozenset[str]
    draft: TokenDraft


ANY_VERSION: Final = "*"


async def edit_token(
    management: Management,
    actor: Actor,
    token_id: str,
    change: TokenChange,
    if_match: Sequence[str],
    *,
    wait: bool = False,
) -> Mapping[str, Any]:
    """Change a token that is what the actor saw: one of the tags of `if_match`, or any for `*`.

    Raises NotFoundError, ForbiddenError, PreconditionFailedError, ConflictError for a token that ended or was replaced,
    InvalidInputError with every fault; then nothing was changed. With `wait`, returns when no replica can allow by what
    was taken away any more.
    """

    async def work(conn: AsyncConnection) -> tuple[Mapping[str, Any], Stamp]:
        authority = await Authority.open(conn, management, actor, hold=True)
        known = (await tokens.find_by_id(conn, TokenId(token_id))).record if is_token_id(token_id) else None
        if known is None or not await authority.may_for(EDIT, known.token.owner):
            await find_seen(conn, authority, token_id)
            raise ForbiddenError(f"this token may not edit that one: it needs `{EDIT}` for its owner")
        record = await tokens.get(conn, known.token.id, lock=True)
        if ANY_VERSION not in if_match and etag_of(record) not in if_match:
            raise PreconditionFailedError("the token was changed since you read it; read it again and send its ETag")
        return await apply_change(conn, management, authority, record, change)

    shown_token, stamp = await management.database.run_in_transaction(work)
    if wait:
        await management.settled(stamp)
    return shown_token


async def apply_change(
    conn: AsyncConnection, management: Management, authority: Authority, record: TokenRecord, change: TokenChange
) -> tuple[Mapping[str, Any], Stamp]:
    """The edit itself, of a record that `tokens.get` holds, by an actor who holds `token:edit` for its owner.

    Raises what `edit_token` raises. Those that the token replaced and that still work lose what it loses.
    """
    if record.token.revoked_at is not None:
        raise ConflictError("this token is revoked; issue a new one")
    if record.successor is not None:
        raise ConflictError(f"this token was replaced by `{record.successor}`; edit that one")
    if record.token.expires_at is not None and record.token.expires_at <= authority.world.now:
        raise ConflictError("this token has expired; issue a new one")
    issue = await EditReader(conn, management, authority, change.draft, record=record, given=change.given).read_edit()
    edited = replace(record, token=issue.token)
    if "reason" in change.given:
        edited = replace(edited, reason=change.draft.reason)
    if "may_rotate_self" in change.given:
        edited = replace(edited, may_rotate_self=change.draft.may_rotate_self)
    if edited == record:
        stamp = await changes.current(conn)
        return await show_record(conn, authority, record, stamp), stamp
    if await _widens(authority, record, edited, issue):
        await require_works(authority, record.token)
        await require_below(conn, authority, record.token)
        await require_may_issue(authority, issue, EDIT)
        await require_admitted(conn, authority, edited.token)
    touched = ChangeSet()
    await tokens.replace(conn, touched, edited)
    granted = await settle_token(conn, touched, authority, edited, record.token)
    former = await token_families.load_predecessors(conn, record)
    narrowed = [(one, await narrow_replaced(conn, management, authority, one.token, issue)) for one in former]
    narrowed = [(one, token) for one, token in narrowed if token != one.token]
    for one, token in narrowed:
        await tokens.replace(conn, touched, replace(one, token=token))
    stamp = await changes.append(conn, touched)
    details = {"before": _described(record), "after": _described(edited), "also": [one.id for _, one in narrowed]}
    for entry in (entry_of("token.edit", edited, authority, details), *granted):
        await audit.insert(conn, entry, stamp)
    await append_event(conn, event_of_token(EventKind.TOKEN_EDITED, edited.token, fields=sorted(change.given)))
    return await show_record(conn, authority, edited, stamp), stamp


@dataclass(slots=True)
class EditReader(IssueReader):
    """Reads an edit: what is given as the editor sees the directory, what is not as it is stored."""

    record: TokenRecord = field(kw_only=True)
    given: frozenset[str] = field(kw_only=True)

    async def read_edit(self) -> Issue:
        """The edited token as an issue. Raises InvalidInputError with every fault of what is given."""
        old, faults, limits = self.record.token, self.faults, self.management.limits
        stored = await read_stored(self.conn, self.management, self.authority, old)
        self.catalogs = dict(stored.catalogs)
        self.draft = self._merged()
        check_plain(self.draft, limits, self.authority.world.now, faults)
        scopes, written = stored.scopes, old.scopes
        if "scopes" in self.given:
            scopes = await self._read_scopes(stored)
            written = tuple(one.scope for one in scopes)
        if "legacy_scopes" in self.given:
            self._check_legacy()
        if {"scopes", "evaluates"} & self.given:
            await self._check_evaluates(scopes)
        conditions = old.conditions
        if "conditions" in self.given:
            conditions = read_networks(self.draft.networks, limits, faults)
        if "expires_at" in self.given:
            self._check_end(stored.parent)
        faults.raise_any("the edit")
        token = replace(
            old,
            name=self.draft.name.strip() if "name" in self.given else old.name,
            scopes=written,
            legacy_scopes=self.draft.legacy_scopes,
            evaluates=self.draft.evaluates,
            not_before=self.draft.not_before,
            expires_at=self.draft.expires_at,
            conditions=conditions,
        )
        return replace(stored, token=token, scopes=scopes)

    def _merged(self) -> TokenDraft:
        """The draft with what is stored for what is not given, but for texts and scopes: a lower limit breaks none."""
        old, draft, given = self.record.token, self.draft, self.given
        return replace(
            draft,
            kind=old.kind,
            name=draft.name if "name" in given else ANY_NAME,
            reason=draft.reason if "reason" in given else "",
            scopes=draft.scopes if "scopes" in given else (),
            legacy_scopes=draft.legacy_scopes if "legacy_scopes" in given else old.legacy_scopes,
            evaluates=draft.evaluates if "evaluates" in given else old.evaluates,
            expires_at=draft.expires_at if "expires_at" in given else old.expires_at,
            not_before=draft.not_before if "not_before" in given else old.not_before,
            parent=old.parent,
            may_rotate_self=draft.may_rotate_self if "may_rotate_self" in given else self.record.may_rotate_self,
            resource_owner=None,
        )

    async def _read_scopes(self, stored: Issue) -> tuple[ReadScope, ...]:
        old, limits = self.record.token, self.management.limits
        world, issuer = self.authority.world, self.authority.token
        reader = ScopeReader(world, issuer, limits, self.faults, old.owner, stored.resource_owner)
        for position, scope in enumerate(self.draft.scopes[: limits.scopes]):
            catalog = self._catalog_of(position, scope)
            if catalog is not None and old.kind is TokenKind.FINE_GRAINED:
                await reader.read_scope(position, scope, catalog)
        return tuple(reader.read)

    def _catalog_of(self, position: int, scope: ScopeDraft) -> Catalog | None:
        """One of the token's own: a catalog and its version are never edited."""
        where = f"/scopes/{position}/catalog"
        labels = ", ".join(f"`{catalog.label}`" for catalog in self.catalogs.values())
        if scope.catalog is None:
            if len(self.catalogs) == 1:
                return next(iter(self.catalogs.values()))
            self.faults.add(where, "missing_field", f"say which of {labels} the permissions are from")
            return None
        name, version = parse_catalog(scope.catalog)
        catalog = self.catalogs.get(name)
        if catalog is None or version not in (None, catalog.version):
            message = f"the token is for {labels}, not for `{shown(scope.catalog)}`, and keeps that; issue another"
            self.faults.add(where, "catalog_fixed", message)
            return None
        return catalog

    def _check_end(self, parent: Token | None) -> None:
        """Rule T4 for the new end. One that ends no later than before needs no more."""
        old, wanted = self.record.token, self.draft.expires_at
        if not ends_later(old.expires_at, wanted):
            return
        created = old.created_at or self.authority.world.now
        check_lifetime(wanted, created, self.management.limits, self.faults)
        if parent is not None and parent.expires_at is not None and ends_later(parent.expires_at, wanted):
            ends = parent.expires_at.isoformat().replace("+00:00", "Z")
            self.faults.add("/expires_at", "after_parent", f"the parent ends at {ends}; choose no later date")


async def _widens(authority: Authority, old: TokenRecord, new: TokenRecord, issue: Issue) -> bool:
    """Whether the new token may do anything, anywhere or at any time, that the old one may not (M2)."""
    before, after = old.token, new.token
    if ends_later(before.expires_at, after.expires_at):
        return True
    if before.not_before is not None and (after.not_before is None or after.not_before < before.not_before):
        return True
    if new.may_rotate_self and not old.may_rotate_self:
        return True
    if not networks_within(after.conditions, before.conditions):
        return True
    if (before.scopes, before.legacy_scopes, before.evaluates) == (after.scopes, after.legacy_scopes, after.evaluates):
        return False
    if before.kind is TokenKind.LEGACY and not set(after.legacy_scopes) <= set(before.legacy_scopes):
        return True
    return bool(await find_beyond(authority.world, before, issue, "beyond_token"))


def _described(record: TokenRecord) -> dict[str, object]:
    token = record.token
    return details_of(record) | {
        "name": token.name,
        "reason": record.reason,
        "expires_at": None if token.expires_at is None else token.expires_at.isoformat(),
        "not_before": None if token.not_before is None else token.not_before.isoformat(),
        "networks": list(token.conditions.networks),
        "may_rotate_self": record.may_rotate_self,
    }
