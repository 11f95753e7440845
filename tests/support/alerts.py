"""Figures that must fire each alert, as `promtool test rules` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_A: Final = 'job="authz-service",instance="a"'

FIRES: Final[Mapping[str, tuple[Mapping[str, str], str, tuple[Mapping[str, str], ...]]]] = {
    "AuthzDown": ({f"up{{{_A}}}": "0x480"}, "2m", ({"job": "authz-service", "instance": "a"},)),
    "AuthzNotReady": ({f"authz_ready{{{_A}}}": "0x480"}, "2m", ({"job": "authz-service", "instance": "a"},)),
    "AuthzRewound": ({f"authz_rewound{{{_A}}}": "1x480"}, "1m", ({},)),
    "AuthzUndecided": (
        {f'authz_undecided_total{{{_A},reason="stale"}}': "0+30x480"},
        "10m",
        ({"reason": "stale"},),
    ),
    "AuthzStale": ({f"authz_staleness_seconds{{{_A}}}": "4x480"}, "2m", ({"instance": "a"},)),
    "AuthzRevokesSlow": (
        {
            f'authz_revoke_to_deny_seconds_bucket{{{_A},le="1"}}': "0+1x480",
            f'authz_revoke_to_deny_seconds_bucket{{{_A},le="2"}}': "0+9x480",
            f'authz_revoke_to_deny_seconds_bucket{{{_A},le="+Inf"}}': "0+9x480",
        },
        "40m",
        ({},),
    ),
    "AuthzPollsFail": ({f"authz_poll_failures_total{{{_A}}}": "0+3x480"}, "15m", ({"instance": "a"},)),
    "AuthzSlow": (
        {
            f'authz_request_seconds_bucket{{{_A},route="/gateway/forward/{{family}}",le="0.05"}}': "0+10x480",
            f'authz_request_seconds_bucket{{{_A},route="/gateway/forward/{{family}}",le="0.1"}}': "0+20x480",
            f'authz_request_seconds_bucket{{{_A},route="/gateway/forward/{{family}}",le="+Inf"}}': "0+20x480",
        },
        "20m",
        ({},),
    ),
    "AuthzErrors": ({f'authz_requests_total{{{_A},route="/check",status="500"}}': "0+1x480"}, "15m", ({},)),
    "AuthzPoolFull": (
        {
            f'authz_pool_connections{{{_A},state="used"}}': "10x480",
            f'authz_pool_connections{{{_A},state="limit"}}': "10x480",
        },
        "5m",
        ({"instance": "a"},),
    ),
    "AuthzShedding": ({f"authz_loads_shed_total{{{_A}}}": "0+9x480"}, "10m", ({"instance": "a"},)),
    "AuthzCacheTooSmall": (
        {f'authz_cache_evictions_total{{{_A},kind="tokens"}}': "0+90x480"},
        "60m",
        ({"kind": "tokens"},),
    ),
    "AuthzPartFails": (
        {f'authz_part_failures_total{{{_A},part="audit"}}': "0+1x480"},
        "60m",
        ({"part": "audit"},),
    ),
    "AuthzSweepsFail": (
        {f'authz_sweep_failures_total{{{_A},sweep="expiring"}}': "0+1x480"},
        "60m",
        ({"sweep": "expiring"},),
    ),
    "AuthzSweepsMissing": (
        {f'authz_sweep_finished_timestamp_seconds{{{_A},sweep="expiring"}}': "60x4000"},
        "8h",
        ({"sweep": "expiring"},),
    ),
    "AuthzAuditBroken": ({f"authz_audit_broken{{{_A}}}": "1x480"}, "1m", ({},)),
    "AuthzRecordsLost": ({f"authz_decision_records_dropped_total{{{_A}}}": "0+5x480"}, "15m", ({},)),
    "AuthzWebhooksFail": (
        {
            f'authz_webhook_attempts_total{{{_A},outcome="delivered"}}': "0+1x480",
            f'authz_webhook_attempts_total{{{_A},outcome="retried"}}': "0+9x480",
        },
        "90m",
        ({},),
    ),
    "AuthzTokensLeaked": ({f"authz_leaked_tokens_total{{{_A}}}": "0+1x480"}, "30m", ({},)),
    "AuthzSettingsRefused": ({f"authz_settings_reload_refused{{{_A}}}": "1x480"}, "10m", ({"instance": "a"},)),
    "AuthzVersionsDiffer": (
        {
            f'authz_build_info{{{_A},version="1"}}': "1x480",
            'authz_build_info{job="authz-service",instance="b",version="2"}': "1x480",
        },
        "90m",
        ({},),
    ),
}
"""By the alert's name: series and their values, when it must be firing, and the labels of what fires."""


def rule_test(rules: str, severities: Mapping[str, str]) -> dict[str, Any]:
    """A file for `promtool test rules` on rules without annotations, which promtool would compare letter by letter."""
    return {
        "rule_files": [rules],
        "evaluation_interval": "15s",
        "tests": [
            {
                "name": name,
                "interval": "15s",
                "input_series": [{"series": series, "values": values} for series, values in given.items()],
                "alert_rule_test": [
                    {
                        "eval_time": when,
                        "alertname": name,
                        "exp_alerts": [{"exp_labels": {"severity": severities[name], **labels}} for labels in fired],
                    }
                ],
            }
            for name, (given, when, fired) in FIRES.items()
        ],
    }
