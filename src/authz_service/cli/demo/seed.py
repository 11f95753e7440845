"""The demo's database: organisation, catalog and tokens, made once and found again at each start."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.directory import import_directory
from authz_service.admin.drafts import ScopeDraft, TokenDraft
from authz_service.admin.management import Actor, Management
from authz_service.admin.tokens import create_token
from authz_service.catalog.loader import load_catalog
from authz_service.cli.demo import MARK, orders_catalog, organisation
from authz_service.cli.first import make_admin
from authz_service.directory.model import DEFAULT_SOURCE, INSTANCE_ID, NodeKind, TargetText
from authz_service.errors import StartError
from authz_service.pdp.check import ANY_CATALOG
from authz_service.store import audit, catalogs, changes, directory, tokens
from authz_service.store.changes import ChangeSet
from authz_service.tokens.model import ReachKind, Token
from authz_service.tokens.policy import EVALUATE

ADMIN: Final = "admin"
GATEWAY: Final = "gateway-bot"
SAMPLE_OWNER: Final = "dana"
SAMPLE_TARGET: Final = "bakery/shop/checkout"
SHOP: Final = "project:corner-shop"
_REASON: Final = "made by `authz dev`"


@dataclass(frozen=True, slots=True)
class DemoTokens:
    """Secrets of the demo. `admin` manages, `gateway` may ask and nothing else, the others are asked about."""

    admin: str
    gateway: str
    sample: str
    orders: str


async def seed(management: Management, keep: Path) -> DemoTokens:
    """Make what is missing. Secrets stay in the file `keep`, so that the next start shows the same ones.

    Raises StartError for a database that holds something else: it is not ours to add to.
    """
    kept = _read(keep)
    await _refuse_others(management, known=bool(kept))
    admin = await _find_working(management, kept.get("admin"))
    if admin is None:
        _, secret = await make_admin(management, ADMIN, lifetime=None, break_glass=True)
        kept["admin"] = secret
        _write(keep, kept)
        admin = await _find_working(management, secret)
    if admin is None:
        raise StartError(f"the database refuses the admin of the demo; move `{keep.parent}` away to start anew")
    actor = Actor(admin)
    if not await _has_organisation(management):
        await import_directory(management, actor, organisation(), source=DEFAULT_SOURCE)
    await _install_orders(management, actor)
    for name, draft in _drafts().items():
        if await _find_working(management, kept.get(name)) is None:
            issued = await create_token(management, actor, draft)
            if issued.secret is None:
                raise AssertionError("without an idempotency key nothing is repeated")
            kept[name] = issued.secret
            _write(keep, kept)
    return DemoTokens(**{name: kept[name] for name in ("admin", "gateway", "sample", "orders")})


def _drafts() -> Mapping[str, TokenDraft]:
    return {
        "gateway": TokenDraft(
            "gateway",
            owner=GATEWAY,
            catalog="authz",
            scopes=(ScopeDraft(ReachKind.INSTANCE, (EVALUATE,)),),
            evaluates=(ANY_CATALOG,),
            reason=_REASON,
        ),
        "sample": TokenDraft(
            "sample: jobs of the shop",
            owner=SAMPLE_OWNER,
            catalog="gitlab",
            scopes=(ScopeDraft(ReachKind.SELECTED, ("job:read", "pipeline:read"), ("group:bakery/shop",)),),
            reason=_REASON,
        ),
        "orders": TokenDraft(
            "sample: the till of a shop",
            owner="till-1",
            catalog="orders@1",
            scopes=(ScopeDraft(ReachKind.SELECTED, ("order:read", "order:create"), (SHOP,)),),
            reason=_REASON,
        ),
    }


async def _refuse_others(management: Management, *, known: bool) -> None:
    if known or await _has_organisation(management):
        return
    async with management.database.read() as conn:
        _, nodes = await directory.load_descendants(conn, INSTANCE_ID, limit=2)
    if [node for node in nodes if node.kind is not NodeKind.INSTANCE and node.name != ADMIN]:
        raise StartError(
            "this database holds an organisation already, and `authz dev` would add its demo to it: name an empty"
            " database, or run it with `authz serve`"
        )


async def _has_organisation(management: Management) -> bool:
    async with management.database.read() as conn:
        return bool((await directory.load_chain(conn, TargetText(NodeKind.GROUP, path=MARK))).chain)


async def _find_working(management: Management, secret: str | None) -> Token | None:
    """The token of a kept secret, unless it is unknown here or was revoked."""
    digest = None if secret is None else management.peppers.digest(secret)
    if digest is None:
        return None
    async with management.database.read() as conn:
        record = (await tokens.find_by_digest(conn, digest)).record
    return None if record is None or record.token.revoked_at is not None else record.token


async def _install_orders(management: Management, actor: Actor) -> None:
    text = orders_catalog()
    catalog = load_catalog(text, file="orders.yaml")

    async def work(conn: AsyncConnection) -> None:
        name, version = catalog.name, catalog.version
        if (await catalogs.load(conn, name, version))[1] is not None:
            return  # whoever changed it meant to
        touched = ChangeSet()
        await catalogs.install(conn, touched, name=name, version=version, text=text, installed_by=actor.token.id)
        stamp = await changes.append(conn, touched)
        await audit.insert(conn, audit.AuditEntry("catalog.install", catalog.label, actor.token.id), stamp)

    await management.database.run_in_transaction(work)


def _read(keep: Path) -> dict[str, str]:
    try:
        found = json.loads(keep.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StartError(f"`{keep}` cannot be read; remove it to have new tokens made") from error
    return {name: secret for name, secret in found.items() if isinstance(secret, str)}


def _write(keep: Path, kept: Mapping[str, str]) -> None:
    write_private(keep, json.dumps(kept, indent=2) + "\n")


def write_private(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner alone from its first byte on."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            os.fchmod(file.fileno(), 0o600)  # it may have been there, left open by somebody
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise StartError(f"`{path}` cannot be written ({error.strerror}); name another file") from error
