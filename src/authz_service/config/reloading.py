"""Settings while the service runs: the file some may lie in, and which of them are taken over when it is read again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from authz_service.errors import Fault, StartError

if TYPE_CHECKING:
    from authz_service.config.settings import Settings

SETTINGS_FILE: Final = "AUTHZ_SETTINGS_FILE"
RELOADED: Final = frozenset(
    {
        "decision_records",
        "decision_records_endpoint",
        "decision_records_file",
        "decision_records_queue",
        "decision_records_sample",
        "decision_records_sink",
        "foreign_prefixes",
        "leak_keys_file",
        "log_level",
        "max_import_tokens",
        "max_lifetime_days",
        "max_name_length",
        "max_networks",
        "max_nodes",
        "max_permissions",
        "max_reason_length",
        "max_scopes",
        "max_tokens_per_owner",
        "pepper_kid",
        "peppers",
        "peppers_file",
    }
)
"""Fields that SIGHUP takes over. Everything else is built in at the start."""
READ_AGAIN: Final = frozenset(
    {
        "gateway_cert_file",
        "gateway_client_ca_file",
        "gateway_key_file",
        "gateway_token_file",
        "tls_cert_file",
        "tls_client_ca_file",
        "tls_key_file",
    }
)
"""Fields that stay, and whose files are read again."""
_LINE: Final = re.compile(r"(AUTHZ_[A-Z0-9_]+|DATABASE_URL)=(.*)")


def read_settings_file(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of the file that AUTHZ_SETTINGS_FILE names, without those that the environment sets.

    A line is `AUTHZ_NAME=value`, taken as it stands; empty ones and those that begin with `#` are passed over. Raises
    StartError with a fault for every line that is none; no fault repeats a value.
    """
    if not environ.get(SETTINGS_FILE):
        return {}
    file = Path(environ[SETTINGS_FILE])
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = (getattr(error, "strerror", None) or "it is no text").lower()
        fault = Fault(SETTINGS_FILE, "unreadable", f"`{file}` cannot be read: {why}")
        raise StartError(f"{fault.where}: {fault.message}", faults=[fault]) from error
    found: dict[str, str] = {}
    faults: list[Fault] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or match[1] == SETTINGS_FILE:
            faults.append(Fault(f"{SETTINGS_FILE} line {number}", "invalid", "write it as `AUTHZ_NAME=value`"))
        elif match[1] in found:
            faults.append(Fault(f"{SETTINGS_FILE} line {number}", "twice", f"{match[1]} stands here twice"))
        else:
            found[match[1]] = match[2].strip()
    if faults:
        raise StartError("; ".join(f"{one.where}: {one.message}" for one in faults), faults=faults)
    return {name: value for name, value in found.items() if not environ.get(name)}


def require_reloadable(old: Settings, new: Settings) -> None:
    """Raises StartError with a fault for each setting that changed and needs a restart: then nothing is taken over."""
    fields = type(old).model_fields
    changed = [name for name in fields if getattr(old, name) != getattr(new, name) and name not in RELOADED]
    faults = [
        Fault(f"AUTHZ_{name.upper()}", "needs_restart", "it was changed, and needs a restart") for name in changed
    ]
    if faults:
        raise StartError("; ".join(f"{one.where}: {one.message}" for one in faults), faults=faults)
