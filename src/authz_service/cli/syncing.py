"""`directory sync`: the directory from GitLab or GitHub, shown while it comes, and imported when it is whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Self

import msgspec
import typer

from authz_service.cli import exits
from authz_service.cli.asking import connect, read_secret
from authz_service.cli.options import OutputKind, TokenFile, Url
from authz_service.cli.printing import Output, UsageFault, complain, print_json, print_note, print_table
from authz_service.client import Client, ClientError, RefusedError
from authz_service.client.wire import Call, read_document
from authz_service.errors import Fault
from authz_service.sync.compare import Change, Comparison
from authz_service.sync.errors import StateFileError, SyncError, TooManyDeletionsError, UpstreamRefusedError
from authz_service.sync.github import GitHub
from authz_service.sync.gitlab import GitLab
from authz_service.sync.here import Here, read_export
from authz_service.sync.journal import Journal, Subject
from authz_service.sync.reading import Reader, check_url
from authz_service.sync.records import USER, Upstream
from authz_service.sync.running import fetch, find_changes, is_whole, pieces

sync: Final = typer.Typer(help="Bring the directory up to date from where it lives.", no_args_is_help=True)

GITLAB_TOKEN: Final = "GITLAB_TOKEN"
GITHUB_TOKEN: Final = "GITHUB_TOKEN"
_ASK_SECONDS: Final = 10.0
_IMPORT_SECONDS: Final = 600.0
_LINE_SECONDS: Final = 5.0
_WHOLE_SECONDS: Final = 900.0
_SHARE: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)%?")
_FAULT_LINE: Final = re.compile(r"line ([0-9]+)")

Upstreams = Annotated[str | None, typer.Option("--upstream", metavar="URL", help="where the upstream answers")]
UpstreamToken = Annotated[
    Path | None, typer.Option(metavar="FILE", help="a file with the upstream's token; `-` is standard input")
]
Source = Annotated[str, typer.Option(help="the directory source here that is kept the same")]
StateFile = Annotated[
    Path | None, typer.Option("--state", metavar="FILE", help="where what is fetched is kept, to go on after a stop")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="begin anew, whatever was fetched before")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would change, and change nothing")]
Deletions = Annotated[
    str, typer.Option("--allow-deletions", metavar="N%", help="of each kind of thing, how much may go at most")
]
Workers = Annotated[int, typer.Option(min=1, max=32, help="requests to the upstream at once")]


@dataclass(frozen=True, slots=True)
class _Options:
    upstream: str
    upstream_token: str
    scope: Sequence[str]
    source: str
    state: Path | None
    fresh: bool
    dry_run: bool
    most_deletions: float
    workers: int
    accept: str
    output: Output


@sync.command("gitlab")
def sync_gitlab(
    group: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="an outermost group; may come often. Without it, all")
    ] = None,
    upstream: Upstreams = None,
    upstream_token_file: UpstreamToken = None,
    source: Source = "default",
    state: StateFile = None,
    fresh: Fresh = False,
    dry_run: DryRun = False,
    allow_deletions: Deletions = "10%",
    workers: Workers = 4,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """From GitLab, by the token in GITLAB_TOKEN: of an administrator for all of it, else of an owner of the groups.

    Exit status: 0 done or nothing to do, 1 refused, 2 not understood, 3 an answer is missing: run again, it goes on.
    """
    options = _Options(
        upstream=upstream or "https://gitlab.com",
        upstream_token=_upstream_token(upstream_token_file, GITLAB_TOKEN),
        scope=tuple(group or ()),
        source=source,
        state=state,
        fresh=fresh,
        dry_run=dry_run,
        most_deletions=_share(allow_deletions),
        workers=workers,
        accept="application/json",
        output=output,
    )
    _sync(
        options,
        GitLab(options.scope, datetime.now(UTC).date()),
        lambda seconds: connect(url, token_file, timeout=seconds),
    )


@sync.command("github")
def sync_github(
    org: Annotated[list[str], typer.Option(metavar="LOGIN", help="an organisation; may come several times")],
    upstream: Upstreams = None,
    upstream_token_file: UpstreamToken = None,
    source: Source = "default",
    state: StateFile = None,
    fresh: Fresh = False,
    dry_run: DryRun = False,
    allow_deletions: Deletions = "10%",
    workers: Workers = 4,
    url: Url = None,
    token_file: TokenFile = None,
    output: OutputKind = Output.TABLE,
) -> None:
    """From GitHub, by the token in GITHUB_TOKEN, of an owner of the organisations.

    For an Enterprise Server, `--upstream https://github.example.com/api/v3`. Exit statuses are as for `gitlab`.
    """
    options = _Options(
        upstream=upstream or "https://api.github.com",
        upstream_token=_upstream_token(upstream_token_file, GITHUB_TOKEN),
        scope=tuple(org),
        source=source,
        state=state,
        fresh=fresh,
        dry_run=dry_run,
        most_deletions=_share(allow_deletions),
        workers=workers,
        accept="application/vnd.github+json",
        output=output,
    )
    _sync(options, GitHub(options.scope), lambda seconds: connect(url, token_file, timeout=seconds))


def _upstream_token(file: Path | None, variable: str) -> str:
    token = read_secret(file) if file is not None else os.environ.get(variable, "").strip()
    if not token:
        raise UsageFault(f"set {variable} to the upstream's token, or name a file that holds it")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UsageFault("that is no token of the upstream: it holds spaces or other characters that no token has")
    return token


def _share(text: str) -> float:
    found = _SHARE.fullmatch(text)
    if not found or float(found[1]) > 100:
        raise UsageFault(f"`{text}` is no share; write it as `25%`")
    return float(found[1])


def _sync(options: _Options, upstream: Upstream, opened: Callable[[float], Client]) -> None:
    try:
        base = check_url(options.upstream)
        with opened(_ASK_SECONDS) as client:
            client.whoami()  # before an hour of fetching
        with opened(_IMPORT_SECONDS) as client:
            subject = Subject(upstream.name, base, tuple(sorted(options.scope)), options.source)
            state = options.state or _state_file(subject)
            with Journal(state, subject, now=time.time(), fresh=options.fresh) as journal:
                status = _run(options, upstream, journal, client)
    except SyncError as error:
        complain(error.message)
        raise typer.Exit(_status_of(error)) from error
    raise typer.Exit(status)


def _status_of(error: SyncError) -> int:
    if isinstance(error, UpstreamRefusedError | TooManyDeletionsError):
        return exits.DENIED
    return exits.USAGE if type(error) is SyncError or isinstance(error, StateFileError) else exits.UNREACHABLE


def _state_file(subject: Subject) -> Path:
    """One for each sync, of this user alone."""
    folder = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    digest = hashlib.sha256(msgspec.json.encode(subject)).hexdigest()[:12]
    return Path(folder).expanduser() / "authz-service" / f"sync-{subject.upstream}-{digest}.ndjson"


def _run(options: _Options, upstream: Upstream, journal: Journal, client: Client) -> int:
    if is_whole(upstream, journal) and time.time() - journal.last_written > _WHOLE_SECONDS:
        journal.restart()  # what a dry run saw is for a decision that comes soon
    with open_progress() as progress:
        if journal.resumed:
            progress.note(f"going on where an earlier run was: {journal.resumed} pages are there already")
        comparison, warnings = asyncio.run(_compare(options, upstream, journal, client, progress))
    for warning in warnings:
        print_note(f"note: {warning}")
    for name, why in comparison.left_out.items():
        print_note(f"left out: {name}: {why}")
    if options.dry_run:
        _show(comparison, options.output)
        try:
            comparison.check_deletions(options.most_deletions)
        except TooManyDeletionsError as error:
            print_note(f"note: without `--dry-run` it is refused: {error.message}")
        return exits.OK
    comparison.check_deletions(options.most_deletions)
    _check_own(comparison.changes, client)
    counts = _apply(comparison, client, options.source)
    journal.remove()
    if options.output is Output.JSON:
        print_json({"counts": counts, "left_out": comparison.left_out})
    elif counts:
        print_table(("what", "how many"), [(what.replace("_", " "), many) for what, many in counts.items()])
    else:
        print_note("nothing has changed")
    return exits.OK


async def _compare(
    options: _Options, upstream: Upstream, journal: Journal, client: Client, progress: Progress
) -> tuple[Comparison, Sequence[str]]:
    async with Reader(options.upstream, options.upstream_token, accept=options.accept, tell=progress.note) as reader:
        await fetch(reader, upstream, journal, progress, workers=options.workers)
        here = await asyncio.to_thread(_here, client, options.source)
        return await find_changes(reader, upstream, journal, here, progress, workers=options.workers)


def _here(client: Client, source: str) -> Here:
    answer = client.send(Call("GET", "/v1/directory/export", params={"source": source}))
    if not answer.is_success:
        read_document(answer)
    return read_export(answer.content)


def _check_own(changes: Sequence[Change], client: Client) -> None:
    """Whoever deletes themselves deletes the token that does it, and nobody syncs any more."""
    own = client.whoami().document.get("owner")
    if any(one.kind == USER and one.how == "deleted" and one.name == own for one in changes):
        raise TooManyDeletionsError(
            f"this would delete `{own}`, whose token does it: use the token of a user without an external id, as"
            " `authz bootstrap` makes one"
        )


def _apply(comparison: Comparison, client: Client, source: str) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for changes, body in pieces(comparison.changes):
        call = Call("POST", "/v1/directory/import", body, {"source": source}, content_type="application/x-ndjson")
        try:
            done = client.document(call)
        except RefusedError as error:
            raise _speaking(error, changes) from error
        for name, many in done.get("counts", {}).items():
            counts[name] = counts.get(name, 0) + many
    return counts


def _speaking(error: RefusedError, changes: Sequence[Change]) -> ClientError:
    """The same, but for the lines, which nobody has seen: by what they are about."""
    faults = []
    for fault in error.faults:
        found = _FAULT_LINE.fullmatch(fault.where)
        number = int(found[1]) if found else 0
        where = fault.where
        if 0 < number <= len(changes):
            where = f"{changes[number - 1].kind} {changes[number - 1].name}"
        faults.append(Fault(where, fault.code, fault.message))
    return RefusedError(error.message, status=error.status, code=error.code, faults=faults, request_id=error.request_id)


def _show(comparison: Comparison, output: Output) -> None:
    rows = [(one.how, one.kind, one.name, one.detail) for one in comparison.changes]
    if output is Output.JSON:
        names = ("how", "kind", "name", "detail")
        changes = [dict(zip(names, row, strict=True)) for row in rows]
        print_json({"counts": comparison.counts(), "changes": changes, "left_out": comparison.left_out})
    elif rows:
        print_table(("how", "what", "name", "detail"), rows)
    else:
        print_note("nothing would change")


class Progress(AbstractContextManager["Progress"]):
    """Plain lines on stderr, one every few seconds: for logs of jobs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._what = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def step(self, what: str, done: int, total: int) -> None:
        now = self._clock()
        if now - self._last >= _LINE_SECONDS or (done == total and what != self._what):
            self._last, self._what = now, what
            print_note(f"{what}: {done} of {total}")

    def note(self, text: str) -> None:
        print_note(text)


class Bars(Progress):
    """A bar for each kind of list, on a terminal."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = RichProgress(*columns, console=Console(stderr=True), transient=True)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def step(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)


def open_progress() -> Progress:
    """What fits where stderr goes."""
    return Bars() if sys.stderr.isatty() else Progress()
