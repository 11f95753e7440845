"""The bodies of AuthZEN's Authorization API 1.0 as OpenAPI shows them. `authzen_reading` reads them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_OPEN = ConfigDict(extra="allow")
_PROPERTIES = "flat ones, texts, whole numbers, true and false, are attributes of the request"


class AuthzenOurs(BaseModel):
    """What only this service knows; all of it may be left out."""

    model_config = _OPEN

    catalog: str | None = Field(
        None, description="the API's catalog, as `gitlab`; may be left out by a caller with a single one"
    )
    explain: bool = Field(default=False, description="say why, in the answer's `context`")
    client_address: str | None = Field(None, description="the end client's IP address")
    at_least: str | None = Field(None, description="a revision: decide by facts that are at least as fresh")
    fully_consistent: bool = Field(default=False, description="decide by facts read after this request came")


class AuthzenContext(BaseModel):
    """Of the request; whatever flat values it holds are attributes `context.…`."""

    model_config = _OPEN

    authz: AuthzenOurs | None = None


class AuthzenSubject(BaseModel):
    model_config = _OPEN

    type: str = Field(description="`token`, or `user` for a user as such; of other types nothing is known")
    id: str = Field(description="the token's public id, never its secret; the username")
    properties: dict[str, Any] | None = Field(None, description=_PROPERTIES)


class AuthzenAction(BaseModel):
    model_config = _OPEN

    name: str = Field(description="`read` of a resource of type `issue`; or `issue:read` at a `project`; or `GET`")
    properties: dict[str, Any] | None = Field(None, description=_PROPERTIES)


class AuthzenResource(BaseModel):
    model_config = _OPEN

    type: str = Field(
        description="the first half of a permission, as `issue`; or `project`, `group`, `user`, `instance` where the"
        " action is a whole permission; or `route`"
    )
    id: str = Field(description="where: a path or id; of a `route`, the path as the client sent it")
    properties: dict[str, Any] | None = Field(None, description=_PROPERTIES)


class AuthzenEvaluation(BaseModel):
    """One question."""

    model_config = _OPEN

    subject: AuthzenSubject
    action: AuthzenAction
    resource: AuthzenResource
    context: AuthzenContext | None = None


class AuthzenOptions(BaseModel):
    model_config = _OPEN

    evaluations_semantic: Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"] = "execute_all"


class AuthzenEvaluations(BaseModel):
    """Many questions; what stands beside them is the default of each. Without any it is one question."""

    model_config = _OPEN

    subject: dict[str, Any] | None = None
    action: dict[str, Any] | None = None
    resource: dict[str, Any] | None = None
    context: AuthzenContext | None = None
    evaluations: list[dict[str, Any]] | None = Field(None, max_length=10_000)
    options: AuthzenOptions | None = None


class AuthzenDecision(BaseModel):
    """The answer. `context` comes on request, and with an item of a batch that could not be read."""

    decision: bool
    context: dict[str, Any] | None = None


class AuthzenDecisions(BaseModel):
    """One decision for each question, in their order, cut after the one that settles it; or `decision` for one."""

    evaluations: list[AuthzenDecision] | None = None
    decision: bool | None = None
    context: dict[str, Any] | None = None


class AuthzenPage(BaseModel):
    model_config = _OPEN

    token: str | None = Field(None, description="the `next_token` of the page before; everything else stays the same")
    limit: int | None = Field(None, ge=0, description="at most so many results; there may be fewer")


class AuthzenType(BaseModel):
    model_config = _OPEN

    type: str
    id: str | None = Field(None, description="passed over: it is what is looked for")
    properties: dict[str, Any] | None = None


class AuthzenSubjectSearch(BaseModel):
    """Asks who may do this here."""

    model_config = _OPEN

    subject: AuthzenType
    action: AuthzenAction
    resource: AuthzenResource
    context: AuthzenContext | None = None
    page: AuthzenPage | None = None


class AuthzenResourceSearch(BaseModel):
    """Asks where they may do this."""

    model_config = _OPEN

    subject: AuthzenSubject
    action: AuthzenAction
    resource: AuthzenType
    context: AuthzenContext | None = None
    page: AuthzenPage | None = None


class AuthzenActionSearch(BaseModel):
    """Asks what they may do here."""

    model_config = _OPEN

    subject: AuthzenSubject
    resource: AuthzenResource
    context: AuthzenContext | None = None
    page: AuthzenPage | None = None


class AuthzenNextPage(BaseModel):
    next_token: str = Field(description="for the next page; empty on the last one")
    count: int


class AuthzenFoundEntity(BaseModel):
    type: str
    id: str


class AuthzenFoundAction(BaseModel):
    name: str


class AuthzenFoundEntities(BaseModel):
    """A page. It may be short, or empty, and not the last."""

    results: list[AuthzenFoundEntity]
    page: AuthzenNextPage


class AuthzenFoundActions(BaseModel):
    """A page. It may be short, or empty, and not the last."""

    results: list[AuthzenFoundAction]
    page: AuthzenNextPage


class AuthzenConfiguration(BaseModel):
    """Where the endpoints are."""

    policy_decision_point: str
    access_evaluation_endpoint: str
    access_evaluations_endpoint: str
    search_subject_endpoint: str
    search_resource_endpoint: str
    search_action_endpoint: str
