"""What is brought in: `sbom` lists it, `audit` asks whether any of it has a known hole. From the pins alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
PINS: Final = ROOT / "constraints.txt"
TOOLS: Final = ROOT / "tools" / "supply_constraints.txt"
FOLDER: Final = ROOT / "build" / "supply"
_PATIENCE: Final = 600
NOT_ASKED: Final = 3
"""Exit status where the advisory service could not be asked about everything."""


def main(arguments: list[str]) -> int:
    """0 when all is well, 1 for a known hole, 2 for a call that makes no sense, 3 when nobody could be asked."""
    match arguments:
        case ["sbom"]:
            return write_sbom(ROOT / "build" / "sbom.json")
        case ["audit"]:
            return audit()
    print("say `sbom` or `audit`", file=sys.stderr)
    return 2


def write_sbom(out: Path) -> int:
    """A CycloneDX document of every pin, in an order of its own: the same pins give the same parts."""
    made = _run("cyclonedx-py", "requirements", "--of", "JSON", "--output-reproducible", str(_requirements()))
    if made.returncode:
        print(made.stderr, file=sys.stderr)
        return 1
    document: dict[str, Any] = json.loads(made.stdout)
    # Files of this machine are nobody's business.
    for part in document.get("components", ()):
        part.pop("bom-ref", None)
        part.pop("description", None)
        part.pop("externalReferences", None)
    document.pop("dependencies", None)
    document["metadata"]["component"] = {"type": "application", "name": "authz-service"}
    wanted, found = pinned(PINS.read_text("utf-8")), {(one["name"], one["version"]) for one in document["components"]}
    if found != set(wanted):
        print(f"the document differs from the pins: {found ^ set(wanted)}", file=sys.stderr)
        return 1
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", "utf-8")
    print(f"{out.relative_to(ROOT)}: {len(found)} packages")
    return 0


def audit() -> int:
    """Known holes of the pinned versions. What was skipped was not asked about, and that is no good news."""
    asked = _run("pip-audit", "--no-deps", "--disable-pip", "--format", "json", "--requirement", str(_requirements()))
    try:
        found = json.loads(asked.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"the advisory service could not be asked: {asked.stderr.strip()[-400:]}", file=sys.stderr)
        return NOT_ASKED
    holes, skipped = judge(found)
    for line in holes:
        print(line)
    if skipped:
        print(f"{len(skipped)} packages could not be asked about: {', '.join(skipped[:8])} …", file=sys.stderr)
    if holes:
        return 1
    if skipped or len(found) != len(pinned(PINS.read_text("utf-8"))):
        print("nothing is known of them: ask again where the advisory service can be reached", file=sys.stderr)
        return NOT_ASKED
    print(f"no known hole in {len(found)} packages")
    return 0


def judge(found: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """The holes, a line each, and the names of what was skipped."""
    holes = [
        f"{one['name']} {one['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'nothing yet'}"
        for one in found
        for hole in one.get("vulns", ())
    ]
    return holes, [one["name"] for one in found if "skip_reason" in one]


def pinned(text: str) -> list[tuple[str, str]]:
    """Names and versions of a file of pins."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    return [(name, version) for name, _, version in (line.partition("==") for line in lines if line)]


def _requirements() -> Path:
    """The pins as plain requirements, without remarks."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / "requirements.txt"
    file.write_text("".join(f"{name}=={version}\n" for name, version in pinned(PINS.read_text("utf-8"))), "utf-8")
    return file


def _run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A tool of `supply_constraints.txt`, in an environment of its own: it is no part of what it looks at."""
    place = FOLDER / "venv"
    stamp = FOLDER / "installed.txt"
    environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    if not stamp.exists() or stamp.read_text("utf-8") != TOOLS.read_text("utf-8"):
        venv.create(place, clear=True, with_pip=True)
        install = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input", "--no-deps"]
        subprocess.run([*install, "-r", str(TOOLS)], check=True, timeout=_PATIENCE, env=environment)
        stamp.write_text(TOOLS.read_text("utf-8"), "utf-8")
    command = [str(place / "bin" / program), *arguments]
    with tempfile.TemporaryDirectory() as home:  # no memory of an earlier answer
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
            cwd=ROOT,
            env=environment | {"XDG_CACHE_HOME": home},
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
