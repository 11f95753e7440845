"""Every setting of the service, a file for each room that has some."""

from authz_service.config.gateways import GatewaySettings, read_gateway_trust
from authz_service.config.peppers import SecretSettings, read_peppers
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

__all__ = [
    "PREFIX",
    "Environment",
    "GatewaySettings",
    "LogFormat",
    "LogLevel",
    "SecretSettings",
    "Settings",
    "load_settings",
    "read_gateway_trust",
    "read_peppers",
    "to_environment",
    "unknown_settings",
]
