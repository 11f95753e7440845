"""Cursors of complete pages: where a page ended, as an opaque text that is checked when it comes back."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Final

from authz_service.errors import Fault, InvalidInputError

MAX_LIMIT: Final = 1000
LONGEST_CURSOR: Final = 512


def page_size(limit: int) -> int:
    """The size asked for, held between 1 and 1,000."""
    return max(1, min(limit, MAX_LIMIT))


def write_cursor(*parts: str) -> str:
    """The first part names the list and its order, so that a cursor of another list is refused."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def read_cursor(cursor: str, order: str, parts: int) -> tuple[str, ...]:
    """The parts after the first. Raises InvalidInputError for what `write_cursor` did not write for this order."""
    if len(cursor) > LONGEST_CURSOR:
        raise bad_cursor()
    try:
        found = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        raise bad_cursor() from None
    good = isinstance(found, list) and len(found) == parts + 1 and all(isinstance(part, str) for part in found)
    if not good or found[0] != order or not all(map(_is_storable, found)):
        raise bad_cursor()
    return tuple(found[1:])


def _is_storable(text: str) -> bool:
    """Whether a table could hold it, and so whether it may be compared with what one holds."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def bad_cursor() -> InvalidInputError:
    """What every list says of a cursor that is not its own."""
    message = "the cursor is not one of this list and this order; begin again without it"
    return InvalidInputError(message, faults=[Fault("/cursor", "invalid_cursor", message)])


def like(text: str) -> str:
    """A LIKE pattern that finds `text` anywhere, its own wildcards taken as written; the escape is a backslash."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
