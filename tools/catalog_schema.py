"""Writes the JSON Schema of catalog files from the table of their format, or with `--check` says whether it is due."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from authz_service.catalog.schema import json_schema

PATH = Path(__file__).resolve().parents[1] / "docs" / "catalog.schema.json"


def document() -> str:
    """The schema as it is kept."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Exit status 1 when `--check` finds that the kept schema is not the format's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    wanted = document()
    if not parser.parse_args().check:
        PATH.write_text(wanted, "utf-8")
        return 0
    if PATH.exists() and PATH.read_text("utf-8") == wanted:
        return 0
    print(f"`{PATH.relative_to(PATH.parents[1])}` is not what the format says; run `make schema`")
    return 1


if __name__ == "__main__":
    sys.exit(main())
