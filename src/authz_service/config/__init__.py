"""Every setting of the service, a file for each room that has some."""

from authz_service.config.console import ConsoleSettings
from authz_service.config.gateways import GatewaySettings, read_gateway_trust
from authz_service.config.limits import LimitSettings, read_foreign, read_limits, read_sweep_rules
from authz_service.config.peppers import SecretSettings, read_peppers
from authz_service.config.records import RecordedDecisions, RecordSettings, RecordSink
from authz_service.config.settings import (
    PREFIX,
    Environment,
    LogFormat,
    LogLevel,
    Settings,
    load_settings,
    to_environment,
    unknown_settings,
)
from authz_service.config.standards import StandardsSettings

__all__ = [
    "PREFIX",
    "ConsoleSettings",
    "Environment",
    "GatewaySettings",
    "LimitSettings",
    "LogFormat",
    "LogLevel",
    "RecordSettings",
    "RecordSink",
    "RecordedDecisions",
    "SecretSettings",
    "Settings",
    "StandardsSettings",
    "load_settings",
    "read_foreign",
    "read_gateway_trust",
    "read_limits",
    "read_peppers",
    "read_sweep_rules",
    "to_environment",
    "unknown_settings",
]
