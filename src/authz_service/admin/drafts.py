"""A token as it is asked for: texts not yet looked up, and the checks that need no look-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Network, ip_network
from typing import Final

from authz_service.admin.faults import Faults, shown
from authz_service.admin.management import Limits
from authz_service.tokens.model import Conditions, ReachKind, TokenKind

ANY_NAME: Final = "x"
"""In place of one that is not given: no limit is too low for it."""


@dataclass(frozen=True, slots=True)
class ScopeDraft:
    """`catalog` None is the draft's own; `nodes` are targets as text, `project:acme/web`."""

    reach: ReachKind
    permissions: tuple[str, ...]
    nodes: tuple[str, ...] = ()
    catalog: str | None = None


@dataclass(frozen=True, slots=True)
class TokenDraft:
    """`catalog` is `gitlab`, its newest version, or `gitlab@1`. `owner` None is the actor; `parent` an id or `self`."""

    name: str
    owner: str | None = None
    catalog: str | None = None
    kind: TokenKind = TokenKind.FINE_GRAINED
    scopes: tuple[ScopeDraft, ...] = ()
    legacy_scopes: tuple[str, ...] = ()
    expires_at: datetime | None = None
    not_before: datetime | None = None
    reason: str = ""
    networks: tuple[str, ...] = ()
    resource_owner: str | None = None
    evaluates: tuple[str, ...] = ()
    parent: str | None = None
    may_rotate_self: bool = False
    template: str | None = None
    """In place of scopes, with `nodes` for where."""
    nodes: tuple[str, ...] = ()


def check_plain(draft: TokenDraft, limits: Limits, now: datetime, faults: Faults) -> None:
    """Texts, dates, counts, and fields that do not go together."""
    _check_text(draft.name, "/name", limits.name_length, faults, lines=False)
    if not draft.name.strip():
        faults.add("/name", "too_short", "the name is empty; say what the token is for")
    _check_text(draft.reason, "/reason", limits.reason_length, faults, lines=True)
    _check_dates(draft, now, faults)
    if draft.kind is TokenKind.LEGACY:
        for where, given in (("/scopes", draft.scopes), ("/evaluates", draft.evaluates)):
            if given:
                faults.add(where, "not_for_kind", "a legacy token has `legacy_scopes` alone; leave this out")
        if draft.resource_owner is not None:
            faults.add("/resource_owner", "not_for_kind", "a legacy token has no resource owner; leave this out")
        if not draft.legacy_scopes:
            faults.add("/legacy_scopes", "missing_field", "a legacy token needs at least one legacy scope")
    elif draft.legacy_scopes:
        faults.add("/legacy_scopes", "not_for_kind", 'only a token of `"kind": "legacy"` has these; leave them out')
    if len(draft.scopes) > limits.scopes:
        faults.add("/scopes", "too_many", f"a token takes {limits.scopes} scopes at most; join some, or make another")
    if draft.parent is not None and draft.may_rotate_self:
        faults.add("/may_rotate_self", "not_for_child", "a child token cannot rotate itself; leave this out")
    check_duplicates(draft.legacy_scopes, "/legacy_scopes", faults)
    check_duplicates(draft.evaluates, "/evaluates", faults)


def _check_text(text: str, where: str, longest: int, faults: Faults, *, lines: bool) -> None:
    if len(text) > longest:
        faults.add(where, "too_long", f"the text is longer than {longest} characters; shorten it")
    plain = text.replace("\n", "").replace("\r", "").replace("\t", "") if lines else text
    if not plain.isprintable():
        faults.add(where, "invalid_text", "the text holds characters that do not print; leave them out")


def _check_dates(draft: TokenDraft, now: datetime, faults: Faults) -> None:
    if draft.expires_at is None:
        return
    if draft.expires_at <= now:
        faults.add("/expires_at", "in_past", "the token would have expired already; choose a later date")
    elif draft.not_before is not None and draft.expires_at <= draft.not_before:
        faults.add("/expires_at", "before_start", "the token would expire before its `not_before`; choose a later date")


def check_lifetime(expires_at: datetime | None, created_at: datetime, limits: Limits, faults: Faults) -> None:
    """That a secret created then does not live longer than the settings allow."""
    longest = limits.lifetime
    if longest is None or (expires_at is not None and expires_at - created_at <= longest):
        return
    message = f"a token lives {longest.days} days at most here; choose a date within them"
    faults.add("/expires_at", "lifetime_too_long" if expires_at is not None else "missing_field", message)


def check_duplicates(given: Sequence[str], where: str, faults: Faults) -> None:
    """One fault for each text that was there before."""
    seen: set[str] = set()
    for position, text in enumerate(given):
        if text in seen:
            faults.add(f"{where}/{position}", "duplicate", f"`{shown(text)}` is given twice; keep one")
        seen.add(text)


def read_networks(given: Sequence[str], limits: Limits, faults: Faults) -> Conditions:
    """Client networks, as `ipaddress` prints them."""
    where = "/conditions/networks"
    if len(given) > limits.networks:
        faults.add(where, "too_many", f"a token takes {limits.networks} networks at most")
        return Conditions()
    read: list[str] = []
    for position, text in enumerate(given):
        here = f"{where}/{position}"
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            faults.add(here, "invalid_network", f"`{shown(text)}` is no network; write it as `10.0.0.0/8`")
            continue
        if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
            faults.add(here, "invalid_network", f"`{shown(text)}` means IPv4 addresses; write them as IPv4")
        elif "/" in text and str(network.network_address) != text.partition("/")[0].lower():
            faults.add(here, "invalid_network", f"`{shown(text)}` has bits beyond its mask; write `{network}`")
        elif str(network) in read:
            faults.add(here, "duplicate", f"`{network}` is given twice; keep one")
        else:
            read.append(str(network))
    return Conditions(tuple(read))


def ends_later(before: datetime | None, after: datetime | None) -> bool:
    """Whether the second of two `expires_at` is beyond the first; None is never."""
    return before is not None and (after is None or after > before)
