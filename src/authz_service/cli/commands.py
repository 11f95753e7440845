"""All commands of a full installation, each loading no more than it needs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from authz_service import __version__
from authz_service.cli import approval, asking, audit, catalog, exits, manage, operate, sweeping, tokens, users
from authz_service.cli.doctor import doctor
from authz_service.cli.exchanging import exchange as exchange_token
from authz_service.cli.explaining import explain, suggest
from authz_service.cli.hooks import webhooks
from authz_service.cli.options import CatalogName, OutputKind, TokenFile, Url
from authz_service.cli.printing import Output, UsageFault, complain_of
from authz_service.cli.requiring import NEEDS_FILE, Annotate
from authz_service.cli.requiring import require as require_needs
from authz_service.cli.restored import restored
from authz_service.cli.trusting import rules
from authz_service.client import ClientError
from authz_service.errors import AuthzError

app: Final = typer.Typer(
    name="authz",
    help="A policy decision point for fine-grained access tokens. Begin with `authz dev`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(tokens.commands, name="token")
app.add_typer(manage.directory, name="directory")
app.add_typer(approval.policies, name="policy")
app.add_typer(approval.grants, name="grant")
app.add_typer(catalog.catalogs, name="catalog")
app.add_typer(audit.audit, name="audit")
app.add_typer(users.users, name="user")
app.add_typer(rules, name="trust-rule")
app.add_typer(webhooks, name="webhook")
operate.register(app)
app.command()(doctor)
app.command()(restored)
app.command()(explain)
app.command()(suggest)
app.command()(sweeping.sweep)
app.add_typer(sweeping.peppers, name="pepper")

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="PERMISSION [TARGET]", help="`job:read acme/web`, or `read job acme/web`"),
]


@app.command()
def whoami(url: Url = None, token_file: TokenFile = None, output: OutputKind = Output.TABLE) -> None:
    """Show what the token in AUTHZ_TOKEN is, and what it holds."""
    with asking.connect(url, token_file) as client:
        raise typer.Exit(asking.whoami(client, output))


@app.command("can-i")
def can_i(
    words: Words = None,
    listing: Annotated[bool, typer.Option("--list", help="show all that the token holds")] = False,
    catalog: CatalogName = None,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Ask whether the token in AUTHZ_TOKEN may. Exit status: 0 yes, 1 no, 2 not understood, 3 no answer."""
    with asking.connect(url, token_file) as client:
        if listing:
            raise typer.Exit(asking.can_i_list(client, words or [], output))
        raise typer.Exit(asking.can_i(client, words or [], catalog, output))


@app.command()
def require(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="what the job needs")] = NEEDS_FILE,
    strict: Annotated[bool, typer.Option("--strict", help="fail on what the token holds beyond that, too")] = False,
    annotate: Annotated[Annotate, typer.Option(help="whose marks to write beside the table")] = Annotate.AUTO,
    code_quality: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write GitLab's code quality report there")
    ] = None,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Check a job's token against its needs before it starts. Exit status: 0 enough, 1 not, 2 unusable, 3 no answer."""
    with asking.connect(url, token_file) as client:
        done = require_needs(client, file, output, strict=strict, annotate=annotate, code_quality=code_quality)
    raise typer.Exit(done)


@app.command()
def exchange(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="where the token goes; it must not be there yet")],
    audience: Annotated[str | None, typer.Option(help="on GitHub: the trust rule's audience")] = None,
    rule: Annotated[str | None, typer.Option(metavar="ID", help="the trust rule meant, where several fit")] = None,
    url: Url = None,
) -> None:
    """Exchange a CI job's own token (AUTHZ_JOB_TOKEN, or GitHub's) for one of minutes, by a trust rule."""
    raise typer.Exit(exchange_token(url, file, audience, rule))


@app.command()
def check(
    words: Words = None,
    secret_file: Annotated[
        Path, typer.Option(metavar="FILE", help="the token asked about; `-` is standard input")
    ] = asking.STDIN,
    catalog: CatalogName = None,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """Ask about another token, as a gateway does: AUTHZ_TOKEN needs `decision:evaluate`."""
    if token_file == secret_file == asking.STDIN:
        raise UsageFault("standard input holds one token: name a file for the other")
    with asking.connect(url, token_file) as client:
        secret = asking.read_secret(secret_file)
        raise typer.Exit(asking.check(client, words or [], catalog, secret, output))


@app.command()
def version() -> None:
    """Show the version."""
    print(__version__)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status. Errors that somebody can mend are one sentence on stderr."""
    try:
        app(list(sys.argv[1:] if arguments is None else arguments), prog_name="authz")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else exits.USAGE
    except (ClientError, UsageFault) as error:
        return asking.failed(error)
    except AuthzError as error:
        complain_of(error)
        return exits.DENIED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return exits.OK
    return exits.OK
