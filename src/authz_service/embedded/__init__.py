"""A PostgreSQL of our own for `authz dev` and the tests: found, started, guarded and stopped here.

For development only: production names its database, and the configuration refuses this one there.
"""

from authz_service.embedded.binaries import Binaries, find_binaries
from authz_service.embedded.errors import (
    EmbeddedPostgresError,
    EmbeddedPostgresInUseError,
    PostgresBinariesMissingError,
)
from authz_service.embedded.server import EmbeddedPostgres

__all__ = [
    "Binaries",
    "EmbeddedPostgres",
    "EmbeddedPostgresError",
    "EmbeddedPostgresInUseError",
    "PostgresBinariesMissingError",
    "find_binaries",
]
