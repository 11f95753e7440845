"""Settings of the secrets: the keys of their digests, by `kid`, and what each secret begins with."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, Field, SecretStr

from authz_service.errors import Fault, StartError
from authz_service.tokens.secret import DEFAULT_PREFIX, is_kid, is_prefix

MIN_PEPPER_BYTES: Final = 32

_NO_PEPPERS: Final = (
    "set AUTHZ_PEPPERS to `k1:` and 32 random bytes in base64, as `openssl rand -base64 32` prints them, or"
    " AUTHZ_PEPPERS_FILE to a file of such lines; keep them: without them no token works"
)


class SecretSettings(BaseModel):
    peppers: SecretStr | None = Field(
        None,
        description="keys of the digests under which secrets are stored, as `kid:base64,kid:base64`; each of 32 bytes"
        " or more. Whoever has them and the database can tell whether a guess is a token; losing them loses all tokens",
    )
    peppers_file: Path | None = Field(None, description="the same in a file, one `kid:base64` a line")
    pepper_kid: str | None = Field(None, description="the pepper for new secrets; needed where there are several")
    token_prefix: str = Field(DEFAULT_PREFIX, description="what every secret begins with: 1 to 16 letters and digits")


def secret_settings(environ: Mapping[str, str] | None = None) -> SecretSettings:
    """Of the environment, whatever else is set there or missing: for who needs keys and no service."""
    found = os.environ if environ is None else environ
    given = {name: found.get(f"AUTHZ_{name.upper()}") for name in SecretSettings.model_fields}
    return SecretSettings.model_validate({name: value for name, value in given.items() if value})


def secret_contradictions(settings: SecretSettings, *, without_peppers: bool) -> Iterator[Fault]:
    if not is_prefix(settings.token_prefix):
        yield Fault("AUTHZ_TOKEN_PREFIX", "invalid", "write 1 to 16 ASCII letters and digits")
    if settings.peppers is not None and settings.peppers_file is not None:
        yield Fault("AUTHZ_PEPPERS_FILE", "contradiction", "AUTHZ_PEPPERS is set too; set one of them")
    elif not without_peppers:
        try:
            read_peppers(settings)
        except StartError as error:
            yield from error.faults


def read_peppers(settings: SecretSettings) -> tuple[dict[str, bytes], str]:
    """The peppers by `kid`, and the `kid` of new secrets. Raises StartError with every fault."""
    peppers, faults = _peppers(settings)
    kid = settings.pepper_kid or (next(iter(peppers)) if len(peppers) == 1 else None)
    if not faults and not peppers:
        faults.append(Fault("AUTHZ_PEPPERS", "missing", _NO_PEPPERS))
    if not faults and kid is None:
        listed = ", ".join(f"`{name}`" for name in peppers)
        faults.append(Fault("AUTHZ_PEPPER_KID", "missing", f"say which of {listed} is for new secrets"))
    if not faults and kid not in peppers:
        faults.append(Fault("AUTHZ_PEPPER_KID", "unknown", f"there is no pepper `{kid}`; AUTHZ_PEPPERS has to name it"))
    if faults or kid is None:
        raise StartError("; ".join(f"{fault.where}: {fault.message}" for fault in faults), faults=faults)
    return peppers, kid


def _peppers(settings: SecretSettings) -> tuple[dict[str, bytes], list[Fault]]:
    variable = "AUTHZ_PEPPERS" if settings.peppers_file is None else "AUTHZ_PEPPERS_FILE"
    text = "" if settings.peppers is None else settings.peppers.get_secret_value()
    if settings.peppers_file is not None:
        try:
            text = settings.peppers_file.read_text("utf-8").replace("\n", ",")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            return {}, [Fault(variable, "unreadable", f"`{settings.peppers_file}` cannot be read: {why.lower()}")]
    peppers: dict[str, bytes] = {}
    faults: list[Fault] = []
    for number, entry in enumerate((part.strip() for part in text.split(",")), start=1):
        if entry:
            fault = _read_pepper(entry, peppers)
            if fault:
                faults.append(Fault(variable, "invalid", f"pepper {number}: {fault}"))
    return peppers, faults


def _read_pepper(entry: str, peppers: dict[str, bytes]) -> str:
    """What is wrong with one `kid:base64`; empty when it was added. Says nothing of the value itself."""
    kid, colon, encoded = entry.partition(":")
    if not colon:
        return "write it as `kid:base64`"
    if not is_kid(kid):
        return "its kid is 1 to 8 small ASCII letters and digits"
    if kid in peppers:
        return f"the kid `{kid}` stands here twice"
    try:
        pepper = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return f"`{kid}` is not base64"
    if len(pepper) < MIN_PEPPER_BYTES:
        return f"`{kid}` has {len(pepper)} bytes; take {MIN_PEPPER_BYTES} random ones or more"
    if len(set(pepper)) < MIN_PEPPER_BYTES // 4:
        return f"`{kid}` is not random; take the output of `openssl rand -base64 32`"
    peppers[kid] = pepper
    return ""
