"""Runs `authz` as a child of the tests: gone when they are, and with one protection replaced where one is named."""

from __future__ import annotations

import sys

from tests.faults.mutants import MUTANTS
from tests.faults.proxy import die_with_parent

from authz_service.cli import main

if __name__ == "__main__":
    parent, mutant, *arguments = sys.argv[1:]
    die_with_parent(int(parent))
    if mutant != "none":
        MUTANTS[mutant]()
    sys.exit(main(arguments))
