"""The command line. What a CI job asks works on the base install; the rest wants `authz-service[server]`."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status. See `exits` for what each says."""
    try:
        from authz_service.cli.commands import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "authz_service":
            raise
        from authz_service.cli.bare import run
    return run(arguments)
