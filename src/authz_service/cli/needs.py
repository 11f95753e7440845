"""What a job declares that it needs (`authz.toml`), and how that compares with what its token holds. Does no I/O."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from authz_service.client import Answer, Ask
from authz_service.errors import Fault, InvalidInputError

_TOP: Final = frozenset({"catalog", "needs"})
_NEED: Final = frozenset({"permissions", "at", "catalog"})
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PATH_KINDS: Final = frozenset({"project", "group"})


@dataclass(frozen=True, slots=True)
class Need:
    """One permission at one place; `line` is where the file says so, from 1 on."""

    ask: Ask
    catalog: str | None
    line: int

    @property
    def permission(self) -> str:
        return f"{self.ask.resource}:{self.ask.action}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with a token: `code` is stable, `message` says what would mend it, on one line."""

    code: str
    message: str
    line: int
    permission: str | None = None
    target: str | None = None


def parse_needs(text: str, variables: Mapping[str, str]) -> tuple[Need, ...]:
    """The needs of a file, each once, in its order. `${NAME}` in `at` and `catalog` is taken from the variables.

    Raises InvalidInputError with every fault of the file.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(
            "this is no TOML", faults=[Fault("file", "invalid_toml", str(error).lower().rstrip("."))]
        ) from error
    reader = _Reader(text, variables)
    needs = reader.read(document)
    if reader.faults:
        raise InvalidInputError("the file has faults", faults=reader.faults)
    return tuple({(need.ask.resource, need.ask.action, need.ask.target, need.catalog): need for need in needs}.values())


class _Reader:
    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        self._lines = text.splitlines()
        self._variables = variables
        self.faults: list[Fault] = []

    def read(self, document: Mapping[str, Any]) -> list[Need]:
        self._unknown(document, _TOP, "")
        usual = self._text(document.get("catalog"), "/catalog")
        tables = document.get("needs")
        if not isinstance(tables, list) or not tables or not all(isinstance(one, dict) for one in tables):
            self._fault("/needs", "missing_field", "add a `[[needs]]` table with `permissions` and `at`")
            return []
        heads = [number for number, line in enumerate(self._lines) if re.match(r"\s*\[\[\s*needs\s*\]\]", line)]
        found: list[Need] = []
        for index, table in enumerate(tables):
            head = heads[index] if index < len(heads) else 0
            end = heads[index + 1] if index + 1 < len(heads) else len(self._lines)
            found += self._need(table, f"/needs/{index}", usual, range(head, end))
        return found

    def _need(self, table: Mapping[str, Any], where: str, usual: str | None, lines: range) -> list[Need]:
        self._unknown(table, _NEED, where)
        catalog = self._text(table.get("catalog"), f"{where}/catalog") or usual
        targets = self._texts(table.get("at"), f"{where}/at", required=False)
        found = []
        for number, name in enumerate(self._texts(table.get("permissions"), f"{where}/permissions", required=True)):
            line = self._line_of(name, lines)
            places: list[str | None] = [*targets] or [None]
            for target in places:
                try:
                    found.append(Need(Ask.of(name, target), catalog, line))
                except ValueError as error:
                    self._fault(f"{where}/permissions/{number}", "invalid_value", str(error))
        return found

    def _line_of(self, word: str, lines: range) -> int:
        quoted = (f'"{word}"', f"'{word}'")
        return next((number for number in lines if any(one in self._lines[number] for one in quoted)), lines.start) + 1

    def _texts(self, value: object, where: str, *, required: bool) -> list[str]:
        if value is None and not required:
            return []
        several = [value] if isinstance(value, str) else value
        if not isinstance(several, list) or not several:
            self._fault(where, "invalid_value", "write one text, or a list of them")
            return []
        read = [self._text(one, f"{where}/{index}") for index, one in enumerate(several)]
        return [one for one in read if one is not None]

    def _text(self, value: object, where: str) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            self._fault(where, "invalid_value", "write a text that is not empty")
            return None

        def fill(match: re.Match[str]) -> str:
            found = self._variables.get(match[1])
            if not found:
                self._fault(where, "variable_unset", f"the variable `{match[1]}` is not set")
            return found or ""

        return _VARIABLE.sub(fill, value)

    def _unknown(self, table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
        for name in sorted(set(table) - set(known)):
            self._fault(f"{where}/{name}", "unknown_field", f"take `{name}` out; {', '.join(sorted(known))} are known")

    def _fault(self, where: str, code: str, message: str) -> None:
        self.faults.append(Fault(where, code, message))


def find_missing(needs: Sequence[Need], answers: Sequence[Answer]) -> list[Finding]:
    """What the token may not do although the job needs it: the service's own words, which name the smallest fix."""
    return [
        Finding(
            answer.reason,
            one_line(f"{_words(need)}: {answer.message or answer.reason}"),
            need.line,
            one_line(need.permission),
            None if need.ask.target is None else one_line(need.ask.target),
        )
        for need, answer in zip(needs, answers, strict=True)
        if not answer.allowed
    ]


def _words(need: Need) -> str:
    return f"`{need.permission}`" + ("" if need.ask.target is None else f" at `{need.ask.target}`")


def find_unneeded(needs: Sequence[Need], token: Mapping[str, Any]) -> list[Finding]:
    """What the token holds and no need names, by name: a permission that only implies a needed one is too much.

    A place is unneeded if each need names its own by path and none of them lies at or below it.
    """
    found: list[Finding] = []
    for name in token.get("legacy_scopes") or ():
        message = f"the token holds all of `{name}`; issue a fine-grained token with what the job needs"
        found.append(Finding("unneeded_legacy_scope", one_line(message), 1, str(name)))
    for scope in token.get("scopes") or ():
        catalog = str(scope.get("catalog", ""))
        asked = [need for need in needs if _catalog_fits(need.catalog, catalog)]
        wanted = {need.permission for need in asked}
        for permission in scope.get("permissions") or ():
            if permission not in wanted:
                message = f"the token holds `{permission}` of `{catalog}`, which the job does not need; take it out"
                found.append(Finding("unneeded_permission", one_line(message), 1, str(permission)))
        here = [need for need in asked if need.permission in set(scope.get("permissions") or ())]
        for node in (scope.get("reach") or {}).get("nodes") or ():
            if here and not any(_may_lie_in(need.ask.target, str(node)) for need in here):
                message = f"the token reaches `{node}`, where the job needs nothing; take it out"
                found.append(Finding("unneeded_place", one_line(message), 1, None, str(node)))
    return list(dict.fromkeys(found))


def _catalog_fits(needed: str | None, held: str) -> bool:
    return needed is None or needed.partition("@")[0] == held.partition("@")[0]


def _may_lie_in(target: str | None, node: str) -> bool:
    """Whether a target may lie at or below a node; what is no path, as an external id, always may."""
    kind, _, path = node.rpartition(":")
    if target is None or kind not in _PATH_KINDS:
        return True
    target_kind, _, target_path = target.rpartition(":")
    if target_kind not in {"", *_PATH_KINDS} or target_path.isdigit():
        return True
    return f"{target_path.lower()}/".startswith(f"{path.lower()}/")


def one_line(text: str) -> str:
    """Without line breaks and other control characters: CI systems read commands at the beginning of a line."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
