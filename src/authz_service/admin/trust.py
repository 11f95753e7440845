"""Trust rules, and the exchange of a CI job's token for one of ours by them (M5)."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.admin.drafts import ScopeDraft, TokenDraft
from authz_service.admin.faults import Faults, shown
from authz_service.admin.issuing import CREATE, Issue, IssueReader
from authz_service.admin.job_tokens import Claims, JobTokenError, check_keys, keep_public, key_id, peek, verify
from authz_service.admin.management import Actor, Management
from authz_service.admin.ruled_places import find_own_group
from authz_service.admin.tokens import (
    READ,
    Issued,
    actor_user,
    new_record,
    require_may_issue,
    require_room,
    revoke_line,
    store_new,
)
from authz_service.admin.views import format_moment
from authz_service.directory.model import format_target
from authz_service.errors import (
    AuthzError,
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    UnauthenticatedError,
)
from authz_service.store import audit, changes, directory, tokens, trust
from authz_service.store.changes import ChangeSet, format_revision
from authz_service.store.trust import TrustRule
from authz_service.tokens.model import ReachKind
from authz_service.tokens.secret import new_token_id

LONGEST_LIFETIME: Final = 3600
SHORTEST_LIFETIME: Final = 60
MOST_AT_ONE_GROUP: Final = 200
NAMING: Final = frozenset(
    {
        "sub",
        "project_id",
        "project_path",
        "namespace_id",
        "namespace_path",
        "repository",
        "repository_id",
        "repository_owner",
        "repository_owner_id",
    }
)
"""Claims that say whose job it is: one of them has to be named whole, or a public issuer's every user would fit."""
_LONGEST_TEXT: Final = 500
_MOST_CLAIMS: Final = 20
_GROUPS_ALONE: Final = "trust rules are a group's"
_RULE_ID: Final = re.compile(r"tru_[0-9a-f]{20}")
_DELETED: Final = "its trust rule was removed"


@dataclass(frozen=True, slots=True)
class TrustDraft:
    """A rule as it is asked for. `claims` is name to text or `{"like": pattern}`; `lifetime` is in seconds."""

    node: str
    name: str
    issuer: str
    audience: str
    claims: Mapping[str, Any]
    owner: str
    catalog: str
    scopes: tuple[ScopeDraft, ...]
    lifetime: int = 900
    keys: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A token of minutes; `permissions` are those of all its scopes."""

    issued: Issued
    lifetime: int
    permissions: tuple[str, ...]


async def create_rule(management: Management, actor: Actor, draft: TrustDraft) -> Mapping[str, Any]:
    """Raises InvalidInputError with all faults, ForbiddenError for what the actor could not issue itself."""

    async def work(conn: AsyncConnection) -> Mapping[str, Any]:
        authority = await Authority.open(conn, management, actor, hold=True)
        node = await find_own_group(management, authority, draft.node, CREATE, only=_GROUPS_ALONE)
        faults = Faults()
        _check(draft, faults)
        if authority.signed_in:
            message = "a session ends; make the rule with a token that stays, for the rule works as long as it does"
            faults.add("/", "session", message)
        if authority.token.conditions.networks:
            message = "this token is bound to networks, and an exchange comes from none; make the rule with another"
            faults.add("/", "bound_to_networks", message)
        reader = IssueReader(conn, management, authority, _token_draft(draft, authority.world.now))
        issue = await reader.read_collecting(new_token_id())
        for fault in reader.faults.named:
            faults.add(fault.where, fault.code, fault.message)
        if issue is not None and not _is_service_account(issue):
            faults.add("/owner", "no_service_account", "a rule gives tokens of a service account alone; name one")
        faults.raise_any("the trust rule")
        if issue is None:
            raise AssertionError("a draft without an owner has a fault")
        await require_may_issue(authority, issue)
        if await trust.count(conn, node) >= MOST_AT_ONE_GROUP:
            raise ConflictError(f"there are {MOST_AT_ONE_GROUP} trust rules here already; remove one first")
        rule = TrustRule(
            id=f"tru_{secrets.token_hex(10)}",
            node=node,
            name=draft.name.strip(),
            issuer=draft.issuer,
            audience=draft.audience,
            claims=draft.claims,
            gives=_write(draft),
            lifetime=draft.lifetime,
            keys=None if draft.keys is None else keep_public(draft.keys),
            token=authority.token.id,
        )
        await trust.add(conn, rule)
        await _note(conn, authority, "trust_rule.create", rule)
        return await _show(conn, await trust.get(conn, rule.id))

    return await management.database.run_in_transaction(work)


async def list_rules(
    management: Management, actor: Actor, node: str, *, limit: int, cursor: str | None
) -> Mapping[str, Any]:
    """The rules of this very group, by id."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        place = await find_own_group(management, authority, node, READ, only=_GROUPS_ALONE)
        found, following = await trust.list_page(conn, place, limit=limit, cursor=cursor)
        revision = format_revision(await changes.current(conn))
        return {"items": [await _show(conn, rule) for rule in found], "next_cursor": following, "revision": revision}


async def show_rule(management: Management, actor: Actor, rule_id: str) -> Mapping[str, Any]:
    """Raises NotFoundError alike for what is not there and what is not the actor's."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        return await _show(conn, await _get_own(conn, authority, rule_id, READ))


async def delete_rule(management: Management, actor: Actor, rule_id: str) -> None:
    """With the tokens that it gave. Raises NotFoundError."""

    async def work(conn: AsyncConnection) -> None:
        authority = await Authority.open(conn, management, actor, hold=True)
        rule = await _get_own(conn, authority, rule_id, CREATE, lock=True)
        touched = ChangeSet()
        for given in await trust.remove(conn, rule.id):
            try:
                await revoke_line(conn, touched, given, reason=_DELETED)
            except NotFoundError:
                continue  # purged
        await changes.append(conn, touched)
        await _note(conn, authority, "trust_rule.delete", rule)

    await management.database.run_in_transaction(work)


# the exchange


async def exchange(management: Management, shown_token: str, rule_id: str | None) -> Exchanged:
    """A token by the one rule that fits the job's token. Raises JobTokenError, whatever the reason was.

    The rule gives what its author could issue at this very moment, and a job's token is taken once.
    """
    issuer, audiences = peek(shown_token)
    async with management.database.snapshot() as conn:
        rules = [one for one in await trust.find_for(conn, issuer, audiences) if rule_id in (None, one.id)]
    fitting: list[tuple[TrustRule, Claims]] = []
    for rule in rules:
        try:
            claims = await _verify(management, rule, shown_token)
        except JobTokenError:
            continue
        if claims.issuer == rule.issuer and rule.audience in claims.audiences and claims.fit(rule.claims):
            fitting.append((rule, claims))
    if len(fitting) != 1:
        raise JobTokenError("no rule fits" if not fitting else "several rules fit")
    rule, claims = fitting[0]
    try:
        return await _exchange(management, rule, claims)
    except (ConflictError, ForbiddenError, InvalidInputError, NotFoundError, UnauthenticatedError) as error:
        raise JobTokenError(_code(error)) from error


def _code(error: AuthzError) -> str:
    return error.code


async def _verify(management: Management, rule: TrustRule, shown_token: str) -> Claims:
    if rule.keys is None:
        found = await management.issuers.find(management.outbound, rule.issuer, key_id(shown_token))
    else:
        found = rule.keys["keys"]
    return verify(shown_token, found, datetime.now(UTC))


async def _exchange(management: Management, rule: TrustRule, claims: Claims) -> Exchanged:
    digest = hashlib.sha256(f"{claims.issuer}\0{claims.jti}".encode("utf-8", "surrogatepass")).digest()

    async def work(conn: AsyncConnection) -> Issued:
        author = (await tokens.get(conn, rule.token)).token
        authority = await Authority.open(conn, management, Actor(author), hold=True)
        # As it is now: it may have gone, or to another author, since the token was verified.
        current = await trust.get(conn, rule.id, lock=True)
        here = await authority.may(CREATE) or await authority.may_at(CREATE, current.node)
        if current.token != author.id or not here:
            raise ForbiddenError("the rule's author may not issue here any more")
        draft = _token_draft(_read(current), authority.world.now)
        issue = await IssueReader(conn, management, authority, draft).read(new_token_id())
        if not _is_service_account(issue):
            raise ForbiddenError("the owner is no service account any more")
        await require_may_issue(authority, issue)
        await require_room(conn, management, issue.token.owner)
        ends = max(claims.expires_at, authority.world.now + timedelta(seconds=current.lifetime))
        if not await trust.use(conn, digest, current.id, issue.token.id, ends):
            raise ConflictError("this job token was exchanged before")
        record = new_record(management, authority, issue, draft.reason, may_rotate_self=False)
        told = {
            "rule": current.id,
            "issuer": claims.issuer,
            "subject": str(claims.every.get("sub", ""))[:_LONGEST_TEXT],
        }
        return await store_new(conn, management, authority, record, "token.exchange", **told)

    issued = await management.database.run_in_transaction(work)
    given = {name for scope in issued.token["scopes"] for name in scope["permissions"]}
    return Exchanged(issued, rule.lifetime, tuple(sorted(given)))


# what both need


def _check(draft: TrustDraft, faults: Faults) -> None:
    if not draft.issuer.startswith("https://") or any(part in draft.issuer for part in "?#"):
        faults.add("/issuer", "bad_url", "an issuer is an `https://` URL without query, as its tokens' `iss` says it")
    for where, text in (("/issuer", draft.issuer), ("/audience", draft.audience)):
        if not text or len(text) > _LONGEST_TEXT or not text.isprintable():
            faults.add(where, "invalid_value", f"write 1 to {_LONGEST_TEXT} printable characters")
    if not SHORTEST_LIFETIME <= draft.lifetime <= LONGEST_LIFETIME:
        message = f"a token of an exchange lives {SHORTEST_LIFETIME} to {LONGEST_LIFETIME} seconds"
        faults.add("/lifetime_seconds", "out_of_range", message)
    if len(draft.claims) > _MOST_CLAIMS:
        faults.add("/claims", "too_many", f"a rule names {_MOST_CLAIMS} claims at most")
    for name, wanted in list(draft.claims.items())[:_MOST_CLAIMS]:
        given: object = wanted.get("like") if isinstance(wanted, Mapping) else wanted
        text = given if isinstance(given, str) else ""
        where = f"/claims/{shown(name).replace('~', '~0').replace('/', '~1')}"
        if not 0 < len(text) <= _LONGEST_TEXT or not (name + text).isprintable():
            faults.add(where, "invalid_value", f"write 1 to {_LONGEST_TEXT} printable characters")
        elif isinstance(wanted, str) and "*" in text:
            message = 'a `*` stands for itself here; for a pattern write `{"like": "release-*"}`'
            faults.add(where, "unmarked_wildcard", message)
        elif isinstance(wanted, Mapping) and (not text.replace("*", "") or text.count("*") > 4):
            faults.add(where, "too_wide", "a pattern has a text beside its `*`, and four of them at most")
    if not any(name in NAMING and isinstance(wanted, str) for name, wanted in draft.claims.items()):
        known = ", ".join(f"`{one}`" for one in sorted(NAMING))
        faults.add("/claims", "claims_too_wide", f"say whose jobs are trusted, by one of {known} without a pattern")
    if draft.keys is not None:
        check_keys(draft.keys, "/keys", faults)


def _token_draft(draft: TrustDraft, now: datetime) -> TokenDraft:
    return TokenDraft(
        name=draft.name,
        owner=draft.owner,
        catalog=draft.catalog,
        scopes=draft.scopes,
        expires_at=now + timedelta(seconds=min(max(draft.lifetime, SHORTEST_LIFETIME), LONGEST_LIFETIME)),
        reason="exchanged for a job's token",
    )


def _write(draft: TrustDraft) -> dict[str, Any]:
    scopes = [
        {
            "catalog": scope.catalog,
            "reach": {"kind": scope.reach.value, "nodes": list(scope.nodes)},
            "permissions": list(scope.permissions),
        }
        for scope in draft.scopes
    ]
    return {"owner": draft.owner, "catalog": draft.catalog, "scopes": scopes}


def _read(rule: TrustRule) -> TrustDraft:
    scopes = tuple(
        ScopeDraft(
            ReachKind(one["reach"]["kind"]), tuple(one["permissions"]), tuple(one["reach"]["nodes"]), one["catalog"]
        )
        for one in rule.gives["scopes"]
    )
    given = {"owner": rule.gives["owner"], "catalog": rule.gives["catalog"], "lifetime": rule.lifetime}
    return TrustDraft("", rule.name, rule.issuer, rule.audience, rule.claims, scopes=scopes, **given)


def _is_service_account(issue: Issue) -> bool:
    return issue.owner is not None and issue.owner.service_account


async def _get_own(
    conn: AsyncConnection, authority: Authority, rule_id: str, permission: str, *, lock: bool = False
) -> TrustRule:
    authority.require_holds(permission)
    try:
        found = await trust.get(conn, rule_id, lock=lock) if _RULE_ID.fullmatch(rule_id) else None
    except NotFoundError:
        found = None
    if found is not None and (await authority.may(permission) or await authority.may_at(permission, found.node)):
        return found
    raise NotFoundError("there is no such trust rule, or this token may not see it")


async def _show(conn: AsyncConnection, rule: TrustRule) -> dict[str, Any]:
    paths = await directory.load_paths(conn, [rule.node])
    return {
        "id": rule.id,
        "node": format_target(*paths[rule.node]) if rule.node in paths else None,
        "name": rule.name,
        "issuer": rule.issuer,
        "audience": rule.audience,
        "claims": dict(rule.claims),
        **rule.gives,
        "lifetime_seconds": rule.lifetime,
        "keys": rule.keys,
        "made_by_token": rule.token,
        "created_at": format_moment(rule.created_at),
        "revision": format_revision(await changes.current(conn)),
    }


async def _note(conn: AsyncConnection, authority: Authority, action: str, rule: TrustRule) -> None:
    details = {
        "node": rule.node,
        "issuer": rule.issuer,
        "audience": rule.audience,
        "claims": dict(rule.claims),
        "gives": dict(rule.gives),
        "lifetime": rule.lifetime,
        "pinned": rule.keys is not None,
    }
    entry = audit.AuditEntry(action, rule.id, authority.token.id, actor_user(authority), details, (rule.node,))
    await audit.insert(conn, entry)
