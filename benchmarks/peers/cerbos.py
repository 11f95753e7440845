"""Cerbos: policies, requests and answers for the same questions, over HTTP and gRPC.

Two ways to tell it who may what: the grants come with each request as the principal's attributes, or each token is a
principal with a policy of its own. In both the caller sends the nodes on the way up to the target, for Cerbos knows no
directory.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.grpc import encode_call
from benchmarks.oracle import Ask, Holder
from benchmarks.pressure import Post
from benchmarks.workload import PERMISSIONS, Batch, Workload

METHOD: Final = "/cerbos.svc.v1.CerbosService/CheckResources"
_PATH: Final = "/api/check/resources"
_ROLE: Final = "token"
_ALLOW: Final = 1


def write_configuration(folder: Path, workload: Workload, *, by_principal: bool, http: int, grpc: int) -> Path:
    """Policies and settings in a folder of their own; answers with the settings' file. JSON is YAML too."""
    policies = folder / "policies"
    policies.mkdir(parents=True)
    made = _principal_policies(workload) if by_principal else _resource_policies()
    for name, policy in made.items():
        (policies / f"{name}.yaml").write_text(json.dumps(policy), encoding="utf-8")
    settings = {
        "server": {"httpListenAddr": f"127.0.0.1:{http}", "grpcListenAddr": f"127.0.0.1:{grpc}"},
        "storage": {"driver": "disk", "disk": {"directory": str(policies), "watchForChanges": False}},
        "telemetry": {"disabled": True},
        "audit": {"enabled": False},
    }
    found = folder / "settings.yaml"
    found.write_text(json.dumps(settings), encoding="utf-8")
    return found


def _resource_policies() -> dict[str, Any]:
    """One policy a resource; each action is allowed where some grant lies on the way up."""
    actions: dict[str, list[str]] = {}
    for permission in PERMISSIONS:
        resource, _, action = permission.partition(":")
        actions.setdefault(resource, []).append(action)
    return {
        f"resource_{resource}": {
            "apiVersion": "api.cerbos.dev/v1",
            "resourcePolicy": {
                "resource": resource,
                "version": "default",
                "rules": [
                    {
                        "actions": [action],
                        "effect": "EFFECT_ALLOW",
                        "roles": [_ROLE],
                        "condition": {"match": {"expr": _granted(f"{resource}:{action}")}},
                    }
                    for action in names
                ],
            },
        }
        for resource, names in actions.items()
    }


def _granted(permission: str) -> str:
    grants = "request.principal.attr.grants"
    return f'"{permission}" in {grants} && hasIntersection({grants}["{permission}"], request.resource.attr.chain)'


def _principal_policies(workload: Workload) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for holder in workload.tokens:
        rules: dict[str, list[dict[str, Any]]] = {}
        for permission, nodes in grants_of(holder).items():
            resource, _, action = permission.partition(":")
            expression = f"hasIntersection({json.dumps(nodes)}, request.resource.attr.chain)"
            condition = {"match": {"expr": expression}}
            rules.setdefault(resource, []).append({"action": action, "effect": "EFFECT_ALLOW", "condition": condition})
        found[holder.name] = {
            "apiVersion": "api.cerbos.dev/v1",
            "principalPolicy": {
                "principal": holder.name,
                "version": "default",
                "rules": [{"resource": resource, "actions": actions} for resource, actions in rules.items()],
            },
        }
    return found


def grants_of(holder: Holder) -> dict[str, list[str]]:
    """Permission to the nodes on which it was given."""
    found: dict[str, list[str]] = {}
    for grant in holder.grants:
        for permission in grant.permissions:
            nodes = found.setdefault(permission, [])
            if grant.node not in nodes:
                nodes.append(grant.node)
    return found


def chain_of(target: str) -> list[str]:
    """The target and all above it."""
    parts = target.split("/")
    return ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]


# over HTTP


def http_requests(workload: Workload, *, by_principal: bool) -> list[Post]:
    return [_http([ask], workload.tokens[ask.token], by_principal=by_principal) for ask in workload.asks]


def http_batches(workload: Workload, batches: Sequence[Batch]) -> list[Post]:
    return [_http(batch.asks, workload.tokens[batch.token], by_principal=False) for batch in batches]


def _http(asks: Sequence[Ask], holder: Holder, *, by_principal: bool) -> Post:
    principal: dict[str, Any] = {"id": holder.name, "roles": [_ROLE]}
    if not by_principal:
        principal["attr"] = {"grants": grants_of(holder)}
    resources = []
    for ask in asks:
        kind, _, action = ask.permission.partition(":")
        resource = {"kind": kind, "id": ask.target, "attr": {"chain": chain_of(ask.target)}}
        resources.append({"actions": [action], "resource": resource})
    body = {"requestId": "1", "principal": principal, "resources": resources}
    return Post(_PATH, (("Content-Type", "application/json"),), json.dumps(body, separators=(",", ":")).encode())


def read_http(body: bytes) -> list[bool]:
    """Whether each was allowed; a question has one action."""
    found = json.loads(body)
    return [next(iter(result["actions"].values())) == "EFFECT_ALLOW" for result in found["results"]]


# over gRPC: messages by hand, for they are few and fixed


def grpc_requests(workload: Workload, *, by_principal: bool) -> list[bytes]:
    return [
        encode_call(METHOD, _message([ask], workload.tokens[ask.token], by_principal=by_principal))
        for ask in workload.asks
    ]


def grpc_batches(workload: Workload, batches: Sequence[Batch]) -> list[bytes]:
    return [
        encode_call(METHOD, _message(batch.asks, workload.tokens[batch.token], by_principal=False)) for batch in batches
    ]


def _message(asks: Sequence[Ask], holder: Holder, *, by_principal: bool) -> bytes:
    """A CheckResourcesRequest: 1 request_id, 3 principal, 4 resources."""
    principal = _field(1, holder.name.encode()) + _field(3, _ROLE.encode())
    if not by_principal:
        fields = b"".join(
            _entry(permission, _field(6, _list(nodes))) for permission, nodes in grants_of(holder).items()
        )
        principal += _field(4, _pair("grants", _field(5, fields)))
    found = _field(1, b"1") + _field(3, principal)
    for ask in asks:
        kind, _, action = ask.permission.partition(":")
        resource = _field(1, kind.encode()) + _field(3, ask.target.encode())
        resource += _field(4, _pair("chain", _field(6, _list(chain_of(ask.target)))))
        found += _field(4, _field(1, action.encode()) + _field(2, resource))
    return found


def _list(texts: Sequence[str]) -> bytes:
    return b"".join(_field(1, _field(3, text.encode())) for text in texts)


def _entry(key: str, value: bytes) -> bytes:
    """One field of a struct."""
    return _field(1, _pair(key, value))


def _pair(key: str, value: bytes) -> bytes:
    """One entry of a map: 1 key, 2 value."""
    return _field(1, key.encode()) + _field(2, value)


def _field(number: int, value: bytes) -> bytes:
    """A field with a length; all numbers here are below 16."""
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def read_grpc(message: bytes) -> list[bool]:
    """Whether each was allowed: results (2) have actions (2), a map from name (1) to effect (2)."""
    found = []
    for number, result in _fields(message):
        if number == 2:
            effects = [
                value == _ALLOW
                for inner, entry in _fields(result)
                if inner == 2
                for key, value in _fields(entry)
                if key == 2
            ]
            found.append(bool(effects) and all(effects))
    return found


def _fields(message: Any) -> list[tuple[int, Any]]:
    """Number and value of each field: bytes, or the number of a varint."""
    found: list[tuple[int, Any]] = []
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        if tag & 7 == 0:
            value, at = _read_varint(message, at)
            found.append((tag >> 3, value))
        else:
            length, at = _read_varint(message, at)
            found.append((tag >> 3, message[at : at + length]))
            at += length
    return found


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
