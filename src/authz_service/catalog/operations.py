"""Reads the operations of a catalog, from the lists under permissions, from `operations` and from `flags` (C3, C4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from authz_service.catalog.checks import check_sets, check_target
from authz_service.catalog.document import Entry, Leaf, Section
from authz_service.catalog.faults import CatalogFault, Faults
from authz_service.catalog.format import MAX_OPERATIONS, MAX_SETS, PERMISSION
from authz_service.catalog.model import Operation, Role, Target, TargetKind
from authz_service.catalog.paths import OperationText, OperationTextError, parse_operation
from authz_service.catalog.permissions import Permissions
from authz_service.catalog.reading import Word, entries_in, flag_in, text_in, word_of, words_of
from authz_service.catalog.requirements import ReadSet, Resolver, WrittenItem, WrittenSet, read_sets, read_target
from authz_service.catalog.targets import TargetRules

_DECLARING = ("open", "closed")
"""Flags that say enough of an operation that stands nowhere else."""


@dataclass(slots=True)
class _Draft:
    """One operation while it is put together."""

    text: OperationText
    line: int
    rows: list[WrittenSet] = field(default_factory=list)
    entry: Entry | None = None
    flags: dict[str, int] = field(default_factory=dict)
    open_at: Target | None = None


@dataclass(frozen=True, slots=True)
class _Line:
    """`GET /path + permission -> target`, taken apart."""

    text: OperationText
    also: tuple[Word, ...]
    target: Target | None


class OperationReader:
    """Puts the operations together: everything written of one operation, wherever it stands, ends in one draft."""

    def __init__(
        self, top: Section, permissions: Permissions, roles: Mapping[str, Role], rules: TargetRules, faults: Faults
    ) -> None:
        self._top = top
        self._permissions = permissions
        self._roles = roles
        self._rules = rules
        self._faults = faults
        self._drafts: dict[str, _Draft] = {}
        self._routes: dict[object, str] = {}

    def read(self) -> Mapping[str, Operation]:
        """All operations by id, in the order in which they first appear."""
        self._read_listed()
        self._read_entries()
        self._read_flags()
        if len(self._drafts) > MAX_OPERATIONS:
            message = f"a catalog has at most {MAX_OPERATIONS} operations"
            self._faults.add(self._top.line, CatalogFault.TOO_LARGE, message)
        return {draft.text.id: self._finish(draft) for draft in self._drafts.values()}

    @property
    def lines(self) -> Mapping[str, int]:
        """The line of each operation: that of its own entry, else where it is first listed."""
        return {id_: draft.entry.line if draft.entry else draft.line for id_, draft in self._drafts.items()}

    def _read_listed(self) -> None:
        for listed in self._permissions.listed:
            line = self._line(listed.operation, joins=True)
            permission = self._permissions.by_name.get(listed.permission)
            if line is None or permission is None:
                continue
            others = [self._permissions.find(word, self._faults) for word in line.also]
            items = [
                WrittenItem(other, listed.operation.line, listed.boundary, line.target)
                for other in (permission, *others)
                if other is not None
            ]
            draft = self._draft(line.text, listed.operation.line)
            draft.rows.append(WrittenSet(tuple(items), listed.operation.line))

    def _read_entries(self) -> None:
        for entry in entries_in(self._top, "operations"):
            text = self._parse(Word(entry.key, entry.line))
            if text is None:
                continue
            draft = self._draft(text, entry.line)
            if draft.entry is not None:
                message = f"`{text.id}` stands in line {draft.entry.line} already; keep one of the two"
                self._faults.add(entry.line, CatalogFault.DUPLICATE_OPERATION, message)
                continue
            draft.entry = entry

    def _read_flags(self) -> None:
        # What declares operations comes first, wherever it stands, so that the other flags find them.
        flags = sorted(entries_in(self._top, "flags"), key=lambda flag: flag.key not in _DECLARING)
        for flag in flags:
            for word in words_of(flag.value):
                line = self._line(word, joins=False)
                if line is None:
                    continue
                if line.text.id not in self._drafts and flag.key not in _DECLARING:
                    message = f"`{line.text.id}` stands nowhere else; list it under a permission or in `operations`"
                    self._faults.add(word.line, CatalogFault.UNKNOWN_OPERATION, message)
                    continue
                draft = self._draft(line.text, word.line)
                draft.flags.setdefault(flag.key, word.line)
                if line.target is not None and flag.key == "open":
                    draft.open_at = line.target
                elif line.target is not None:
                    message = f"a target means nothing under `{flag.key}`; write it where the operation is listed"
                    self._faults.add(word.line, CatalogFault.BAD_TARGET, message)

    def _parse(self, word: Word) -> OperationText | None:
        try:
            return parse_operation(word.text)
        except OperationTextError as error:
            self._faults.add(word.line, CatalogFault.BAD_OPERATION, f"`{word.text}` is no operation: {error}")
            return None

    def _line(self, word: Word, *, joins: bool) -> _Line | None:
        head, arrow, written = word.text.partition(" -> ")
        first, *rest = (part.strip() for part in head.split(" + "))
        if rest and not joins:
            message = f"`{word.text}` joins a permission, which means nothing here"
            self._faults.add(word.line, CatalogFault.BAD_OPERATION, message)
            return None
        for name in rest:
            if PERMISSION.pattern is None or not PERMISSION.pattern.fullmatch(name):
                message = f"`{name}` is no permission; after ` + ` write `resource:action`"
                self._faults.add(word.line, CatalogFault.BAD_NAME, message)
                return None
        text = self._parse(Word(first, word.line))
        target = read_target(Word(written.strip(), word.line), self._faults) if arrow else None
        if text is None or (arrow and target is None):
            return None
        return _Line(text, tuple(Word(name, word.line) for name in rest), target)

    def _draft(self, text: OperationText, line: int) -> _Draft:
        """The draft of this operation. Two texts that match the same requests are a fault."""
        draft = self._drafts.get(text.id)
        if draft is None:
            draft = self._drafts[text.id] = _Draft(text, line)
            for variant in text.path.variants if text.path else ():
                pattern = (text.method, tuple(segment.pattern for segment in variant))
                other = self._routes.setdefault(pattern, text.id)
                if other != text.id:
                    message = f"`{text.id}` matches the same requests as `{other}`; write it in one way"
                    self._faults.add(line, CatalogFault.DUPLICATE_OPERATION, message)
        return draft

    def _finish(self, draft: _Draft) -> Operation:
        body = draft.entry.value if draft.entry and isinstance(draft.entry.value, Section) else None
        before = self._faults.count
        mutates = self._mutates(draft, body)
        sets = self._sets(draft, body)
        faultless = self._faults.count == before
        is_open, open_at = self._open(draft, body)
        text = draft.text
        operation = Operation(
            text.id,
            text.kind,
            tuple(each.requirement for each in sets),
            mutates=mutates,
            open=is_open,
            open_at=open_at,
            public_read=self._flag(draft, body, "public_read"),
            closed=self._flag(draft, body, "closed"),
            reviewed=self._flag(draft, body, "reviewed"),
            extension=body is not None and flag_in(body, "extension") is True,
            method=text.method,
            path=text.path.text if text.path else None,
            summary=(body and text_in(body, "summary")) or "",
        )
        check_sets(operation, text, sets, self._rules, self._roles, self._faults)
        self._check_flags(draft, operation)
        if faultless:
            self._check_requirement(draft, operation)
        return operation

    def _sets(self, draft: _Draft, body: Section | None) -> tuple[ReadSet, ...]:
        override = self._override(body)
        needs = body.find("needs") if body is not None else draft.entry.value if draft.entry else None
        if needs is not None and draft.rows:
            first = draft.rows[0].line
            message = f"`{draft.text.id}` is listed under a permission too, in line {first}; keep one of the two"
            self._faults.add(needs.line, CatalogFault.DUPLICATE_OPERATION, message)
            return ()
        if len(draft.rows) > MAX_SETS:
            message = f"`{draft.text.id}` is listed {len(draft.rows)} times; {MAX_SETS} alternatives are the most"
            self._faults.add(draft.line, CatalogFault.TOO_LARGE, message)
            return ()
        if draft.rows:
            targets = {row.items[0].target for row in draft.rows} - {None}
            if override is None and len(targets) == 1:
                override = targets.pop()  # alternatives share one target: what one line says holds for the others
            return Resolver(draft.text, self._rules, override, self._faults).shared(draft.rows)
        written = read_sets(needs, self._permissions, self._faults)
        return Resolver(draft.text, self._rules, override, self._faults).resolve(written)

    def _override(self, body: Section | None) -> Target | None:
        written = body.find("target") if body is not None else None
        return None if written is None else read_target(word_of(written), self._faults)

    def _open(self, draft: _Draft, body: Section | None) -> tuple[bool, Target | None]:
        """Whether the operation is open, and at which node: the one its path names, unless another is written (C4)."""
        written = body.find("open") if body is not None else None
        target = draft.open_at
        line = draft.flags.get("open", draft.line)
        if isinstance(written, Leaf) and isinstance(written.value, str):
            target = read_target(word_of(written), self._faults)
            line = written.line
        refused = isinstance(written, Leaf) and written.value is False
        if "open" not in draft.flags and (written is None or refused):
            return False, None
        if target is None:
            named = self._rules.find(draft.text)
            target = named if named is not None and named.kind is TargetKind.PARAMETER else None
        else:
            check_target(draft.text, target, None, line, self._rules, self._faults)
        if target is not None and target.kind in (TargetKind.BELOW, TargetKind.ANYWHERE):
            message = "an open operation is open at one node; write `project {id}`, `group {id}` or `caller`"
            self._faults.add(line, CatalogFault.BAD_TARGET, message)
        return True, target

    def _mutates(self, draft: _Draft, body: Section | None) -> bool:
        said = flag_in(body, "mutates") if body is not None else None
        if "mutates" in draft.flags:
            return True
        if "reads" in draft.flags:
            return False
        return draft.text.mutates if said is None else said

    @staticmethod
    def _flag(draft: _Draft, body: Section | None, name: str) -> bool:
        return name in draft.flags or (body is not None and flag_in(body, name) is True)

    def _check_flags(self, draft: _Draft, operation: Operation) -> None:
        line = draft.entry.line if draft.entry else min(draft.flags.values(), default=draft.line)
        body = draft.entry.value if draft.entry and isinstance(draft.entry.value, Section) else None
        said = flag_in(body, "mutates") if body is not None else None
        marks = {"mutates"} & draft.flags.keys() | {"reads"} & draft.flags.keys()
        if len(marks) > 1 or (marks and said is not None and said != ("mutates" in marks)):
            message = f"`{operation.id}` is said to mutate and not to; keep one of the two"
            self._faults.add(line, CatalogFault.FLAGS_CONFLICT, message)
        if operation.open and operation.closed:
            message = f"`{operation.id}` cannot be open and closed; keep one of the two"
            self._faults.add(line, CatalogFault.FLAGS_CONFLICT, message)

    def _check_requirement(self, draft: _Draft, operation: Operation) -> None:
        if operation.sets or operation.open or operation.closed or self._faults.has(*_SPOILING):
            return
        message = f"`{operation.id}` needs nothing; give it `needs`, or mark it `open` or `closed`"
        self._faults.add(draft.line, CatalogFault.NO_REQUIREMENT, message)


_SPOILING = (
    CatalogFault.BAD_NAME,
    CatalogFault.BAD_TYPE,
    CatalogFault.BAD_VALUE,
    CatalogFault.MISSING_KEY,
    CatalogFault.UNKNOWN_KEY,
)
"""Faults of shape: what they took away may have been the requirement, so its absence is no fault of its own."""
