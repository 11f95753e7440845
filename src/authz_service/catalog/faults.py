"""What can be wrong with a catalog file: the stable codes, and the list that one reading fills."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from authz_service.errors import CatalogInvalidError, Fault

MOST_FAULTS: Final = 500
"""A hopeless file gets this many faults and a word on the rest."""


class CatalogFault(StrEnum):
    """Codes of a `CatalogInvalidError`'s faults: add, never rename or reuse."""

    # The text and its YAML
    TOO_LARGE = "too_large"
    BAD_CHARACTER = "bad_character"
    BAD_SYNTAX = "bad_syntax"
    YAML_REFUSED = "yaml_refused"
    KEY_NOT_TEXT = "key_not_text"
    DUPLICATE_KEY = "duplicate_key"
    # The shape of one value
    UNKNOWN_KEY = "unknown_key"
    MISSING_KEY = "missing_key"
    BAD_TYPE = "bad_type"
    BAD_VALUE = "bad_value"
    BAD_NAME = "bad_name"
    BAD_OPERATION = "bad_operation"
    BAD_TARGET = "bad_target"
    BAD_CONDITION = "bad_condition"
    # What one value says of another
    UNKNOWN_PERMISSION = "unknown_permission"
    UNKNOWN_BOUNDARY = "unknown_boundary"
    UNKNOWN_ROLE = "unknown_role"
    UNKNOWN_PARAMETER = "unknown_parameter"
    UNKNOWN_OPERATION = "unknown_operation"
    UNKNOWN_TYPE = "unknown_type"
    DUPLICATE_PERMISSION = "duplicate_permission"
    DUPLICATE_OPERATION = "duplicate_operation"
    DUPLICATE_ALTERNATIVE = "duplicate_alternative"
    AMBIGUOUS_ALTERNATIVES = "ambiguous_alternatives"
    ROUTE_CLASH = "route_clash"
    NO_BOUNDARY = "no_boundary"
    NOT_AT_BOUNDARY = "not_at_boundary"
    BOUNDARY_UNCLEAR = "boundary_unclear"
    TARGET_UNCLEAR = "target_unclear"
    ANYWHERE_MUTATES = "anywhere_mutates"
    OWNER_IS_MISSING = "owner_is_missing"
    NO_REQUIREMENT = "no_requirement"
    FLAGS_CONFLICT = "flags_conflict"
    BAD_MIN_ROLE = "bad_min_role"
    RESERVED_NAME = "reserved_name"
    RESERVED_ATTRIBUTE = "reserved_attribute"
    IMPLICATION_CYCLE = "implication_cycle"
    ROLE_CYCLE = "role_cycle"
    TOO_MANY_COMBINATIONS = "too_many_combinations"


class Faults:
    """Collects the faults of one file. Readers add and go on, so that one reading reports all of them."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._found: dict[tuple[int, CatalogFault, str], None] = {}

    def add(self, line: int, code: CatalogFault, message: str) -> None:
        """`line` counts from 1. The same fault said twice is one."""
        self._found[(line, code, message)] = None

    def has(self, *codes: CatalogFault) -> bool:
        """Whether one of these was noted, so that its consequences need no fault of their own."""
        return any(code in codes for _, code, _ in self._found)

    @property
    def count(self) -> int:
        return len(self._found)

    @property
    def few(self) -> bool:
        """Whether it is still worth the time to look for the name that was meant."""
        return len(self._found) < 20

    def raise_if_any(self) -> None:
        """Raises `CatalogInvalidError` with every fault so far, in the order of the file."""
        if not self._found:
            return
        found = sorted(self._found, key=lambda fault: fault[0])
        count = len(found)
        noun = "fault" if count == 1 else "faults"
        rest = f", the first {MOST_FAULTS} of them listed" if count > MOST_FAULTS else ""
        raise CatalogInvalidError(
            f"`{self._file}` has {count} {noun}{rest}",
            faults=[Fault(f"{self._file}:{line}", code, message) for line, code, message in found[:MOST_FAULTS]],
        )
