"""Making a token: where, what, and until when; its secret is shown on the page that answers, and nowhere again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from authz_service.admin.catalogs import list_catalogs
from authz_service.admin.choosing import FoundPlace, catalog_of, check_place, search_places
from authz_service.admin.sessions import Session
from authz_service.admin.templates import list_templates
from authz_service.admin.tokens import Idempotency, create_token
from authz_service.catalog.model import Catalog
from authz_service.console.calls import find_smallest
from authz_service.console.drafting import DAYS, Draft, Part, read_draft
from authz_service.console.errors import status_of
from authz_service.console.guarding import Form, SignedIn, read_form
from authz_service.console.matrix import boundaries_of, make_matrix
from authz_service.console.parts import Console, ConsoleHere
from authz_service.console.rendering import plural, render
from authz_service.console.route import PageRoute
from authz_service.console.words import Summary, fold, summarize
from authz_service.errors import AuthzError, Fault, InvalidInputError
from authz_service.pdp.check import EVALUATE
from authz_service.tokens.model import ReachKind

router = APIRouter(route_class=PageRoute)
_FIRST: Final = ("gitlab", "github")
_FOUND: Final = 12
_STEPS: Final = ("where", "what", "finish")


@dataclass(slots=True)
class Desk:
    """One look at the draft: what the page shows beside it."""

    draft: Draft
    catalog: Catalog
    catalogs: Sequence[Mapping[str, Any]]
    step: str
    find: str = ""
    found: Sequence[FoundPlace] = ()
    more: bool = False
    searched: bool = False
    filter: str = ""
    calls: str = ""
    answer: Any = None
    error: AuthzError | None = None


@router.get("/tokens/new")
async def begin(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    """An empty draft, or one filled in by the URL: the same names as the form's."""
    form = Form([(name, value) for name, value in request.query_params.multi_items() if "\x00" not in value])
    draft = read_draft(form)
    desk = await _desk(console, session, draft, form.get("step"))
    if form.get("template"):
        desk.draft = _with_template(desk.draft, desk.catalog, form.get("template"))
    elif form.get("step") == "" and draft.part.permissions:
        desk.step = "what" if draft.part.nodes or draft.part.reach is not ReachKind.SELECTED else "where"
    return await _show(request, console, session, desk)


@router.post("/tokens/new")
async def go_on(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    """One step: every button of the form says in `go` what it is for."""
    form = await read_form(request, console)
    desk = await _desk(console, session, read_draft(form), form.get("step"))
    desk.find, desk.filter, desk.calls = form.get("find"), form.get("filter"), form.raw("calls")
    verb, _, rest = form.get("go").partition(":")
    try:
        await _act(console, session, desk, verb, rest)
        if verb == "create":
            return await _create(request, console, session, desk)
    except AuthzError as error:
        desk.error = error
    return await _show(request, console, session, desk)


async def _desk(console: Console, session: Session, draft: Draft, step: str) -> Desk:
    found = await list_catalogs(console.management, session.actor)
    catalogs = sorted(
        found["items"], key=lambda one: (_FIRST.index(one["name"]) if one["name"] in _FIRST else 9, one["name"])
    )
    label = draft.catalog or catalogs[0]["name"]
    catalog = await catalog_of(console.management, session.actor, label)
    draft = replace(draft, catalog=label)
    if catalog.single_owner and not draft.resource_owner:
        draft = replace(draft, resource_owner=f"user:{session.username}")
    return Desk(draft, catalog, catalogs, step if step in _STEPS else "where")


async def _act(console: Console, session: Session, desk: Desk, verb: str, rest: str) -> None:
    draft, part = desk.draft, desk.draft.part
    match verb:
        case "where" | "finish":
            desk.step = verb
        case "what":
            _require_place(desk)
            desk.step = verb
        case "find":
            desk.step = "where"
        case "add":
            # The button of a search's row names the place; the field beside it takes what somebody typed.
            place = await _place(console, session, desk, rest or desk.find)
            desk.draft = draft.with_part(replace(part, reach=ReachKind.SELECTED, nodes=_with(part.nodes, place)))
            desk.find, desk.step = "" if not rest else desk.find, "where"
        case "remove":
            desk.draft = draft.with_part(replace(part, nodes=tuple(one for one in part.nodes if one != rest)))
        case "another":
            desk.draft = replace(draft, parts=draft.all_parts, part=Part())
            desk.step = "where"
        case "drop" if rest.isascii() and rest.isdigit():
            desk.draft = replace(draft, parts=tuple(p for i, p in enumerate(draft.parts) if i != int(rest)))
        case "clear":
            desk.draft = draft.with_part(replace(part, permissions=()))
        case "calls":
            desk.answer = found = await find_smallest(console.management, session.actor, desk.catalog, desk.calls)
            names = tuple(dict.fromkeys((*part.permissions, *found.permissions)))
            desk.draft = draft.with_part(replace(part, permissions=names))


def _require_place(desk: Desk) -> None:
    part = desk.draft.part
    if part.reach is ReachKind.SELECTED and not part.nodes:
        desk.step = "where"
        fault = Fault("places", "missing_field", "choose at least one place, or another reach")
        raise InvalidInputError("say first where the token is to work", faults=[fault])


async def _place(console: Console, session: Session, desk: Desk, text: str) -> str:
    if desk.catalog.upstream:
        return text if ":" in text else f"project:{text}"
    return (await check_place(console.management, session.actor, desk.draft.catalog, text)).target


def _with(nodes: tuple[str, ...], added: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*nodes, added)))


def _with_template(draft: Draft, catalog: Catalog, wanted: str) -> Draft:
    """The draft with what a template holds: several scopes are several parts."""
    template = next((one for one in list_templates(catalog.label) if one.id == wanted), None)
    if template is None or not template.scopes:
        return draft
    parts = [Part(scope.reach, draft.part.nodes, scope.permissions) for scope in template.scopes]
    fitting = [part if part.reach is ReachKind.SELECTED else replace(part, nodes=()) for part in parts]
    days = next((str(days) for days in DAYS if days >= template.days), str(DAYS[-1]))
    return replace(
        draft,
        part=fitting[0],
        parts=tuple(fitting[1:]),
        name=draft.name or template.title.lower(),
        expires=days,
        evaluates=" ".join(template.evaluates),
    )


async def _show(request: Request, console: Console, session: Session, desk: Desk) -> Response:
    draft, part = desk.draft, desk.draft.part
    context: dict[str, Any] = {}
    if desk.step == "where":
        if not desk.catalog.upstream and part.reach is ReachKind.SELECTED:
            desk.found, desk.more = await search_places(
                console.management, session.actor, draft.catalog, desk.find, limit=_FOUND
            )
        context["templates"] = list_templates(desk.catalog.label)
    if desk.step == "what":
        boundaries = boundaries_of(part.reach, part.nodes)
        context["matrix"] = make_matrix(desk.catalog, boundaries, part.permissions, desk.filter)
    if desk.step == "finish":
        context["asks"] = any(EVALUATE in one.permissions for one in draft.all_parts)
        context["days"] = DAYS
    titles = {"where": "Where is it to work?", "what": "What may it do?", "finish": "Until when, and what for?"}
    return render(
        request,
        f"create_{desk.step}.html",
        status=HTTPStatus.OK if desk.error is None else status_of(desk.error),
        title=titles[desk.step],
        desk=desk,
        draft=draft,
        part=part,
        catalog=desk.catalog,
        summaries=_summaries(desk.catalog, draft),
        folded=fold(part.permissions),
        upstream=desk.catalog.upstream,
        word=desk.catalog.words.get,
        **context,
    )


def _summaries(catalog: Catalog, draft: Draft) -> list[tuple[Part, Summary]]:
    return [(part, summarize(catalog, part.reach, part.nodes, part.permissions)) for part in draft.all_parts]


async def _create(request: Request, console: Console, session: Session, desk: Desk) -> Response:
    draft, now = desk.draft, datetime.now(UTC)
    desk.step = "finish"
    try:
        wanted = draft.token_draft(now)
    except ValueError:
        fault = Fault("/expires_at", "invalid_value", "write the day as `2027-01-31`, or choose another end")
        raise InvalidInputError("the token has a fault", faults=[fault]) from None
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
        summaries=_summaries(desk.catalog, draft),
        origin=console.origin_for(request),
        example=_example(desk.catalog, part),
        permissions=plural(sum(len(one.permissions) for one in draft.all_parts), "permission"),
    )


def _example(catalog: Catalog, part: Part) -> dict[str, str]:
    """A question that the new token answers with yes: of its first permission, at its first place."""
    name = part.permissions[0] if part.permissions else ""
    resource, _, action = name.partition(":")
    kinds = catalog.by_name[name].boundaries if name in catalog.by_name else {}
    fitting = [node for node in part.nodes if node.partition(":")[0] in {kind.value for kind in kinds}]
    return {"resource": resource, "action": action, "target": next(iter(fitting or part.nodes), "")}
