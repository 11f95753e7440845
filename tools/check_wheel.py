"""Builds the wheel from what the Dockerfile copies, and proves that it is whole and needs no more than it declares.

The packages that an extra does not ask for are hidden while the wheel is imported, so nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "authz_service"
# Modules of these extras may fail to import where the extra is not installed; nothing else may.
OPTIONAL = {"envoy", "google", "grpc", "opentelemetry", "xds"}

IMPORT_ALL = """
import importlib, importlib.abc, json, sys
wheel, packages, hidden, optional, names = json.loads(sys.stdin.read())
sys.path += [wheel, packages]

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"`{name}` is not installed by this extra", name=name)

sys.meta_path.insert(0, Hide())
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in optional:
            sys.exit(f"{name}: {error}")
"""


def copied_by_dockerfile() -> list[str]:
    """What the build stage takes from the repository."""
    instructions = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()).splitlines()
    copies = [shlex.split(line)[1:] for line in instructions if line.startswith("COPY ")]
    return [source for words in copies if not words[0].startswith("--from") for source in words[:-1]]


def build(target: Path) -> Path:
    """The wheel, made in a folder that holds nothing but what the image's build would see."""
    with tempfile.TemporaryDirectory() as folder:
        for source in copied_by_dockerfile():
            _copy(ROOT / source, Path(folder) / source)
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target.resolve())]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return next(target.glob("*.whl"))


def missing_from(wheel: Path) -> list[str]:
    """Files of the source tree and of the migrations that did not make it into the wheel."""
    held = set(zipfile.ZipFile(wheel).namelist())
    trees = ((ROOT / "src" / PACKAGE, PACKAGE), (ROOT / "migrations", f"{PACKAGE}/_migrations"))
    wanted = {
        f"{prefix}/{path.relative_to(tree).as_posix()}"
        for tree, prefix in trees
        for path in tree.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return sorted(wanted - held)


def brought_by(extras: set[str]) -> set[str]:
    """The distributions that come with the package and these extras, by their canonical names."""
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [(PACKAGE, frozenset(extras))]
    while todo:
        name, wanted = step = todo.pop()
        if step in seen:
            continue
        seen.add(step)
        for line in metadata.requires(name) or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in wanted | {""}):
                todo.append((requirement.name, frozenset(requirement.extras)))
    return {_canonical(name) for name, _ in seen}


def import_with(extras: set[str], wheel: Path, names: list[str]) -> None:
    """Import these modules of the wheel in an interpreter that sees the packages of these extras alone.

    Raises RuntimeError when that wrote a file beside them: the image's tree is read-only.
    """
    kept = brought_by(extras)
    hidden = [
        top for top, owners in metadata.packages_distributions().items() if not kept & {_canonical(o) for o in owners}
    ]
    packages = str(metadata.distribution("packaging").locate_file(""))
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(wheel).extractall(folder)
        question = json.dumps([folder, packages, hidden, sorted(OPTIONAL), names])
        command = [sys.executable, "-I", "-S", "-B", "-c", IMPORT_ALL]
        before = set(Path(folder).rglob("*"))
        for path in before:
            path.chmod(path.stat().st_mode & ~0o222)
        try:
            subprocess.run(command, input=question, text=True, check=True, cwd=folder)
            written = sorted(set(Path(folder).rglob("*")) - before)
            if written:
                raise RuntimeError(f"importing wrote `{written[0]}`, and the image's tree is read-only")
        finally:
            for path in before:
                path.chmod(path.stat().st_mode | 0o200)


def main() -> int:
    """Exit status 0 when the wheel is fit to publish; says what is wrong with it otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the wheel here")
    keep: Path | None = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as folder:
        wheel = build(Path(folder))
        missing = missing_from(wheel)
        if missing:
            print(f"the wheel lacks {len(missing)} files, the first is `{missing[0]}`")
            return 1
        files = zipfile.ZipFile(wheel).namelist()
        modules = sorted(
            file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            for file in files
            if file.endswith(".py") and "/_migrations/" not in file and not file.endswith("/__main__.py")
        )
        # The piece for FastAPI is for applications that have it already.
        own = (name for name in modules if name != f"{PACKAGE}.client.fastapi")
        client = [name for name in own if name.startswith(f"{PACKAGE}.client")]
        try:
            import_with(set(), wheel, [PACKAGE, *client])
            import_with({"server"}, wheel, modules)
        except subprocess.CalledProcessError:
            return 1  # the interpreter has said which module wanted what
        print(f"{wheel.name}: {len(files)} files; {len(modules)} modules with [server], {len(client)} without")
        if keep is not None:
            keep.mkdir(exist_ok=True)
            (keep / wheel.name).write_bytes(wheel.read_bytes())
            print(f"kept in {keep / wheel.name}")
    return 0


def _copy(source: Path, target: Path) -> None:
    for path in [source] if source.is_file() else sorted(source.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            copy = target / path.relative_to(source) if path != source else target
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
