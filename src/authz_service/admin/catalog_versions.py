"""Versions of catalogs: installed, compared before they are, and live tokens moved from one to another (C8, M3)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.admin.faults import shown
from authz_service.admin.management import Actor, Management
from authz_service.admin.surveys import Allowance, Outcome, Refusal, Survey, Surveyor
from authz_service.admin.views import Names, load_names
from authz_service.catalog.compare import compare_catalogs
from authz_service.catalog.effects import CallTurn, Effect, PermissionTurn
from authz_service.catalog.loader import load_catalog
from authz_service.catalog.model import Catalog
from authz_service.errors import ConflictError, Fault, InvalidInputError, NotFoundError
from authz_service.pdp.check import parse_catalog
from authz_service.store import audit, catalogs, changes, pins
from authz_service.store.changes import ChangeSet, Stamp, format_revision
from authz_service.store.paging import bad_cursor, read_cursor, write_cursor
from authz_service.store.shipped import shipped_texts
from authz_service.tokens.model import TokenId
from authz_service.tokens.policy import MANAGEMENT
from authz_service.tokens.secret import is_token_id

INSTALL: Final = "catalog:install"
EDIT_TOKENS: Final = "token:edit"
_ORDER: Final = "catalog-effects"
_NAMED: Final = 20
"""Calls and permissions listed of one token; their number is always told."""
_AUDITED: Final = 1000


@dataclass(frozen=True, slots=True)
class CatalogText:
    """A catalog as it is sent; `file` is its name in messages."""

    text: str
    file: str = "catalog.yaml"


@dataclass(frozen=True, slots=True)
class Installed:
    """`new` is False where this very text was installed before."""

    answer: Mapping[str, Any]
    new: bool


async def require_may_install(management: Management, actor: Actor) -> None:
    """Raises ForbiddenError: for a look before a body of megabytes is read. What follows asks again."""
    async with management.database.snapshot() as conn:
        await (await Authority.open(conn, management, actor, hold=False)).require(INSTALL)


async def install_catalog(management: Management, actor: Actor, given: CatalogText) -> Installed:
    """Install a version for good. Raises CatalogInvalidError with all faults, ConflictError for a number in use.

    Every replica knows it by the change log; tokens stay with the versions that they were made under.
    """
    catalog = await _parse(given)

    async def work(conn: AsyncConnection) -> Installed:
        authority = await Authority.open(conn, management, actor, hold=True)
        await authority.require(INSTALL)
        refused = await _refusal(conn, management, catalog, given.text)
        if refused is not None:
            raise ConflictError(refused)
        touched = ChangeSet()
        new = False
        if dict(shipped_texts()).get(catalog.label) != given.text:
            new = await catalogs.install(
                conn,
                touched,
                name=catalog.name,
                version=catalog.version,
                text=given.text,
                installed_by=authority.token.id,
            )
        stamp = await changes.append(conn, touched)
        if new:
            details = {"permissions": len(catalog.permissions), "operations": len(catalog.operations)}
            await audit.insert(conn, _entry("catalog.install", catalog.label, authority, details), stamp)
        return Installed(_describe_installed(catalog, stamp, new=new), new)

    return await management.database.run_in_transaction(work)


async def _parse(given: CatalogText) -> Catalog:
    # Seconds of a large catalog would hold up every decision of this process.
    return await asyncio.to_thread(load_catalog, given.text, file=shown(given.file))


async def _refusal(conn: AsyncConnection, management: Management, catalog: Catalog, text: str) -> str | None:
    """Why this text cannot be installed; None where it can, or is installed already."""
    if catalog.name == MANAGEMENT:
        return f"`{MANAGEMENT}` is this service's own catalog; nothing else can take its place"
    known = (await management.shelf.versions(conn)).get(catalog.name, ())
    newest = max(known, default=0)
    if catalog.version in known:
        installed = dict(shipped_texts()).get(catalog.label)
        if installed is None:
            _, installed = await catalogs.load_text(conn, catalog.name, catalog.version)
        if installed == text:
            return None
        return f"`{catalog.label}` exists, and a version never changes; give this text `version: {newest + 1}`"
    if catalog.version < newest:
        return f"`{catalog.name}@{newest}` is newer than {catalog.version}; give this text `version: {newest + 1}`"
    return None


def _describe_installed(catalog: Catalog, stamp: Stamp, *, new: bool) -> dict[str, Any]:
    return {
        "catalog": catalog.label,
        "name": catalog.name,
        "version": catalog.version,
        "new": new,
        "permissions": len(catalog.permissions),
        "operations": len(catalog.operations),
        "revision": format_revision(stamp),
    }


def _entry(action: str, subject: str, authority: Authority, details: Mapping[str, object]) -> audit.AuditEntry:
    return audit.AuditEntry(
        action=action,
        subject=subject,
        actor_token=authority.token.id,
        actor_user=authority.user_id,
        details=details,
    )


# compared


@dataclass(frozen=True, slots=True)
class ReportQuery:
    """Which page of the tokens that a version touches."""

    limit: int = 50
    cursor: str | None = None

    def after(self, label: str) -> TokenId | None:
        if self.cursor is None:
            return None
        of, token = read_cursor(self.cursor, _ORDER, 2)
        if of != label or not is_token_id(token):
            raise bad_cursor()
        return TokenId(token)


async def compare_catalog(
    management: Management, actor: Actor, label: str, given: CatalogText | int, query: ReportQuery
) -> Mapping[str, Any]:
    """What a text, or a version that is there, changes, and which live tokens it breaks or widens. Stores nothing.

    `label` says what it is compared with; a name alone is the newest version, or the one before the version given.
    Each token is compared with the version that it is pinned to.
    """
    text = None if isinstance(given, int) else given
    parsed = None if text is None else await _parse(text)
    async with management.database.snapshot() as conn:
        await (await Authority.open(conn, management, actor, hold=False)).require(INSTALL)
        name, version = parse_catalog(label)
        new = parsed if isinstance(given, CatalogText) else await _find(conn, management, name, given)
        if new is None:
            raise AssertionError("a text that was read is a catalog")
        if new.name != name:
            where = "catalog" if text is None else text.file
            message = f"the text is of `{new.name}`, and is to be compared with `{name}`"
            raise InvalidInputError("the catalog is another one", faults=[Fault(where, "another_catalog", message)])
        if version is None and text is None:
            version = await _before(conn, management, new)
        old = await _find(conn, management, name, version)
        surveyor = Surveyor(conn, management, new, Allowance.WIDENING)
        before = None if text is not None else new.version
        survey = await surveyor.survey(before=before, after=query.after(new.label), limit=query.limit)
        refusal = None if text is None else await _refusal(conn, management, new, text.text)
        difference = await asyncio.to_thread(compare_catalogs, old, new)
        return {
            "from": old.label,
            "to": new.label,
            "installable": refusal is None,
            "refusal": refusal,
            "difference": asdict(difference),
            **await _describe_survey(conn, surveyor, survey),
            "revision": format_revision(await changes.current(conn)),
        }


async def _find(conn: AsyncConnection, management: Management, name: str, version: int | None) -> Catalog:
    catalog = await management.shelf.find(conn, name, version)
    if catalog is None:
        label = name if version is None else f"{name}@{version}"
        raise NotFoundError(f"there is no catalog `{shown(label)}`; `GET /v1/catalogs` lists those that there are")
    return catalog


async def _before(conn: AsyncConnection, management: Management, catalog: Catalog) -> int:
    """The version before this one; itself where it is the first."""
    known = (await management.shelf.versions(conn)).get(catalog.name, ())
    return max((version for version in known if version < catalog.version), default=catalog.version)


# upgraded


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Which version the tokens go to, and what they may gain by it."""

    to: int
    allowance: Allowance = Allowance.NOTHING
    dry_run: bool = False


async def upgrade_tokens(
    management: Management, actor: Actor, name: str, upgrade: Upgrade, query: ReportQuery
) -> Mapping[str, Any]:
    """Pin the live tokens of older versions to a newer one, in one revision; refused are those that would gain.

    What changes between the look at a token and its move is left alone, and told as `meanwhile`: run it again.
    """
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        await authority.require(INSTALL)
        if not upgrade.dry_run:
            await authority.require(EDIT_TOKENS)
        new = await _find(conn, management, name, upgrade.to)
        surveyor = Surveyor(conn, management, new, upgrade.allowance)
        after = query.after(new.label)
        survey = await surveyor.survey(before=new.version, after=after, limit=query.limit, moving=not upgrade.dry_run)
        report = await _describe_survey(conn, surveyor, survey)
        stamp = await changes.current(conn)
    movable = survey.tokens - survey.refused.total()
    moved = 0
    if not upgrade.dry_run:
        moved, stamp = await _move(management, actor, new, survey, upgrade)
    return {
        "to": new.label,
        "dry_run": upgrade.dry_run,
        "upgraded": moved,
        "meanwhile": 0 if upgrade.dry_run else movable - moved,
        **report,
        "revision": format_revision(stamp),
    }


async def _move(
    management: Management, actor: Actor, new: Catalog, survey: Survey, upgrade: Upgrade
) -> tuple[int, Stamp]:
    async def work(conn: AsyncConnection) -> tuple[int, Stamp]:
        authority = await Authority.open(conn, management, actor, hold=True)
        await authority.require(INSTALL)
        await authority.require(EDIT_TOKENS)
        touched = ChangeSet()
        moved = await pins.repin(conn, touched, new.name, survey.movable, new.version) if survey.movable else ()
        stamp = await changes.append(conn, touched)
        details = {
            "upgraded": len(moved),
            "tokens": list(moved[:_AUDITED]),
            "refused": survey.refused.total(),
            "allowed": upgrade.allowance.value,
        }
        await audit.insert(conn, _entry("catalog.upgrade", new.label, authority, details), stamp)
        return len(moved), stamp

    return await management.database.run_in_transaction(work)


# told


async def _describe_survey(conn: AsyncConnection, surveyor: Surveyor, survey: Survey) -> dict[str, Any]:
    names = await load_names(conn, [outcome.record for outcome in survey.listed], None)
    label = surveyor.new.label
    last = survey.listed[-1].record.token.id if survey.listed else ""
    return {
        "counts": {
            "tokens": survey.tokens,
            "broken": survey.broken,
            "widened": survey.widened,
            "refused": survey.refused.total(),
            "unchanged": survey.tokens - survey.touched,
        },
        "refusals": {refusal.value: survey.refused[refusal] for refusal in Refusal if survey.refused[refusal]},
        "incompatible": {label: list(why) for label, why in surveyor.incompatible().items()},
        "items": [_describe_outcome(outcome, names) for outcome in survey.listed],
        "total": survey.touched,
        "next_cursor": write_cursor(_ORDER, label, last) if survey.more else None,
    }


def _describe_outcome(outcome: Outcome, names: Names) -> dict[str, Any]:
    token, effect = outcome.record.token, outcome.effect
    return {
        "id": token.id,
        "name": token.name,
        "owner": names.owner(token.owner),
        "kind": token.kind.value,
        "version": outcome.version,
        "broken": outcome.breaks,
        "widened": outcome.widens,
        "refusal": None if outcome.refusal is None else outcome.refusal.value,
        "lacking": list(effect.lacking),
        "permissions": [_describe_permission(each) for each in effect.permissions[:_NAMED]],
        "permissions_total": len(effect.permissions),
        "calls": [_describe_call(each) for each in _worst_first(effect)[:_NAMED]],
        "calls_total": len(effect.calls),
        "new_calls_total": sum(each.unknown for each in effect.calls),
        "shifts": [{"code": each.code, "message": each.message} for each in effect.shifts],
        "above": list(outcome.above),
    }


def _describe_permission(turned: PermissionTurn) -> dict[str, Any]:
    return {
        "permission": turned.permission,
        "boundary": turned.boundary.value,
        "turn": turned.turn.value,
        "implied": turned.implied,
    }


def _describe_call(turned: CallTurn) -> dict[str, Any]:
    return {"operation": turned.operation, "turn": turned.turn.value, "unknown": turned.unknown}


def _worst_first(effect: Effect) -> list[CallTurn]:
    """Calls that the older version knows come before those that it does not."""
    return sorted(effect.calls, key=lambda each: each.unknown)
