"""`/v1/trust-rules`: whose CI jobs get which tokens; `/v1/token-exchange` (RFC 8693): a job's token for one of ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from authz_service.admin import exchanging, trust
from authz_service.admin.drafts import ScopeDraft
from authz_service.admin.job_tokens import JobTokenError
from authz_service.admin.trust import LONGEST_LIFETIME, SHORTEST_LIFETIME, TrustChange, TrustDraft
from authz_service.api.admin.headers import ETAG, IF_MATCH, read_if_match, set_etag
from authz_service.api.admin.shapes import Cursor, Limit, MomentText, Page, PlainText, Revision, Strict
from authz_service.api.admin.shapes import Query as StrictQuery
from authz_service.api.admin.token_shapes import ScopeBody
from authz_service.api.callers import ActorHere
from authz_service.api.documents import authenticated, body_of, problems
from authz_service.api.state import ServicesHere
from authz_service.api.wire import DEFAULT_LIMIT, no_store, read_body, read_model

router = APIRouter(tags=["trust"])

_FORM: Final = "application/x-www-form-urlencoded"
_GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS: Final = "urn:ietf:params:oauth:token-type:access_token"
_TAKEN: Final = frozenset({"urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token"})
_MOST_FIELDS: Final = 32
_NOT_TAKEN: Final = (
    "this token is not taken: it is no valid token of its issuer, was exchanged before, or there is not exactly one"
    " trust rule that fits it and still may give what it says"
)
_Id = Annotated[str, Path(description="a trust rule's id, `tru_…`", max_length=64)]
_EXAMPLE: Final = {
    "node": "group:acme",
    "name": "deploy of the shop",
    "issuer": "https://gitlab.com",
    "audience": "https://authz.example.com",
    "claims": {"project_path": "acme/web", "ref_protected": "true", "ref": {"like": "release-*"}},
    "owner": "deploy-bot",
    "catalog": "gitlab",
    "scopes": [{"reach": {"kind": "selected", "nodes": ["project:acme/web"]}, "permissions": ["job:read"]}],
    "lifetime_seconds": 900,
}


class LikeBody(Strict):
    """A claim that may have several values."""

    like: str = Field(description="`*` stands for any characters but `/`; all else for itself")


class TrustRuleBody(Strict):
    """A trust rule to make."""

    node: str = Field(description="the group that keeps it")
    name: str = Field(description="what it is for; its tokens are called by it")
    issuer: str = Field(description="as the tokens' `iss` says it, an `https://` URL")
    audience: str = Field(description="one of the tokens' `aud`: take a name that no other service takes")
    claims: dict[str, str | LikeBody] = Field(
        description="what the token must say, as texts: whole, or `like` a pattern. One that names the project, the "
        "namespace or the subject has to be whole"
    )
    owner: str = Field(description="the service account that acts")
    catalog: str = Field(description="as `gitlab`")
    scopes: list[ScopeBody] = Field(min_length=1, description="what the tokens hold")
    lifetime_seconds: int = Field(900, description=f"{SHORTEST_LIFETIME} to {LONGEST_LIFETIME}")
    keys: dict[str, Any] | None = Field(
        None, description="the issuer's public keys as a JWK set (RFC 7517); without it the issuer is asked for them"
    )

    def draft(self) -> TrustDraft:
        return TrustDraft(
            node=self.node,
            name=self.name,
            issuer=self.issuer,
            audience=self.audience,
            claims={name: one if isinstance(one, str) else {"like": one.like} for name, one in self.claims.items()},
            owner=self.owner,
            catalog=self.catalog,
            scopes=tuple(
                ScopeDraft(scope.reach.kind, tuple(scope.permissions), tuple(scope.reach.nodes), scope.catalog)
                for scope in self.scopes
            ),
            lifetime=self.lifetime_seconds,
            keys=self.keys,
        )


class TrustRulePatch(Strict):
    """What to change; what is left out stays. The group never changes: make another rule."""

    name: str | None = None
    issuer: str | None = None
    audience: str | None = None
    claims: dict[str, str | LikeBody] | None = Field(None, description="all of them, in place of those there are")
    owner: str | None = None
    catalog: str | None = None
    scopes: list[ScopeBody] | None = Field(None, min_length=1, description="all of them")
    lifetime_seconds: int | None = None
    keys: dict[str, Any] | None = Field(None, description="null asks the issuer from now on")

    def change(self) -> TrustChange:
        given = {name: getattr(self, name) for name in self.model_fields_set}
        # `null` means something for the keys alone: elsewhere it is as good as left out.
        given = {name: value for name, value in given.items() if value is not None or name == "keys"}
        # What is not given is never looked at.
        nothing: dict[str, Any] = {"scopes": [], "lifetime_seconds": 0, "keys": None, "claims": {}}
        nothing |= dict.fromkeys(("node", "name", "issuer", "audience", "owner", "catalog"), "")
        draft = TrustRuleBody.model_construct(None, **(nothing | given)).draft()
        return TrustChange(draft, frozenset("lifetime" if name == "lifetime_seconds" else name for name in given))


class TrustRuleAnswer(BaseModel):
    """A trust rule."""

    id: str
    node: str | None = Field(description="null when the group is gone")
    name: str
    issuer: str
    audience: str
    claims: dict[str, Any]
    owner: str
    catalog: str
    scopes: list[dict[str, Any]]
    lifetime_seconds: int
    keys: dict[str, Any] | None
    requires_name: bool = Field(
        description="whether it gives only to an exchange that names it: as no admin made it, or changed what it trusts"
    )
    made_by_token: str = Field(description="the rule gives what this token may issue, and ends with it")
    created_at: MomentText
    etag: str = Field(description="for `If-Match` of an edit")
    revision: Revision


class TrustRulePage(Page):
    """Trust rules."""

    items: list[TrustRuleAnswer]


class TrustRuleQuery(StrictQuery):
    """Which trust rules."""

    node: Annotated[
        PlainText | None,
        Field(max_length=1100, description="the group that keeps them; without it all there are, for an admin"),
    ] = None
    below: bool = Field(False, description="also those of groups under it")
    limit: Limit = 50
    cursor: Cursor = None


class ExchangeForm(BaseModel):
    """What to exchange, form-encoded (RFC 8693). Other fields are passed over."""

    grant_type: str = Field(description=f"`{_GRANT}`")
    subject_token: str = Field(description="the job's OpenID Connect token")
    subject_token_type: str = Field(description="`urn:ietf:params:oauth:token-type:jwt` or `…:id_token`")
    rule: str | None = Field(None, description="the rule meant, `tru_…`: where several fit, or it says `requires_name`")


class ExchangeAnswer(BaseModel):
    """A token of minutes."""

    access_token: str
    issued_token_type: str
    token_type: str
    expires_in: int = Field(description="in seconds")
    scope: str = Field(description="its permissions, with spaces between")


class ExchangeError(BaseModel):
    """An error in the words of RFC 6749."""

    error: str
    error_description: str


@router.post(
    "/trust-rules",
    status_code=HTTPStatus.CREATED,
    response_model=TrustRuleAnswer,
    responses={**authenticated(409, 413), 201: {"description": "The rule", "headers": ETAG}},
    openapi_extra=body_of(TrustRuleBody, examples={"a deploy": _EXAMPLE}),
    summary="Trust a CI system's jobs",
)
async def create_trust_rule(services: ServicesHere, actor: ActorHere, request: Request, response: Response) -> Any:
    """Needs `token:create` at the group, and for the service account. Gives at most what the caller could issue.

    Exchanges have to name the rule, unless the caller has `token:create` at the instance.
    """
    body = read_model(TrustRuleBody, await read_body(request, DEFAULT_LIMIT))
    return _answer(response, await trust.create_rule(services.management, actor, body.draft()))


@router.get("/trust-rules", response_model=TrustRulePage, responses=authenticated(), summary="List trust rules")
async def list_trust_rules(
    services: ServicesHere, actor: ActorHere, response: Response, query: Annotated[TrustRuleQuery, Query()]
) -> Any:
    """Those of one group, or with all below it. Needs `token:read` there, and at the instance without a group."""
    no_store(response)
    return await trust.list_rules(
        services.management, actor, query.node, below=query.below, limit=query.limit, cursor=query.cursor
    )


@router.get(
    "/trust-rules/{rule_id}",
    response_model=TrustRuleAnswer,
    responses={**authenticated(404), 200: {"description": "The rule", "headers": ETAG}},
    summary="Show a trust rule",
)
async def show_trust_rule(services: ServicesHere, actor: ActorHere, response: Response, rule_id: _Id) -> Any:
    """Needs `token:read` at its group."""
    return _answer(response, await trust.show_rule(services.management, actor, rule_id))


@router.patch(
    "/trust-rules/{rule_id}",
    response_model=TrustRuleAnswer,
    responses={**authenticated(404, 412, 413, 428), 200: {"description": "As it is now", "headers": ETAG}},
    openapi_extra={
        **body_of(TrustRulePatch, examples={"another branch": {"claims": _EXAMPLE["claims"]}}),
        "parameters": [IF_MATCH],
    },
    summary="Edit a trust rule",
)
async def edit_trust_rule(
    services: ServicesHere, actor: ActorHere, request: Request, response: Response, rule_id: _Id
) -> Any:
    """Judged as its creation by the caller, whose token it lives by from then on. Needs `token:create` at its group.

    Tokens that it gave before are revoked, unless only its name or lifetime change.
    """
    if_match = read_if_match(request)
    body = read_model(TrustRulePatch, await read_body(request, DEFAULT_LIMIT))
    return _answer(response, await trust.edit_rule(services.management, actor, rule_id, body.change(), if_match))


@router.delete(
    "/trust-rules/{rule_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=authenticated(404),
    summary="Remove a trust rule",
)
async def delete_trust_rule(services: ServicesHere, actor: ActorHere, rule_id: _Id) -> Response:
    """Its tokens that still live are revoked with it. Needs `token:create` at its group."""
    await trust.delete_rule(services.management, actor, rule_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post(
    "/token-exchange",
    response_model=ExchangeAnswer,
    responses={
        **problems(413, 500, 503),
        400: {
            "model": ExchangeError,
            "description": "The request cannot be read, or the token is not taken",
            "content": problems(400)[400]["content"],
        },
    },
    openapi_extra=body_of(ExchangeForm, media_type=_FORM),
    summary="Exchange a CI job's token (RFC 8693)",
)
async def exchange_token(services: ServicesHere, request: Request) -> Response:
    """By the trust rules of groups. A job's token is taken once; whatever is wrong with it, the answer is the same."""
    form = await _read_form(request)
    if isinstance(form, str):
        return _told({"error": "invalid_request", "error_description": form}, HTTPStatus.BAD_REQUEST)
    if form.get("grant_type") != _GRANT:
        said = {"error": "unsupported_grant_type", "error_description": f"`grant_type` is `{_GRANT}` here"}
        return _told(said, HTTPStatus.BAD_REQUEST)
    if form.get("subject_token_type") not in _TAKEN or not form.get("subject_token"):
        message = "send `subject_token`, and `subject_token_type` as `urn:ietf:params:oauth:token-type:jwt`"
        return _told({"error": "invalid_request", "error_description": message}, HTTPStatus.BAD_REQUEST)
    try:
        done = await exchanging.exchange(services.management, form["subject_token"], form.get("rule") or None)
    except JobTokenError:
        said = {"error": "invalid_request", "error_description": _NOT_TAKEN}
        return _told(said, HTTPStatus.BAD_REQUEST)
    return _told(
        {
            "access_token": done.issued.secret,
            "issued_token_type": _ACCESS,
            "token_type": "Bearer",
            "expires_in": done.lifetime,
            "scope": " ".join(done.permissions),
        }
    )


def _answer(response: Response, rule: Mapping[str, Any]) -> Mapping[str, Any]:
    no_store(response)
    set_etag(response, rule["etag"])
    return rule


async def _read_form(request: Request) -> dict[str, str] | str:
    """The fields, or what is wrong with the body."""
    kinds = request.headers.getlist("content-type")
    if len(kinds) != 1 or kinds[0].partition(";")[0].strip().lower() != _FORM:
        return f"send the body as `Content-Type: {_FORM}`"
    body = await read_body(request, DEFAULT_LIMIT)
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        return "the body is no form that can be read"
    if any(count > 1 for count in Counter(name for name, _ in pairs).values()):
        return "a field came twice; send each once"
    return dict(pairs)


def _told(body: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Response:
    headers = {"Cache-Control": "no-store", "Pragma": "no-cache"}
    return Response(msgspec.json.encode(body), status.value, media_type="application/json", headers=headers)
