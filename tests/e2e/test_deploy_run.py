"""What deploy/ says, run: the commands of the compose file and of the chart, as containers run them, on a database."""

from __future__ import annotations

import base64
import itertools
import os
import re
import select
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
import yaml
from tests.support.chart import MANAGED, environment_of, find, merged, render
from tests.support.contained import USER, contained, need_containment, run_contained
from tests.support.gateways import free_port
from tests.support.processes import Running, started

from authz_service.cli.health import health
from authz_service.config import unknown_settings
from authz_service.embedded.binaries import find_binaries

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "deploy" / "compose"
PEPPER = base64.b64encode(bytes(range(32))).decode()
PROGRAM = (sys.executable, "-m", "authz_service")
START = 180.0
numbers = itertools.count(1)


@dataclass(frozen=True)
class Database:
    """A database, its owner, and the name of a role that is to serve."""

    url: str
    role: str
    password: str
    port: int
    """Where it answers on loopback: its own socket is for its own user."""

    @property
    def socket(self) -> Path:
        return Path(parse_qs(urlsplit(self.url).query)["host"][0])

    @property
    def owner_url(self) -> str:
        parts = urlsplit(self.url)
        return f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{self.port}{parts.path}"

    @property
    def service_url(self) -> str:
        return f"postgresql://{self.role}:{self.password}@127.0.0.1:{self.port}{urlsplit(self.url).path}"

    def psql(self) -> dict[str, str]:
        """For PostgreSQL's own programs."""
        parts = urlsplit(self.url)
        return {
            "PGHOST": str(self.socket),
            "PGPORT": parse_qs(parts.query)["port"][0],
            "PGPASSWORD": parts.password or "",
            "POSTGRES_USER": parts.username or "",
            "POSTGRES_DB": parts.path.removeprefix("/"),
            "PATH": f"{find_binaries().folder}:{os.environ['PATH']}",
        }


@pytest.fixture
def database(postgres, empty_database_url) -> Iterator[Database]:
    """Empty, as the database's image makes it. The role is removed at the end."""
    query = parse_qs(urlsplit(empty_database_url).query)
    with forwarding(Path(query["host"][0]) / f".s.PGSQL.{query['port'][0]}") as port:
        found = Database(empty_database_url, f"serving_{os.getpid()}_{next(numbers)}", "hush" * 8, port)
        yield found
    for text in (f'drop owned by "{found.role}"', f'drop role "{found.role}"'):
        run_sql(found, text, check=False)


@contextmanager
def forwarding(path: Path) -> Iterator[int]:
    """A port of loopback that leads to the socket."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as there:
                there.connect(str(path))
                both = {self.request: there, there: self.request}
                while True:
                    for one in select.select([*both], [], [])[0]:
                        data = one.recv(65536)
                        if not data:
                            return
                        both[one].sendall(data)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A side that went away ends its connection, and nobody has to hear of it."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def run_sql(database: Database, text: str, *, check: bool = True) -> str:
    given = database.psql()
    command = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--username", given["POSTGRES_USER"]]
    command += ["--dbname", given["POSTGRES_DB"], "--command", text]
    program = str(find_binaries().folder / "psql")
    done = subprocess.run([program, *command[1:]], env=given, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip()


def image_environment() -> dict[str, str]:
    """What the image's last stage sets."""
    text = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2].replace("\\\n", " ")
    [line] = re.findall(r"^ENV (.*)$", text, re.MULTILINE)
    found = dict(re.findall(r"(\w+)=(\S+)", line))
    del found["PATH"]
    return found


@contextmanager
def serving(env: Mapping[str, str], folder: Path, *arguments: str, kept: list[Path]) -> Iterator[tuple[Running, str]]:
    """The service, contained, with this environment and no other, and where it answers."""
    need_containment()
    port = free_port()
    environ = {**env, "AUTHZ_PORT": str(port), "AUTHZ_HOST": "127.0.0.1"}
    command = contained(*PROGRAM, *arguments, kept=kept)
    wrapper = ("env", "-i", f"PATH={os.environ['PATH']}", *(f"{name}={value}" for name, value in environ.items()))
    with started(*command, output=folder / "log.jsonl", program=wrapper) as running:
        running.wait_until(lambda: '"answering"' in running.printed, START)
        yield running, f"http://127.0.0.1:{port}"


# the compose file


def compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """The compose file with its variables filled in."""

    def fill(match: re.Match[str]) -> str:
        name, _, default = match[1].partition(":-")
        name = name.partition(":?")[0]
        return variables.get(name) or default

    return yaml.safe_load(re.sub(r"\$\{([^}]*)\}", fill, (COMPOSE / "compose.yaml").read_text()))


def test_the_compose_file_s_steps_make_a_service_that_may_only_serve(database, open_folder, tmp_path):
    need_containment()
    found = compose({"OWNER_PASSWORD": "x", "SERVICE_PASSWORD": database.password, "AUTHZ_WORKERS": "2"})
    migrate, server = found["services"]["migrate"], found["services"]["server"]

    # the role, as the database's image makes it
    script = (COMPOSE / "roles.sh").read_text().replace("role authz ", f'role "{database.role}" ')
    made = subprocess.run(
        ["sh", "-c", script],
        env=database.psql() | {"SERVICE_PASSWORD": database.password},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    kept = [open_folder]

    # the migration, as the owner
    command = [database.role if word == "authz" else word for word in migrate["command"]]
    owner = image_environment() | migrate["environment"] | {"AUTHZ_DATABASE_URL": database.owner_url}
    done = run_contained(*PROGRAM, *command, env=owner, kept=kept)
    assert done.returncode == 0, done.stderr

    # the service, as the role that serves
    (open_folder / "peppers").write_text(f"k1:{PEPPER}\n")
    environ = image_environment() | {name: str(value) for name, value in server["environment"].items()}
    environ |= {"AUTHZ_DATABASE_URL": database.service_url, "AUTHZ_PEPPERS_FILE": str(open_folder / "peppers")}
    with serving(environ, tmp_path, *server["command"], kept=kept) as (running, url):
        assert status_of(running.process.pid)["Uid"].split()[0] == str(USER)
        assert int(status_of(running.process.pid)["CapEff"], 16) == 0
        port = {"AUTHZ_PORT": url.rpartition(":")[2]}
        for arguments in (["health"], ["health", "--ready"]):
            asked = run_contained(*PROGRAM, *arguments, env=environ | port, kept=kept)
            assert (asked.returncode, asked.stderr) == (0, "")
        first = run_contained(*PROGRAM, "bootstrap", env=environ, kept=kept)
        secret = first.stdout.strip()
        assert secret.startswith("azt_"), first.stderr
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
            answer = http.get("/v1/self", headers={"Authorization": f"Bearer {secret}"})
            assert answer.status_code == 200, answer.text
            assert re.search(r"^authz_workers 2\.0$", http.get("/metrics").text, re.MULTILINE)
        assert run_sql(database, f"select has_table_privilege('{database.role}', 'audit', 'delete')") == "f"
        assert running.stop(signal.SIGTERM) == 0
        assert secret not in running.printed
    asked = run_contained(*PROGRAM, "health", env=environ | port, kept=kept)
    assert asked.returncode == 3
    assert "no answer" in asked.stderr


def status_of(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_the_compose_file_names_settings_that_there_are_and_keeps_containers_closed():
    found = compose({"OWNER_PASSWORD": "x", "SERVICE_PASSWORD": "y"})
    for name in ("migrate", "server"):
        service = found["services"][name]
        assert unknown_settings({key: str(value) for key, value in service["environment"].items()}) == []
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert [one.partition(":")[0] for one in service["tmpfs"]] == ["/tmp"]
        assert set(service.get("secrets", ())) <= set(found["secrets"])
        assert set(service["networks"]) <= set(found["networks"])
        for other, condition in service["depends_on"].items():
            assert other in found["services"]
            wants_health = condition["condition"] == "service_healthy"
            assert not wants_health or "healthcheck" in found["services"][other]
    assert found["services"]["server"]["ports"] == ["127.0.0.1:8080:8080"], "this machine alone"
    assert "ports" not in found["services"]["database"]
    assert found["networks"]["inside"]["internal"] is True
    grace = int(found["services"]["server"]["stop_grace_period"].removesuffix("s"))
    assert grace >= int(found["services"]["server"]["environment"]["AUTHZ_DRAIN"]) + 15 + 10
    build = found["services"]["server"]["build"]
    assert (COMPOSE / build["context"] / "Dockerfile").resolve() == ROOT / "Dockerfile"
    for mount in found["services"]["database"]["volumes"]:
        source = mount.partition(":")[0]
        assert source in found["volumes"] or (COMPOSE / source).is_file()


def test_the_compose_file_does_not_start_without_its_passwords():
    text = (COMPOSE / "compose.yaml").read_text()
    for name in ("OWNER_PASSWORD", "SERVICE_PASSWORD"):
        assert f"${{{name}:?" in text


def test_secrets_are_made_once_and_for_their_owner_alone(tmp_path):
    script = tmp_path / "secrets.sh"
    script.write_text((COMPOSE / "secrets.sh").read_text())
    made = subprocess.run(["sh", str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode == 0, made.stderr
    passwords = dict(line.split("=") for line in (tmp_path / ".env").read_text().splitlines())
    assert set(passwords) == {"OWNER_PASSWORD", "SERVICE_PASSWORD"}
    assert all(len(value) == 48 and quote(value, safe="") == value for value in passwords.values())
    assert len(set(passwords.values())) == 2
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    kid, _, pepper = (tmp_path / "secrets" / "peppers").read_text().strip().partition(":")
    assert (kid, len(base64.b64decode(pepper))) == ("k1", 32)
    for word in (*passwords.values(), pepper):
        assert word not in made.stdout + made.stderr
    before = (tmp_path / "secrets" / "peppers").read_bytes()
    again = subprocess.run(["sh", str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 1
    assert (tmp_path / "secrets" / "peppers").read_bytes() == before


# the chart


def test_the_chart_s_job_and_pod_run_on_a_database_and_answer_their_probes(database, open_folder, tmp_path):
    need_containment()
    values = merged(MANAGED, {"migration": {"serviceRole": database.role}, "settings": {"AUTHZ_DRAIN": 0}})
    objects = render(values)
    secrets = {
        ("authz-owner", "url"): database.owner_url,
        ("authz-database", "url"): database.service_url,
    }
    run_sql(database, f"create role \"{database.role}\" login password '{database.password}'")
    kept = [open_folder]

    job = find(objects, "Job")["spec"]["template"]["spec"]
    owner = image_environment() | environment_of(job, secrets)
    done = run_contained(*PROGRAM, *job["containers"][0]["args"], env=owner, kept=kept)
    assert done.returncode == 0, done.stderr
    again = run_contained(*PROGRAM, *job["containers"][0]["args"], env=owner, kept=kept)
    assert again.returncode == 0, "the hook runs before each upgrade"

    pod = find(objects, "Deployment")["spec"]["template"]["spec"]
    (open_folder / "peppers").write_text(f"k1:{PEPPER}\n")
    environ = image_environment() | environment_of(pod, secrets)
    environ |= {"AUTHZ_PEPPERS_FILE": str(open_folder / "peppers")}  # where Kubernetes would mount it
    [container] = pod["containers"]
    with serving(environ, tmp_path, *container["args"], kept=kept) as (running, url):
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            answer = httpx.get(url + container[name]["httpGet"]["path"], trust_env=False, timeout=60)
            assert answer.status_code == 200, answer.text
        assert running.stop(signal.SIGTERM) == 0


# the image


def test_the_image_runs_as_nobody_in_particular_and_is_asked_by_a_command_of_ours():
    text = (ROOT / "Dockerfile").read_text()
    last = text.rpartition("\nFROM ")[2]
    assert re.search(rf"^USER {USER}:{USER}$", last, re.MULTILINE)
    assert re.search(r'HEALTHCHECK [^\n]* CMD \["authz", "health"\]$', last, re.MULTILINE)
    assert "pip" not in last
    assert "RUN" not in last, "nothing is made in the last stage, so nothing is left over"
    assert re.findall(r"^ADD", text, re.MULTILINE) == []
    assert re.findall(r"^COPY(?! --from=build)", last, re.MULTILINE) == []
    assert unknown_settings(image_environment()) == []


@pytest.mark.parametrize(
    "where", [{"AUTHZ_HOST": "0.0.0.0"}, {"AUTHZ_HOST": "::"}, {"AUTHZ_UDS": "/nowhere/authz.sock"}]
)
def test_a_service_that_is_not_there_is_no_answer(where):
    port = {"AUTHZ_PORT": str(free_port())}
    done = subprocess.run(
        [*PROGRAM, "health"],
        env={**os.environ, **port, **where},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.startswith("authz: no answer from /livez")
    assert "Traceback" not in done.stderr


def test_health_asks_at_the_unix_socket_and_repeats_what_stands_in_the_way(tmp_path):
    path = tmp_path / "s"
    answers = iter(
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"HTTP/1.1 503 X\r\nContent-Length: 5\r\n\r\nstale"]
    )
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    asked.append(connection.recv(4096))
                    with suppress(BrokenPipeError):
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert health(ready=False, environ={"AUTHZ_UDS": str(path)}) == 0
        assert health(ready=True, environ={"AUTHZ_UDS": str(path)}) == 1
        thread.join()
    assert [line.split(b" ")[1] for line in asked] == [b"/livez", b"/readyz"]
