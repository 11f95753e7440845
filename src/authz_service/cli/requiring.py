"""`require`: whether a job's token can do what the job declares, told as people and CI systems read it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec

from authz_service.cli import exits
from authz_service.cli.needs import Finding, Need, find_missing, find_unneeded, parse_needs
from authz_service.cli.printing import Output, UsageFault, complain, print_json, print_note, print_table
from authz_service.client import Answer, Client
from authz_service.client.wire import MOST_ITEMS
from authz_service.errors import InvalidInputError

NEEDS_FILE: Final = Path("authz.toml")
_LONGEST_FILE: Final = 1 << 20


class Annotate(StrEnum):
    """Whose marks are written beside the table: those of the CI system that runs the job, or none."""

    AUTO = "auto"
    GITHUB = "github"
    GITLAB = "gitlab"
    NONE = "none"


def require(
    client: Client,
    file: Path,
    output: Output,
    *,
    strict: bool = False,
    annotate: Annotate = Annotate.AUTO,
    code_quality: Path | None = None,
) -> int:
    """0 when the token may do all that the file declares (with `strict`: and holds nothing else), 1 when not.

    `code_quality` is a file for GitLab's report of that name; it is written also when nothing was found.
    """
    try:
        needs = parse_needs(_read(file), os.environ)
    except InvalidInputError as error:
        complain(f"`{file}` cannot be used: {error.message}", error.faults)
        return exits.USAGE
    found = find_missing(needs, _ask(client, needs))
    if strict:
        found += find_unneeded(needs, client.whoami().document)
    if code_quality is not None:
        _write_report(code_quality, file, found)
    if output is Output.JSON:
        print_json({"satisfied": not found, "needs": len(needs), "findings": [_document(one) for one in found]})
    else:
        _print_findings(found, len(needs))
        _annotate(found, file, _system() if annotate is Annotate.AUTO else annotate)
    return exits.DENIED if found else exits.OK


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > _LONGEST_FILE:
            raise UsageFault(f"`{file}` is larger than 1 MiB; is it a list of needs")
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = (getattr(error, "strerror", None) or "it is no text").lower()
        raise UsageFault(f"`{file}` cannot be read: {why}") from error


def _ask(client: Client, needs: Sequence[Need]) -> list[Answer]:
    """In the order of the needs; those of one catalog are answered at one revision."""
    answers: dict[int, Answer] = {}
    for catalog in dict.fromkeys(need.catalog for need in needs):
        numbers = [number for number, need in enumerate(needs) if need.catalog == catalog]
        for start in range(0, len(numbers), MOST_ITEMS):
            part = numbers[start : start + MOST_ITEMS]
            answered = client.can_all([needs[number].ask for number in part], catalog=catalog)
            answers |= dict(zip(part, answered, strict=True))
    return [answers[number] for number in range(len(needs))]


def _document(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "permission": finding.permission,
        "target": finding.target,
        "message": finding.message,
        "line": finding.line,
    }


def _print_findings(found: Sequence[Finding], needed: int) -> None:
    if not found:
        print_note(f"the token may do all {needed} things that the job needs")
        return
    rows = [(one.permission or "", one.target or "", one.code, one.message) for one in found]
    print_table(("permission", "where", "why", "what to do"), rows)


def _system() -> Annotate:
    if os.environ.get("GITHUB_ACTIONS") == "true":
        return Annotate.GITHUB
    return Annotate.GITLAB if os.environ.get("GITLAB_CI") == "true" else Annotate.NONE


def _annotate(found: Sequence[Finding], file: Path, system: Annotate) -> None:
    if system is Annotate.GITHUB:
        for one in found:
            place = f"file={_property(str(file))},line={one.line},title={_property('authz: ' + one.code)}"
            print(f"::error {place}::{_data(one.message)}")
    elif system is Annotate.GITLAB and found:
        # A section opens by itself, so that it is seen without a click; red as GitLab's own errors are.
        now = int(time.time())
        print(f"\x1b[0Ksection_start:{now}:authz_require\r\x1b[0K\x1b[31;1mauthz: {len(found)} findings\x1b[0m")
        for one in found:
            print(f"\x1b[31;1m{one.code}\x1b[0m {one.message}")
        print(f"\x1b[0Ksection_end:{now}:authz_require\r\x1b[0K")


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _write_report(target: Path, file: Path, found: Sequence[Finding]) -> None:
    """GitLab's code quality report: a list, each with a fingerprint that stays the same between runs."""
    report = [
        {
            "description": one.message,
            "check_name": one.code,
            "fingerprint": hashlib.sha256(f"{file}\0{one.code}\0{one.permission}\0{one.target}".encode()).hexdigest(),
            "severity": "minor" if one.code.startswith("unneeded_") else "major",
            "location": {"path": str(file), "lines": {"begin": one.line}},
        }
        for one in found
    ]
    try:
        target.write_bytes(msgspec.json.encode(report))
    except OSError as error:
        raise UsageFault(f"`{target}` cannot be written: {(error.strerror or 'no reason given').lower()}") from error
