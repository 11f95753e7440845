"""What commands print: tables and sentences for people, JSON for programs. Answers go to stdout, all else to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from authz_service.errors import AuthzError, Fault


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


class UsageFault(Exception):  # noqa: N818 - the user's fault, not ours
    """The command cannot be run as it was given; the message says what to give."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def print_json(document: Any) -> None:
    """One document, indented; the same document prints the same text."""
    print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as they need to be; a cell's own words are never read as markup."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not cells:
        print_note("nothing")
        return
    if not sys.stdout.isatty():
        _print_plain(headers, cells)  # for pipes: no frame, no wrapping
        return
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ModuleNotFoundError:
        _print_plain(headers, cells)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(headers))
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def print_note(text: str) -> None:
    """For people alone: a program reading stdout does not see it."""
    print(text, file=sys.stderr)


def complain(message: str, faults: Iterable[Fault] = ()) -> None:
    """An error, and every fault on a line of its own."""
    print(f"authz: {message}", file=sys.stderr)
    for fault in faults:
        print(f"  {fault.where}: {fault.message}", file=sys.stderr)


def complain_of(error: AuthzError) -> None:
    """An error of the service: where faults are listed, the message before them says no more than that."""
    if [fault.message for fault in error.faults] == [error.message]:
        complain(error.message)
        return
    complain(error.message.partition(": ")[0] if error.faults else error.message, error.faults)


def _print_plain(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    rows = [[" ".join(cell.split()) for cell in row] for row in ([headers] if any(headers) else []) + [*cells]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(headers))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
