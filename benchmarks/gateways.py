"""`make bench-gateways`: requests through nginx, HAProxy, Caddy and Envoy, with and without asking the service.

Each gateway runs from its file in deploy/gateways; *without* is the same file with the asking cut out. Both are pressed
in the same rounds, one after the other, in turns that swap.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import re
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.support.gateways import CADDY, ENVOY, ENVOY_GRPC, HAPROXY, NGINX, Gateway, Kind, Places, running

from benchmarks import report, service
from benchmarks.machine import cores, describe_machine, end_after, pin, versions, wrk_version
from benchmarks.oracle import GRANTED
from benchmarks.routes import calls_of
from benchmarks.servers import HOST, free_port
from benchmarks.workload import CATALOG, Workload, make_workload
from benchmarks.wrk import Wrked, press_with_wrk, write_lua

_GRPC_ENVIRONMENT = "AUTHZ_GRPC_LISTEN"
_FILL = """\
function init(args)
  for line in io.lines(args[1]) do
    local secret, path = line:match("^(%S+) (%S+)$")
    requests[#requests + 1] = wrk.format("GET", path, {["Authorization"] = "Bearer " .. secret})
  end
end
"""
_API = """\
{user}daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 1000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; location / {{ default_type application/json; return 200 '{{"ok": true}}'; }} }}
}}
"""
_ASKING = {
    "nginx": re.compile(
        r"^.*(auth_request|\$authz_(challenge|token_id|owner|permission)|error_page).*\n", re.MULTILINE
    ),
    "haproxy": re.compile(r"^.*(http-request lua\.authz|deny_status 503 unless).*\n", re.MULTILINE),
    "caddy": re.compile(r"^\t\tforward_auth .*?^\t\t}\n", re.MULTILINE | re.DOTALL),
    "envoy": re.compile(r"^ *- name: envoy\.filters\.http\.ext_authz\n.*?(?=^ *- name: envoy\.filters\.http\.router)",
                        re.MULTILINE | re.DOTALL),
}  # fmt: skip
"""What asks, in each gateway's own file."""
_FILES = {"nginx": "api.conf", "haproxy": "haproxy.cfg", "caddy": "Caddyfile", "envoy": "envoy.yaml"}
LABELS = {"nginx": "nginx", "haproxy": "HAProxy", "caddy": "Caddy", "envoy": "Envoy, HTTP", "envoy-grpc": "Envoy, gRPC"}
KINDS = (NGINX, HAPROXY, CADDY, ENVOY, ENVOY_GRPC)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done; `limit` ends a run that hangs, in seconds."""

    rounds: int = 5
    seconds: float = 3.0
    connections: int = 32
    requests: int = 5_000
    limit: int = 900


QUICK = Plan(rounds=1, seconds=1.0, connections=8, requests=100, limit=240)
"""For a test: everything once; its figures mean nothing."""


@dataclass
class Side:
    """One gateway, one way, and what each round said of it."""

    port: int
    rounds: list[Wrked] = field(default_factory=list)


def without(kind: Kind) -> Kind:
    """The gateway that asks nobody. Fails where its file no longer has what is cut out."""
    name = kind.name.partition("-")[0]

    def write(folder: Path, places: Places) -> Sequence[str]:
        command = kind.write(folder, places)
        file = folder / _FILES[name]
        plain, count = _ASKING[name].subn("", file.read_text("utf-8"))
        if not count:
            raise SystemExit(f"`{file.name}` of {kind.name} has nothing to cut out: see `_ASKING`")
        file.write_text(plain, "utf-8")
        return command

    return replace(kind, name=f"{kind.name}-plain", write=write)


@contextmanager
def api(folder: Path) -> Iterator[int]:
    """An API that costs next to nothing: nginx with one fixed answer. Its port."""
    port = free_port()

    def write(place: Path, _: Places) -> Sequence[str]:
        user = "user root;\n" if os.geteuid() == 0 else ""
        (place / "nginx.conf").write_text(_API.format(user=user, folder=place, port=port))
        return ["nginx", "-p", str(place), "-c", str(place / "nginx.conf")]

    with running(Kind("api", NGINX.missing, write), folder, Places(port, 0, 0)):
        yield port


def write_walk(
    folder: Path, workload: Workload, stored: service.Stored, count: int
) -> tuple[Path, list[tuple[str, str]]]:
    """What wrk walks through: allowed GETs with the secrets of their tokens."""
    walk = []
    for position, (method, path) in calls_of(workload):
        if method == "GET" and workload.answers[position] == GRANTED:
            walk.append((stored.tokens[workload.asks[position].token].secret, path))
    walk = walk[:count]
    if not walk:
        raise SystemExit("the workload has no allowed GET")
    folder.mkdir()
    write_lua(folder, _FILL)
    file = folder / "walk.txt"
    file.write_text("".join(f"{secret} {path}\n" for secret, path in walk), encoding="utf-8")
    return file, walk


def prove(port: int, walk: Sequence[tuple[str, str]], *, asks: bool) -> int:
    """That what is measured does what it says; how many answers were looked at."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    tried = [(secret, path, HTTPStatus.OK) for secret, path in walk[:50]]
    tried.append(("nobody", walk[0][1], HTTPStatus.UNAUTHORIZED if asks else HTTPStatus.OK))
    for secret, path, wanted in tried:
        connection.request("GET", path, headers={"Authorization": f"Bearer {secret}"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != wanted:
            raise SystemExit(f"the gateway answers {answer.status} where {wanted.value} is right")
    connection.close()
    return len(tried)


@dataclass(frozen=True, slots=True)
class Stand:
    """What all gateways are measured with: the places of service and API, the walk, and the cores of each half."""

    places: Places
    folder: Path
    press: Path
    walk: Sequence[tuple[str, str]]
    served: Sequence[int]
    loading: Sequence[int]


def measure(plan: Plan, kind: Kind, stack: ExitStack, stand: Stand) -> dict[str, Any]:
    """One gateway with and without us, round by round; which comes first changes from round to round."""
    sides = {}
    for name, each in (("with", kind), ("without", without(kind))):
        pin(*stand.served)  # what starts now stays there
        listening = replace(stand.places, listen=free_port())
        found: Gateway = stack.enter_context(running(each, stand.folder / each.name, listening))
        pin(*stand.loading)
        sides[name] = Side(found.places.listen)
    checked = sum(prove(side.port, stand.walk, asks=name == "with") for name, side in sides.items())
    for side in sides.values():
        press_with_wrk(stand.press, side.port, connections=plan.connections, seconds=plan.seconds)
    for number in range(plan.rounds):
        order = list(sides.values())
        for side in order if number % 2 else order[::-1]:
            side.rounds.append(
                press_with_wrk(stand.press, side.port, connections=plan.connections, seconds=plan.seconds)
            )
    row: dict[str, Any] = {"name": kind.name, "label": LABELS[kind.name], "checked": checked}
    for name, side in sides.items():
        row[name] = {
            "rate": round(statistics.median(one.rate for one in side.rounds)),
            "lowest": round(min(one.rate for one in side.rounds)),
            "highest": round(max(one.rate for one in side.rounds)),
            "p50_ms": round(statistics.median(one.p50 for one in side.rounds) * 1000, 3),
            "p99_ms": round(statistics.median(one.p99 for one in side.rounds) * 1000, 3),
            "failed": sum(one.failed for one in side.rounds),
        }
    pairs = zip(sides["with"].rounds, sides["without"].rounds, strict=True)
    row["kept"] = round(statistics.median(ours.rate / plain.rate for ours, plain in pairs), 3)
    return row


def everything(plan: Plan) -> dict[str, Any]:
    all_cores = cores()
    served, loading = all_cores[-1:], all_cores[:1]

    result: dict[str, Any] = {"kind": "gateways", "at": datetime.now(UTC).isoformat(timespec="seconds")}
    result |= {
        "machine": describe_machine(),
        "versions": versions(),
        "method": vars_of(plan),
        "rows": [],
        "left_out": [],
    }
    with ExitStack() as stack:
        folder = stack.enter_context(service.scratch())
        server = stack.enter_context(service.postgres(folder))
        workload = make_workload()
        keys = service.Keys()
        stored = asyncio.run(service.store(service.new_database(server, "gateways"), keys, workload))
        grpc = free_port()
        environment = keys.environment(stored.url) | {_GRPC_ENVIRONMENT: f"{HOST}:{grpc}"}
        pdp, port = service.serve("authz", environment, cores=served, folder=folder)
        stack.enter_context(pdp)
        pin(*loading)
        api_port = stack.enter_context(api(folder / "api"))
        press, walk = write_walk(folder / "walk", workload, stored, plan.requests)
        places = Places(0, pdp=port, api=api_port, token=stored.gateway.secret, catalog=CATALOG, grpc=grpc)
        stand = Stand(places, folder, press, walk, served, loading)
        for kind in KINDS:
            missing = kind.missing()
            if missing is not None:
                result["left_out"].append({"name": kind.name, "why": missing})
                continue
            with ExitStack() as own:
                row = measure(plan, kind, own, stand)
            result["rows"].append(row)
            print(f"{row['label']}: {row['with']['rate']:,}/s with, {row['without']['rate']:,}/s without", flush=True)
    return result


def table(result: dict[str, Any]) -> str:
    lines = [
        "| gateway | requests/s with us | without | kept | p50 ms with | without | p99 ms with | without |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        ours, plain = row["with"], row["without"]
        spread = f"{ours['rate']:,} ({ours['lowest']:,} to {ours['highest']:,})"
        lines.append(
            f"| {row['label']} | {spread} | {plain['rate']:,} | {row['kept']:.0%} | {ours['p50_ms']:g} |"
            f" {plain['p50_ms']:g} | {ours['p99_ms']:g} | {plain['p99_ms']:g} |"
        )
    machine, method = result["machine"], result["method"]
    failed = sum(row[side]["failed"] for row in result["rows"] for side in ("with", "without"))
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}"
    how = f"{method['load']} with {method['connections']} connections; medians of {method['rounds']} paired rounds"
    lines += ["", f"Measured on {result['at'][:10]}: {where}, load when it began {machine['load_before']:g}. {how}"]
    lines[-1] += f" of {method['seconds']:g} s. {failed} requests failed. Gateway and service share one core, load and"
    lines[-1] += " API the other. *Kept* is the median of the rounds' own ratios. The same as"
    lines[-1] += " [JSON](performance/gateways.json)."
    return "\n".join(lines + [f"\nLeft out: {each['why']}." for each in result["left_out"]])


def write(result: dict[str, Any], output: Path | None) -> None:
    """The results as a file; without `output`, where the page has them, and the page's table anew."""
    path = output or report.FOLDER / "gateways.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if output is None:
        text = report.PAGE.read_text(encoding="utf-8")
        before, begin, rest = text.partition("<!-- gateways: begin -->\n")
        _, end, after = rest.partition("<!-- gateways: end -->")
        report.PAGE.write_text(f"{before}{begin}{table(result)}\n{end}{after}", encoding="utf-8")


def vars_of(plan: Plan) -> dict[str, Any]:
    return {
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "connections": plan.connections,
        "load": f"wrk {wrk_version()}",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="everything once; the figures mean nothing")
    parser.add_argument("--output", type=Path, help="a file for the results, in place of the page's")
    chosen = parser.parse_args(arguments)
    plan = QUICK if chosen.quick else Plan()
    if wrk_version() is None:
        raise SystemExit("this needs `wrk`: install it from the system's packages")
    end_after(plan.limit)
    result = everything(plan)
    end_after(0)
    write(result, chosen.output)
    return 1 if any(row[side]["failed"] for row in result["rows"] for side in ("with", "without")) else 0


if __name__ == "__main__":
    raise SystemExit(main())
