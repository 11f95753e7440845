"""`exchange`: a CI job's own token for one of the service's, written to a file that nobody else reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from authz_service.cli import exits
from authz_service.cli.asking import URL_VARIABLE
from authz_service.cli.printing import UsageFault, complain, print_note
from authz_service.client import RefusedError, UnreachableError
from authz_service.client.exchange import exchange_job_token

JOB_TOKEN_VARIABLE: Final = "AUTHZ_JOB_TOKEN"
_ASK_URL: Final = "ACTIONS_ID_TOKEN_REQUEST_URL"
_ASK_TOKEN: Final = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"


def exchange(url: str | None, file: Path, audience: str | None, rule: str | None) -> int:
    """Writes the secret to the file, mode 0600; the file must not be there yet. Exit status 1 when nothing is given.

    The job's token is AUTHZ_JOB_TOKEN (an `id_tokens` entry of GitLab), or GitHub is asked for one with `audience`.
    """
    url = url or os.environ.get(URL_VARIABLE)
    if not url:
        raise UsageFault("set AUTHZ_URL to where the service answers")
    job_token = os.environ.get(JOB_TOKEN_VARIABLE, "").strip() or _ask_github(audience)
    try:
        # Before the exchange: a job's token is taken once, and must not be lost to a full disk or a wrong name.
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UsageFault(f"`{file}` cannot be made: {(error.strerror or 'no reason given').lower()}") from error
    done = False
    try:
        with os.fdopen(handle, "w", encoding="ascii") as opened:
            given = exchange_job_token(url, job_token, rule=rule)
            opened.write(given.secret)
        done = True
    except RefusedError as error:
        complain(error.message)
        return exits.DENIED
    finally:
        if not done:
            file.unlink(missing_ok=True)
    print_note(f"a token for {given.expires_in} seconds is in `{file}`; it may {', '.join(given.permissions)}")
    return exits.OK


def _ask_github(audience: str | None) -> str:
    url, token = os.environ.get(_ASK_URL), os.environ.get(_ASK_TOKEN)
    if not url or not token:
        raise UsageFault(
            "set AUTHZ_JOB_TOKEN to the job's OpenID Connect token, or on GitHub give the job `id-token: write`"
        )
    if not audience:
        raise UsageFault("say by `--audience` whom GitHub shall make the token for: the trust rule's audience")
    try:
        answer = httpx.get(
            httpx.URL(url).copy_merge_params({"audience": audience}),
            headers={"Authorization": f"Bearer {token}"},
            timeout=10.0,
        )
        document: Any = msgspec.json.decode(answer.content) if answer.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.MsgspecError) as error:
        raise UnreachableError("GitHub gave no token for this job") from error
    value = document.get("value") if isinstance(document, dict) else None
    if not isinstance(value, str):
        raise UnreachableError("GitHub gave no token for this job")
    return value
