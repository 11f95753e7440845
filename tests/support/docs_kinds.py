"""Blocks of data on pages, each checked by what it is for: by the code that would read it, or a published shape."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from tests.support.cases import CASE_KEYS
from tests.support.docs_pages import ROOT, Block
from tests.support.docs_shown import ANYTHING, read_loose

from authz_service.catalog.drafting import draft_catalog
from authz_service.catalog.loader import load_catalog
from authz_service.catalog.openapi import read_openapi
from authz_service.cli.needs import parse_needs
from authz_service.config import Settings
from authz_service.directory.changes import parse_import
from authz_service.errors import AuthzError
from authz_service.store.events import EventKind
from authz_service.telemetry import Metrics

EVENT = {"id", "kind", "at", "webhook", "token", "owner", "nodes", "data"}
RUN_BY_CI = {"script", "before_script", "after_script", "trigger", "extends", "component"}
_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")


class WrongBlockError(AssertionError):
    """The block is not what it is for; the message says where it stands."""


def check_data(block: Block) -> str:
    """What the block turned out to be. Raises WrongBlockError when it is nothing known, or a bad one of its kind."""
    try:
        return _check(block)
    except AuthzError as error:
        said = "; ".join(f"{fault.where} {fault.message}" for fault in error.faults)
        raise WrongBlockError(f"{block.where}: {error}: {said}") from error
    except (ValueError, YAMLError, jsonschema_rs.ValidationError) as error:
        raise WrongBlockError(f"{block.where}: {error}") from error


def _check(block: Block) -> str:
    data = _read(block)
    kind = block.marks.get("is") or _kind_of(data)
    for pattern, check in KINDS.items():
        found = re.fullmatch(pattern, kind)
        if found:
            check(block, data, *found.groups())
            return kind
    raise WrongBlockError(f"{block.where}: nobody knows what this is for; say so by a mark, `<!-- is: … -->`")


def _read(block: Block) -> Any:
    match block.language:
        case "toml":
            return tomllib.loads(block.text)
        case "yaml":
            yaml = YAML(typ="safe", pure=True)
            return yaml.load(re.sub(r"\$\[\[.*?\]\]", "input", block.text))
        case "json":
            return read_loose(block.text)
        case "env":
            return dict(re.findall(r"(\w+)=([^\s#]*)", block.text))
        case "ndjson":
            return [read_loose(line) for line in block.text.splitlines() if line.strip()]
    raise WrongBlockError(
        f"{block.where}: a block of `{block.language}` is neither run nor checked; give it a language that is,"
        " or a mark that says why not"
    )


def _kind_of(data: Any) -> str:
    """By its keys. Nothing is guessed where they do not tell."""
    if isinstance(data, list):
        return "steps" if any(isinstance(step, dict) and "uses" in step for step in data) else ""
    if not isinstance(data, dict):
        return ""
    keys = set(data)
    if keys and all(name.startswith("AUTHZ_") for name in keys):
        return "settings"
    if "catalog" in keys and keys & {"permissions", "categories"}:
        return "catalog"
    if "needs" in keys and keys <= {"catalog", "needs"}:
        return "needs"
    if "openapi" in keys:
        return "openapi"
    if {"apiVersion", "kind"} <= keys:
        return "manifest"
    if "groups" in keys and all("rules" in group for group in data["groups"]):
        return "alert rules"
    if "services" in keys:
        return "compose"
    if "include" in keys or any(isinstance(job, dict) and RUN_BY_CI & set(job) for job in data.values()):
        return "pipeline"
    return "workflow" if keys & {"jobs", "steps"} else ""


# what each is checked by


def _catalog(block: Block, _: Any) -> None:
    load_catalog(block.text, file=block.where)


def _part_of_a_catalog(block: Block, data: Any) -> None:
    """Its keys and values, as an editor checks them; names from elsewhere in the file may be missing."""
    schema = json.loads((ROOT / "docs" / "catalog.schema.json").read_text(encoding="utf-8"))
    schema.pop("required", None)
    schema.pop("anyOf", None)
    jsonschema_rs.validator_for(schema).validate(data)


def _needs(block: Block, _: Any) -> None:
    parse_needs(block.text, dict.fromkeys(_VARIABLE.findall(block.text), "acme/web"))


def _openapi(block: Block, _: Any) -> None:
    load_catalog(draft_catalog(read_openapi(block.text, file=block.where)), file=block.where)


def _pipeline(block: Block, data: Mapping[str, Any]) -> None:
    """Jobs have a script; a component that is ours takes the inputs that it is given."""
    yaml = YAML(typ="safe", pure=True)
    spec = next(iter(yaml.load_all((ROOT / "deploy/ci/gitlab/templates/require.yml").read_text(encoding="utf-8"))))
    for included in data.get("include", []):
        if "/authz/require" in included.get("component", ""):
            _known(block, included.get("inputs", {}), spec["spec"]["inputs"])
    for name, job in data.items():
        if name not in ("include", "stages", "variables", "default", "workflow") and not RUN_BY_CI & set(job):
            raise WrongBlockError(f"{block.where}: the job `{name}` runs nothing")


def _steps(block: Block, data: list[Mapping[str, Any]]) -> None:
    yaml = YAML(typ="safe", pure=True)
    action = yaml.load((ROOT / "deploy/ci/github/action.yml").read_text(encoding="utf-8"))
    for step in data:
        if not {"uses", "run"} & set(step):
            raise WrongBlockError(f"{block.where}: a step neither uses nor runs anything")
        if "authz" in step.get("uses", ""):
            _known(block, step.get("with", {}), action["inputs"])


def _workflow(block: Block, data: Mapping[str, Any]) -> None:
    for job in data.get("jobs", {"job": data}).values():
        _steps(block, job["steps"])


def _known(block: Block, given: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    unknown = set(given) - set(inputs)
    missing = {name for name, said in inputs.items() if said.get("required")} - set(given)
    if unknown or missing:
        raise WrongBlockError(f"{block.where}: inputs that are unknown or missing: {sorted(unknown | missing)}")


def _alert_rules(block: Block, data: Mapping[str, Any]) -> None:
    """Every figure in them is one that the service has."""
    ours = {sample.rstrip("_") for family in Metrics().registry.collect() for sample in _samples(family)}
    for group in data["groups"]:
        for rule in group["rules"]:
            if not {"alert", "record"} & set(rule) or "expr" not in rule:
                raise WrongBlockError(f"{block.where}: a rule lacks its name or its expression")
            unknown = set(re.findall(r"\bauthz_\w+", str(rule["expr"]))) - ours
            if unknown and "record" not in rule:
                raise WrongBlockError(f"{block.where}: no figure is called {sorted(unknown)}")


def _samples(family: Any) -> list[str]:
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "summary": ["_sum", "_count", ""]}
    return [family.name + ending for ending in endings.get(family.type, [""])]


def _manifest(block: Block, data: Mapping[str, Any]) -> None:
    if not {"apiVersion", "kind", "metadata"} <= set(data) or "name" not in data["metadata"]:
        raise WrongBlockError(f"{block.where}: a manifest has an apiVersion, a kind and a name")


def _compose(block: Block, data: Mapping[str, Any]) -> None:
    for name, service in data["services"].items():
        if not {"image", "build", "extends"} & set(service):
            raise WrongBlockError(f"{block.where}: the service `{name}` has no image")


def _values(block: Block, data: Any) -> None:
    """Every key is one of the chart's own values."""
    [chart] = ROOT.glob("deploy/**/values.schema.json")
    jsonschema_rs.validator_for(json.loads(chart.read_text(encoding="utf-8"))).validate(data)


def _settings(block: Block, data: Mapping[str, str]) -> None:
    """Each is a setting that there is. What they are set to is for one machine or another."""
    unknown = sorted(name for name in data if name.removeprefix("AUTHZ_").lower() not in Settings.model_fields)
    if unknown:
        raise WrongBlockError(f"{block.where}: no setting is called {unknown}")


def _event(block: Block, data: Any) -> None:
    if set(data) != EVENT:
        raise WrongBlockError(f"{block.where}: an event has {sorted(EVENT)}")
    EventKind(data["kind"])


def _cases(block: Block, data: Mapping[str, Any]) -> None:
    """Cases have the keys that are read, and their catalogs load."""
    for name, text in data["world"]["catalogs"].items():
        load_catalog(text, file=f"{block.where} {name}")
    for case in data["cases"]:
        if not set(case) <= set(CASE_KEYS):
            raise WrongBlockError(f"{block.where}: a case has no {sorted(set(case) - set(CASE_KEYS))}")


def _directory(block: Block, _: Any) -> None:
    parse_import(block.text.encode())


def _token_import(block: Block, data: list[Mapping[str, Any]]) -> None:
    for line in data:
        _operation(
            block,
            {k: v for k, v in line.items() if k not in ("sha256", "prefix", "created_at")},
            "body",
            "POST",
            "/v1/tokens",
        )


def _any_data(block: Block, data: Any) -> None:
    """Read already."""


def _operation(block: Block, data: Any, which: str, method: str, path: str) -> None:
    """The body or an answer of it, by the published document."""
    document = _openapi_document()
    operation = document["paths"].get(path, {}).get(method.lower())
    if operation is None:
        raise WrongBlockError(f"{block.where}: the published document knows no `{method} {path}`")
    if which == "body":
        found = [operation["requestBody"]["content"]["application/json"]["schema"]]
    else:
        answers = operation["responses"].values()
        found = [
            kind["schema"] for answer in answers for kind in answer.get("content", {}).values() if "schema" in kind
        ]
    faults = []
    for schema in found:
        validator = jsonschema_rs.validator_for({**schema, "components": document["components"]})
        faults = [error for error in validator.iter_errors(_without_gaps(data)) if not _is_left_out(error, data)]
        if not faults:
            return
    raise WrongBlockError(
        f"{block.where}: no {which} of `{method} {path}`: {'; '.join(str(one.message) for one in faults)}"
    )


def _is_left_out(error: Any, data: Any) -> bool:
    """What is missing where the page says `…`, and texts that are shortened there."""
    return ANYTHING in json.dumps(data, ensure_ascii=False) and (
        "is a required property" in error.message or ANYTHING in error.message
    )


def _without_gaps(data: Any) -> Any:
    match data:
        case dict():
            return {name: _without_gaps(value) for name, value in data.items() if ANYTHING not in (name, value)}
        case list():
            return [_without_gaps(value) for value in data if value != ANYTHING]
    return data


@cache
def _openapi_document() -> Mapping[str, Any]:
    return json.loads(Path(ROOT / "openapi" / "openapi.json").read_text(encoding="utf-8"))


KINDS: dict[str, Callable[..., None]] = {
    "catalog": _catalog,
    "part of a catalog": _part_of_a_catalog,
    "needs": _needs,
    "openapi": _openapi,
    "pipeline": _pipeline,
    "steps": _steps,
    "workflow": _workflow,
    "alert rules": _alert_rules,
    "manifest": _manifest,
    "compose": _compose,
    "helm values": _values,
    "settings": _settings,
    "event": _event,
    "cases": _cases,
    "directory": _directory,
    "token import": _token_import,
    "data": _any_data,
    r"(body|answer) of ([A-Z]+) (\S+)": _operation,
}
