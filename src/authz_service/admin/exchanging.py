"""The exchange of a CI job's token for one of ours (M5): by exactly one rule, once, and on record when refused."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.admin.issuing import CREATE, IssueReader
from authz_service.admin.job_tokens import LONGEST_CLAIM, Claims, JobTokenError, key_id, peek, verify
from authz_service.admin.management import Actor, Management
from authz_service.admin.refusals import MOST_RULES, Refusal
from authz_service.admin.tokens import Issued, new_record, require_may_issue, require_room, store_new
from authz_service.admin.trust import is_service_account, read_rule, token_draft, trusts_same
from authz_service.errors import (
    AuthzError,
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    UnauthenticatedError,
)
from authz_service.store import audit, tokens, trust
from authz_service.store.trust import TrustRule
from authz_service.tokens.secret import new_token_id

_LONGEST_SUBJECT: Final = 500


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A token of minutes; `permissions` are those of all its scopes."""

    issued: Issued
    lifetime: int
    permissions: tuple[str, ...]


async def exchange(management: Management, shown_token: str, rule_id: str | None) -> Exchanged:
    """A token by the one rule that fits the job's token, or by the one named. Raises JobTokenError for any reason.

    The rule gives what its author could issue at this very moment, and a job's token is taken once. The owners of the
    rules that did not give read in the audit why; nothing of the token is in it.
    """
    issuer, audiences = peek(shown_token)
    async with management.database.snapshot() as conn:
        rules = [one for one in await trust.find_for(conn, issuer, audiences) if rule_id in (None, one.id)]
    fitting: list[tuple[TrustRule, Claims]] = []
    refused: list[Refusal] = []
    for rule in rules:
        found = await _look(management, rule, shown_token)
        if isinstance(found, Refusal):
            refused.append(found)
        elif rule.requires_name and rule_id is None:
            # Nobody who may issue anywhere vouches for it: a stranger's must not stand in the way of another group's.
            refused.append(Refusal(rule, "the job has to name this rule", proven=True))
        else:
            fitting.append((rule, found))
    if len(fitting) > 1:
        refused = [Refusal(rule, "several rules fit; the job has to name one", proven=True) for rule, _ in fitting]
    if len(fitting) != 1:
        await _record(management, issuer, refused)
        raise JobTokenError("no rule fits" if not fitting else "several rules fit")
    rule, claims = fitting[0]
    try:
        return await _exchange(management, rule, claims)
    except (ConflictError, ForbiddenError, InvalidInputError, NotFoundError, UnauthenticatedError) as error:
        await _record(management, issuer, [Refusal(rule, _reason(error), proven=True)])
        raise JobTokenError(_code(error)) from error


async def _look(management: Management, rule: TrustRule, shown_token: str) -> Claims | Refusal:
    """What the token says, or why this rule does not fit it."""
    try:
        claims = await _verify(management, rule, shown_token)
    except JobTokenError as error:
        return Refusal(rule, str(error), proven=False)
    if claims.issuer != rule.issuer or rule.audience not in claims.audiences:
        return Refusal(rule, "it is for another audience", proven=True)
    misfit = next(iter(claims.misfits(rule.claims)), None)
    if misfit is None:
        return claims
    too_long = claims.is_too_long(misfit)
    why = f"a claim is longer than {LONGEST_CLAIM} characters" if too_long else "a claim does not fit"
    return Refusal(rule, why, proven=True, claim=misfit)


async def _verify(management: Management, rule: TrustRule, shown_token: str) -> Claims:
    if rule.keys is None:
        found = await management.issuers.find(management.outbound, rule.issuer, key_id(shown_token))
    else:
        found = rule.keys["keys"]
    return verify(shown_token, found, datetime.now(UTC))


def _code(error: AuthzError) -> str:
    return error.code


def _reason(error: AuthzError) -> str:
    """In our own words: the faults of a draft that was once good are codes and places of the rule."""
    if isinstance(error, NotFoundError | UnauthenticatedError):
        return "the rule's author has no working token any more"
    faults = ", ".join(f"{fault.where} {fault.code}" for fault in error.faults[:5])
    return f"{error.message} ({faults})" if faults else error.message


async def _record(management: Management, issuer: str, refused: Sequence[Refusal]) -> None:
    """A row for each rule, which the owners of its group read: one group learns nothing of another's."""
    if not refused:
        return
    # Those that came nearest tell the most.
    nearest = sorted(refused, key=lambda one: not one.proven)[:MOST_RULES]
    left_out = await management.refusals.take(issuer, proven=nearest[0].proven)
    if left_out is None:
        return

    async def work(conn: AsyncConnection) -> None:
        for one in nearest:
            details = {"issuer": one.rule.issuer, "why": one.why, "claim": one.claim, "unrecorded_before": left_out}
            nodes = (one.rule.node,)
            await audit.insert(
                conn, audit.AuditEntry("token.exchange_refused", one.rule.id, None, None, details, nodes)
            )

    await management.database.run_in_transaction(work)


async def _exchange(management: Management, rule: TrustRule, claims: Claims) -> Exchanged:
    digest = hashlib.sha256(f"{claims.issuer}\0{claims.jti}".encode("utf-8", "surrogatepass")).digest()

    async def work(conn: AsyncConnection) -> tuple[Issued, int]:
        author = (await tokens.get(conn, rule.token)).token
        authority = await Authority.open(conn, management, Actor(author), hold=True)
        # As it is now: it may have gone, been edited, or come to another author, since the token was verified.
        current = await trust.get(conn, rule.id, lock=True)
        here = await authority.may(CREATE) or await authority.may_at(CREATE, current.node)
        if current.token != author.id or not here:
            raise ForbiddenError("the rule's author may not issue here any more")
        if not trusts_same(current, rule):
            raise ConflictError("the rule was edited meanwhile")
        draft = token_draft(read_rule(current), authority.world.now)
        issue = await IssueReader(conn, management, authority, draft).read(new_token_id())
        if not is_service_account(issue):
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
            "subject": str(claims.every.get("sub", ""))[:_LONGEST_SUBJECT],
        }
        stored = await store_new(conn, management, authority, record, "token.exchange", **told)
        return stored, current.lifetime

    issued, lifetime = await management.database.run_in_transaction(work)
    given = {name for scope in issued.token["scopes"] for name in scope["permissions"]}
    return Exchanged(issued, lifetime, tuple(sorted(given)))
