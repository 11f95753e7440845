"""The command line. What a CI job asks works on the base install; the rest wants `authz-service[server]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_QUICK = (["health"], ["health", "--ready"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status. See `exits` for what each says."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given in _QUICK:
        from authz_service.cli import health

        return health.run(given)
    try:
        from authz_service.cli.commands import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "authz_service":
            raise
        from authz_service.cli.bare import run
    return run(arguments)
