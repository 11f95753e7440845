"""Runs a page from top to bottom: commands, requests and programs in a session of its own, and what they print."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from tests.support.docs_kinds import check_data
from tests.support.docs_pages import ROOT, Block, blocks
from tests.support.docs_shell import BLOCK_SECONDS, Shell
from tests.support.docs_shown import differences, read_loose, same_text
from tests.support.processes import DevService, dev_service, environment

RUN = ("sh", "bash", "run", "console", "http", "python", "sql")
FOREVER = ("authz dev", "authz serve", "uvicorn ", "python3 -m http.server")
"""What a reader leaves running in a terminal of its own, when it stands in the last line of a block."""
IN_PLACE = ("examples", "deploy")
"""What lies in a checkout, and pages name by its path."""
_PORTS = re.compile(r"(?<=[:\s])(?:8000|3000)\b")
_DATABASE = re.compile(r"postgresql(?:\+asyncpg)?://[^\s'\"]*example\.com[^\s'\"]*")
_REQUEST = re.compile(r"^(?=(?:GET|POST|PUT|PATCH|DELETE) /)", re.MULTILINE)


def run_page(page: str, folder: Path) -> Counter[str]:
    """How many blocks were run, checked, shown, saved, pictures, or not run. Raises at the first that is wrong."""
    counts: Counter[str] = Counter()
    last: str | None = None
    with ExitStack() as stack:
        session = Session(page, folder, stack)
        for block in blocks(page):
            assert "stray" not in block.marks, f"{block.where}: a mark (`{block.marks['stray']}`) without its block"
            if block.why_not_run is not None:
                assert len(block.why_not_run.split()) > 2, f"{block.where}: say why it is not run"
                counts["not run"] += 1
                last = None
            elif block.language == "service":
                continue
            elif block.language in RUN and "file" not in block.marks:
                last = session.run(block)
                counts["run"] += 1
            elif block.language == "text" and "file" not in block.marks:
                assert last is not None, f"{block.where}: nothing printed this; it is not `text`, or a mark is missing"
                shown = session.put_in(block.text)
                seen = f"{last}\n{session.shell.errors}"  # a terminal shows both
                assert same_text(last, shown) or same_text(seen, shown), (
                    f"{block.where}: printed:\n{seen}\nthe page says:\n{shown}"
                )
                counts["shown"] += 1
            elif block.language == "json" and last is not None and not {"is", "file"} & set(block.marks):
                found = differences(read_loose(last), read_loose(session.put_in(block.text)))
                assert not found, f"{block.where}: {'; '.join(found)}\nanswered:\n{last}"
                last = None
                counts["shown"] += 1
            else:
                counts[keep_or_check(session, block)] += 1
    return counts


def keep_or_check(session: Session, block: Block) -> str:
    """Saved under its name, checked for what it is, or both; a block that is neither is refused."""
    if block.language == "mermaid":
        assert block.text.split()[0] in ("flowchart", "sequenceDiagram", "stateDiagram-v2"), block.where
        return "pictures"
    if "file" in block.marks:
        session.save(block)
        if block.language == "python":
            compile(block.text, block.where, "exec")
        if block.language not in ("yaml", "toml", "ndjson") or block.marks["file"] == "openapi.yaml":
            return "saved"
    check_data(block)
    return "checked"


class Session:
    """The folder, the shell and the service of one page; service and shell are started when something needs them."""

    def __init__(self, page: str, folder: Path, stack: ExitStack) -> None:
        self.page = page
        self.folder = folder
        self._stack = stack
        self._kept: dict[str, str] = {}
        self._url: str | None = None
        self._has_its_own = any(
            block.text.startswith("authz dev") or "\nauthz dev" in block.text
            for block in blocks(page)
            if block.language in ("sh", "bash", "console") and block.why_not_run is None
        )
        for name in IN_PLACE:
            shutil.copytree(ROOT / name, folder / name)

    # what pages say in place of what is only known when they run

    def put_in(self, text: str) -> str:
        """The text with this run's addresses: of the service, of an empty database, and free ports."""
        text = text.replace("hooks.example.com", "localhost")  # of the examples' hosts the one that has to resolve
        for example in ("https://authz.example.com", "http://127.0.0.1:8080", "localhost:8080"):
            if self._url is not None:
                text = text.replace(example, self._url)
        text = _DATABASE.sub(lambda _: self.empty_database, text)
        return _PORTS.sub(lambda found: str(self._ports[found[0]]), text)

    @cached_property
    def _ports(self) -> Mapping[str, int]:
        found = {}
        with ExitStack() as opened:
            for name in ("8000", "3000"):
                listening = opened.enter_context(socket.socket())
                listening.bind(("127.0.0.1", 0))
                found[name] = listening.getsockname()[1]
        return found

    @cached_property
    def service(self) -> DevService | None:
        """The page's own, unless the page starts one itself."""
        if self._has_its_own:
            return None
        folder = self.folder / ".service"
        folder.mkdir()
        settings = [block.text for block in blocks(self.page) if block.language == "service"]
        env = dict(one.split("=", 1) for one in " ".join(settings).split())
        found = self._stack.enter_context(dev_service(folder, env=env))
        self._url = found.url
        return found

    @cached_property
    def empty_database(self) -> str:
        """A database without a table, on the service's own server."""
        assert self.service is not None, f"{self.page}: a page with its own `authz dev` has no other database"
        url = str(self.service.ready["database_url"])
        asyncio.run(_execute(url, "CREATE DATABASE nothing"))
        return re.sub(r"^([^?]*)/[^/?]*", r"\1/nothing", url)

    @cached_property
    def shell(self) -> Shell:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        modules = os.pathsep.join([str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = environment({"PATH": path, "HOME": str(self.folder), "PYTHONPATH": modules, "LC_ALL": "C.UTF-8"})
        env |= {"AUTHZ_PORT": "0"}  # any free one, because others may run here too
        if self.service is not None:
            env |= _exports(self.service.folder / "data" / "env")
            env |= {
                "DATABASE_URL": str(self.service.ready["database_url"]),
                "AUTHZ_PEPPERS_FILE": str(self.service.folder / "data" / "peppers"),
            }
        shell = Shell(self.folder, env)
        self._stack.callback(shell.close)
        return shell

    # blocks

    def save(self, block: Block) -> None:
        path = self.folder / block.marks["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.put_in(block.text), encoding="utf-8")

    def run(self, block: Block) -> str:
        shell = self.shell  # and with it the service, whose address the text may name
        run: Callable[[Block, str], str] = {
            "console": self._console,
            "http": self._requests,
            "python": self._python,
            "sql": self._sql,
        }.get(block.language, self._commands)
        printed = run(block, self.put_in(block.text))
        for name, member in (one.split("=") for one in block.marks.get("keep", "").split()):
            value: Any = read_loose(printed)
            for step in member.split("."):
                value = value[int(step) if step.isdigit() else step]
            shell.run(f"export {name}='{value}'", where=block.where)
        return printed

    def _commands(self, block: Block, text: str) -> str:
        lines = text.rstrip().splitlines()
        if lines and lines[-1].startswith(FOREVER):
            before = "\n".join(lines[:-1])
            printed = self.shell.run(before, where=block.where) if before.strip() else ""
            return printed + self._leave_running(block, lines[-1])
        return self.shell.run(text, where=block.where, exits=int(block.marks.get("exits", "0")))

    def _console(self, block: Block, text: str) -> str:
        """Each command by itself, with what the page shows under it."""
        printed = ""
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            while command.endswith("\\"):
                more, _, shown = shown.partition("\n")
                command = f"{command}\n{more}"
            printed = self.shell.run(command, where=block.where, exits=int(block.marks.get("exits", "0")))
            assert same_text(printed, shown), f"{block.where}: `{command}` printed:\n{printed}\nnot:\n{shown}"
        return printed

    def _leave_running(self, block: Block, command: str) -> str:
        self.shell.stop(command.split(maxsplit=1)[0])  # a reader has pressed Ctrl-C where it ran
        output = self.shell.leave_running(command)
        authz = command.startswith("authz ")
        is_there = (lambda: bool(self._found(command, output))) if authz else (lambda: self._listens(command))
        _wait(is_there, self.shell.lives, output, block.where)
        if authz:
            self._url = self._found(command, output)
        return output.read_text(errors="replace")

    def _found(self, command: str, output: Path) -> str | None:
        """Where the service says that it answers, once it has written all that it writes before."""
        said = output.read_text(errors="replace")
        answers = re.search(r"authz-service answers at (\S+)" if "dev" in command else r'"url":\s*"(http[^"]+)"', said)
        return answers[1] if answers else None

    def _listens(self, command: str) -> bool:
        port = next(number for number in self._ports.values() if str(number) in command)
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", port)) == 0

    def _python(self, block: Block, text: str) -> str:
        return self.shell.run(f"python3 {self.shell.keep(text, '.py')}", where=block.where)

    def _sql(self, block: Block, text: str) -> str:
        assert self.service is not None, f"{block.where}: a page with its own `authz dev` has no SQL"
        return str(asyncio.run(_execute(str(self.service.ready["database_url"]), text)))

    def _requests(self, block: Block, text: str) -> str:
        """All requests of the block, and what the last one answers."""
        variables = self.shell.variables()
        wanted = block.marks.get("answers")
        answer = ""
        for one in [part for part in _REQUEST.split(text) if part.strip()]:
            said = re.sub(r"\$([A-Z][A-Z0-9_]*)", lambda found: variables[found[1]], one)
            head, body = _head_and_body(said)
            method, path = head[0].split()[:2]
            headers = {"Authorization": f"Bearer {variables['AUTHZ_TOKEN']}"}
            if body:
                headers["Content-Type"] = "application/json"
            headers |= {name: value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            with httpx.Client(base_url=variables["AUTHZ_URL"], trust_env=False, timeout=60) as http:
                got = http.request(method, path, headers=headers, content=body.encode() or None)
            good = got.is_success if wanted is None else str(got.status_code) == wanted
            assert good, f"{block.where}: `{method} {path}` was answered {got.status_code}: {got.text}"
            answer = got.text
        return answer


def _head_and_body(text: str) -> tuple[list[str], str]:
    """A body begins after an empty line, or with its first brace."""
    lines = text.strip().splitlines()
    for number, line in enumerate(lines):
        if not line.strip():
            return lines[:number], "\n".join(lines[number + 1 :])
        if line.lstrip().startswith(("{", "[")):
            return lines[:number], "\n".join(lines[number:])
    return lines, ""


def _exports(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^export (\w+)='?(.*?)'?$", path.read_text(encoding="utf-8"), re.MULTILINE))


async def _execute(url: str, text: str) -> list[Any]:
    conn = await asyncpg.connect(url)
    try:
        if text.lstrip().upper().startswith("CREATE DATABASE"):
            return [await conn.execute(text)]
        return [await conn.fetch(part) for part in text.split(";") if part.strip()]
    finally:
        await conn.close()


def _wait(condition: Callable[[], bool], lives: Callable[[], bool], output: Path, where: str) -> None:
    end = time.monotonic() + BLOCK_SECONDS
    while not condition():
        said = output.read_text(errors="replace")
        assert lives(), f"{where}: it ended: {said}"
        assert time.monotonic() < end, f"{where}: it did not start: {said}"
        time.sleep(0.02)


def check_page(page: str, base: Path) -> None:
    """Run it in a folder of its own; something must have been run or checked if the page has blocks at all."""
    with page_folder(base, page) as folder:
        counts = run_page(page, folder)
    assert sum(counts.values()) == len([one for one in blocks(page) if one.language != "service"])


@contextmanager
def page_folder(base: Path, page: str) -> Iterator[Path]:
    """An empty folder for a page, which the database's own user can pass through."""
    folder = base / re.sub(r"\W+", "-", page)
    folder.mkdir(mode=0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
