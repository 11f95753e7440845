"""From a draft to a token that could be stored, or to all that is wrong with the draft (T1 to T6, C9, M1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.admin.drafts import TokenDraft, check_lifetime, check_plain, read_networks
from authz_service.admin.faults import Faults, shown
from authz_service.admin.management import Management
from authz_service.admin.places import find_place, find_user
from authz_service.admin.reaches import ReadScope, ScopeReader, unknown_target
from authz_service.admin.templates import fill_in
from authz_service.catalog.model import Catalog
from authz_service.directory.model import (
    DEFAULT_SOURCE,
    NodeId,
    NodeKind,
    User,
    UserState,
)
from authz_service.engine.places import Place
from authz_service.pdp.check import ANY_CATALOG, parse_catalog
from authz_service.store import token_families, tokens
from authz_service.tokens.model import Token, TokenId, TokenKind
from authz_service.tokens.policy import EVALUATE, MANAGEMENT
from authz_service.tokens.secret import is_token_id

CREATE: Final = "token:create"
CREATE_ANY: Final = "token:create_any"
SELF: Final = "self"
"""As a draft's `parent`: the token that the request showed."""


@dataclass(frozen=True, slots=True)
class Issue:
    """A draft that holds together: what it asks for, with what the checks of authority need to know of it."""

    token: Token
    scopes: tuple[ReadScope, ...]
    catalogs: Mapping[str, Catalog]
    owner: User | None
    parent: Token | None
    resource_owner: Place | None


@dataclass(slots=True)
class IssueReader:
    """Reads one draft. Every look-up is made as the issuer sees the directory."""

    conn: AsyncConnection
    management: Management
    authority: Authority
    draft: TokenDraft
    faults: Faults = field(default_factory=Faults)
    catalogs: dict[str, Catalog] = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)
    """Those that a catalog's name alone means here; the newest where it is not among them."""

    async def read(self, token_id: TokenId) -> Issue:
        """Raises InvalidInputError with every fault of the draft."""
        issue = await self.read_collecting(token_id)
        self.faults.raise_any("the token")
        if issue is None:
            raise AssertionError("a draft without an owner has a fault")
        return issue

    async def read_collecting(self, token_id: TokenId) -> Issue | None:
        """Like `read`, with the faults left in `faults`; None where there are some."""
        faults, world = self.faults, self.authority.world
        self.versions = await self._versions()
        draft = self.draft = await self._filled_in()
        check_plain(draft, self.management.limits, world.now, faults)
        conditions = read_networks(draft.networks, self.management.limits, faults)
        of_scopes = await self._read_catalogs()
        owner, user = await self._read_owner()
        resource_owner = await self._read_resource_owner()
        reader = ScopeReader(world, self.authority.token, self.management.limits, faults, owner, resource_owner)
        for position, given in enumerate(draft.scopes[: self.management.limits.scopes]):
            catalog = of_scopes[position]
            if catalog is not None and draft.kind is TokenKind.FINE_GRAINED:
                await reader.read_scope(position, given, catalog)
        self._check_legacy()
        await self._check_evaluates(reader.read)
        parent = await self._read_parent()
        expires_at = self._expiry(parent)
        if faults or owner is None:
            return None
        token = Token(
            id=token_id,
            owner=owner,
            catalogs={name: catalog.version for name, catalog in sorted(self.catalogs.items())},
            kind=draft.kind,
            scopes=tuple(one.scope for one in reader.read),
            legacy_scopes=draft.legacy_scopes,
            name=draft.name.strip(),
            not_before=draft.not_before,
            expires_at=expires_at,
            conditions=conditions,
            parent=None if parent is None else parent.id,
            resource_owner=None if resource_owner is None else resource_owner.id,
            evaluates=draft.evaluates,
        )
        return Issue(token, tuple(reader.read), self.catalogs, user, parent, resource_owner)

    # catalogs

    async def _read_catalogs(self) -> Sequence[Catalog | None]:
        """The catalog of each scope; None where it has a fault."""
        draft, faults = self.draft, self.faults
        top = None if draft.catalog is None else await self._catalog(draft.catalog, "/catalog")
        found: list[Catalog | None] = []
        for position, scope in enumerate(draft.scopes):
            where = f"/scopes/{position}/catalog"
            if scope.catalog is not None:
                found.append(await self._catalog(scope.catalog, where))
                continue
            if draft.catalog is None:
                faults.add(where, "missing_field", "say which catalog the permissions are from, here or in `/catalog`")
            found.append(top)
        if draft.catalog is None and not draft.scopes:
            faults.add("/catalog", "missing_field", "say which catalog the token is for, as `gitlab` or `gitlab@1`")
        if len({catalog.upstream for catalog in self.catalogs.values()}) > 1:
            message = "one token cannot be for a catalog with a directory and for one without; make two tokens"
            faults.add("/catalog", "mixed_catalogs", message)
        elif len(self._sources()) > 1:
            message = "these catalogs read different sources of the directory; make a token for each"
            faults.add("/catalog", "mixed_catalogs", message)
        return found

    async def _filled_in(self) -> TokenDraft:
        draft = self.draft
        if draft.template is None:
            if draft.nodes:
                message = "nodes stand here beside a template alone; else each scope names its own"
                self.faults.add("/nodes", "not_for_token", message)
            return draft
        name, version = parse_catalog(draft.catalog or "")
        version = self.versions.get(name) if version is None else version
        catalog = await self.management.shelf.find(self.conn, name, version)
        return fill_in(draft, draft.template, None if catalog is None else catalog.version, self.faults)

    async def _versions(self) -> Mapping[str, int]:
        """A token issues for no other versions than its own, nor has a parent children of others (C8, M2)."""
        if not await self.authority.may(CREATE_ANY):
            return self.authority.token.catalogs
        parent = None if self.draft.parent is None else await self._find_parent(self.draft.parent)
        return {} if parent is None else parent.catalogs

    async def _catalog(self, text: str, where: str) -> Catalog | None:
        name, version = parse_catalog(text)
        if version is None:
            version = self.versions.get(name)
        catalog = await self.management.shelf.find(self.conn, name, version)
        if catalog is None:
            message = f"there is no catalog `{shown(text)}`; `GET /v1/catalogs` lists those that there are"
            self.faults.add(where, "catalog_unknown", message)
            return None
        known = self.catalogs.setdefault(name, catalog)
        if known.version != catalog.version:
            message = f"the token is for `{known.label}` already; name one version of a catalog"
            self.faults.add(where, "two_versions", message)
            return None
        return catalog

    def _sources(self) -> set[str]:
        """Of the catalogs with a directory; management's own looks into every source."""
        return {
            catalog.source or DEFAULT_SOURCE
            for catalog in self.catalogs.values()
            if not catalog.upstream and catalog.name != MANAGEMENT
        }

    @property
    def _upstream(self) -> bool:
        return any(catalog.upstream for catalog in self.catalogs.values())

    # people

    async def _read_owner(self) -> tuple[NodeId | None, User | None]:
        text = self.draft.owner
        if self._upstream:
            return self._read_free_owner(text), None
        if text is None:
            return self.authority.token.owner, self.authority.user
        node = await find_user(self.authority, text, next(iter(self._sources()), None))
        user = None if node is None else await self.authority.world.user(node.id)
        if node is None or user is None or user.state is UserState.DELETED:
            self.faults.add("/owner", "owner_unknown", f"there is no user `{shown(text)}`; write a username")
            return None, None
        if user.state is not UserState.ACTIVE:
            self.faults.add("/owner", "owner_inactive", f"`{user.username}` is blocked; their tokens do not work")
        return node.id, user

    def _read_free_owner(self, text: str | None) -> str | None:
        if text is None:
            self.faults.add("/owner", "missing_field", "say whose token this is, by the name that the API knows")
            return None
        if not text or len(text) > 255 or not text.isprintable() or text != text.strip():
            self.faults.add("/owner", "owner_unknown", "an owner is a name of 1 to 255 printable characters")
            return None
        return text

    async def _read_resource_owner(self) -> Place | None:
        """Rule T6: where a catalog demands one, a group or a user that the issuer sees."""
        text, where = self.draft.resource_owner, "/resource_owner"
        demanding = [catalog for catalog in self.catalogs.values() if catalog.single_owner]
        if self.draft.kind is TokenKind.LEGACY:
            return None
        if not demanding:
            if text is not None:
                self.faults.add(
                    where, "not_for_catalog", "no catalog of this token knows resource owners; leave this out"
                )
            return None
        if text is None:
            message = f"a token of `{demanding[0].name}` has one resource owner, a group or a user; name it"
            self.faults.add(where, "missing_field", message)
            return None
        place = await find_place(self.authority.world, self.authority.token, demanding[0], text)
        if place is None:
            self.faults.add(where, "target_unknown", unknown_target(text))
            return None
        if place.kind not in (NodeKind.GROUP, NodeKind.USER):
            self.faults.add(where, "invalid_value", f"`{place.text}` is neither a group nor a user")
            return None
        return place

    # the rest

    def _check_legacy(self) -> None:
        for position, name in enumerate(self.draft.legacy_scopes):
            if self.catalogs and not any(name in catalog.bundles for catalog in self.catalogs.values()):
                labels = ", ".join(f"`{catalog.label}`" for catalog in self.catalogs.values())
                message = f"{labels} has no legacy scope `{shown(name)}`"
                self.faults.add(f"/legacy_scopes/{position}", "legacy_scope_unknown", message)

    async def _check_evaluates(self, scopes: Sequence[ReadScope]) -> None:
        """Rule M1: a token that asks about others says about which catalogs."""
        asks = any(EVALUATE in one.scope.permissions for one in scopes if one.scope.catalog == MANAGEMENT)
        given = self.draft.evaluates
        if asks and not given:
            message = f'`{EVALUATE}` needs the catalogs that the token may ask about; name them, or `["*"]` for all'
            self.faults.add("/evaluates", "missing_field", message)
        if given and not asks and self.draft.kind is TokenKind.FINE_GRAINED:
            message = f"only a token with `{EVALUATE}` of `{MANAGEMENT}` may ask about catalogs; leave this out"
            self.faults.add("/evaluates", "not_for_token", message)
        known = await self.management.shelf.versions(self.conn) if given else {}
        for position, name in enumerate(given):
            if name != ANY_CATALOG and name not in known:
                message = f"there is no catalog `{shown(name)}`; write a name without a version, or `*` for all"
                self.faults.add(f"/evaluates/{position}", "catalog_unknown", message)

    async def _read_parent(self) -> Token | None:
        """Rule T4: the token above, which the issuer holds or could issue itself. A child issues children alone."""
        text, world = self.draft.parent, self.authority.world
        bound = self.authority.token.parent is not None and not await self.authority.may(CREATE_ANY)
        if text is None and not bound:
            return None
        parent = await self._find_parent(SELF if text is None else text)
        if parent is None:
            self.faults.add("/parent", "parent_unknown", "there is no such token, or this token may not issue under it")
            return None
        above = await world.ancestors(parent)
        if above is None or not all([await works(self.authority, token) for token in (parent, *above)]):
            self.faults.add("/parent", "parent_ended", "the parent does not work any more; choose another")
        elif bound and (await self._current(self.authority.token)).id not in {token.id for token in (parent, *above)}:
            # Else a child could have a token made that outlives the line it ends with.
            message = "this token is a child itself: what it issues hangs under it; leave this out, or write `self`"
            self.faults.add("/parent", "parent_refused", message)
        elif len(above) + 1 > self.management.limits.ancestors:
            message = f"a token has {self.management.limits.ancestors} tokens above it at most; issue from a higher one"
            self.faults.add("/parent", "too_deep", message)
        return parent

    async def _find_parent(self, text: str) -> Token | None:
        """None for a token that is not there, and alike for one that the issuer may not issue under.

        What one that was replaced issues hangs under the one in its place (T5).
        """
        if text in (SELF, self.authority.token.id):
            return await self._current(self.authority.token)
        parent = await self.authority.world.token(TokenId(text)) if is_token_id(text) else None
        if parent is None or not await self.authority.may_for(CREATE, parent.owner):
            return None
        return await self._current(parent)

    async def _current(self, token: Token) -> Token:
        record = await token_families.find_current(self.conn, await tokens.get(self.conn, token.id))
        return token if record.token.id == token.id else record.token

    def _expiry(self, parent: Token | None) -> datetime | None:
        """A child ends with its parent at the latest (T4); where it names no end, it ends with it."""
        wanted = self.draft.expires_at
        if parent is None or parent.expires_at is None:
            check_lifetime(wanted, self.authority.world.now, self.management.limits, self.faults)
            return wanted
        if wanted is not None and wanted > parent.expires_at:
            end = parent.expires_at.isoformat().replace("+00:00", "Z")
            self.faults.add("/expires_at", "after_parent", f"the parent ends at {end}; choose no later date")
        ends_at = parent.expires_at if wanted is None else wanted
        check_lifetime(ends_at, self.authority.world.now, self.management.limits, self.faults)
        return ends_at


async def works(authority: Authority, token: Token) -> bool:
    """Rule A1 but for `not_before` and conditions: those speak of uses, not of the line."""
    if token.revoked_at is not None or (token.expires_at is not None and token.expires_at <= authority.world.now):
        return False
    owner = await authority.world.user(token.owner) if isinstance(token.owner, int) else None
    return isinstance(token.owner, str) or (owner is not None and owner.state is UserState.ACTIVE)
