"""Writes the compiled twins of the shipped catalogs, or with `--check` says which are out of date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from authz_service.store.shipped import COMPILED_SUFFIX, compile_shipped

FOLDER = Path(__file__).resolve().parents[1] / "src" / "authz_service" / "catalog" / "data"


def main() -> int:
    """Exit status 1 when `--check` finds a twin that is missing, is left over, or would be written differently."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change no file")
    check: bool = parser.parse_args().check
    wanted = compile_shipped()
    found = {file.name: file.read_bytes() for file in FOLDER.glob(f"*{COMPILED_SUFFIX}")}
    stale = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if check:
        for name in stale:
            print(f"`{name}` is out of date; run `make catalogs`")
        return 1 if stale else 0
    for name in stale:
        if name in wanted:
            (FOLDER / name).write_bytes(wanted[name])
        else:
            (FOLDER / name).unlink()
        print(f"wrote {name}" if name in wanted else f"removed {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
