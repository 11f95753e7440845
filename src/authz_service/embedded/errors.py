"""What can go wrong with the embedded PostgreSQL; none of it ever reaches a caller of the HTTP surface."""

from authz_service.errors import AuthzError


class EmbeddedPostgresError(AuthzError):
    """The embedded database cannot be started or used as asked; nothing of it is left running."""

    code = "embedded_postgres"


class EmbeddedPostgresInUseError(EmbeddedPostgresError):
    """Another process owns this data folder; `holder` is its process id, when it left one."""

    code = "embedded_postgres_in_use"

    def __init__(self, message: str, *, holder: int | None) -> None:
        super().__init__(message)
        self.holder = holder


class PostgresBinariesMissingError(EmbeddedPostgresError):
    """No usable PostgreSQL programs on this machine, or none of the major version that the data needs."""

    code = "postgres_binaries_missing"
