"""A CI job's own token for one of the service's (RFC 8693), so that no secret is stored in the CI system."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import httpx
import msgspec

from authz_service.client.errors import RefusedError, UnreachableError
from authz_service.client.wire import read_document, unreachable

_GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"


@dataclass(frozen=True, slots=True)
class JobSecret:
    """A token of minutes; `expires_in` is in seconds from now."""

    secret: str = field(repr=False)
    expires_in: int
    permissions: tuple[str, ...]


class _Answer(msgspec.Struct):
    access_token: str
    expires_in: int
    scope: str = ""


class _Error(msgspec.Struct):
    error: str
    error_description: str = ""


def exchange_job_token(
    url: str,
    job_token: str,
    *,
    rule: str | None = None,
    timeout: float = 10.0,
    transport: httpx.BaseTransport | None = None,
) -> JobSecret:
    """Raises RefusedError when no trust rule takes it, and UnreachableError. A job's token is taken once."""
    form = {"grant_type": _GRANT, "subject_token": job_token, "subject_token_type": _JWT}
    if rule is not None:
        form["rule"] = rule
    with httpx.Client(timeout=timeout, transport=transport, follow_redirects=False) as http:
        try:
            response = http.post(f"{url.rstrip('/')}/v1/token-exchange", data=form)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise unreachable(url, error) from error
    if response.status_code == httpx.codes.BAD_REQUEST:
        try:
            said = msgspec.json.decode(response.content, type=_Error)
        except msgspec.MsgspecError:
            pass
        else:
            raise RefusedError(said.error_description or said.error, status=400, code=said.error)
    document = read_document(response)
    try:
        answer = msgspec.convert(document, _Answer)
    except msgspec.ValidationError as error:
        raise UnreachableError(f"`{url}` answered, and not as this service does; is the URL right") from error
    return JobSecret(answer.access_token, answer.expires_in, tuple(answer.scope.split()))
