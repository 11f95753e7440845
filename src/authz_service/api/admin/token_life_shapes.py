"""Edits, rotations and clones of tokens in requests, and templates in answers, as OpenAPI shows them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, Field

from authz_service.admin.cloning import CloneDraft
from authz_service.admin.drafts import ScopeDraft, TokenDraft
from authz_service.admin.editing import TokenChange
from authz_service.admin.rotating import MOST_OVERLAP, Rotation
from authz_service.admin.templates import Template
from authz_service.api.admin.shapes import End, Moment, PlainText, Query, Strict
from authz_service.api.admin.token_shapes import ConditionsBody, ReachBody, ScopeBody

_MOST = int(MOST_OVERLAP.total_seconds())


class TokenPatch(Strict):
    """What is to change; a field that is not there stays. Lists and objects are replaced whole."""

    name: str = Field("", description="what it is for, for people")
    reason: str = Field("", description="why it is needed, for whoever reviews it")
    expires_at: End | None = Field(
        None, description="a day counts to its end, in UTC; null: it does not expire by itself"
    )
    not_before: Moment | None = Field(None, description="null: it works at once")
    conditions: ConditionsBody = Field(default_factory=ConditionsBody)
    scopes: list[ScopeBody] = Field(
        default_factory=list, description="of the token's own catalogs, in the versions that it was made under"
    )
    legacy_scopes: list[str] = Field(default_factory=list, description="of a legacy token: as `read_api`")
    evaluates: list[str] = Field(
        default_factory=list, description="of a token with `decision:evaluate`: the catalogs that it may ask about"
    )
    may_rotate_self: bool = Field(default=False, description="whether the token may replace its own secret")

    def change(self) -> TokenChange:
        scopes = tuple(
            ScopeDraft(scope.reach.kind, tuple(scope.permissions), tuple(scope.reach.nodes), scope.catalog)
            for scope in self.scopes
        )
        draft = TokenDraft(
            name=self.name,
            reason=self.reason,
            scopes=scopes,
            legacy_scopes=tuple(self.legacy_scopes),
            expires_at=self.expires_at,
            not_before=self.not_before,
            networks=tuple(self.conditions.networks),
            evaluates=tuple(self.evaluates),
            may_rotate_self=self.may_rotate_self,
        )
        return TokenChange(frozenset(self.model_fields_set), draft)


class EditQuery(Query):
    """How long to wait."""

    wait: bool = Field(
        default=False, description="answer when no replica can allow by what was taken away; takes seconds at most"
    )


class RotateBody(Strict):
    """How to replace a secret."""

    overlap_seconds: int = Field(
        0,
        ge=0,
        le=_MOST,
        description="how long the old secret still works beside the new one: 0 ends it at once, 604800 is a week",
    )
    expires_at: End | None = Field(None, description="an earlier end for the new one; never a later one")

    def rotation(self) -> Rotation:
        return Rotation(timedelta(seconds=self.overlap_seconds), self.expires_at)


class CloneBody(Strict):
    """In what the new token is to differ from the other."""

    name: str | None = Field(None, description="without it the other's")
    owner: str | None = Field(None, description="whom it acts for; without it the other's owner")
    reason: str | None = Field(None, description="without it the other's")
    expires_at: End | None = Field(None, description="null: it does not expire by itself; without it the other's")

    def draft(self) -> CloneDraft:
        return CloneDraft(
            self.name, self.owner, self.reason, self.expires_at, "expires_at" not in self.model_fields_set
        )


class TemplateQuery(Query):
    """Of which catalog."""

    catalog: Annotated[
        PlainText | None, Field(max_length=80, description="`gitlab`, its newest version, or `gitlab@1`")
    ] = None


class TemplateView(BaseModel):
    """What tokens for one job need."""

    id: str = Field(description="for `template` of a token to issue")
    catalog: str = Field(description="with its version, as `gitlab@2`")
    title: str
    about: str
    days: int = Field(description="how long such a token should live at most; nothing holds it to that")
    needs_nodes: bool = Field(description="whether whoever uses it says where, by `nodes`")
    scopes: list[ScopeBody] = Field(description="as they are asked for, but for their nodes")
    evaluates: list[str]

    @classmethod
    def of(cls, template: Template) -> TemplateView:
        return cls(
            id=template.id,
            catalog=template.label,
            title=template.title,
            about=template.about,
            days=template.days,
            needs_nodes=template.needs_nodes,
            scopes=[
                ScopeBody(
                    catalog=None, reach=ReachBody(kind=scope.reach, nodes=[]), permissions=list(scope.permissions)
                )
                for scope in template.scopes
            ],
            evaluates=list(template.evaluates),
        )


class TemplateList(BaseModel):
    """Templates, in an order that stays."""

    items: list[TemplateView]
