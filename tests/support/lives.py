"""Edits and rotations in the machine's sequences: what is drawn, and what may never come of them (T5, M2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from ipaddress import ip_network
from random import Random
from typing import Any

from tests.reference.rows import Rows
from tests.support.asked_for import TokenDrawer

from authz_service.tokens.model import Token, TokenId, TokenKind

OVERLAPS = (0, 0, 1800, 5400)
"""Seconds. The machine's clock moves by whole hours: these end half an hour off them."""


def draw_edit(drawer: TokenDrawer, random: Random, rows: Rows, token: Token) -> dict[str, Any]:
    """Often a part of what the token holds, now and then a little more; sometimes only a date or a name."""
    wanted = drawer.draw(rows, token, ())
    body: dict[str, Any] = {}
    if token.kind is TokenKind.LEGACY and "legacy_scopes" in wanted:
        body["legacy_scopes"] = wanted["legacy_scopes"]
    if "scopes" in wanted and random.random() < 0.8:
        name = wanted["catalog"].partition("@")[0]
        body["scopes"] = [{**scope, "catalog": name} for scope in wanted["scopes"]]
    for dated in ("expires_at", "not_before", "conditions"):
        if dated in wanted:
            body[dated] = wanted[dated]
    if random.random() < 0.1:
        body[random.choice(("expires_at", "not_before"))] = None
    if random.random() < 0.1:
        body["may_rotate_self"] = True
    return body or {"name": "drawn"}


@dataclass
class Lives:
    """What was told to have happened, as far as rows must agree with it."""

    edited: set[TokenId] = field(default_factory=set)
    replaced: dict[TokenId, TokenId] = field(default_factory=dict)
    """Who stands in whose place."""

    def of_family(self, token: TokenId) -> set[TokenId]:
        """The token and all that it replaced."""
        found = {token}
        while more := {old for old, new in self.replaced.items() if new in found} - found:
            found |= more
        return found

    def current(self, token: TokenId) -> TokenId:
        while token in self.replaced:
            token = self.replaced[token]
        return token

    def check_changed(self, known: Token, token: Token) -> None:
        """Nothing of a token changes but what an edit or a rotation changes."""
        assert (token.id, token.owner, token.kind, token.catalogs, token.created_at, token.resource_owner) == (
            known.id,
            known.owner,
            known.kind,
            known.catalogs,
            known.created_at,
            known.resource_owner,
        ), "a token was changed"
        if token.parent != known.parent:
            assert known.parent is not None, "a token got a parent"
            assert token.parent == self.current(known.parent), "a token hangs under another"
        if token.id in self.edited:
            return
        plain = {"revoked_at": None, "parent": None}
        if token.id in self.replaced:
            assert not ends_later(known.expires_at, token.expires_at), "an overlap gave a token more time"
            plain["expires_at"] = None
        assert replace(token, **plain) == replace(known, **plain), "a token was changed"

    def check_rotated(self, old: Token, new: Token) -> None:
        """Rule T5, by rows before and after."""
        assert not ends_later(old.expires_at, new.expires_at), "a rotation moved an end to a later date"
        apart: Mapping[str, Any] = {"id": old.id, "created_at": None, "revoked_at": None, "parent": None}
        assert replace(new, **apart) == replace(old, **apart), "a rotation changed a token"


def check_narrower(known: Token, edited: Token) -> None:
    """Of when and from where a token may be used, an edit of the one in its place leaves at most what there was."""
    assert not ends_later(known.expires_at, edited.expires_at), "an edit gave a replaced token more time"
    assert known.not_before is None or (edited.not_before is not None and edited.not_before >= known.not_before)
    around = [ip_network(text) for text in known.conditions.networks]
    within = [ip_network(text) for text in edited.conditions.networks]
    assert not around or within, "an edit freed a replaced token from its networks"
    for network in within if around else ():
        same = [one for one in around if one.version == network.version]
        assert any(network.network_address in one and network.broadcast_address in one for one in same)


def ends_later(before: datetime | None, after: datetime | None) -> bool:
    return before is not None and (after is None or after > before)


def rotatable(random: Random, rows: Rows, alive: Sequence[Token], known: Sequence[TokenId]) -> Token | None:
    """Mostly one that is alive; now and then one that is out, and whose family ends with the attempt."""
    if known and random.random() < 0.1:
        chosen = random.choice(list(known))
        return next(token for token in rows.tokens if token.id == chosen)
    return random.choice(list(alive)) if alive else None
