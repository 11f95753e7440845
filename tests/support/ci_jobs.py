"""The shipped CI pieces as their systems run them: inputs filled in, their shell taken out of the YAML."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from tests.support.processes import environment

ROOT = Path(__file__).parents[2]


def shell_of_the_component(inputs: Mapping[str, str], name: str = "require") -> tuple[str, dict[str, str]]:
    """The script and the variables of a GitLab component's job, with its inputs filled in as GitLab does."""
    text = (ROOT / f"deploy/ci/gitlab/templates/{name}.yml").read_text()
    head, body = YAML(typ="safe").load_all(text)
    declared = {name: one.get("default") for name, one in head["spec"]["inputs"].items()}
    assert inputs.keys() <= declared.keys()
    filled = {name: str(value).lower() if isinstance(value, bool) else value for name, value in declared.items()}
    filled |= inputs
    assert None not in filled.values(), "an input without a default is not given"
    [job] = body.values()

    def fill(value: str) -> str:
        return re.sub(r"\$\[\[ inputs\.([a-z-]+) \]\]", lambda match: filled[match[1]], value)

    assert "$[[" not in "\n".join(job["script"]), "an input is pasted into the script"
    return "\n".join(job["script"]), {name: fill(value) for name, value in job["variables"].items()}


def shell_of_the_action(inputs: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The steps and the variables of the GitHub Action, with its inputs filled in as GitHub does."""
    action = YAML(typ="safe").load((ROOT / "deploy/ci/github/action.yml").read_text())
    declared = {name: str(one.get("default", "")) for name, one in action["inputs"].items()}
    assert inputs.keys() <= declared.keys()
    assert all(name in inputs for name, one in action["inputs"].items() if one.get("required")), "an input is missing"
    steps = action["runs"]["steps"]
    assert not any("${{" in step["run"] for step in steps), "an input is pasted into the script"
    env = {name: value for step in steps for name, value in step["env"].items()}
    filled = {
        name: re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda match: (declared | dict(inputs))[match[1]], value)
        for name, value in env.items()
    }
    return "\n".join(step["run"] for step in steps), filled


def run_shell(script: str, folder: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """With `authz` on the path, in this folder."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "authz").write_text(f'#!/bin/sh\nexec {sys.executable} -m authz_service "$@"\n')
    (programs / "authz").chmod(0o755)
    env = environment({"GITHUB_ACTIONS": "", "GITLAB_CI": ""} | dict(variables))
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        env=env | {"PATH": f"{programs}:{env['PATH']}"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def yaml_of_the_docs(page: str, word: str) -> tuple[str, Any]:
    """The one YAML example of a page that holds this word, as text and read."""
    text = (ROOT / "docs" / page).read_text()
    found = [one for one in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if word in one]
    assert len(found) == 1, f"{len(found)} examples hold `{word}`"
    return found[0], YAML(typ="safe").load(found[0])
