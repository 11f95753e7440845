"""Policies: what tokens are allowed to be in a group, what is in force there and why, and what a change would stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from authz_service.admin.catalogs import list_catalogs
from authz_service.admin.policies import PolicyChange, set_policy, show_policies
from authz_service.admin.policy_checks import MOST_RULES
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
        rows=_rows(_rules_of_form(form) if form is not None else _rules_of(policy)),
        trial=trial,
        error=error,
    )


_NAMES: Final = (
    *("fine_grained", "legacy", "legacy_date", "legacy_services", "legacy_force", "fine_grained_force", "approval"),
    *("approval_force", "auto", "days_fine_grained", "days_legacy", "days_fine_grained_force", "days_legacy_force"),
    *("exempt_fine_grained", "exempt_legacy", "inactive", "inactive_force"),
)
_RULE: Final = ("reads", "days", "nodes")
_SPARE_ROWS: Final = 2


def _fields_of_form(form: Form) -> dict[str, str]:
    return {name: form.get(name) for name in _NAMES}


def _rules_of_form(form: Form) -> list[dict[str, str]]:
    """Rows of automatic approval as they were written, those that say nothing left out."""
    rows = [{name: form.get(f"auto_{name}_{number}") for name in _RULE} for number in range(MOST_RULES)]
    return [row for row in rows if any(row.values())]


def _rows(rules: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """For the form: with room for more."""
    return [*rules, *[dict.fromkeys(_RULE, "")] * _SPARE_ROWS][:MOST_RULES]


def _fields_of(policy: Mapping[str, Any] | None) -> dict[str, str]:
    """What stands in the form: what the place says itself, and nothing where it leaves a setting to others."""
    fields = dict.fromkeys(_NAMES, "")
    said: Mapping[str, Any] = (policy or {}).get("said") or {}
    for kind in TokenKind:
        rule = said.get(kind.value, {})
        fields[kind.value] = "date" if "forbidden_from" in rule else rule.get("value", "")
        fields[f"{kind.value}_force"] = _yes(rule.get("force"))
        limit = said.get("max_lifetime_days", {}).get(kind.value)
        if limit is not None:
            fields[f"days_{kind.value}"] = str(limit["value"])
            fields[f"days_{kind.value}_force"] = _yes(limit["force"])
            fields[f"exempt_{kind.value}"] = _yes(limit["exempt_admins"])
    fields["legacy_date"] = said.get("legacy", {}).get("forbidden_from", "")
    fields["legacy_services"] = _yes(said.get("legacy", {}).get("include_service_accounts"))
    approval = said.get("approval", {})
    fields["approval"] = approval.get("value", "")
    fields["approval_force"] = _yes(approval.get("force"))
    if "auto_approve" in approval:
        fields["auto"] = "rules" if approval["auto_approve"] else "none"
    inactive = said.get("max_inactive_days")
    if inactive is not None:
        fields["inactive"] = str(inactive["value"])
        fields["inactive_force"] = _yes(inactive["force"])
    return fields


def _yes(given: object) -> str:
    return "yes" if given else ""


def _rules_of(policy: Mapping[str, Any] | None) -> list[dict[str, str]]:
    said = (policy or {}).get("said") or {}
    return [
        {
            "reads": _yes(rule.get("only_reads")),
            "days": str(rule.get("max_lifetime_days", "")),
            "nodes": str(rule.get("max_nodes", "")),
        }
        for rule in said.get("approval", {}).get("auto_approve") or ()
    ]


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
            forced = form.get(f"days_{kind.value}_force") == "yes"
            lifetimes[kind] = LifetimeRule(days, forced, form.get(f"exempt_{kind.value}") == "yes")
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
        None if inactive is None else InactivityRule(inactive, form.get("inactive_force") == "yes"),
    )


def _services(form: Form, kind: TokenKind) -> bool:
    return kind is TokenKind.LEGACY and form.get("legacy_services") == "yes"


def _approval(form: Form, faults: list[Fault]) -> ApprovalRule | None:
    if form.get("approval") not in ("required", "off"):
        if form.get("auto") in ("none", "rules"):
            message = "say whether approval is required or not needed; rules alone say nothing"
            faults.append(Fault("approval", "missing_field", message))
        return None
    rules: tuple[AutoApproval, ...] | None = None
    if form.get("auto") == "none":
        rules = ()
    elif form.get("auto") == "rules":
        rules = tuple(
            AutoApproval(
                form.get(f"auto_reads_{number}") == "yes",
                _number(form, f"auto_days_{number}", faults),
                _number(form, f"auto_nodes_{number}", faults),
            )
            for number in range(MOST_RULES)
            if any(form.get(f"auto_{name}_{number}") for name in _RULE)
        )
        if not rules:
            faults.append(Fault("auto", "missing_field", "write at least one rule, or choose that there is none"))
    return ApprovalRule(form.get("approval") == "required", form.get("approval_force") == "yes", rules)


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
