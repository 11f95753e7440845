"""The targets by name: importing the targets themselves would bring the service before it can be watched."""

NAMES = (
    "batch",
    "catalog",
    "check",
    "cursor",
    "graphql",
    "headers",
    "http",
    "json",
    "leaks",
    "ndjson",
    "path",
    "schema",
    "secret",
    "url",
    "wire",
)
