"""Shapes that management's requests and answers share, as OpenAPI shows them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from authz_service.api.wire import OURS

_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


class Strict(BaseModel):
    """A request: unknown fields are refused, and no type is taken for another."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Query(BaseModel):
    """A query string: unknown parameters are refused."""

    model_config = ConfigDict(extra="forbid")


def _read_moment(value: Any, days: int) -> datetime:
    """`days`: how many after its beginning a day without a time means."""
    try:
        if isinstance(value, str) and _DAY.fullmatch(value):
            return datetime.combine(date.fromisoformat(value), time(), UTC) + timedelta(days=days)
        if isinstance(value, str) and _RFC3339.fullmatch(value):
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    message = "write a day, as `2027-01-31`, or a time with its zone, as `2027-01-31T12:00:00Z`"
    raise PydanticCustomError(f"{OURS}invalid_date", message)


def _moment(value: Any) -> datetime:
    return _read_moment(value, days=0)


def _end(value: Any) -> datetime:
    return _read_moment(value, days=1)


def _plain(value: str) -> str:
    if not value.isprintable():
        raise PydanticCustomError("invalid_text", "the text holds characters that do not print")
    return value


_MOMENT_SCHEMA: Final = WithJsonSchema(
    {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}]}, mode="validation"
)

Moment = Annotated[datetime, PlainValidator(_moment), _MOMENT_SCHEMA]
"""A date in a request: RFC 3339 with a zone, turned to UTC. A day without a time is its beginning in UTC."""

End = Annotated[datetime, PlainValidator(_end), _MOMENT_SCHEMA]
"""The first moment that something does not last: as Moment, but it lasts the whole of a day without a time, in UTC."""

MomentText = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""A date in an answer."""

PlainText = Annotated[str, AfterValidator(_plain)]
"""Text of a query parameter that can be stored and compared."""

Revision = Annotated[
    str, Field(description="the revision of the facts; send it as `at_least` to `/check` to go on from here")
]
Source = Annotated[
    PlainText | None,
    Field(
        max_length=63,
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
        description="the source of the directory; without it the one that the caller's account lies in",
    ),
]
Cursor = Annotated[
    PlainText | None, Field(min_length=1, max_length=512, description="`next_cursor` of the page before")
]
Limit = Annotated[int, Field(ge=1, le=200, description="how many at most")]


class Page(BaseModel):
    """A page of a list. `next_cursor` null is the last one."""

    next_cursor: str | None
    revision: Revision
