"""Writes what the Helm chart repeats of the rest: settings, alerts, dashboard; --check says whether that is due."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from authz_service.config import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "deploy" / "helm" / "authz-service"
SCHEMA = CHART / "values.schema.json"
COPIES = {
    ROOT / "deploy" / "prometheus" / "alerts.yaml": CHART / "files" / "alerts.yaml",
    ROOT / "deploy" / "grafana" / "authz-service.json": CHART / "files" / "dashboard.json",
}

SET_BY_THE_CHART: Final = frozenset(
    {"host", "port", "uds", "log_format", "metrics_dir", "peppers", "peppers_file", "pepper_kid"}
    | {"database_url", "database_direct_url"}
)
"""What the chart decides itself, or takes from a Secret."""
NOT_IN_THE_CHART: Final = ("_listen", "tls_cert_file", "tls_key_file", "tls_client_ca_file")
"""Endings of what needs ports or probes that the chart does not make."""


def settings() -> dict[str, Any]:
    """The settings that may stand in the chart's values, as a JSON Schema with their bounds."""
    described = Settings.model_json_schema(by_alias=False)
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            PREFIX + name.upper(): _shape(field, described.get("$defs", {}))
            for name, field in sorted(described["properties"].items())
            if name not in SET_BY_THE_CHART and not name.endswith(NOT_IN_THE_CHART) and not _is_secret(field)
        },
    }


def _is_secret(field: dict[str, Any]) -> bool:
    return any(one.get("format") == "password" for one in (field, *field.get("anyOf", ())))


def _shape(field: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A field's type and bounds. Null leaves it out: the service's own default holds."""
    kinds = [
        definitions[one["$ref"].rpartition("/")[2]] if "$ref" in one else one for one in field.get("anyOf", (field,))
    ]
    choices = [_plain(kind) for kind in kinds if kind.get("type") != "null"]
    return {"anyOf": [*choices, {"type": "null"}]}


def _plain(kind: dict[str, Any]) -> dict[str, Any]:
    kept = ("type", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength")
    return {name: kind[name] for name in kept if name in kind} or {"type": "string"}


def schema() -> str:
    """The chart's schema with the settings of today."""
    found = json.loads(SCHEMA.read_text(encoding="utf-8"))
    found["properties"]["settings"] = settings()
    return json.dumps(found, indent=1) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is not what it would be")
    check = parser.parse_args().check
    due = []
    wanted = {copy: source.read_text(encoding="utf-8") for source, copy in COPIES.items()} | {SCHEMA: schema()}
    for file, text in wanted.items():
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            due.append(file.name)
            if not check:
                file.parent.mkdir(exist_ok=True)
                file.write_text(text, encoding="utf-8")
    if check and due:
        print(f"the Helm chart is not what the rest says ({', '.join(due)}); run `make reference`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
