"""`/v1/webhooks`: who is told what, by signed requests; what was sent, and sending it again."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from authz_service.admin import webhooks
from authz_service.admin.webhooks import DeliveryState, EventKind, WebhookChange, WebhookDraft
from authz_service.api.admin.headers import ETAG, IF_MATCH, read_if_match, set_etag
from authz_service.api.admin.shapes import Cursor, Limit, MomentText, Page, PlainText, Revision, Strict
from authz_service.api.admin.shapes import Query as StrictQuery
from authz_service.api.callers import ActorHere
from authz_service.api.documents import authenticated, body_of
from authz_service.api.state import ServicesHere
from authz_service.api.wire import DEFAULT_LIMIT, no_store, read_body, read_model

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

_Id = Annotated[str, Path(description="a webhook's id, `whk_…`", max_length=64)]
_EXAMPLE = {
    "node": "group:acme/platform",
    "url": "https://hooks.example.com/authz",
    "events": ["grant.requested", "token.leaked"],
}


class WebhookBody(Strict):
    """A webhook to make."""

    url: str = Field(description="`https://` alone, at a public address")
    node: str = Field("instance", description="where it listens: `instance`, or a group with all below it")
    name: str = Field("", description="what it is for, for people")
    events: list[str] = Field(default_factory=list, description="as `token.leaked`; none listed are all")
    active: bool = Field(default=True, description="whether it is told anything")

    def draft(self) -> WebhookDraft:
        return WebhookDraft(self.url, self.node, self.name, tuple(self.events), self.active)


class WebhookPatch(Strict):
    """What to change; what is left out stays."""

    url: str | None = None
    name: str | None = None
    events: list[str] | None = None
    active: bool | None = None

    def change(self) -> WebhookChange:
        return WebhookChange(self.url, self.name, None if self.events is None else tuple(self.events), self.active)


class WebhookView(BaseModel):
    """A webhook, without its secret."""

    id: str
    node: str | None = Field(description="null when the group is gone")
    name: str
    url: str
    events: list[EventKind] = Field(description="none are all")
    active: bool
    created_at: MomentText
    etag: str


class WebhookAnswer(WebhookView):
    """A webhook, at a revision."""

    revision: Revision


class NewWebhook(WebhookAnswer):
    """A webhook with a new signing secret."""

    secret: str = Field(description="signs each delivery; shown this once")


class WebhookPage(Page):
    """Webhooks."""

    items: list[WebhookView]


class AttemptView(BaseModel):
    """One try to deliver."""

    at: MomentText
    status: int | None = Field(description="what the receiver answered; null when nothing came back")
    error: str | None
    ms: int


class DeliveryView(BaseModel):
    """One event on its way to the webhook. What the receiver answered beside its status is not kept."""

    id: str
    event: str
    kind: EventKind
    state: DeliveryState
    attempts: int
    log: list[AttemptView] = Field(description="the last ten, newest first")
    next_at: MomentText | None
    created_at: MomentText
    ended_at: MomentText | None


class DeliveryPage(Page):
    """Deliveries, newest first."""

    items: list[DeliveryView]


class WebhookListQuery(StrictQuery):
    """Which webhooks."""

    node: Annotated[
        PlainText | None, Field(max_length=1100, description="those at a group or below it; without it all there are")
    ] = None
    limit: Limit = 50
    cursor: Cursor = None


class DeliveryListQuery(StrictQuery):
    """Which deliveries."""

    state: DeliveryState | None = None
    limit: Limit = 50
    cursor: Cursor = None


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=NewWebhook,
    responses={
        **authenticated(409, 413),
        201: {"description": "The webhook with its secret, which is shown this once", "headers": ETAG},
    },
    openapi_extra=body_of(WebhookBody, examples={"a group's": _EXAMPLE}),
    summary="Add a webhook",
)
async def create_webhook(services: ServicesHere, actor: ActorHere, request: Request, response: Response) -> Any:
    """Needs `webhook:edit` at the group, or as an admin. Private, loopback and link-local addresses are refused."""
    body = read_model(WebhookBody, await read_body(request, DEFAULT_LIMIT))
    made = await webhooks.create_webhook(services.management, actor, body.draft())
    return _answer(response, made)


@router.get("", response_model=WebhookPage, responses=authenticated(), summary="List webhooks")
async def list_webhooks(
    services: ServicesHere, actor: ActorHere, response: Response, query: Annotated[WebhookListQuery, Query()]
) -> Any:
    """Needs `webhook:read`. Owners of a group name it as `node`."""
    no_store(response)
    return await webhooks.list_webhooks(services.management, actor, query.node, limit=query.limit, cursor=query.cursor)


@router.get(
    "/{webhook_id}",
    response_model=WebhookAnswer,
    responses={**authenticated(404), 200: {"description": "The webhook", "headers": ETAG}},
    summary="Show a webhook",
)
async def show_webhook(services: ServicesHere, actor: ActorHere, response: Response, webhook_id: _Id) -> Any:
    """Never its secret."""
    return _answer(response, await webhooks.show_webhook(services.management, actor, webhook_id))


@router.patch(
    "/{webhook_id}",
    response_model=WebhookAnswer,
    responses={**authenticated(404, 412, 413, 428), 200: {"description": "As it is now", "headers": ETAG}},
    openapi_extra={**body_of(WebhookPatch, examples={"off": {"active": False}}), "parameters": [IF_MATCH]},
    summary="Edit a webhook",
)
async def edit_webhook(
    services: ServicesHere, actor: ActorHere, request: Request, response: Response, webhook_id: _Id
) -> Any:
    """Needs `webhook:edit` where it listens. Where it listens never changes; make another one."""
    if_match = read_if_match(request)
    body = read_model(WebhookPatch, await read_body(request, DEFAULT_LIMIT))
    edited = await webhooks.edit_webhook(services.management, actor, webhook_id, body.change(), if_match)
    return _answer(response, edited)


@router.delete(
    "/{webhook_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=authenticated(404),
    summary="Remove a webhook",
)
async def delete_webhook(services: ServicesHere, actor: ActorHere, webhook_id: _Id) -> Response:
    """With what waits to be delivered, and the record of what was."""
    await webhooks.delete_webhook(services.management, actor, webhook_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post(
    "/{webhook_id}/secret",
    status_code=HTTPStatus.CREATED,
    response_model=NewWebhook,
    responses={**authenticated(404), 201: {"description": "The webhook with its new secret", "headers": ETAG}},
    summary="Renew a webhook's secret",
)
async def renew_webhook_secret(services: ServicesHere, actor: ActorHere, response: Response, webhook_id: _Id) -> Any:
    """The old one signs nothing any more, from the next delivery on."""
    return _answer(response, await webhooks.renew_secret(services.management, actor, webhook_id))


@router.post(
    "/{webhook_id}/test",
    status_code=HTTPStatus.ACCEPTED,
    response_model=DeliveryView,
    responses=authenticated(404),
    summary="Send a webhook a test",
)
async def send_test(services: ServicesHere, actor: ActorHere, response: Response, webhook_id: _Id) -> Any:
    """An event `webhook.tested`, whatever it listens for. The deliveries show what became of it."""
    no_store(response)
    return await webhooks.send_test(services.management, actor, webhook_id)


@router.get(
    "/{webhook_id}/deliveries", response_model=DeliveryPage, responses=authenticated(404), summary="List deliveries"
)
async def list_deliveries(
    services: ServicesHere,
    actor: ActorHere,
    response: Response,
    webhook_id: _Id,
    query: Annotated[DeliveryListQuery, Query()],
) -> Any:
    """What was sent in the last 30 days, with the last attempts of each."""
    no_store(response)
    return await webhooks.list_deliveries(
        services.management, actor, webhook_id, state=query.state, limit=query.limit, cursor=query.cursor
    )


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=HTTPStatus.ACCEPTED,
    response_model=DeliveryView,
    responses=authenticated(404),
    summary="Deliver again",
)
async def redeliver(
    services: ServicesHere,
    actor: ActorHere,
    response: Response,
    webhook_id: _Id,
    delivery_id: Annotated[str, Path(description="a delivery's id, `dlv_…`", max_length=64)],
) -> Any:
    """The same event, as a delivery of its own. Receivers tell events apart by their `id`."""
    no_store(response)
    return await webhooks.redeliver(services.management, actor, webhook_id, delivery_id)


def _answer(response: Response, shown: Any) -> Any:
    no_store(response)
    set_etag(response, shown["etag"])
    return shown
