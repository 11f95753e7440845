"""The Helm chart as Helm renders it, without a cluster, and what its pods would find in their environment."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "authz-service"
NAMESPACE = "prod"

MANAGED: dict[str, Any] = {
    "database": {"existingSecret": "authz-database"},
    "migration": {"existingSecret": "authz-owner", "serviceRole": "authz"},
    "peppers": {"existingSecret": "authz-peppers"},
}
"""A database of somebody else's: the least that has to be said."""
CLOUD_NATIVE_PG: dict[str, Any] = {
    "database": {"cloudNativePG": {"cluster": "pg", "serviceRoleSecret": "pg-authz"}},
    "migration": {"serviceRole": "authz"},
    "peppers": {"existingSecret": "authz-peppers"},
}
EVERYTHING: dict[str, Any] = {
    "autoscaling": {"enabled": True},
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
    },
    "networkPolicy": {
        "gateways": [{"namespaceSelector": {"matchLabels": {"team": "edge"}}}],
        "metrics": [{"namespaceSelector": {"matchLabels": {"team": "watch"}}}],
        "database": [{"ipBlock": {"cidr": "10.0.0.0/24"}}],
        "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443, "protocol": "TCP"}]}],
    },
    "extraEnv": [{"name": "OTEL_EXPORTER_OTLP_HEADERS", "valueFrom": {"secretKeyRef": {"name": "otel", "key": "h"}}}],
    "extraVolumes": [{"name": "keys", "secret": {"secretName": "authz-audit-key"}}],
    "extraVolumeMounts": [{"name": "keys", "mountPath": "/etc/authz/keys", "readOnly": True}],
    "imagePullSecrets": ["registry"],
    "podLabels": {"team": "identity"},
    "podAnnotations": {"note": "x"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "priorityClassName": "high",
}
"""Every switch that is off by default."""


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Values on top of one another, as Helm takes several files."""
    found: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            under = found.get(name)
            found[name] = merged(under, value) if isinstance(value, Mapping) and isinstance(under, dict) else value
    return found


def render_text(values: Mapping[str, Any], release: str = "authz") -> dict[str, str]:
    """By template. Raises the library's error for values that the schema or the templates refuse."""
    return dict(_rendered(json.dumps(values, sort_keys=True), release))


@cache
def _rendered(text: str, release: str) -> dict[str, str]:
    values = json.loads(text)
    helm = pytest.importorskip("helm_python", reason="the Helm library is for Linux on x86-64")
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        rendered = chart.render(values, name=release, namespace=NAMESPACE)
    return {name.rpartition("/")[2]: text for name, text in rendered.items()}


def render(values: Mapping[str, Any], release: str = "authz") -> list[dict[str, Any]]:
    """Every object, in no order."""
    texts = render_text(values, release)
    notes = texts.pop("NOTES.txt", "")
    assert "authz bootstrap" in notes
    return [one for text in texts.values() for one in yaml.safe_load_all(text) if one]


def find(objects: list[dict[str, Any]], kind: str, ending: str = "") -> dict[str, Any]:
    [found] = [one for one in objects if one["kind"] == kind and one["metadata"]["name"].endswith(ending)]
    return found


def refusal(values: Mapping[str, Any]) -> str:
    """Why these values cannot be installed."""
    helm = pytest.importorskip("helm_python", reason="the Helm library is for Linux on x86-64")
    with pytest.raises(helm.HelmError) as caught:
        render_text(values)
    return str(caught.value)


def environment_of(pod: Mapping[str, Any], secrets: Mapping[tuple[str, str], str]) -> dict[str, str]:
    """What the first container's process would find, as Kubernetes puts it together."""
    found: dict[str, str] = {}
    for one in pod["containers"][0].get("env", ()):
        if "value" in one:
            found[one["name"]] = re.sub(r"\$\((\w+)\)", lambda match: found.get(match[1], match[0]), one["value"])
        else:
            reference = one["valueFrom"]["secretKeyRef"]
            found[one["name"]] = secrets[reference["name"], reference["key"]]
    return found


@cache
def default_values() -> dict[str, Any]:
    return yaml.safe_load((CHART / "values.yaml").read_text())
