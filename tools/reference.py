"""Writes docs/reference/ from the code: settings, reasons, metrics, commands, the HTTP surface, the shipped catalogs.

With --check it only says whether that is due.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import typer
from reference_api import api_page
from reference_catalogs import catalog_page
from reference_tables import NOTE, page, table

from authz_service.cli.commands import app
from authz_service.config import READ_AGAIN, RELOADED, Settings
from authz_service.engine.explain import describe
from authz_service.engine.model import Decision, Reason
from authz_service.telemetry import Metrics

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
SEMANTICS = ROOT / "docs" / "semantics.md"


def settings() -> str:
    """Every setting under its variable, by name."""
    prefix = str(Settings.model_config.get("env_prefix", "")).upper()
    rows = [
        (f"`{prefix}{name.upper()}`", _default(field.default), _reloaded(name), field.description or "")
        for name, field in sorted(Settings.model_fields.items())
    ]
    intro = (
        "Read at the start, from the environment and the file of `AUTHZ_SETTINGS_FILE`. Missing and contradictory ones"
        " stop the start, all named. On SIGHUP those marked `yes` are taken over, and the files of those marked `file`"
        " are read again; where anything else changed, or anything is wrong, nothing is, and the last good ones stay"
        " ([upgrading](../operations/upgrading.md#settings))."
    )
    return page("Settings", intro, ("variable", "default", "SIGHUP", "what it says"), rows)


def _reloaded(name: str) -> str:
    return "yes" if name in RELOADED else "file" if name in READ_AGAIN else ""


def _default(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return f"`{str(value).lower()}`"
        case Enum():
            return f"`{value.value}`"
    text = str(value)
    return f"`{text}`" if text and "PydanticUndefined" not in text else ""


def reasons() -> str:
    """Every reason, in the order in which it is looked for."""
    text = SEMANTICS.read_text(encoding="utf-8")
    rules = re.findall(r"^- \*\*([A-Z]\d+)\*\*(.*(?:\n  .*)*)", text, re.MULTILINE)
    # A reason is named where it is introduced: among the rules of decisions first.
    rules.sort(key=lambda rule: rule[0][0] != "A")
    rows = []
    for reason in Reason:
        cited = next((name for name, said in rules if f"`{reason.value}`" in said), "")
        allowed = reason.value.startswith("granted")
        message = "" if allowed else describe(Decision(allowed=False, reason=reason))
        rows.append((f"`{reason.value}`", "allow" if allowed else "deny", cited, message))
    intro = (
        "Codes are public and never change. They stand in the order in which they are looked for; the rule is one of"
        " [semantics.md](../semantics.md). Messages are for people, name places where there are some, and may change."
    )
    return page("Reasons", intro, ("reason", "decision", "rule", "message"), rows)


def metrics() -> str:
    """Every figure of `/metrics`, by name."""
    rows = []
    for family in sorted(Metrics().registry.collect(), key=lambda one: one.name):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append((f"`{name}`", family.type, family.documentation))
    return page(
        "Metrics", "`GET /metrics`, for Prometheus, summed up over all workers.", ("name", "kind", "what"), rows
    )


def commands() -> str:
    """Every command with its arguments and options."""
    parts = []
    for name, command in _walk(typer.main.get_command(app), ("authz",)):
        words = [name]
        rows = []
        for param in command.params:
            if getattr(param, "hidden", False) or "--help" in param.opts:
                continue
            is_option = param.param_type_name == "option"
            shown = ", ".join(f"`{one}`" for one in (*param.opts, *param.secondary_opts))
            metavar = (param.metavar or param.name or "").upper()
            if not is_option:
                words.append(metavar)
                shown = f"`{metavar}`"
            rows.append((shown, getattr(param, "help", None) or ""))
        said = " ".join((command.help or "").split())
        parts.append(f"## `{' '.join(words)}`\n\n{said}\n")
        if rows:
            parts.append(table(("argument", "what it says"), rows))
    intro = (
        "Exit statuses: 0 done or allowed, 1 denied or refused, 2 not understood or not set, 3 no answer. Secrets come"
        " from variables, files and standard input, never from arguments."
    )
    return f"# Commands\n\n{NOTE}\n\n{intro}\n\n" + "\n".join(parts)


def _walk(command: Any, path: Sequence[str]) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield " ".join(path), command
        return
    for name in sorted(below):
        if not below[name].hidden:
            yield from _walk(below[name], (*path, name))


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings,
    "reasons.md": reasons,
    "metrics.md": metrics,
    "cli.md": commands,
    "api.md": api_page,
}
PAGES |= {f"catalog-{name}.md": partial(catalog_page, name) for name in ("authz", "github", "gitlab")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page is not what it would be")
    check = parser.parse_args().check
    FOLDER.mkdir(exist_ok=True)
    due = []
    for name, write in PAGES.items():
        file, text = FOLDER / name, write()
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            due.append(name)
            if not check:
                file.write_text(text, encoding="utf-8")
    if check and due:
        print(f"docs/reference/ is not what the code says ({', '.join(due)}); run `make reference`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
