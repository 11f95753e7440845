"""Writes the published OpenAPI document from the application, or with `--check` says whether it is up to date."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from authz_service.app import create_app
from authz_service.config import Settings

PATH = Path(__file__).resolve().parents[1] / "openapi" / "openapi.json"


def document() -> str:
    """The document as it is kept. Needs no database and no setting: the application does not start."""
    return json.dumps(create_app(Settings()).openapi(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Exit status 1 when `--check` finds that the kept document is not the application's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    wanted = document()
    if not parser.parse_args().check:
        PATH.parent.mkdir(exist_ok=True)
        PATH.write_text(wanted, "utf-8")
        return 0
    if PATH.exists() and PATH.read_text("utf-8") == wanted:
        return 0
    print(f"`{PATH.relative_to(PATH.parents[1])}` is not what the application says; run `make openapi`")
    return 1


if __name__ == "__main__":
    sys.exit(main())
