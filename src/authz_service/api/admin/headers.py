"""Headers that management's routes share: idempotency keys, and tags of what an edit was made from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import Header, Request, Response

from authz_service.errors import PreconditionRequiredError

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]+$",
        description="makes a repeated request do its work once; the answer then lacks the secret",
    ),
]
"""As a route's parameter, with None as its default."""

IF_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": "the ETag of what the edit was made from, or `*` for whatever is there now",
    "schema": {"type": "string", "maxLength": 1024},
}
"""For `openapi_extra`: the route reads it by `read_if_match`."""
ETAG: Final = {"ETag": {"description": "of the thing as it is now", "schema": {"type": "string"}}}
_TAG: Final = re.compile(r'(W/)?("[\x21\x23-\x7e]*")|(\*)')


def read_if_match(request: Request) -> Sequence[str]:
    """The strong tags of `If-Match`, or `*`; what is no tag matches nothing. Raises PreconditionRequiredError."""
    given = request.headers.getlist("if-match")
    if not given:
        raise PreconditionRequiredError("send `If-Match` with the ETag that you read, so that no other edit is undone")
    found = _TAG.finditer(",".join(given)[:8192])
    return [one[2] or one[3] for one in found if not one[1]]


def set_etag(response: Response, etag: object) -> None:
    """Tell the tag of what is shown; nothing where only a part of it is."""
    if isinstance(etag, str):
        response.headers["ETag"] = etag
