"""Drawn GraphQL documents over one schema that has every kind of type, and a catalog that lists some of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    build_schema,
    get_named_type,
)
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
input CreateIssueInput { projectPath: ID, groupId: ID, title: String }
input MoveIssueInput { id: ID, targetProjectPath: ID }
interface Node { id: ID! }
interface Noteable { id: ID! notes: [Note!] }
union Found = Issue | Project | Note
type Project implements Node {
  id: ID! name: String group: Group issues: IssueConnection issue(iid: ID): Issue forks: [Project!] owner: User
  page: Page
}
type Group implements Node { id: ID! name: String projects: ProjectConnection parent: Group page: Page }
type Page { text: String }
type Issue implements Node & Noteable {
  id: ID! title: String notes: [Note!] author: User linked: IssueConnection email: String project: Project
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

SCHEMA: GraphQLSchema = build_schema(SDL)
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


def possible_types(kind: Any) -> list[Any]:
    return [kind] if isinstance(kind, GraphQLObjectType) else list(SCHEMA.get_possible_types(kind))


@dataclass(frozen=True)
class Drawn:
    """A document that is valid by the schema, and values for its variables."""

    query: str
    variables: Mapping[str, Any]
    mutation: bool


@dataclass
class _Writer:
    draw: Any
    variables: dict[str, tuple[str, Any]] = field(default_factory=dict)
    fragments: list[str] = field(default_factory=list)
    aliases: int = 0
    budget: int = 14

    def document(self) -> Drawn:
        mutation = self.draw(st.booleans())
        root = SCHEMA.mutation_type if mutation else SCHEMA.query_type
        assert root is not None
        inside = self.selections(root, 4)
        head = ", ".join(f"${name}: {kind}" for name, (kind, _) in self.variables.items())
        word = "mutation" if mutation else "query"
        operation = f"{word} Drawn{f'({head})' if head else ''} {inside}"
        values = {name: value for name, (_, value) in self.variables.items() if value is not None}
        return Drawn("\n".join([operation, *self.fragments]), values, mutation)

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
            if name == "input":
                given.append(f"input: {{{', '.join(self.inputs(get_named_type(argument.type)))}}}")
            elif self.draw(st.booleans()):
                given.append(f"{name}: {self.value(name, str(argument.type))}")
        return f"({', '.join(given)})" if given else ""

    def inputs(self, kind: Any) -> list[str]:
        found = []
        for name in kind.fields:
            if name != "title" and self.draw(st.booleans()):
                like = "id" if name in ("id", "groupId") else "projectPath"
                found.append(f"{name}: {self.value(like, 'ID')}")
        return found

    def value(self, name: str, kind: str) -> str:
        value = self.draw(st.none() | PLACES[name])
        if self.draw(st.booleans()):
            variable = f"v{len(self.variables)}"
            self.variables[variable] = (kind, value)
            return f"${variable}"
        return "null" if value is None else str(value).replace("'", '"') if isinstance(value, list) else f'"{value}"'

    def directives(self) -> str:
        if not self.draw(st.integers(0, 4)):
            word = self.draw(st.sampled_from(("skip", "include")))
            value = self.draw(st.booleans())
            if self.draw(st.booleans()):
                variable = f"v{len(self.variables)}"
                self.variables[variable] = ("Boolean!", value)
                return f"@{word}(if: ${variable})"
            return f"@{word}(if: {str(value).lower()})"
        return ""

    @staticmethod
    def composite(kind: Any) -> bool:
        return isinstance(get_named_type(kind), GraphQLObjectType | GraphQLInterfaceType | GraphQLUnionType)

    @staticmethod
    def beside(on: Any) -> list[Any]:
        """Types that a fragment may name here."""
        own = set(possible_types(on))
        kinds = (GraphQLObjectType, GraphQLInterfaceType, GraphQLUnionType)
        found = [
            each for each in SCHEMA.type_map.values() if isinstance(each, kinds) and not each.name.startswith("__")
        ]
        found = [each for each in found if own & set(possible_types(each))]
        return sorted(found, key=lambda one: one.name)


@st.composite
def documents(draw: Any) -> Drawn:
    return _Writer(draw).document()
