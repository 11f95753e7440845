"""Reads where the fields of GraphQL documents are, from the `graphql` section of a catalog (rule C3)."""

from __future__ import annotations

import re
from typing import Final

from authz_service.catalog.document import Section
from authz_service.catalog.faults import CatalogFault, Faults
from authz_service.catalog.format import ARGUMENT
from authz_service.catalog.model import ArgumentKind, FieldPlace, GraphqlRules, ParameterKind, TargetKind
from authz_service.catalog.reading import Word, entries_in, section_in, text_in, word_of, words_of

_WORDS: Final = {kind.value: kind for kind in (TargetKind.SELF, TargetKind.INSTANCE, TargetKind.CALLER)}
_NAMED: Final = re.compile(rf"({'|'.join(kind.value for kind in ArgumentKind)}) (\S+)")


def read_graphql(top: Section, faults: Faults) -> GraphqlRules | None:
    """The rules, or None for a catalog without the section."""
    section = section_in(top, "graphql")
    if section is None:
        return None
    fields = {}
    for entry in entries_in(section, "fields"):
        found = [_read_place(word, faults) for word in words_of(entry.value)]
        fields[entry.key] = tuple(place for place in found if place is not None)
    rules = GraphqlRules(
        path=text_in(section, "path") or "",
        arguments={entry.key: ArgumentKind(word_of(entry.value).text) for entry in entries_in(section, "arguments")},
        fields=fields,
        places=frozenset(word.text for word in words_of(section.find("places"))),
        stays=frozenset(word.text for word in words_of(section.find("stays"))),
        leaves=frozenset(word.text for word in words_of(section.find("leaves"))),
        global_ids={entry.key: ParameterKind(word_of(entry.value).text) for entry in entries_in(section, "global_ids")},
    )
    for both in sorted(rules.stays & rules.leaves):
        message = f"`{both}` cannot stay and leave; keep one of the two"
        faults.add(section.line, CatalogFault.FLAGS_CONFLICT, message)
    return rules


def _read_place(word: Word, faults: Faults) -> FieldPlace | None:
    if word.text in _WORDS:
        return FieldPlace(_WORDS[word.text])
    found = _NAMED.fullmatch(word.text)
    if found is not None and ARGUMENT.pattern is not None and ARGUMENT.pattern.fullmatch(found[2]):
        return FieldPlace(names=ArgumentKind(found[1]), argument=found[2])
    message = f"`{word.text}` is no place of a field; write `self`, `instance`, `caller`, or as `project fullPath`"
    faults.add(word.line, CatalogFault.BAD_TARGET, message)
    return None
