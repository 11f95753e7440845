"""The page for a first-time user is true: every command of it, in its order, in an empty directory."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.processes import environment, started

PAGE = Path(__file__).resolve().parents[2] / "docs" / "your-own-api.md"
SERVE = "authz dev"
MARK = "--- end of block"


@dataclass(frozen=True)
class Step:
    """A file to save, commands to run, or what the commands before it print."""

    kind: str
    text: str
    file: str | None = None


def steps() -> Iterator[Step]:
    """The blocks of the page. A `yaml` block is saved under the name that the text before it says."""
    page = PAGE.read_text("utf-8")
    for found in re.finditer(r"```(\w+)\n(.*?)```", page, re.DOTALL):
        kind, text = found.groups()
        before = page[: found.start()].rstrip().rpartition("\n")[2]
        named = re.search(r"Save this as `([^`]+)`:$", before)
        assert kind in ("sh", "text") or (kind == "yaml" and named), before
        yield Step(kind, text, named[1] if named and kind == "yaml" else None)


def same(printed: str, expected: str) -> bool:
    """Whether it was printed as the page shows it; `…` there is anything, and runs of spaces are one."""

    def plain(text: str) -> str:
        return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())

    pattern = ".*".join(re.escape(part) for part in plain(expected).split("…"))
    return re.fullmatch(pattern, plain(printed), re.DOTALL) is not None


def run_page(folder: Path, commands: Sequence[str], env: dict[str, str]) -> list[str]:
    """All commands in one shell, which stops at the first that fails; what each block printed on stdout."""
    script = "".join(f"{command}\nprintf '%s\\n' {shlex.quote(MARK)}\n" for command in commands)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout.split(f"{MARK}\n")[:-1]


def with_authz_on_its_path() -> dict[str, str]:
    """As after an installation. The port is any free one, because others may run here too."""
    return environment({"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "AUTHZ_PORT": "0"})


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_a_first_time_user_gets_from_an_empty_directory_to_a_moved_token(open_folder):
    page = list(steps())
    serve = next(step for step in page if step.kind == "sh" and step.text.startswith(SERVE))
    rest = page[page.index(serve) + 1 :]
    env = with_authz_on_its_path()
    with started(*shlex.split(serve.text)[1:], output=open_folder / "output.txt", cwd=open_folder, env=env) as service:
        service.wait_until((open_folder / "ready.json").exists)
        commands = [
            step.text if step.kind == "sh" else f"cat > {step.file} <<'END OF FILE'\n{step.text}END OF FILE"
            for step in rest
            if step.kind != "text"
        ]
        printed = iter(run_page(open_folder, commands, env))
        last = ""
        for step in rest:
            if step.kind == "text":
                assert same(last, step.text), f"printed:\n{last}\nthe page says:\n{step.text}"
            else:
                last = next(printed)
        secret = (open_folder / "token.txt").read_text().strip()
        ready = json.loads((open_folder / "ready.json").read_text())
        assert secret not in service.printed
    asked = {"AUTHZ_URL", "AUTHZ_TOKEN", "ADMIN", "GATEWAY"}
    assert asked <= set(re.findall(r"export (\w+)=", PAGE.read_text("utf-8")))
    assert ready["url"].startswith("http://127.0.0.1:")


def test_the_page_is_one_page():
    assert len(PAGE.read_text("utf-8").splitlines()) < 250
