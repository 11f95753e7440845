"""Real gateways on loopback, started from the very files in deploy/gateways, before an API that notes what it gets."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "deploy" / "gateways"
INSTALLED = ROOT / ".gateways"
"""Where tools/install_gateways.sh puts what comes as Python wheels."""

START_SECONDS = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# the API behind


@dataclass
class Seen:
    """One request as it reached the API."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        """Of a header, however it is spelt: frameworks read `_` as `-`."""
        wanted = name.lower().replace("_", "-")
        return [value for key, value in self.headers if key.lower().replace("_", "-") == wanted]


@dataclass
class Upstream:
    """An API that says yes to everything, to another protocol too, and remembers it."""

    port: int
    seen: list[Seen] = field(default_factory=list)
    tunnelled: list[bytes] = field(default_factory=list)
    """What came over connections that had gone over to another protocol."""


@contextmanager
def upstream() -> Iterator[Upstream]:
    found = Upstream(0)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            found.seen.append(Seen(self.command, self.path, list(self.headers.items()), body))
            if "upgrade" in self.headers:
                self._go_over(self.headers["upgrade"])
                return
            text = json.dumps({"path": self.path}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.send_header("X-From", "api")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        def _go_over(self, protocol: str) -> None:
            """Each piece that comes is answered, so that whoever sent it knows that it arrived."""
            self.send_response(101)
            self.send_header("Connection", "Upgrade")
            self.send_header("Upgrade", protocol)
            self.send_header("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
            self.end_headers()
            self.close_connection = True
            while piece := self.connection.recv(65536):
                found.tunnelled.append(piece)
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer  # noqa: N815 - the library's names

        def log_message(self, *args: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A connection that was reset is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# clients


@dataclass
class Answer:
    """What the client got: status 0 is a connection that ended without an answer."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Client:
    """Sends requests byte for byte as they are written, over one connection as long as that holds."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self.connections = 0

    def send(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        seconds: float = 20.0,
    ) -> Answer:
        lines = [f"{method} {target} HTTP/1.1", "Host: api.test", *(f"{name}: {value}" for name, value in headers)]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return self.send_raw("\r\n".join([*lines, "", ""]).encode("latin-1") + body, method, seconds)

    def send_raw(self, request: bytes, method: str = "GET", seconds: float = 20.0) -> Answer:
        try:
            return self._exchange(request, method, seconds)
        except (OSError, http.client.HTTPException):
            self.close()
            return Answer(0)

    def _exchange(self, request: bytes, method: str, seconds: float) -> Answer:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port))
            self.connections += 1
        self._socket.settimeout(seconds)
        self._socket.sendall(request)
        response = http.client.HTTPResponse(self._socket, method=method)
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        answer = Answer(response.status, headers, response.read())
        if response.will_close:
            self.close()
        return answer

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# gateways


@dataclass(frozen=True)
class Places:
    """What a sample is filled with. `token` is the gateway's own; empty, it counts by where it asks from."""

    listen: int
    pdp: int
    api: int
    token: str = ""
    catalog: str = "orders"
    grpc: int = 0


@dataclass(frozen=True)
class Kind:
    """One gateway: which program, which sample, and how it is started. `missing` says why it cannot be."""

    name: str
    missing: Callable[[], str | None]
    write: Callable[[Path, Places], Sequence[str]]


def require(kind: Kind) -> None:
    """Skip the test, with the reason, where the gateway is not installed. In CI it has to be."""
    missing = kind.missing()
    if missing is not None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(missing)


def fill(sample: str, changes: Mapping[str, str]) -> str:
    """The sample with what is marked as everybody's own. Fails when the sample has no such thing any more."""
    text = (SAMPLES / sample).read_text("utf-8")
    for old, new in changes.items():
        assert old in text, f"`{old}` is not in {sample}"
        text = text.replace(old, new)
    return text


def _not_installed(program: str) -> str | None:
    where = "from the system's packages (as root on Debian: tools/debian_packages.py)"
    return None if shutil.which(program, path=_PATH) else f"`{program}` is not installed: install it {where}"


_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def _nginx(folder: Path, places: Places) -> Sequence[str]:
    changes = {
        "127.0.0.1:8080": f"127.0.0.1:{places.pdp}",
        "127.0.0.1:3000": f"127.0.0.1:{places.api}",
        "127.0.0.1:8000": f"127.0.0.1:{places.listen}",
        'default "";': f'default "{places.token}";',
        "catalog=orders": f"catalog={places.catalog}",
    }
    (folder / "api.conf").write_text(fill("nginx.conf", changes))
    temporary = "\n".join(
        f"  {kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user}daemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log stderr warn;\n"
        f"events {{}}\nhttp {{\n  access_log off;\n{temporary}\n  include {folder}/api.conf;\n}}\n"
    )
    return [shutil.which("nginx", path=_PATH) or "nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def _caddy(folder: Path, places: Places) -> Sequence[str]:
    changes = {
        ":8000 {": f":{places.listen} {{",
        "127.0.0.1:8080": f"127.0.0.1:{places.pdp}",
        "127.0.0.1:3000": f"127.0.0.1:{places.api}",
        "catalog=orders": f"catalog={places.catalog}",
    }
    # The admin interface has one port for all of a machine's Caddys.
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n}\n" + fill("Caddyfile", changes))
    return [str(_CADDY), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def _haproxy(folder: Path, places: Places) -> Sequence[str]:
    changes = {
        "bind 127.0.0.1:8000": f"bind 127.0.0.1:{places.listen}",
        "127.0.0.1:8080": f"127.0.0.1:{places.pdp}",
        "127.0.0.1:3000": f"127.0.0.1:{places.api}",
        "catalog=orders": f"catalog={places.catalog}",
        "/etc/haproxy/authz.lua": str(SAMPLES / "authz.lua"),
    }
    (folder / "haproxy.cfg").write_text(fill("haproxy.cfg", changes))
    return [shutil.which("haproxy", path=_PATH) or "haproxy", "-db", "-f", str(folder / "haproxy.cfg")]


def _envoy(sample: str) -> Callable[[Path, Places], Sequence[str]]:
    def write(folder: Path, places: Places) -> Sequence[str]:
        changes = {
            "port_value: 8000": f"port_value: {places.listen}",
            "port_value: 3000": f"port_value: {places.api}",
            'value: "orders"': f'value: "{places.catalog}"',
            'value: ""': f'value: "{places.token}"',
        }
        changes |= (
            {"port_value: 8080": f"port_value: {places.pdp}"}
            if sample == "envoy.yaml"
            else {"port_value: 9001": f"port_value: {places.grpc}"}
        )
        (folder / "envoy.yaml").write_text(fill(sample, changes))
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]
        return [str(_ENVOY), "-c", str(folder / "envoy.yaml"), *options]

    return write


def _no_file(program: Path) -> Callable[[], str | None]:
    return lambda: None if program.exists() else f"`{program.name}` is not installed: run `make gateways`"


_CADDY = INSTALLED / "caddy" / "bin" / "caddy"
_ENVOY = INSTALLED / "envoy" / "envoy" / "_bin" / "envoy"

NGINX = Kind("nginx", lambda: _not_installed("nginx"), _nginx)
CADDY = Kind("caddy", _no_file(_CADDY), _caddy)
HAPROXY = Kind("haproxy", lambda: _not_installed("haproxy"), _haproxy)
ENVOY = Kind("envoy", _no_file(_ENVOY), _envoy("envoy.yaml"))
ENVOY_GRPC = Kind("envoy-grpc", _no_file(_ENVOY), _envoy("envoy-grpc.yaml"))
KINDS = (NGINX, CADDY, HAPROXY, ENVOY, ENVOY_GRPC)


@dataclass
class Gateway:
    """A running gateway, and where clients reach it."""

    kind: Kind
    places: Places
    folder: Path

    @property
    def printed(self) -> str:
        return (self.folder / "output.txt").read_text(errors="replace")

    def client(self) -> Client:
        return Client(self.places.listen)


@contextmanager
def running(kind: Kind, folder: Path, places: Places) -> Iterator[Gateway]:
    """The gateway, until left. It is ended by the number it was started with."""
    folder.mkdir(parents=True, exist_ok=True)
    command = kind.write(folder, places)
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(folder, places),
        )
    found = Gateway(kind, places, folder)
    try:
        _wait_for(places.listen, process, found)
        yield found
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(folder: Path, places: Places) -> dict[str, str]:
    return {"PATH": _PATH, "HOME": str(folder), "AUTHZ_GATEWAY_TOKEN": places.token}


def _wait_for(port: int, process: subprocess.Popen[bytes], gateway: Gateway) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, f"{gateway.kind.name} ended with {process.returncode}: {gateway.printed}"
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert time.monotonic() < end, f"{gateway.kind.name} does not listen: {gateway.printed}"
        time.sleep(0.02)


def told(answer: Answer) -> dict[str, Any]:
    """The body, where the gateway passes it on; else nothing."""
    with suppress(ValueError):
        found = json.loads(answer.body)
        return found if isinstance(found, dict) else {}
    return {}
