"""Headers as a gateway sends them: each once, spelt exactly, without control characters, or the request is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from authz_service.api.wire import plain_address
from authz_service.errors import InvalidInputError

AUTHORIZATION: Final = "authorization"
GATEWAY: Final = "x-authz-gateway"
"""The gateway's own token."""
CONSTANTS: Final = ("catalog", "resource", "action", "target")
CONSTANT_HEADERS: Final = {name: f"x-authz-{name}" for name in CONSTANTS}
BODY: Final = ("content-type", "content-encoding", "x-envoy-auth-partial-body")
"""What is said of a body that a gateway passes on."""
OVERRIDES: Final = frozenset(
    ("x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url")
)
"""Another method or path than the request line's, as many frameworks read it; where a gateway sets one, it counts."""
_OURS: Final = "x-authz-"
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")


class GatewayHeaders:
    """The headers that count. Whatever a client sent besides them was never looked at.

    What stands in front may read `X_Forwarded_Uri` as `X-Forwarded-Uri`, and take the first of two where we would take
    the last; so both are refused, and nothing is chosen.
    """

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]], names: Iterable[str]) -> None:
        """Raises InvalidInputError for a variant with `_` of any of these names, and of whatever is `X-Authz-…`.

        So it does for one of OVERRIDES that is not among the names: the API behind would serve what nobody judged.
        """
        wanted = frozenset(names)
        self._values: dict[str, list[str]] = {name: [] for name in wanted}
        for raw, value in pairs:
            name = raw.decode("latin-1").lower()
            dashed = name.replace("_", "-")
            if dashed != name and (dashed in wanted or dashed.startswith(_OURS)):
                raise InvalidInputError(f"the header `{name[:64]}` is refused: others may read it as `{dashed[:64]}`")
            if dashed in OVERRIDES and dashed not in wanted:
                raise InvalidInputError(f"the header `{name[:64]}` is refused: it names a request that is not judged")
            if name in wanted:
                self._values[name].append(value.decode("latin-1"))

    def find(self, name: str) -> str | None:
        """The value; None for none and for an empty one. Raises InvalidInputError for two, and for odd letters."""
        values = self._values[name]
        if len(values) > 1:
            raise InvalidInputError(f"the header `{name}` came {len(values)} times; send it once")
        if not values:
            return None
        value = values[0].strip(" \t")
        if _CONTROLS.search(value):
            raise InvalidInputError(f"the header `{name}` holds control characters")
        return value or None

    def need(self, name: str) -> str:
        value = self.find(name)
        if value is None:
            raise InvalidInputError(f"the header `{name}` is missing: the gateway has to set it")
        return value

    def find_secret(self) -> tuple[str | None, bool]:
        """The secret of `Authorization: Bearer`, and whether the header was there at all."""
        value = self.find(AUTHORIZATION)
        if value is None:
            return None, False
        scheme, _, secret = value.partition(" ")
        return (secret.strip() or None) if scheme.lower() == "bearer" else None, True

    def find_address(self, name: str) -> str | None:
        """The end client's address. Of a list the last counts: the gateway wrote it, others may have written the rest.

        None where it is unknown: a token that is bound to networks does not work then.
        """
        value = self.find(name)
        return None if value is None else plain_address(value.rpartition(",")[2].strip())
