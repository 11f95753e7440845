"""The command line of the base install, without typer and server: `whoami`, `can-i` and their kin."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from authz_service.cli import asking, exits
from authz_service.cli.exchanging import exchange
from authz_service.cli.printing import Output, UsageFault, complain
from authz_service.cli.requiring import NEEDS_FILE, Annotate, require
from authz_service.client import ClientError

COMMANDS: Final = ("whoami", "can-i", "check", "require", "exchange")
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
    if options.command == "exchange":
        return exchange(options.url, options.file, options.audience, options.rule)
    output = Output(options.output)
    with asking.connect(options.url, options.token_file) as client:
        if options.command == "whoami":
            return asking.whoami(client, output)
        if options.command == "require":
            marks = Annotate(options.annotate)
            report = options.code_quality
            return require(client, options.file, output, strict=options.strict, annotate=marks, code_quality=report)
        if options.command == "check":
            secret = asking.read_secret(options.secret_file)
            return asking.check(client, options.words, options.catalog, secret, output)
        if options.list:
            return asking.can_i_list(client, options.words, output)
        return asking.can_i(client, options.words, options.catalog, output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="authz", description="Ask what a token may do.", epilog=_MORE)
    commands = parser.add_subparsers(dest="command", required=True)
    whoami = commands.add_parser("whoami", help="what the token in AUTHZ_TOKEN is")
    can_i = commands.add_parser("can-i", help="whether the token in AUTHZ_TOKEN may; exit status 0 or 1")
    can_i.add_argument("--list", action="store_true", help="what the token holds")
    check = commands.add_parser("check", help="whether another token may, as a gateway asks")
    check.add_argument("--secret-file", type=Path, default=asking.STDIN, help="the token asked about; `-` is stdin")
    needs = commands.add_parser("require", help="whether the token in AUTHZ_TOKEN is enough for a job")
    needs.add_argument("file", nargs="?", type=Path, default=NEEDS_FILE, metavar="FILE", help="what the job needs")
    needs.add_argument("--strict", action="store_true", help="fail on what the token holds beyond that, too")
    needs.add_argument("--annotate", choices=[one.value for one in Annotate], default=Annotate.AUTO.value)
    needs.add_argument("--code-quality", type=Path, metavar="FILE", help="write GitLab's code quality report there")
    swap = commands.add_parser("exchange", help="a CI job's own token for one of minutes")
    swap.add_argument("file", type=Path, metavar="FILE", help="where the token goes; it must not be there yet")
    swap.add_argument("--audience", help="on GitHub: the trust rule's audience")
    swap.add_argument("--rule", metavar="ID", help="the trust rule meant, where several fit")
    swap.add_argument("--url", help="where the service answers; AUTHZ_URL by default")
    for command in (can_i, check):
        command.add_argument("words", nargs="*", metavar="WORD", help="`job:read acme/web` or `read job acme/web`")
        command.add_argument("--catalog", help="the API's catalog, where the token is for more than one")
    for command in (whoami, can_i, check, needs):
        command.add_argument("--url", help="where the service answers; AUTHZ_URL by default")
        command.add_argument(
            "--token-file", type=Path, help="a file with your token, `-` is stdin; AUTHZ_TOKEN by default"
        )
        command.add_argument("--output", choices=[one.value for one in Output], default=Output.TABLE.value)
    return parser
