"""`audit`: proven whole, from the database or from an export; exported; its checkpoints fetched to be kept."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from authz_service.cli import exits
from authz_service.cli.asking import connect
from authz_service.cli.looking import looking
from authz_service.cli.manage import pages, read_bytes
from authz_service.cli.options import OutputKind, TokenFile, Url
from authz_service.cli.printing import Output, complain, print_json, print_note

if TYPE_CHECKING:
    from authz_service.admin.audit import Verification
    from authz_service.admin.sealing import Verifier
    from authz_service.config import SecretSettings
    from authz_service.pdp.secrets import Peppers
    from authz_service.store.audit_chain import Checkpoint

audit: Final = typer.Typer(help="Who changed what, and whether that record is whole.", no_args_is_help=True)

Node = Annotated[str | None, typer.Option(metavar="TARGET", help="only what concerns this group: `group:acme`")]


@audit.command("verify")
def verify(
    checkpoints: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoints", metavar="FILE", help="checkpoints kept elsewhere, one a line; may come several times"
        ),
    ] = None,
    public_key: Annotated[
        list[Path] | None,
        typer.Option(
            "--public-key", metavar="FILE", help="an Ed25519 public key, PEM, that signed checkpoints; may come often"
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="FILE", help="verify this export of the whole audit; asks no database"),
    ] = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Walk the chain: finds a row that was changed or deleted, and with a checkpoint kept elsewhere a cut end.

    Works on the database (AUTHZ_DATABASE_URL). Exit status: 0 whole, 1 not, 2 something it needs is not set or not
    readable, 3 it cannot be told: the database does not answer, or a checkpoint's key is not known.
    """
    with looking():
        kept = [one for file in checkpoints or [] for one in _read_checkpoints(file)]
        keys = [read_bytes(file) for file in public_key or []]
        found = asyncio.run(_verify_database(keys, kept)) if export is None else _verify_export(export, keys, kept)
    _report(found, output)
    from authz_service.admin.audit import Verdict

    if found.verdict is not Verdict.WHOLE:
        raise typer.Exit(exits.DENIED if found.verdict is Verdict.NOT_WHOLE else exits.UNREACHABLE)


def _read_checkpoints(file: Path) -> list[Checkpoint]:
    from authz_service.admin.sealing import parse_checkpoint

    return [parse_checkpoint(line) for line in read_bytes(file).splitlines() if line.strip()]


async def _verify_database(keys: list[bytes], kept: list[Checkpoint]) -> Verification:
    from authz_service.admin.audit import verify_chain
    from authz_service.admin.sealing import Verifier, read_signer
    from authz_service.config import load_settings
    from authz_service.store.database import Database, check_schema

    settings = load_settings(without_peppers=True)
    peppers = _peppers_of(settings)
    signer = None
    if settings.audit_key_file is not None and peppers is not None:
        signer = read_signer(settings.audit_key_file, peppers)
        signer = signer if signer.algorithm == "ed25519" else None
    database = Database(settings.dsn, direct_url=settings.direct_dsn, pool_size=2, bell=False)
    try:
        async with database.snapshot() as conn:
            await check_schema(conn)
            return await verify_chain(conn, _with_keys(Verifier.of(signer, peppers), keys), kept)
    finally:
        await database.close()


def _peppers_of(settings: SecretSettings) -> Peppers | None:
    from authz_service.config import read_peppers
    from authz_service.errors import StartError
    from authz_service.pdp.secrets import Peppers

    try:
        return Peppers(*read_peppers(settings), settings.token_prefix)
    except StartError as error:
        print_note(f"checkpoints signed by a pepper cannot be told true from false: {error.message}")
        return None


def _verify_export(file: Path, keys: list[bytes], kept: list[Checkpoint]) -> Verification:
    from authz_service.admin.audit import verify_export
    from authz_service.admin.sealing import BY_PEPPER, Verifier
    from authz_service.config import secret_settings

    lines = [line for line in read_bytes(file).splitlines() if line.strip()]
    by_pepper = any(one.algorithm == BY_PEPPER for one in kept)
    peppers = _peppers_of(secret_settings()) if by_pepper else None
    return verify_export(lines, _with_keys(Verifier({}, peppers), keys), kept)


def _with_keys(verifier: Verifier, keys: list[bytes]) -> Verifier:
    for pem in keys:
        verifier = verifier.with_key(pem)
    return verifier


def _report(found: Verification, output: Output) -> None:
    if output is Output.JSON:
        print_json(
            {
                "verdict": found.verdict.value,
                "whole": not found.faults,
                "rows": found.rows,
                "head": {"seal": found.head.seal, "hash": found.head.hash.hex()},
                "unsealed": found.unsealed,
                "checkpoints": found.checkpoints,
                "faults": [{"where": one.where, "code": one.code, "message": one.message} for one in found.faults],
            }
        )
        return
    told = f"{found.rows} rows, {found.checkpoints} checkpoints, {found.unsealed} rows not sealed yet"
    if found.faults:
        word = "is not whole" if found.verdict.value == "not_whole" else "could not be proven whole"
        complain(f"the audit {word}: {told}", found.faults)
    else:
        print_note(f"the audit is whole: {told}; its head is {found.head.seal} {found.head.hash.hex()}")


@audit.command("export")
def export_audit(
    node: Node = None,
    action: Annotated[str | None, typer.Option(help="`token.revoke`, or `token.` for all that begin so")] = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Print all changes that you may read, newest first, one JSON document a line."""
    with connect(url, token_file, timeout=60.0) as client:
        for item in pages(client, "/v1/audit", {"node": node, "action": action}):
            typer.echo(msgspec.json.encode(item).decode())


@audit.command("checkpoints")
def checkpoints(
    since: Annotated[int, typer.Option(help="only those after this seal")] = 0,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Print the signed checkpoints, newest first, one a line: keep them where the service cannot write."""
    with connect(url, token_file) as client:
        for item in pages(client, "/v1/audit/checkpoints", {}):
            if item["seal"] <= since:
                return
            typer.echo(msgspec.json.encode(item).decode())
