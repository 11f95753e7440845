"""Every setting of the service, a file for each room that has some."""

from authz_service.config.console import ConsoleSettings, read_openid_secret
from authz_service.config.gateways import GatewaySettings, read_gateway_trust
from authz_service.config.limits import LimitSettings, read_foreign, read_limits, read_sweep_rules
from authz_service.config.listeners import ListenerSettings, find_apart
from authz_service.config.peppers import SecretSettings, read_peppers, secret_settings
from authz_service.config.rates import RateSettings, read_rates
from authz_service.config.records import RecordedDecisions, RecordSettings, RecordSink
from authz_service.config.reloading import READ_AGAIN, RELOADED, read_settings_file, require_reloadable
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
    "READ_AGAIN",
    "RELOADED",
    "ConsoleSettings",
    "Environment",
    "GatewaySettings",
    "LimitSettings",
    "ListenerSettings",
    "LogFormat",
    "LogLevel",
    "RateSettings",
    "RecordSettings",
    "RecordSink",
    "RecordedDecisions",
    "SecretSettings",
    "Settings",
    "StandardsSettings",
    "find_apart",
    "load_settings",
    "read_foreign",
    "read_gateway_trust",
    "read_limits",
    "read_openid_secret",
    "read_peppers",
    "read_rates",
    "read_settings_file",
    "read_sweep_rules",
    "require_reloadable",
    "secret_settings",
    "to_environment",
    "unknown_settings",
]
