"""The bodies of `/check` and `/check/batch` as OpenAPI shows them. `reading` reads them; a test holds both equal."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Scalar = str | int | bool
_PLACE = (
    "where: a path as `acme/web`, a kind and a path or external id as `project:acme/web` or `project:42`,"
    " `user:dana`, or `instance`"
)


class Item(BaseModel):
    """One question."""

    model_config = ConfigDict(extra="forbid")

    resource: str = Field(description="the first half of a permission: `issue` of `issue:read`", min_length=1)
    action: str = Field(description="the second half: `read` of `issue:read`", min_length=1)
    target: str | None = Field(None, description=_PLACE)
    attributes: dict[str, Scalar] | None = Field(
        None,
        description="flat facts of the request, as `resource.status` or `context.branch`; what the directory knows"
        " (roles, states, visibility) cannot be given",
    )


class Common(BaseModel):
    """What one question and a batch share."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(description="the secret that the end client showed")
    catalog: str | None = Field(
        None,
        description="the API's catalog, as `gitlab` or `gitlab@1`; may be left out by a caller with a single one",
    )
    client_address: str | None = Field(None, description="the end client's IP address; tokens may be bound to networks")
    at_least: str | None = Field(
        None, description="a revision from an earlier answer: decide by facts that are at least as fresh"
    )
    fully_consistent: bool = Field(default=False, description="decide by facts read after this request came")


class One(Common):
    explain: bool = Field(
        default=False, description="say how the answer came about: each token of the line, each set, each item"
    )


class CheckRequest(One, Item):
    """One question about one token."""


class HttpRequest(One):
    """One request as the API's client sent it; the catalog says which operation it is and what that needs."""

    method: str = Field(description="the request's method, in capitals")
    path: str = Field(
        description="the path as it was sent, still encoded, with the API's base path: `/api/v4/projects/acme%2Fweb`;"
        " a query may stand behind it and is passed over, unless it holds `_method`"
    )
    target: str | None = Field(None, description="where, for operations whose path does not say: " + _PLACE)
    attributes: dict[str, Scalar] | None = Field(None, description="flat facts of the request")


class Document(BaseModel):
    """One document as the client sent it."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(description="the document")
    variables: dict[str, Any] | None = Field(None, description="the values of its variables")
    operation_name: str | None = Field(None, description="which of its operations is meant, where it has several")


class GraphqlRequest(One):
    """One GraphQL request: a document, or a `batch` of them that is allowed as a whole only."""

    query: str | None = Field(None, description="the document; needed where there is no `batch`")
    variables: dict[str, Any] | None = Field(None, description="the values of its variables")
    operation_name: str | None = Field(None, description="which of its operations is meant, where it has several")
    batch: Annotated[list[Document], Field(min_length=1, max_length=20)] | None = Field(
        None, description="several documents, sent as one request"
    )
    target: str | None = Field(None, description="where, for what the document does not place: " + _PLACE)
    attributes: dict[str, Scalar] | None = Field(None, description="flat facts of the request")


class BatchRequest(Common):
    """Up to 10,000 questions about one token."""

    items: Annotated[list[Item], Field(min_length=1, max_length=10_000)]


class MissingItem(BaseModel):
    """A permission that the token would need, and where."""

    permission: str
    boundary: Literal["project", "group", "user", "instance"]
    target: str


class DecisionAnswer(BaseModel):
    """Allow or deny, and why. What does not apply is left out."""

    decision: Literal["allow", "deny"]
    reason: str = Field(description="stable; for programs")
    message: str | None = Field(
        None, description="of a deny, for people: what is missing, and the smallest fix. It may change"
    )
    missing: list[MissingItem] | None = Field(None, description="everything that the token lacks for this")
    hide: bool | None = Field(
        None, description="of a deny: the end client must not learn that the target exists; answer as for no such thing"
    )
    token_id: str | None = Field(None, description="the token's public id, when it is known here")


class ExplainedItem(BaseModel):
    """One permission that a set needs. `reason` is what stopped it, or why it holds; null if not looked at."""

    permission: str
    boundary: Literal["project", "group", "user", "instance"]
    target: str | None = None
    reason: str | None = None


class ExplainedSet(BaseModel):
    """One of the sets of permissions that would do; `assumed` are values taken for attributes that were not given."""

    reason: str
    needs: list[ExplainedItem]
    when: dict[str, Scalar]
    min_role: str | None = None
    assumed: dict[str, str]


class ExplainedToken(BaseModel):
    """The shown token first, then its ancestors as far as they were asked."""

    token_id: str
    catalog: str | None = None
    reason: str
    sets: list[ExplainedSet]


class FixStep(BaseModel):
    """One change. What does not apply is left out; `scope` is a position in the token's scopes."""

    kind: Literal[
        "add_permissions",
        "add_nodes",
        "add_scope",
        "add_legacy_scope",
        "add_membership",
        "change_role",
        "make_admin",
        "approve",
        "relax_policy",
    ]
    token_id: str | None = None
    catalog: str | None = None
    scope: int | None = None
    reach: Literal["selected", "all_memberships", "personal_projects", "user", "instance"] | None = None
    nodes: list[str] | None = None
    permissions: list[str] | None = None
    legacy_scope: str | None = None
    user: str | None = Field(None, description="the username of the owner that a membership, role or right is for")
    role: str | None = None


class FixAnswer(BaseModel):
    """Steps that together turn the denial into an allow: for people as a sentence, for programs as data."""

    sentence: str
    steps: list[FixStep]


class CheckResponse(DecisionAnswer):
    explanation: list[ExplainedToken] | None = Field(None, description="with `explain`: how the answer came about")
    fixes: list[FixAnswer] | None = Field(
        None,
        description="with `explain`, of a deny: the smallest changes that would allow it, those of the token first;"
        " none where no change of rights would, and none that would name what `hide` hides",
    )
    revision: str = Field(description="the revision of the facts; send it as `at_least` to go on from here")


class PartAnswer(BaseModel):
    """One operation that a document reaches, at one place."""

    document: int | None = Field(None, description="of a `batch`: which document, from 0 on")
    operation: str = Field(description="as the catalog calls it: `Mutation.createIssue`, `Type.Issue`")
    at: str = Field(description="where the document first reaches it, as `project.issues.nodes`")
    target: str | None = Field(None, description="where it is, as the document or the asker names it")
    decision: Literal["allow", "deny"]
    reason: str
    message: str | None = None
    missing: list[MissingItem] | None = None
    hide: bool | None = None


class DocumentFault(BaseModel):
    """Why a document is `bad_document`."""

    code: str = Field(description="stable; for programs")
    message: str


class GraphqlResponse(CheckResponse):
    parts: list[PartAnswer] | None = Field(None, description="what the document reaches, each decided alone")
    faults: list[DocumentFault] | None = Field(None, description="of a `bad_document`: all that is wrong with it")


class BatchResponse(BaseModel):
    """One decision for each item, in their order, all at one revision."""

    decisions: list[DecisionAnswer]
    revision: str


class Undecided(BaseModel):
    """No decision is possible now: treat it as a deny, and try again after `Retry-After` seconds."""

    decision: Literal["deny"]
    reason: str
    message: str
