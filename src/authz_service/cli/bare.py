"""The command line of the base install, which has neither typer nor the server: `whoami`, `can-i` and `check`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from authz_service.cli import asking, exits
from authz_service.cli.printing import Output, UsageFault, complain
from authz_service.client import ClientError

COMMANDS: Final = ("whoami", "can-i", "check")
_MORE: Final = "install `authz-service[server]` for all other commands, and `[embedded]` for `authz dev`"


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and not given[0].startswith("-") and given[0] not in COMMANDS:
        complain(f"`{given[0]}` is not in this installation; {_MORE}")
        return exits.USAGE
    try:
        options = _parser().parse_args(given)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else exits.USAGE
    try:
        return _run(options)
    except (ClientError, UsageFault) as error:
        return asking.failed(error)


def _run(options: argparse.Namespace) -> int:
    output = Output(options.output)
    with asking.connect(options.url, options.token_file) as client:
        if options.command == "whoami":
            return asking.whoami(client, output)
        if options.command == "check":
            secret = asking.read_secret(options.secret_file)
            return asking.check(client, options.words, options.catalog, secret, output)
        if options.list:
            return asking.can_i_list(client, output)
        return asking.can_i(client, options.words, options.catalog, output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="authz", description="Ask what a token may do.", epilog=_MORE)
    commands = parser.add_subparsers(dest="command", required=True)
    whoami = commands.add_parser("whoami", help="what the token in AUTHZ_TOKEN is")
    can_i = commands.add_parser("can-i", help="whether the token in AUTHZ_TOKEN may; exit status 0 or 1")
    can_i.add_argument("--list", action="store_true", help="what the token holds")
    check = commands.add_parser("check", help="whether another token may, as a gateway asks")
    check.add_argument("--secret-file", type=Path, default=asking.STDIN, help="the token asked about; `-` is stdin")
    for command in (can_i, check):
        command.add_argument("words", nargs="*", metavar="WORD", help="`job:read acme/web` or `read job acme/web`")
        command.add_argument("--catalog", help="the API's catalog, where the token is for more than one")
    for command in (whoami, can_i, check):
        command.add_argument("--url", help="where the service answers; AUTHZ_URL by default")
        command.add_argument(
            "--token-file", type=Path, help="a file with your token, `-` is stdin; AUTHZ_TOKEN by default"
        )
        command.add_argument("--output", choices=[one.value for one in Output], default=Output.TABLE.value)
    return parser
