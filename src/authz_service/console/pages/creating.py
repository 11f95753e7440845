"""Making a token: where, what, and until when; its secret is shown on the page that answers, and nowhere again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus

from fastapi import APIRouter, Request, Response

from authz_service.admin.drafts import ANY_NAME, TokenDraft
from authz_service.admin.sessions import Session
from authz_service.admin.tokens import Idempotency, create_token
from authz_service.admin.trials import try_create
from authz_service.catalog.model import Catalog
from authz_service.console.desk import Desk, act, open_desk, read_beside, show_desk, summaries_of, with_template
from authz_service.console.drafting import Draft, Part, read_draft, with_steps
from authz_service.console.guarding import Form, SignedIn, read_form
from authz_service.console.parts import Console, ConsoleHere
from authz_service.console.rendering import plural, render
from authz_service.console.route import PageRoute
from authz_service.errors import AuthzError, Fault, InvalidInputError
from authz_service.tokens.model import ReachKind

router = APIRouter(route_class=PageRoute)


@router.get("/tokens/new")
async def begin(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    """An empty draft, or one filled in by the URL: the same names as the form's."""
    form = Form([(name, value) for name, value in request.query_params.multi_items() if "\x00" not in value])
    draft = read_draft(form)
    desk = await open_desk(console, session, draft, form.get("step"))
    if form.get("template"):
        desk.draft = with_template(desk.draft, desk.catalog, form.get("template"))
    elif form.get("step") == "" and draft.part.permissions:
        desk.step = "what" if draft.part.nodes or draft.part.reach is not ReachKind.SELECTED else "where"
    return await _show(request, console, session, desk)


@router.post("/tokens/new")
async def go_on(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    """One step: every button of the form says in `go` what it is for."""
    form = await read_form(request, console)
    desk = await open_desk(console, session, read_draft(form), form.get("step"))
    read_beside(desk, form)
    if form.get("fix"):
        desk.draft, desk.step = with_steps(desk.draft, form.get("fix")[:20_000]), "finish"
    verb, _, rest = form.get("go").partition(":")
    try:
        await act(console, session, desk, verb, rest)
        if verb == "create":
            return await _create(request, console, session, desk)
    except AuthzError as error:
        desk.error = error
    return await _show(request, console, session, desk)


async def _show(request: Request, console: Console, session: Session, desk: Desk) -> Response:
    """On the last step with what would wait for an approval, or why the token could not be made."""
    if desk.step == "finish" and desk.error is None:
        try:
            wanted = token_draft_of(desk.draft)
            named = wanted if wanted.name.strip() else _named(desk.draft)
            desk.tried = await try_create(console.management, session.actor, named)
        except AuthzError as error:
            desk.refused = error
    return await show_desk(request, console, session, desk)


def _named(draft: Draft) -> TokenDraft:
    """As if it had a name: it is not asked for before the last step."""
    return token_draft_of(replace(draft, name=ANY_NAME))


def token_draft_of(draft: Draft) -> TokenDraft:
    """Raises InvalidInputError where the day is none."""
    try:
        return draft.token_draft(datetime.now(UTC))
    except ValueError:
        fault = Fault("/expires_at", "invalid_value", "write the day as `2027-01-31`, or choose another end")
        raise InvalidInputError("the token has a fault", faults=[fault]) from None


async def _create(request: Request, console: Console, session: Session, desk: Desk) -> Response:
    draft = desk.draft
    desk.step = "finish"
    wanted = token_draft_of(draft)
    # The day is not a part of what makes two requests the same: a form sent twice is sent at two moments.
    repeat = Idempotency(draft.key, {"fields": [list(pair) for pair in draft.fields()]})
    issued = await create_token(console.management, session.actor, wanted, repeat)
    part = next((one for one in draft.all_parts if one.permissions), Part())
    return render(
        request,
        "created.html",
        status=HTTPStatus.CREATED,
        title="Copy the secret now" if issued.secret else "This token was made already",
        token=issued.token,
        secret=issued.secret,
        summaries=summaries_of(desk),
        origin=console.origin_for(request),
        example=_example(desk.catalog_for(part), part),
        about=plural(sum(len(one.permissions) for one in draft.all_parts), "permission"),
        another="/console/tokens/new",
    )


def _example(catalog: Catalog, part: Part) -> dict[str, str]:
    """A question that the new token answers with yes: of its first permission, at its first place."""
    name = part.permissions[0] if part.permissions else ""
    resource, _, action = name.partition(":")
    kinds = catalog.by_name[name].boundaries if name in catalog.by_name else {}
    fitting = [node for node in part.nodes if node.partition(":")[0] in {kind.value for kind in kinds}]
    return {"resource": resource, "action": action, "target": next(iter(fitting or part.nodes), "")}
