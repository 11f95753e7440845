"""Drawn GraphQL documents over schemas with every kind of type, and a catalog that lists some of their parts.

The schemas differ in the defaults of their arguments and input fields alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any, Final

from graphql import (
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    build_schema,
    get_named_type,
    is_required_argument,
    parse,
    print_ast,
)
from graphql.language import ast
from hypothesis import strategies as st

SDL = """
type Query {
  project(fullPath: ID, id: ID): Project
  group(fullPath: ID): Group
  projects(fullPaths: [ID!], ids: [ID!]): ProjectConnection
  currentUser: User
  node(id: ID): Node
  search(projectPath: ID): [Found]
  version: String
  settings: Settings
  me(username: ID): User
}
type Mutation {
  createIssue(input: CreateIssueInput!): IssuePayload
  moveIssue(input: MoveIssueInput!): IssuePayload
  resetAll: ResetPayload
  unheard(input: CreateIssueInput): IssuePayload
}
input CreateIssueInput { projectPath: ID, groupId: ID, title: String, into: [PlaceInput!] }
input PlaceInput { projectPath: ID, fullPath: ID }
input MoveIssueInput { id: ID, targetProjectPath: ID }
interface Node { id: ID! }
interface Noteable { id: ID! notes(projectPath: ID): [Note!] }
union Found = Issue | Project | Note
type Project implements Node {
  id: ID! name: String group: Group issues: IssueConnection issue(iid: ID): Issue forks: [Project!] owner: User
  page: Page
}
type Group implements Node { id: ID! name: String projects: ProjectConnection parent: Group page: Page }
type Page { text: String }
type Issue implements Node & Noteable {
  id: ID! title: String notes(projectPath: ID): [Note!] author: User linked: IssueConnection
  email(projectPath: ID): String project: Project
}
type Note implements Node { id: ID! body: String }
type User implements Node { id: ID! username: String projects: ProjectConnection }
type Settings { color: String limits: Limits }
type Limits { most: Int }
type IssueConnection { edges: [IssueEdge] nodes: [Issue] pageInfo: PageInfo! count: Int }
type IssueEdge { cursor: String node: Issue }
type ProjectConnection { edges: [ProjectEdge] nodes: [Project] pageInfo: PageInfo! count: Int }
type ProjectEdge { cursor: String node: Project }
type PageInfo { hasNextPage: Boolean }
type IssuePayload { errors: [String!] issue: Issue }
type ResetPayload { errors: [String!] }
"""

CATALOG = """
catalog: forge
version: 1
roles: {member: [], staying: {includes: [member], inherits: false}}
top_role: member
graphql:
  path: /graphql
  arguments:
    fullPath: place
    fullPaths: project
    projectPath: project
    id: id
    ids: id
    input.projectPath: project
    input.targetProjectPath: project
    input.groupId: group
    input.into.projectPath: project
    input.id: id
  fields:
    Query.currentUser: self
    Query.me: user username
  places: [Project, Group]
  stays: [Group.projects, Issue.project]
  leaves: [Issue.linked]
  global_ids: {gid://forge/Project/: project, gid://forge/Group/: group}
bundles:
  all: {permissions: all, operations: all, any_operation: all}
  read: {permissions: reads, operations: reads, any_operation: read}
permissions:
  project: {read: {project: Type.Project}}
  group: {read: {group: Type.Group}}
  issue:
    read: {project: Type.Issue}
    create: {project: Mutation.createIssue, group: Mutation.createIssue}
    move: {project: Mutation.moveIssue}
    email: {project: Issue.email}
  note: {read: {project: Type.Noteable, group: Type.Noteable}}
  page: {read: {project: Type.Page, when: {resource.archived: false}}}
  user: {read: {user: Type.User}}
  settings: {read: {instance: Type.Limits}}
  instance: {reset: {instance: Mutation.resetAll}}
operations:
  Query.version: {open: true}
  Query.__typename: {open: true}
"""

SCHEMAS: Final = 24
"""The first has no defaults."""
PATHS = ("acme/web", "acme/api", "acme", "other/site", "no/such", "instance", "gid://forge/Project/42", "")
PLACES: Mapping[str, st.SearchStrategy[Any]] = {
    "fullPath": st.sampled_from(PATHS),
    "projectPath": st.sampled_from(PATHS),
    "username": st.sampled_from(("dana", "erin")),
    "id": st.sampled_from(("gid://forge/Project/42", "gid://forge/Group/12", "gid://forge/Issue/1", "7")),
    "iid": st.just("5"),
    "fullPaths": st.lists(st.sampled_from(PATHS[:4]), max_size=2),
    "ids": st.lists(st.sampled_from(("gid://forge/Project/42", "gid://forge/Note/1")), max_size=2),
}


@cache
def sdl_of(number: int) -> str:
    """One of the schemas, as SDL."""
    draw = Random(number)
    text = SDL
    for node in reversed([*_declared(parse(SDL))] if number else []):
        if draw.random() < 0.6:
            assert node.type.loc is not None
            end = node.type.loc.end
            text = f"{text[:end]} = {draw.choice(_defaults(node))}{text[end:]}"
    return text


@cache
def schema_of(number: int) -> GraphQLSchema:
    return build_schema(sdl_of(number))


def _declared(document: ast.DocumentNode) -> Iterator[ast.InputValueDefinitionNode]:
    """Arguments and input fields."""
    for each in document.definitions:
        for inner in getattr(each, "fields", None) or ():
            yield from [inner] if isinstance(inner, ast.InputValueDefinitionNode) else inner.arguments or ()


def _defaults(node: ast.InputValueDefinitionNode) -> list[str]:
    kind = print_ast(node.type)
    null = [] if kind.endswith("!") else ["null"]
    if "Input" in kind:
        inner = {"CreateIssueInput": ["{into: {}}", "{groupId: null}"], "[PlaceInput!]": ["[{}, {projectPath: null}]"]}
        return [*null, "{}", *inner.get(kind.removesuffix("!"), [])]
    texts = (
        ["gid://forge/Group/12", "gid://forge/Issue/1"] if node.name.value in ("id", "ids", "groupId") else PATHS[:4]
    )
    values = [json.dumps(text) for text in texts]
    return [*null, *values, *([f"[{', '.join(values)}]", "[]"] if kind.startswith("[") else [])]


def literal(value: Any) -> str:
    """JSON as GraphQL writes it."""
    match value:
        case dict():
            return "{" + ", ".join(f"{name}: {literal(one)}" for name, one in value.items()) + "}"
        case list():
            return "[" + ", ".join(literal(one) for one in value) + "]"
        case Written():
            return value.text
    return json.dumps(value)


@dataclass(frozen=True)
class Written:
    """A value as it stands in the document: a variable."""

    text: str


@dataclass(frozen=True)
class Drawn:
    """A document that is valid by the schema, and values for its variables."""

    sdl: str
    query: str
    variables: Mapping[str, Any]
    mutation: bool


@dataclass
class _Writer:
    draw: Any
    sdl: str
    schema: GraphQLSchema
    declared: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    fragments: list[str] = field(default_factory=list)
    aliases: int = 0
    budget: int = 14

    def document(self) -> Drawn:
        mutation = self.draw(st.booleans())
        root = self.schema.mutation_type if mutation else self.schema.query_type
        assert root is not None
        inside = self.selections(root, 4)
        head = ", ".join(self.declared)
        word = "mutation" if mutation else "query"
        operation = f"{word} Drawn{f'({head})' if head else ''} {inside}"
        return Drawn(self.sdl, "\n".join([operation, *self.fragments]), self.values, mutation)

    def selections(self, on: Any, depth: int) -> str:
        count = self.draw(st.integers(1, 3))
        return "{ " + " ".join(self.selection(on, depth) for _ in range(count)) + " }"

    def selection(self, on: Any, depth: int) -> str:
        self.budget -= 1
        fields = getattr(on, "fields", {})
        kinds = ["field"] * 5 + ["inline", "fragment"] if fields else ["inline"] * 3 + ["fragment", "typename"]
        kind = self.draw(st.sampled_from([*kinds, "typename"])) if depth > 1 and self.budget > 0 else "leaf"
        if kind == "inline":
            other = self.draw(st.sampled_from(self.beside(on)))
            return f"... on {other.name} {self.directives()} {self.selections(other, depth - 1)}"
        if kind == "fragment":
            other = self.draw(st.sampled_from(self.beside(on)))
            name = f"F{len(self.fragments)}"
            self.fragments.append("")
            self.fragments[int(name[1:])] = f"fragment {name} on {other.name} {self.selections(other, depth - 1)}"
            return f"...{name} {self.directives()}"
        if kind == "field" and fields:
            return self.field_of(fields, depth)
        leaves = [name for name, each in fields.items() if not self.composite(each.type)]
        return self.named(self.draw(st.sampled_from([*leaves, "__typename"])))

    def field_of(self, fields: Any, depth: int) -> str:
        name = self.draw(st.sampled_from(sorted(fields)))
        each = fields[name]
        text = self.named(name) + self.arguments(each) + " " + self.directives()
        if self.composite(each.type):
            text += " " + self.selections(get_named_type(each.type), depth - 1)
        return text

    def named(self, name: str) -> str:
        self.aliases += 1
        return f"a{self.aliases}: {name}"

    def arguments(self, each: Any) -> str:
        given = []
        for name, argument in each.args.items():
            if is_required_argument(argument) or self.draw(st.booleans()):
                composite = isinstance(get_named_type(argument.type), GraphQLInputObjectType)
                value = self.input(argument.type) if composite else self.draw(st.none() | PLACES[name])
                given.append(f"{name}: {literal(self.perhaps_a_variable(value, str(argument.type)))}")
        return f"({', '.join(given)})" if given else ""

    def input(self, kind: Any) -> Any:
        """Without variables, so that it may be the value of one."""
        if not isinstance(kind, GraphQLNonNull) and not self.draw(st.integers(0, 3)):
            return None
        if "[" in str(kind) and self.draw(st.booleans()):
            return [self.inputs(get_named_type(kind)) for _ in range(self.draw(st.integers(0, 2)))]
        return self.inputs(get_named_type(kind))

    def inputs(self, kind: Any) -> dict[str, Any]:
        found = {}
        for name, each in kind.fields.items():
            if name != "title" and self.draw(st.booleans()):
                like = "id" if name in ("id", "groupId") else "projectPath"
                composite = isinstance(get_named_type(each.type), GraphQLInputObjectType)
                found[name] = self.input(each.type) if composite else self.draw(st.none() | PLACES[like])
        return found

    def perhaps_a_variable(self, value: Any, kind: str) -> Any:
        """In place of a value, or of a text at whatever depth of it."""
        if self.draw(st.booleans()):
            return self.variable(value, kind)
        if isinstance(value, dict):
            return {
                name: self.perhaps_a_variable(each, "ID") if each is None or isinstance(each, str) else each
                for name, each in value.items()
                if name != "into"
            } | {name: each for name, each in value.items() if name == "into"}
        return value

    def variable(self, value: Any, kind: str) -> Written:
        """With a value, with a default, with both (of which the default is not null), or with neither."""
        name = f"v{len(self.declared)}"
        ways = ["value", "value", "default"]
        if not kind.endswith("!"):
            ways += ["neither", "null in place of the default"]
        way = self.draw(st.sampled_from(ways))
        default = f" = {literal(value)}" if "default" in way else ""
        self.declared.append(f"${name}: {kind}{default}")
        if way == "value":
            self.values[name] = value
        elif way.startswith("null"):
            self.values[name] = None
        return Written(f"${name}")

    def directives(self) -> str:
        if not self.draw(st.integers(0, 4)):
            word = self.draw(st.sampled_from(("skip", "include")))
            value = self.draw(st.booleans())
            if self.draw(st.booleans()):
                variable = f"v{len(self.declared)}"
                self.declared.append(f"${variable}: Boolean!")
                self.values[variable] = value
                return f"@{word}(if: ${variable})"
            return f"@{word}(if: {str(value).lower()})"
        return ""

    @staticmethod
    def composite(kind: Any) -> bool:
        return isinstance(get_named_type(kind), GraphQLObjectType | GraphQLInterfaceType | GraphQLUnionType)

    def possible_types(self, kind: Any) -> list[Any]:
        return [kind] if isinstance(kind, GraphQLObjectType) else list(self.schema.get_possible_types(kind))

    def beside(self, on: Any) -> list[Any]:
        """Types that a fragment may name here."""
        own = set(self.possible_types(on))
        kinds = (GraphQLObjectType, GraphQLInterfaceType, GraphQLUnionType)
        found = [
            each for each in self.schema.type_map.values() if isinstance(each, kinds) and not each.name.startswith("__")
        ]
        found = [each for each in found if own & set(self.possible_types(each))]
        return sorted(found, key=lambda one: one.name)


@st.composite
def documents(draw: Any) -> Drawn:
    number = draw(st.integers(0, SCHEMAS - 1))
    return _Writer(draw, sdl_of(number), schema_of(number)).document()
