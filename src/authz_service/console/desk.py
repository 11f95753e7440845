"""Where a token is put together, step by step: a new one, or one that exists and is to be another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Final

from fastapi import Request, Response

from authz_service.admin.catalogs import list_catalogs
from authz_service.admin.choosing import FoundPlace, catalog_of, check_place, search_places
from authz_service.admin.sessions import Session
from authz_service.admin.templates import list_templates
from authz_service.admin.trials import Tried
from authz_service.catalog.model import Catalog
from authz_service.console.calls import find_smallest
from authz_service.console.comparing import Difference
from authz_service.console.drafting import DAYS, Draft, Part
from authz_service.console.errors import status_of
from authz_service.console.guarding import Form
from authz_service.console.matrix import boundaries_of, make_matrix
from authz_service.console.parts import Console
from authz_service.console.rendering import render
from authz_service.console.words import Summary, fold, summarize
from authz_service.errors import AuthzError, Fault, InvalidInputError
from authz_service.tokens.model import ReachKind
from authz_service.tokens.policy import EVALUATE

_FIRST: Final = ("gitlab", "github")
_FOUND: Final = 12
_STEPS: Final = ("where", "what", "finish")
_TITLES: Final = {"where": "Where is it to work?", "what": "What may it do?", "finish": "Until when, and what for?"}


@dataclass(slots=True)
class Desk:
    """One look at the draft: what the page shows beside it. `token` is the one that is edited."""

    draft: Draft
    catalog: Catalog
    catalogs: Sequence[Mapping[str, Any]]
    step: str
    token: Mapping[str, Any] | None = None
    find: str = ""
    found: Sequence[FoundPlace] = ()
    more: bool = False
    filter: str = ""
    calls: str = ""
    answer: Any = None
    error: AuthzError | None = None
    tried: Tried | None = None
    refused: AuthzError | None = None
    """Why it could not be as it stands, on a page where nothing was asked for yet."""
    differences: Sequence[Difference] = ()
    unseen: bool = False
    """It was to be saved in another form than was shown."""
    others: dict[str, Catalog] = field(default_factory=dict)

    @property
    def action(self) -> str:
        """Where the form is sent."""
        return "/console/tokens/new" if self.token is None else f"/console/tokens/{self.token['id']}/edit"

    def catalog_for(self, part: Part) -> Catalog:
        return self.others.get(part.catalog, self.catalog)


async def open_desk(
    console: Console, session: Session, draft: Draft, step: str, token: Mapping[str, Any] | None = None
) -> Desk:
    """With the catalogs to choose from: of a token that exists its own, which it keeps. Raises NotFoundError."""
    catalogs: Sequence[Mapping[str, Any]]
    if token is None:
        found = await list_catalogs(console.management, session.actor)
        catalogs = sorted(
            found["items"], key=lambda one: (_FIRST.index(one["name"]) if one["name"] in _FIRST else 9, one["name"])
        )
    else:
        catalogs = [{"name": label, "title": ""} for label in token["catalogs"]]
    label = draft.catalog if token is None or draft.catalog in token["catalogs"] else ""
    label = label or catalogs[0]["name"]
    catalog = await catalog_of(console.management, session.actor, label)
    draft = replace(draft, catalog=label)
    if token is None and catalog.single_owner and not draft.resource_owner:
        draft = replace(draft, resource_owner=f"user:{session.username}")
    desk = Desk(draft, catalog, catalogs, step if step in _STEPS else "where", token)
    for part in draft.parts:
        if part.catalog and part.catalog not in desk.others:
            desk.others[part.catalog] = await catalog_of(console.management, session.actor, part.catalog)
    return desk


def read_beside(desk: Desk, form: Form) -> None:
    """What the form holds beside the draft."""
    desk.find, desk.filter, desk.calls = form.get("find"), form.get("filter"), form.raw("calls")


async def act(console: Console, session: Session, desk: Desk, verb: str, rest: str) -> None:
    """What a button of the steps is for. Raises AuthzError for what cannot be, with the desk at the step to mend it."""
    draft, part = desk.draft, desk.draft.part
    match verb:
        case "where" | "finish":
            desk.step = verb
        case "what":
            if desk.step == "finish" and not (part.permissions or part.nodes) and draft.parts:
                desk.draft = draft.opened(len(draft.all_parts) - 1)
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
            aside = tuple(one if one.catalog else replace(one, catalog=draft.catalog) for one in draft.all_parts)
            desk.draft = replace(draft, parts=aside, part=Part())
            desk.step = "where"
        case "drop" if rest.isascii() and rest.isdigit():
            desk.draft = draft.without(int(rest)) if desk.step == "finish" else _dropped(draft, int(rest))
        case "open" | "place" if rest.isascii() and rest.isdigit():
            desk.draft = draft.opened(int(rest))
            desk.step = "what" if verb == "open" else "where"
        case "clear":
            desk.draft = draft.with_part(replace(part, permissions=()))
        case "calls":
            await _choose_for_calls(console, session, desk)
    await _load_catalogs(console, session, desk)


async def _choose_for_calls(console: Console, session: Session, desk: Desk) -> None:
    draft, part = desk.draft, desk.draft.part
    desk.answer = found = await find_smallest(console.management, session.actor, desk.catalog, desk.calls)
    names = tuple(dict.fromkeys((*part.permissions, *found.permissions)))
    desk.draft = draft.with_part(replace(part, permissions=names))


async def _load_catalogs(console: Console, session: Session, desk: Desk) -> None:
    """Those of the scope under way, and of those put aside."""
    if desk.draft.catalog not in (desk.catalog.label, desk.catalog.name):
        desk.catalog = await catalog_of(console.management, session.actor, desk.draft.catalog)
    for one in desk.draft.parts:
        if one.catalog and one.catalog not in desk.others:
            desk.others[one.catalog] = await catalog_of(console.management, session.actor, one.catalog)


def _dropped(draft: Draft, position: int) -> Draft:
    return replace(draft, parts=tuple(part for number, part in enumerate(draft.parts) if number != position))


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


def with_template(draft: Draft, catalog: Catalog, wanted: str) -> Draft:
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


async def show_desk(request: Request, console: Console, session: Session, desk: Desk) -> Response:
    """The page of the desk's step."""
    draft, part = desk.draft, desk.draft.part
    context: dict[str, Any] = {}
    if desk.step == "where":
        if not desk.catalog.upstream and part.reach is ReachKind.SELECTED:
            desk.found, desk.more = await search_places(
                console.management, session.actor, draft.catalog, desk.find, limit=_FOUND
            )
        context["templates"] = [] if desk.token is not None else list_templates(desk.catalog.label)
    if desk.step == "what":
        boundaries = boundaries_of(part.reach, part.nodes)
        context["matrix"] = make_matrix(desk.catalog, boundaries, part.permissions, desk.filter)
    if desk.step == "finish":
        context["asks"] = bool(draft.evaluates) or any(EVALUATE in one.permissions for one in draft.all_parts)
        context["days"] = DAYS
    editing = desk.token is not None and desk.step == "finish"
    return render(
        request,
        f"create_{desk.step}.html",
        status=HTTPStatus.OK if desk.error is None else status_of(desk.error),
        title=f"Edit “{desk.token['name']}”" if desk.token is not None and editing else _TITLES[desk.step],
        desk=desk,
        draft=draft,
        part=part,
        catalog=desk.catalog,
        summaries=summaries_of(desk),
        folded=fold(part.permissions),
        upstream=desk.catalog.upstream,
        word=desk.catalog.words.get,
        **context,
    )


def summaries_of(desk: Desk) -> list[tuple[Part, Summary]]:
    """Each scope in plain words."""
    return [
        (part, summarize(desk.catalog_for(part), part.reach, part.nodes, part.permissions))
        for part in desk.draft.all_parts
    ]
