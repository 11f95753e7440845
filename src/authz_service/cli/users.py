"""`user`: passwords and links for people who sign in to the console, with access to the database alone."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from authz_service.cli.asking import URL_VARIABLE
from authz_service.cli.options import OutputKind
from authz_service.cli.printing import Output, UsageFault, print_json, print_note

users: Final = typer.Typer(help="People who sign in to the console.", no_args_is_help=True)
_STDIN: Final = Path("-")

Source = Annotated[str, typer.Option(metavar="SOURCE", help="of the directory, where there is more than one")]


@users.command("set-password")
def set_password(
    username: str,
    password_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="a file with the password; `-` is standard input. Else you type it"),
    ] = None,
    source: Source = "default",
) -> None:
    """Give a user a password for the console. All their sessions end."""
    from authz_service.admin.passwords import Passwords
    from authz_service.admin.signing import set_password as set_it
    from authz_service.config import load_settings
    from authz_service.running import open_management

    settings = load_settings()
    text = _ask() if password_file is None else _read(password_file)

    async def work() -> str:
        async with open_management(settings) as management:
            return await set_it(management, Passwords(), username, text, source=source)

    print_note(f"`{asyncio.run(work())}` signs in with the new password; sessions of before have ended")


@users.command("sign-in-link")
def sign_in_link(
    username: str,
    minutes: Annotated[int, typer.Option(min=1, max=1440, help="for how long the link works")] = 15,
    source: Source = "default",
    output: OutputKind = Output.TABLE,
) -> None:
    """Make a link that signs a user in once: for whoever forgot their password, or has none yet.

    It leads to AUTHZ_PUBLIC_URL, or else to where AUTHZ_URL says that the service answers.
    """
    from authz_service.admin.signing import make_link
    from authz_service.config import load_settings
    from authz_service.running import open_management

    settings = load_settings()

    async def work() -> str:
        async with open_management(settings) as management:
            return await make_link(management, username, timedelta(minutes=minutes), source=source)

    origin = settings.public_url or os.environ.get(URL_VARIABLE, "").rstrip("/")
    link = link_of(origin, asyncio.run(work()))
    if output is Output.JSON:
        print_json({"sign_in_url": link})
        return
    print_note(f"works once, within {minutes} minutes, for whoever has it:")
    print(link)


@users.command("link")
def link(
    username: str,
    subject: Annotated[str, typer.Option(metavar="SUBJECT", help="`sub` of the user's account at the provider")],
    issuer: Annotated[
        str | None, typer.Option(metavar="URL", help="the provider; AUTHZ_OPENID_ISSUER where it is left out")
    ] = None,
    source: Source = "default",
) -> None:
    """Say that an account at the sign-in provider is this user's."""
    from authz_service.admin.signing import link_account
    from authz_service.config import load_settings
    from authz_service.running import open_management

    settings = load_settings()
    provider = _provider(issuer or settings.openid_issuer)

    async def work() -> str:
        async with open_management(settings) as management:
            return await link_account(management, username, provider, subject, source=source)

    print_note(f"`{asyncio.run(work())}` signs in as `{subject}` of {provider}")


@users.command("unlink")
def unlink(
    username: str,
    issuer: Annotated[
        str | None, typer.Option(metavar="URL", help="the provider; AUTHZ_OPENID_ISSUER where it is left out")
    ] = None,
    source: Source = "default",
) -> None:
    """Forget a user's accounts at the sign-in provider. All their sessions end."""
    from authz_service.admin.signing import unlink_accounts
    from authz_service.config import load_settings
    from authz_service.running import open_management

    settings = load_settings()
    provider = _provider(issuer or settings.openid_issuer)

    async def work() -> int:
        async with open_management(settings) as management:
            return await unlink_accounts(management, username, provider, source=source)

    count = asyncio.run(work())
    print_note(f"`{username}` had {count} account{'' if count == 1 else 's'} at {provider}; their sessions have ended")


def _provider(given: str | None) -> str:
    if given is None:
        raise UsageFault("say at which provider: --issuer URL, or set AUTHZ_OPENID_ISSUER")
    return given


def link_of(origin: str, code: str) -> str:
    """The address to open in a browser."""
    return f"{origin}/console/sign-in/link?code={code}"


def _ask() -> str:
    if not sys.stdin.isatty():
        raise UsageFault("there is nobody to type a password: name a file, `--password-file`; `-` is standard input")
    text = getpass.getpass("New password: ")
    if getpass.getpass("Once more: ") != text:
        raise UsageFault("the two are not the same; nothing was changed")
    return text


def _read(path: Path) -> str:
    try:
        text = sys.stdin.read() if path == _STDIN else path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageFault(f"`{path}` cannot be read; name a file with the password in its first line") from error
    return text.partition("\n")[0].removesuffix("\r")
