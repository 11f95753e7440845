"""Trust rules: which CI jobs get which tokens, kept by whoever could issue these (M5)."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.admin.drafts import ScopeDraft, TokenDraft
from authz_service.admin.faults import Faults, shown
from authz_service.admin.issuing import CREATE, Issue, IssueReader
from authz_service.admin.job_tokens import check_keys, keep_public
from authz_service.admin.management import Actor, Management
from authz_service.admin.ruled_places import find_own_group
from authz_service.admin.tokens import READ, require_may_issue, revoke_line
from authz_service.admin.views import format_moment
from authz_service.directory.model import NodeKind, format_target
from authz_service.errors import ConflictError, NotFoundError, PreconditionFailedError
from authz_service.store import audit, changes, directory, token_families, tokens, trust
from authz_service.store.changes import ChangeSet, format_revision
from authz_service.store.trust import TrustRule
from authz_service.tokens.model import ReachKind, TokenId
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
_EDITED: Final = "its trust rule was edited"
ANY_VERSION: Final = "*"


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
class TrustChange:
    """What an edit sets: the fields that `given` names, with the values of `draft`, whose others mean nothing."""

    draft: TrustDraft
    given: frozenset[str]


async def create_rule(management: Management, actor: Actor, draft: TrustDraft) -> Mapping[str, Any]:
    """The rule, to be named by exchanges unless the actor may issue anywhere.

    Raises InvalidInputError with all faults, ForbiddenError for what the actor could not issue itself.
    """

    async def work(conn: AsyncConnection) -> Mapping[str, Any]:
        authority = await Authority.open(conn, management, actor, hold=True)
        node = await find_own_group(management, authority, draft.node, CREATE, only=_GROUPS_ALONE)
        await _judge(conn, management, authority, draft)
        if await trust.count(conn, node) >= MOST_AT_ONE_GROUP:
            raise ConflictError(f"there are {MOST_AT_ONE_GROUP} trust rules here already; remove one first")
        rule = _rule(f"tru_{secrets.token_hex(10)}", node, draft, authority)
        rule = replace(rule, requires_name=not await authority.may(CREATE))
        await trust.add(conn, rule)
        await _note(conn, authority, "trust_rule.create", rule)
        return await _show(conn, await trust.get(conn, rule.id))

    return await management.database.run_in_transaction(work)


async def edit_rule(
    management: Management, actor: Actor, rule_id: str, change: TrustChange, if_match: Sequence[str]
) -> Mapping[str, Any]:
    """Change a rule that is what the actor saw, as if the actor made it now: it lives by the actor's token then.

    What it gave before is revoked, unless only its name or lifetime change. Raises what `create_rule` raises,
    NotFoundError, and PreconditionFailedError.
    """

    async def work(conn: AsyncConnection) -> Mapping[str, Any]:
        authority = await Authority.open(conn, management, actor, hold=True)
        known = await _get_own(conn, authority, rule_id, CREATE, lock=True)
        if ANY_VERSION not in if_match and etag_of(known) not in if_match:
            message = "the trust rule was changed since you read it; read it again and send its ETag"
            raise PreconditionFailedError(message)
        draft = replace(read_rule(known), **{name: getattr(change.draft, name) for name in change.given})
        await _judge(conn, management, authority, draft)
        edited = replace(
            _rule(known.id, known.node, draft, authority),
            requires_name=known.requires_name,
            created_at=known.created_at,
        )
        if not trusts_same(edited, known) and not await authority.may(CREATE):
            edited = replace(edited, requires_name=True)
        if edited == known:
            return await _show(conn, known)
        await trust.replace(conn, edited)
        touched = ChangeSet()
        if not (trusts_same(edited, known) and edited.gives == known.gives):
            await _revoke_given(conn, touched, await trust.list_given(conn, edited.id), _EDITED)
        await changes.append(conn, touched)
        await _note(conn, authority, "trust_rule.edit", edited)
        return await _show(conn, edited)

    return await management.database.run_in_transaction(work)


async def list_rules(
    management: Management, actor: Actor, node: str | None, *, below: bool, limit: int, cursor: str | None
) -> Mapping[str, Any]:
    """The rules of this very group, by id, and with `below` of those under it where the actor may read them too.

    Without a group all there are, which needs `token:read` at the instance. Raises InvalidInputError, ForbiddenError.
    """
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        nodes: list[int] | None = None
        if node is None:
            await authority.require(READ)
        else:
            nodes = [await find_own_group(management, authority, node, READ, only=_GROUPS_ALONE)]
            if below:
                nodes += await _own_below(conn, authority, nodes[0])
        found, following = await trust.list_page(conn, nodes=nodes, limit=limit, cursor=cursor)
        revision = format_revision(await changes.current(conn))
        return {"items": [await _show(conn, rule) for rule in found], "next_cursor": following, "revision": revision}


async def _own_below(conn: AsyncConnection, authority: Authority, group: int) -> list[int]:
    """The groups under this one that keep rules which the actor may read."""
    _, under = await directory.load_descendants(conn, group, NodeKind.GROUP)
    keeping = await trust.keeping(conn, [int(one.id) for one in under])
    if await authority.may(READ):
        return keeping
    return [one for one in keeping if await authority.may_at(READ, one)]


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
        await _revoke_given(conn, touched, await trust.remove(conn, rule.id), _DELETED)
        await changes.append(conn, touched)
        await _note(conn, authority, "trust_rule.delete", rule)

    await management.database.run_in_transaction(work)


async def _revoke_given(conn: AsyncConnection, touched: ChangeSet, given: Sequence[TokenId], reason: str) -> None:
    """The tokens, or what stands in their place now (T5): held first, for a rotation may be under way."""
    for one in given:
        try:
            record = await tokens.get(conn, one, lock=True)
        except NotFoundError:
            continue  # purged
        current = await token_families.find_current(conn, record)
        await revoke_line(conn, touched, current.token.id, reason=reason)


# what an exchange needs too


def etag_of(rule: TrustRule) -> str:
    """Changes with all that an edit may change."""
    said = (rule.name, rule.issuer, rule.audience, rule.claims, rule.gives, rule.lifetime, rule.keys, rule.token)
    named = ("requires_name",) if rule.requires_name else ()
    return f'"{hashlib.sha256(json.dumps(said + named, sort_keys=True).encode()).hexdigest()[:32]}"'


def trusts_same(one: TrustRule, other: TrustRule) -> bool:
    """Whether both take the same job tokens."""
    return (one.issuer, one.audience, one.claims, one.keys) == (other.issuer, other.audience, other.claims, other.keys)


async def _judge(conn: AsyncConnection, management: Management, authority: Authority, draft: TrustDraft) -> None:
    """Raises InvalidInputError with all faults, ForbiddenError for what the actor could not issue itself."""
    faults = Faults()
    _check(draft, faults)
    if authority.signed_in:
        message = "a session ends; make the rule with a token that stays, for the rule works as long as it does"
        faults.add("/", "session", message)
    if authority.token.conditions.networks:
        message = "this token is bound to networks, and an exchange comes from none; make the rule with another"
        faults.add("/", "bound_to_networks", message)
    reader = IssueReader(conn, management, authority, token_draft(draft, authority.world.now))
    issue = await reader.read_collecting(new_token_id())
    for fault in reader.faults.named:
        faults.add(fault.where, fault.code, fault.message)
    if issue is not None and not is_service_account(issue):
        faults.add("/owner", "no_service_account", "a rule gives tokens of a service account alone; name one")
    faults.raise_any("the trust rule")
    if issue is None:
        raise AssertionError("a draft without an owner has a fault")
    await require_may_issue(authority, issue)


def _rule(rule_id: str, node: int, draft: TrustDraft, authority: Authority) -> TrustRule:
    return TrustRule(
        id=rule_id,
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


def token_draft(draft: TrustDraft, now: datetime) -> TokenDraft:
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


def read_rule(rule: TrustRule) -> TrustDraft:
    scopes = tuple(
        ScopeDraft(
            ReachKind(one["reach"]["kind"]), tuple(one["permissions"]), tuple(one["reach"]["nodes"]), one["catalog"]
        )
        for one in rule.gives["scopes"]
    )
    given = {
        "owner": rule.gives["owner"],
        "catalog": rule.gives["catalog"],
        "lifetime": rule.lifetime,
        "keys": rule.keys,
    }
    return TrustDraft("", rule.name, rule.issuer, rule.audience, rule.claims, scopes=scopes, **given)


def is_service_account(issue: Issue) -> bool:
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
        "requires_name": rule.requires_name,
        "made_by_token": rule.token,
        "etag": etag_of(rule),
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
        "requires_name": rule.requires_name,
    }
    entry = audit.AuditEntry(action, rule.id, authority.token.id, authority.user_id, details, (rule.node,))
    await audit.insert(conn, entry)
