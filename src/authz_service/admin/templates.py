"""Templates: what tokens for the usual jobs need, catalog version by catalog version, ready to be asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Final

from ruamel.yaml import YAML

from authz_service.admin.drafts import ScopeDraft, TokenDraft
from authz_service.admin.faults import Faults, shown
from authz_service.pdp.check import parse_catalog
from authz_service.tokens.model import ReachKind

_FOLDER: Final = ("data", "templates")
_SUFFIX: Final = ".yaml"


@dataclass(frozen=True, slots=True)
class Template:
    """One job. `days` is how long such a token should live at most; nobody is held to it."""

    catalog: str
    version: int
    id: str
    title: str
    about: str
    days: int
    scopes: tuple[ScopeDraft, ...]
    evaluates: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.catalog}@{self.version}"

    @property
    def needs_nodes(self) -> bool:
        """Whether whoever uses it has to say where."""
        return any(scope.reach is ReachKind.SELECTED for scope in self.scopes)


@cache
def shipped_templates() -> Mapping[tuple[str, int], Mapping[str, Template]]:
    """By catalog and version, then by id, in the order of their file. Read once in a process."""
    folder = files("authz_service.catalog").joinpath(*_FOLDER)
    found: dict[tuple[str, int], Mapping[str, Template]] = {}
    for file in sorted((one for one in folder.iterdir() if one.name.endswith(_SUFFIX)), key=lambda one: one.name):
        name, _, version = file.name.removesuffix(_SUFFIX).partition("@")
        written = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
        found[name, int(version)] = {
            key: Template(
                name,
                int(version),
                key,
                one["title"],
                one["about"],
                one["days"],
                tuple(ScopeDraft(ReachKind(scope["reach"]), tuple(scope["permissions"])) for scope in one["scopes"]),
                tuple(one.get("evaluates", ())),
            )
            for key, one in written.items()
        }
    return found


def list_templates(catalog: str | None = None) -> Sequence[Template]:
    """Those of a catalog, `gitlab` (its newest version that has some) or `gitlab@1`; without it of every newest."""
    known = shipped_templates()
    newest = {name: max(version for one, version in known if one == name) for name, _ in known}
    if catalog is None:
        return [template for name, version in newest.items() for template in known[name, version].values()]
    name, version = parse_catalog(catalog)
    return list(known.get((name, newest.get(name, 0) if version is None else version), {}).values())


def fill_in(draft: TokenDraft, template_id: str, version: int | None, faults: Faults) -> TokenDraft:
    """The draft with the scopes of a template, at its nodes. `version` is what the draft's catalog comes to.

    What the template does not say stays as it was asked for; the expiry is the asker's to choose.
    """
    name, nodes = parse_catalog(draft.catalog or "")[0], draft.nodes
    template = shipped_templates().get((name, version or 0), {}).get(template_id)
    if draft.scopes or draft.legacy_scopes:
        faults.add("/template", "not_for_token", "give a template or scopes of your own; leave one of them out")
    if template is None:
        message = (
            f"`{shown(draft.catalog or '')}` has no template `{shown(template_id)}`; `GET /v1/templates` lists them"
        )
        faults.add("/template", "template_unknown", message)
        return draft
    if template.needs_nodes and not nodes:
        faults.add("/nodes", "missing_field", "say where: name at least one group or project")
    if nodes and not template.needs_nodes:
        faults.add("/nodes", "not_for_reach", "this template selects no groups or projects; leave this out")
    scopes = tuple(
        replace(scope, nodes=nodes) if scope.reach is ReachKind.SELECTED else scope for scope in template.scopes
    )
    return replace(draft, scopes=scopes, evaluates=draft.evaluates or template.evaluates)
