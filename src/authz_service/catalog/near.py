"""What to say of a permission that a catalog does not have: which it is, of which version, and what was meant."""

from __future__ import annotations

import re
from typing import Final

from authz_service.catalog.model import Catalog, slips
from authz_service.redaction import redact_tokens

_NAME: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,129}")


def no_such_permission(catalog: Catalog, name: str) -> str:
    """One sentence. Any text is harmless, and takes no longer than its length: whoever asks may ask ten thousand."""
    if not _NAME.fullmatch(name):
        return f"`{catalog.label}` has no permission of that name; write it as `resource:action`"
    meant, name = find_near(catalog, name), redact_tokens(name)
    advice = f"did you mean `{meant}`" if meant else f"`GET /v1/catalogs/{catalog.name}` lists those it has"
    return f"`{catalog.label}` has no permission `{name}`; {advice}"


def find_near(catalog: Catalog, name: str) -> str | None:
    """The permission that differs by its order (`run:job`) or by one slip of the pen; None where there is none."""
    resource, colon, action = name.lower().partition(":")
    for close in (f"{resource}:{action}", f"{action}:{resource}"):
        if colon and close in catalog.by_name:
            return close
    found = [close for less in slips(name.lower()) for close in catalog.near_names.get(less, ())]
    return min(found, key=lambda close: (abs(len(close) - len(name)), close), default=None)
