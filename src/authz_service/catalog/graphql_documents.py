"""GraphQL documents: read within limits, or refused with every fault. Nothing here knows an API or its schema."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from graphql import GraphQLError, parse
from graphql.language import ast

from authz_service.catalog.graphql_spelling import find_oddity

MAX_CHARACTERS: Final = 50_000
MAX_TOKENS: Final = 5_000
MAX_DEPTH: Final = 32
"""Selections within selections, those of spread fragments included."""
MAX_ALIASES: Final = 200
MAX_DIRECTIVES: Final = 100
MAX_FRAGMENTS: Final = 100
MAX_OPERATIONS: Final = 50
MAX_NAME: Final = 200
"""Characters of a name that an answer repeats."""
_CONDITIONS: Final = frozenset({"skip", "include"})


class DocumentFault(StrEnum):
    """Why a document is `bad_document`. Public codes: add, never rename or reuse."""

    MISSING = "document_missing"
    UNREADABLE = "body_unreadable"
    SYNTAX = "syntax_error"
    AMBIGUOUS = "ambiguous"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    TOO_MANY_ALIASES = "too_many_aliases"
    TOO_MANY_DIRECTIVES = "too_many_directives"
    TOO_MANY_FRAGMENTS = "too_many_fragments"
    TOO_MANY_OPERATIONS = "too_many_operations"
    TOO_MANY_FIELDS = "too_many_fields"
    TOO_MANY_DOCUMENTS = "too_many_documents"
    DUPLICATE_NAME = "duplicate_name"
    FRAGMENT_CYCLE = "fragment_cycle"
    FRAGMENT_UNKNOWN = "fragment_unknown"
    OPERATION_UNKNOWN = "operation_name_unknown"
    OPERATION_NEEDED = "operation_name_needed"
    NO_OPERATION = "no_operation"
    NOT_EXECUTABLE = "not_executable"
    VARIABLE_MISSING = "variable_missing"
    VARIABLE_UNKNOWN = "variable_unknown"
    VARIABLE_INVALID = "variable_invalid"
    NOTHING_SELECTED = "nothing_selected"
    MUTATION_BY_GET = "mutation_by_get"


@dataclass(frozen=True, slots=True)
class FoundFault:
    """One fault, with words for a person."""

    code: DocumentFault
    message: str


class BadDocumentError(Exception):
    """The document has no single reading, or is beyond the limits. `faults` has at least one."""

    def __init__(self, faults: Iterable[FoundFault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(fault.message for fault in self.faults))


def bad_document(code: DocumentFault, message: str) -> BadDocumentError:
    return BadDocumentError([FoundFault(code, message)])


@dataclass(frozen=True, slots=True)
class Document:
    """A document whose names are in order. An operation without a name is called ``""``."""

    operations: Mapping[str, ast.OperationDefinitionNode]
    fragments: Mapping[str, ast.FragmentDefinitionNode]

    def operation(self, name: str | None) -> ast.OperationDefinitionNode:
        """The one that is meant. Raises BadDocumentError when that is none, or not said."""
        if not name:
            if len(self.operations) == 1:
                return next(iter(self.operations.values()))
            message = "the document has several operations; name the one that is meant in `operation_name`"
            raise bad_document(DocumentFault.OPERATION_NEEDED, message)
        found = self.operations.get(name)
        if found is None:
            message = f"the document has no operation `{name[:MAX_NAME]}`; name one that it has"
            raise bad_document(DocumentFault.OPERATION_UNKNOWN, message)
        return found

    def mutates(self, name: str | None) -> bool:
        """Whether the operation that is meant is a mutation. Raises BadDocumentError."""
        return self.operation(name).operation is ast.OperationType.MUTATION


def parse_document(text: str) -> Document:
    """Reads a document of operations and fragments, in time that grows with its length alone.

    Raises BadDocumentError with every fault: beyond the limits, names given twice, fragments that are unknown or spread
    themselves; and with the first place where readers disagree on what is a comment or a string.
    """
    if len(text) > MAX_CHARACTERS:
        raise bad_document(DocumentFault.TOO_LARGE, f"a document has at most {MAX_CHARACTERS} characters; send less")
    odd = find_oddity(text)
    if odd is not None:
        raise bad_document(DocumentFault.AMBIGUOUS, odd)
    try:
        parsed = parse(text, no_location=True, max_tokens=MAX_TOKENS)
    except GraphQLError as error:
        raise _syntax_fault(error) from None
    except RecursionError:
        raise bad_document(DocumentFault.TOO_DEEP, "the document is nested too deeply; send it in parts") from None
    check = _Check()
    for node in parsed.definitions:
        check.definition(node)
    check.whole()
    if check.faults:
        raise BadDocumentError(check.faults)
    return Document(check.operations, check.fragments)


def _syntax_fault(error: GraphQLError) -> BadDocumentError:
    message = error.message.removeprefix("Syntax Error: ")
    if message.startswith("Document contains more than"):
        return bad_document(DocumentFault.TOO_LARGE, f"a document has at most {MAX_TOKENS} tokens; send less")
    if message.startswith("Document is nested"):
        return bad_document(DocumentFault.TOO_DEEP, "the document is nested too deeply; send it in parts")
    where = f" at line {error.locations[0].line} column {error.locations[0].column}" if error.locations else ""
    return bad_document(DocumentFault.SYNTAX, f"this is no GraphQL{where}: {message[:MAX_NAME].rstrip('.')}")


@dataclass
class _Check:
    """One look at everything that stands in a document, whether or not an operation uses it."""

    operations: dict[str, ast.OperationDefinitionNode] = field(default_factory=dict)
    fragments: dict[str, ast.FragmentDefinitionNode] = field(default_factory=dict)
    faults: list[FoundFault] = field(default_factory=list)
    _spreads: dict[str, set[str]] = field(default_factory=dict)
    _aliases: int = 0
    _directives: int = 0

    def add(self, code: DocumentFault, message: str) -> None:
        fault = FoundFault(code, message)
        if fault not in self.faults:
            self.faults.append(fault)

    def definition(self, node: ast.DefinitionNode) -> None:
        if isinstance(node, ast.OperationDefinitionNode):
            name = "" if node.name is None else node.name.value
            if name in self.operations:
                self.add(DocumentFault.DUPLICATE_NAME, f"two operations are called `{name[:MAX_NAME]}`; keep one")
            self.operations[name] = node
            self._once((one.variable.name.value for one in node.variable_definitions or ()), "variable")
            for variable in node.variable_definitions or ():
                self._values([variable.default_value])
            self._selections(f"operation {name}", node)
        elif isinstance(node, ast.FragmentDefinitionNode):
            name = node.name.value
            if name in self.fragments:
                self.add(DocumentFault.DUPLICATE_NAME, f"two fragments are called `{name[:MAX_NAME]}`; keep one")
            self.fragments[name] = node
            self._selections(name, node)
        else:
            message = "a document holds operations and fragments; leave out definitions of types"
            self.add(DocumentFault.NOT_EXECUTABLE, message)

    def whole(self) -> None:
        for code, count, most, what in (
            (DocumentFault.TOO_MANY_ALIASES, self._aliases, MAX_ALIASES, "aliases"),
            (DocumentFault.TOO_MANY_DIRECTIVES, self._directives, MAX_DIRECTIVES, "directives"),
            (DocumentFault.TOO_MANY_FRAGMENTS, len(self.fragments), MAX_FRAGMENTS, "fragments"),
            (DocumentFault.TOO_MANY_OPERATIONS, len(self.operations), MAX_OPERATIONS, "operations"),
        ):
            if count > most:
                self.add(code, f"a document has at most {most} {what}, and this one {count}; send it in parts")
        if not self.operations:
            self.add(DocumentFault.NO_OPERATION, "the document has no operation; send one")
        if len(self.operations) > 1 and "" in self.operations:
            message = "an operation without a name stands alone in its document; name it"
            self.add(DocumentFault.DUPLICATE_NAME, message)
        for name in sorted(set().union(*self._spreads.values()) - self.fragments.keys()):
            message = f"there is no fragment `{name[:MAX_NAME]}`; define it, or leave it out"
            self.add(DocumentFault.FRAGMENT_UNKNOWN, message)
        for name in self._circular():
            self.add(DocumentFault.FRAGMENT_CYCLE, f"the fragment `{name[:MAX_NAME]}` spreads itself; untie it")

    def _selections(self, owner: str, node: ast.OperationDefinitionNode | ast.FragmentDefinitionNode) -> None:
        spreads = self._spreads.setdefault(owner, set())
        waiting: list[tuple[ast.SelectionSetNode, int]] = [(node.selection_set, 1)]
        self._directives_of(node.directives)
        while waiting:
            inner, depth = waiting.pop()
            if depth > MAX_DEPTH:
                message = f"selections are at most {MAX_DEPTH} within each other; send it in parts"
                self.add(DocumentFault.TOO_DEEP, message)
                return
            if not inner.selections:
                self.add(DocumentFault.SYNTAX, "a selection is empty; name a field, or leave out the braces")
            for one in inner.selections:
                self._directives_of(one.directives)
                if isinstance(one, ast.FragmentSpreadNode):
                    spreads.add(one.name.value)
                    continue
                if isinstance(one, ast.FieldNode):
                    self._aliases += one.alias is not None
                    self._arguments(one.arguments)
                if isinstance(one, ast.FieldNode | ast.InlineFragmentNode) and one.selection_set is not None:
                    waiting.append((one.selection_set, depth + 1))

    def _directives_of(self, nodes: Sequence[ast.DirectiveNode] | None) -> None:
        self._directives += len(nodes or ())
        self._once((one.name.value for one in nodes or () if one.name.value in _CONDITIONS), "directive")
        for one in nodes or ():
            self._arguments(one.arguments)

    def _arguments(self, nodes: Sequence[ast.ArgumentNode] | None) -> None:
        self._once((one.name.value for one in nodes or ()), "argument")
        self._values(one.value for one in nodes or ())

    def _values(self, values: Iterable[ast.ValueNode | None]) -> None:
        waiting = list(values)
        while waiting:
            one = waiting.pop()
            if isinstance(one, ast.ListValueNode):
                waiting.extend(one.values)
            elif isinstance(one, ast.ObjectValueNode):
                self._once((each.name.value for each in one.fields), "key")
                waiting.extend(each.value for each in one.fields)

    def _once(self, names: Iterable[str], what: str) -> None:
        for name, count in Counter(names).items():
            if count > 1:
                message = f"the {what} `{name[:MAX_NAME]}` stands {count} times in one place; keep one"
                self.add(DocumentFault.DUPLICATE_NAME, message)

    def _circular(self) -> Iterator[str]:
        """Fragments from which one comes back to them, by depth-first search without recursion."""
        done: set[str] = set()
        for start in self.fragments:
            way: list[tuple[str, Iterator[str]]] = [(start, iter(sorted(self._spreads[start])))]
            on_way = {start}
            while way and start not in done:
                name, rest = way[-1]
                following = next(rest, None)
                if following is None:
                    way.pop()
                    on_way.discard(name)
                    done.add(name)
                elif following in on_way:
                    yield following
                elif following not in done and following in self.fragments:
                    on_way.add(following)
                    way.append((following, iter(sorted(self._spreads[following]))))


class _Absent:
    """No value was given."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True)
class Variables:
    """The values of one operation's variables."""

    values: Mapping[str, Any]
    """Of those that are defined; ABSENT where none is given."""

    def read(self, node: ast.ValueNode) -> Any:
        """A value as plain Python: an enum is its name, a missing one ABSENT. Raises BadDocumentError."""
        match node:
            case ast.VariableNode():
                name = node.name.value
                if name not in self.values:
                    message = f"the operation does not define the variable `{name[:MAX_NAME]}`"
                    raise bad_document(DocumentFault.VARIABLE_UNKNOWN, message)
                return self.values[name]
            case ast.IntValueNode():
                return int(node.value) if len(node.value) < MAX_NAME else node.value
            case ast.StringValueNode() | ast.EnumValueNode() | ast.BooleanValueNode():
                return node.value
            case ast.ListValueNode():
                return [self.read(one) for one in node.values]
            case ast.ObjectValueNode():
                return {one.name.value: self.read(one.value) for one in node.fields}
            case ast.NullValueNode():
                return None
        return str(getattr(node, "value", ""))

    def includes(self, node: ast.SelectionNode) -> bool:
        """Whether `@skip` and `@include` leave this selection in. Raises BadDocumentError where they cannot tell."""
        for directive in node.directives or ():
            name = directive.name.value
            if name not in _CONDITIONS:
                continue
            condition = next((one.value for one in directive.arguments or () if one.name.value == "if"), None)
            value = None if condition is None else self.read(condition)
            if not isinstance(value, bool):
                message = f"`@{name}` needs `if`, true or false; give its variable a value"
                raise bad_document(DocumentFault.VARIABLE_INVALID, message)
            if value is (name == "skip"):
                return False
        return True


def read_variables(operation: ast.OperationDefinitionNode, given: Mapping[str, Any]) -> Variables:
    """The given values and the defaults. Raises BadDocumentError naming every variable that must be given and is not.

    Values beyond those that are defined are passed over, as every server does.
    """
    plain = Variables({})
    values: dict[str, Any] = {}
    faults = []
    for defined in operation.variable_definitions or ():
        name = defined.variable.name.value
        if name in given:
            values[name] = given[name]
        elif defined.default_value is not None:
            values[name] = plain.read(defined.default_value)
        else:
            values[name] = ABSENT
        if isinstance(defined.type, ast.NonNullTypeNode) and (values[name] is ABSENT or values[name] is None):
            message = f"the variable `{name[:MAX_NAME]}` needs a value; send one in `variables`"
            faults.append(FoundFault(DocumentFault.VARIABLE_MISSING, message))
    if faults:
        raise BadDocumentError(faults)
    return Variables(values)
