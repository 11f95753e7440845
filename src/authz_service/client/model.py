"""What a client asks and is answered. Unknown fields of an answer are ignored: the service may be newer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NoReturn

import msgspec


class Ask(msgspec.Struct, frozen=True, omit_defaults=True):
    """One question: whether the token may do `action` to `resource` at `target`.

    A target is `acme/web`, `project:42`, `user:dana` or `instance`.
    """

    resource: str
    action: str
    target: str | None = None
    attributes: Mapping[str, str | int | bool] | None = None

    @classmethod
    def of(cls, permission: str, target: str | None = None) -> Ask:
        """From `issue:read`. Raises ValueError for a text without exactly one colon inside."""
        resource, colon, action = permission.partition(":")
        if not colon or not resource or not action or ":" in action:
            raise ValueError(f"`{permission}` is no permission; write it as `resource:action`")
        return cls(resource, action, target)


class Missing(msgspec.Struct, frozen=True):
    """One permission that the token would need, and where."""

    permission: str
    boundary: str
    target: str


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The service's answer. It is no truth value: read `allowed`."""

    decision: Literal["allow", "deny"]
    reason: str
    message: str = ""
    missing: tuple[Missing, ...] = ()
    hide: bool = False
    token_id: str | None = None
    revision: str | None = None

    @property
    def allowed(self) -> bool:
        return self.decision == "allow"

    def __bool__(self) -> NoReturn:
        raise TypeError("an answer is not a truth value: read `.allowed`")


class WhoAmI(msgspec.Struct, frozen=True):
    """The presented token, as `/v1/self` shows it; `document` is the whole of it."""

    id: str
    document: Mapping[str, Any]
