"""Settings of tokens' lives: how much one may ask for, what time alone does to them, and secrets of other systems."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

from pydantic import BaseModel, Field

from authz_service.admin.management import Limits
from authz_service.admin.sweeps import SweepRules
from authz_service.errors import Fault
from authz_service.tokens.secret import is_kid

_PREFIX: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{1,31}")


class LimitSettings(BaseModel):
    # how much one token may ask for; lowering a limit breaks no token that exists
    max_tokens_per_owner: int = Field(10_000, ge=1, le=10_000_000, description="living tokens of one owner")
    max_lifetime_days: int | None = Field(
        None, ge=1, le=36_500, description="days from a secret's creation to its expiry; without it, any, and for ever"
    )
    max_scopes: int = Field(100, ge=1, le=10_000, description="scopes of one token")
    max_nodes: int = Field(1000, ge=1, le=100_000, description="groups and projects that one scope selects")
    max_permissions: int = Field(2000, ge=1, le=100_000, description="permissions of one scope")
    max_networks: int = Field(100, ge=1, le=10_000, description="networks of one token's conditions")
    max_name_length: int = Field(100, ge=1, le=1000, description="characters of a token's name")
    max_reason_length: int = Field(1000, ge=1, le=10_000, description="characters of a token's reason")
    max_import_tokens: int = Field(10_000, ge=1, le=100_000, description="lines of one import of tokens")

    # what time alone does
    sweep_interval: float = Field(
        300.0,
        ge=0.0,
        le=86_400.0,
        description="seconds between sweeps: notices before expiry, unused tokens, what ended long ago. One replica"
        " does them at a time; 0 leaves them to `authz sweep`",
    )
    max_inactive_days: int | None = Field(
        None, ge=1, le=36_500, description="days without use after which a sweep revokes a token; without it, never"
    )
    keep_ended_days: int = Field(
        365, ge=1, le=36_500, description="days that revoked and expired tokens are kept; the audit stays"
    )

    # secrets that other systems made
    foreign_prefixes: str | None = Field(
        None,
        description="what secrets of other systems begin with, whose tokens may be imported: `glpat-,ghp_`. With"
        " several peppers each names its own, for good: `glpat-:k1,ghp_:k1`",
    )


def limit_contradictions(
    settings: LimitSettings, *, token_prefix: str, kids: Mapping[str, bytes] | None
) -> Iterator[Fault]:
    """What is wrong with the prefixes; `kids` None where no pepper is known, and then no `kid` is looked for."""
    variable = "AUTHZ_FOREIGN_PREFIXES"
    seen: list[str] = []
    for entry in _entries(settings):
        prefix, colon, kid = entry.partition(":")
        if not _PREFIX.fullmatch(prefix):
            yield Fault(variable, "invalid", "a prefix is 2 to 32 letters, digits, `.`, `_`, `~` and `-`, as `glpat-`")
        elif f"{token_prefix}_".startswith(prefix) or prefix.startswith(f"{token_prefix}_"):
            yield Fault(variable, "contradiction", f"our own secrets begin with `{token_prefix}_`; `{prefix}` clashes")
        elif any(prefix.startswith(one) or one.startswith(prefix) for one in seen):
            yield Fault(variable, "contradiction", f"`{prefix}` and another prefix begin alike; name the shorter alone")
        seen.append(prefix)
        if colon and not is_kid(kid):
            yield Fault(variable, "invalid", f"`{prefix}` names no `kid`: 1 to 8 small letters and digits")
        elif kids is not None and colon and kid not in kids:
            yield Fault(variable, "unknown", f"there is no pepper `{kid}`, which `{prefix}` names")
        elif kids is not None and not colon and len(kids) > 1:
            yield Fault(
                variable, "missing", f"there are several peppers: say which is for `{prefix}`, as `{prefix}:k1`"
            )


def read_foreign(settings: LimitSettings, current: str) -> dict[str, str]:
    """The `kid` by prefix. The settings were found in order before."""
    named = (entry.partition(":") for entry in _entries(settings))
    return {prefix: kid or current for prefix, _, kid in named}


def read_limits(settings: LimitSettings, *, import_bytes: int) -> Limits:
    """How much one request may ask for."""
    days = settings.max_lifetime_days
    return Limits(
        name_length=settings.max_name_length,
        reason_length=settings.max_reason_length,
        scopes=settings.max_scopes,
        nodes=settings.max_nodes,
        permissions=settings.max_permissions,
        networks=settings.max_networks,
        tokens_per_owner=settings.max_tokens_per_owner,
        lifetime=None if days is None else timedelta(days=days),
        import_bytes=import_bytes,
        import_tokens=settings.max_import_tokens,
    )


def read_sweep_rules(settings: LimitSettings) -> SweepRules:
    """What the sweeps go by."""
    return SweepRules(
        interval=timedelta(seconds=settings.sweep_interval),
        inactive_days=settings.max_inactive_days,
        keep_ended=timedelta(days=settings.keep_ended_days),
    )


def _entries(settings: LimitSettings) -> list[str]:
    return [one.strip() for one in (settings.foreign_prefixes or "").split(",") if one.strip()]
