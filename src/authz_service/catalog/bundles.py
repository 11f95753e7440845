"""Reads legacy scopes: what a coarse token holds, and what it may call besides (rule C7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Final

from authz_service.catalog.document import Section
from authz_service.catalog.faults import CatalogFault, Faults
from authz_service.catalog.model import AnyOperation, Bundle, Operation, Permission
from authz_service.catalog.permissions import Permissions
from authz_service.catalog.reading import Word, entries_in, flag_in, text_in, words_of

ALL: Final = "all"
READS: Final = "reads"
"""Selectors in place of names: everything of its kind, or what does not mutate."""


def read_bundles(
    top: Section, permissions: Permissions, operations: Mapping[str, Operation], faults: Faults
) -> Mapping[str, Bundle]:
    """The bundles by name; `all` and `reads` are spelt out, so a later permission joins them in a later version."""
    bundles: dict[str, Bundle] = {}

    def permission_of(word: Word) -> str | None:
        found = permissions.find(word, faults)
        return None if found is None else found.name

    def operation_of(word: Word) -> str | None:
        if word.text in operations:
            return word.text
        close = get_close_matches(word.text, operations, n=1) if faults.few else []
        advice = f"did you mean `{close[0]}`?" if close else "list it under a permission or in `operations`"
        faults.add(word.line, CatalogFault.UNKNOWN_OPERATION, f"there is no operation `{word.text}`; {advice}")
        return None

    known = {permission.name: permission for permission in permissions.all}
    for entry in entries_in(top, "bundles"):
        body = entry.value if isinstance(entry.value, Section) else Section((), entry.line)
        bundles[entry.key] = Bundle(
            entry.key,
            _names(words_of(body.find("permissions")), known, permission_of),
            _names(words_of(body.find("operations")), operations, operation_of),
            AnyOperation(text_in(body, "any_operation") or AnyOperation.NONE),
            text_in(body, "description") or "",
            public_only=flag_in(body, "public_only") is True,
        )
    return bundles


def _names(
    words: tuple[Word, ...],
    known: Mapping[str, Permission] | Mapping[str, Operation],
    find: Callable[[Word], str | None],
) -> frozenset[str]:
    names: set[str] = set()
    for word in words:
        if word.text == ALL:
            names.update(known)
        elif word.text == READS:
            names.update(name for name, each in known.items() if not each.mutates)
        elif (name := find(word)) is not None:
            names.add(name)
    return frozenset(names)
