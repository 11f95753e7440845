"""Policies: what tokens are allowed to be in a group, what is in force there and why, and what a change would stop."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from authz_service.admin.catalogs import list_catalogs
from authz_service.admin.policies import PolicyChange, set_policy, show_policies
from authz_service.console.guarding import Form, SignedIn, read_form
from authz_service.console.listing import link, text_of
from authz_service.console.parts import ConsoleHere
from authz_service.console.rendering import render
from authz_service.console.route import PageRoute
from authz_service.directory.model import INSTANCE_ID
from authz_service.errors import AuthzError, Fault, InvalidInputError
from authz_service.tokens.model import TokenKind
from authz_service.tokens.policy import (
    ALWAYS,
    ApprovalRule,
    AutoApproval,
    InactivityRule,
    KindRule,
    LifetimeRule,
    Policy,
)

router = APIRouter(route_class=PageRoute)
_MOST_DAYS: Final = 36_500


@router.get("/policies")
async def show(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    node = text_of(request, "node", 1100) or ("instance" if session.admin else "")
    return await _show(request, console, session, node, text_of(request, "catalog", 64) or "gitlab")


async def _show(
    request: Request,
    console: ConsoleHere,
    session: SignedIn,
    node: str,
    catalog: str,
    *,
    form: Form | None = None,
    trial: Mapping[str, Any] | None = None,
    error: AuthzError | None = None,
) -> Response:
    policy: Mapping[str, Any] | None = None
    try:
        if node:
            found = await show_policies(console.management, session.actor, node, catalog)
            policy = found["policies"][0]
    except AuthzError as unseen:
        error = error or unseen
    catalogs = await list_catalogs(console.management, session.actor)
    return render(
        request,
        "policies.html",
        status=HTTPStatus.OK if error is None else HTTPStatus.BAD_REQUEST,
        title="Policies",
        node=node,
        catalog=catalog,
        catalogs=[one["name"] for one in catalogs["items"]],
        policy=policy,
        fields=_fields_of_form(form) if form is not None else _fields_of(policy),
        # Several rules of automatic approval are beyond this form: saving it would lose them.
        beyond=policy is not None and len(_rules_of(policy)) > 1,
        trial=trial,
        error=error,
    )


_NAMES: Final = (
    *("fine_grained", "legacy", "legacy_date", "legacy_services", "legacy_force", "fine_grained_force", "approval"),
    *("approval_force", "auto", "auto_reads", "auto_days", "auto_nodes", "days_fine_grained", "days_legacy"),
    *("exempt_admins", "inactive"),
)


def _fields_of_form(form: Form) -> dict[str, str]:
    return {name: form.get(name) for name in _NAMES}


def _fields_of(policy: Mapping[str, Any] | None) -> dict[str, str]:
    """What stands in the form: what the place says itself, and nothing where it leaves a setting to others."""
    fields = dict.fromkeys(_NAMES, "")
    said: Mapping[str, Any] = (policy or {}).get("said") or {}
    for kind in TokenKind:
        rule = said.get(kind.value, {})
        fields[kind.value] = "date" if "forbidden_from" in rule else rule.get("value", "")
        fields[f"{kind.value}_force"] = "yes" if rule.get("force") else ""
        limit = said.get("max_lifetime_days", {}).get(kind.value)
        if limit is not None:
            fields[f"days_{kind.value}"] = str(limit["value"])
            fields["exempt_admins"] = "yes" if limit["exempt_admins"] else fields["exempt_admins"]
    fields["legacy_date"] = said.get("legacy", {}).get("forbidden_from", "")
    fields["legacy_services"] = "yes" if said.get("legacy", {}).get("include_service_accounts") else ""
    approval = said.get("approval", {})
    fields["approval"] = approval.get("value", "")
    fields["approval_force"] = "yes" if approval.get("force") else ""
    for rule in _rules_of(policy)[:1]:
        fields |= {
            "auto": "yes",
            "auto_reads": "yes" if rule.get("only_reads") else "",
            "auto_days": str(rule.get("max_lifetime_days", "")),
            "auto_nodes": str(rule.get("max_nodes", "")),
        }
    inactive = said.get("max_inactive_days")
    fields["inactive"] = "" if inactive is None else str(inactive["value"])
    return fields


def _rules_of(policy: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    said = (policy or {}).get("said") or {}
    return list(said.get("approval", {}).get("auto_approve") or ())


@router.post("/policies")
async def change(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    """First what it would stop; then, from that very page, the change itself, unless somebody was faster."""
    form = await read_form(request, console)
    node, catalog = form.get("node"), form.get("catalog") or "gitlab"
    trying = form.get("go") != "set"
    try:
        said = _policy_of(form, catalog)
        wanted = PolicyChange(
            node,
            catalog,
            said,
            if_match=(form.get("etag"),) if form.get("etag") else None,
            dry_run=trying,
            grandfather=form.get("wait_for_all") != "yes",
        )
        done = await set_policy(console.management, session.actor, wanted)
    except AuthzError as error:
        return await _show(request, console, session, node, catalog, form=form, error=error)
    if trying:
        return await _show(request, console, session, node, catalog, form=form, trial=done)
    where = link("/console/policies", {"node": node, "catalog": catalog, "set": "1"})
    return RedirectResponse(where, HTTPStatus.SEE_OTHER)


def _policy_of(form: Form, catalog: str) -> Policy:
    """Raises InvalidInputError with every field that is no number or no day."""
    faults: list[Fault] = []
    kinds: dict[TokenKind, KindRule] = {}
    lifetimes: dict[TokenKind, LifetimeRule] = {}
    for kind in TokenKind:
        force = form.get(f"{kind.value}_force") == "yes"
        match form.get(kind.value):
            case "allow":
                kinds[kind] = KindRule(None, force)
            case "forbid":
                kinds[kind] = KindRule(ALWAYS, force, _services(form, kind))
            case "date":
                kinds[kind] = KindRule(_day(form.get(f"{kind.value}_date"), faults), force, _services(form, kind))
        days = _number(form, f"days_{kind.value}", faults)
        if days is not None:
            lifetimes[kind] = LifetimeRule(days, exempt_admins=form.get("exempt_admins") == "yes")
    inactive = _number(form, "inactive", faults)
    approval = _approval(form, faults)
    if faults:
        raise InvalidInputError("the policy has a fault", faults=faults)
    return Policy(
        INSTANCE_ID,  # the place is looked up by its name, in the transaction
        catalog,
        kinds,
        approval,
        lifetimes,
        None if inactive is None else InactivityRule(inactive),
    )


def _services(form: Form, kind: TokenKind) -> bool:
    return kind is TokenKind.LEGACY and form.get("legacy_services") == "yes"


def _approval(form: Form, faults: list[Fault]) -> ApprovalRule | None:
    if form.get("approval") not in ("required", "off"):
        return None
    required = form.get("approval") == "required"
    rules: tuple[AutoApproval, ...] | None = None
    if required and form.get("auto") == "yes":
        days, nodes = _number(form, "auto_days", faults), _number(form, "auto_nodes", faults)
        rules = (AutoApproval(form.get("auto_reads") == "yes", days, nodes),)
    return ApprovalRule(required, form.get("approval_force") == "yes", rules)


def _number(form: Form, name: str, faults: list[Fault]) -> int | None:
    given = form.get(name)
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 7 and 1 <= int(given) <= _MOST_DAYS):
        faults.append(Fault(name, "invalid_value", f"write a whole number from 1 to {_MOST_DAYS:,}, or nothing"))
        return None
    return int(given)


def _day(given: str, faults: list[Fault]) -> datetime:
    try:
        return datetime.fromisoformat(given[:10]).replace(tzinfo=UTC)
    except ValueError:
        faults.append(Fault("legacy_date", "invalid_value", "write the day as `2027-01-31`"))
        return ALWAYS
