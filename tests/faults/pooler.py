"""PgBouncer in transaction mode, as Debian packages it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from tests.faults.postgres import Postgres, roomy
from tests.faults.proxy import die_with_parent

MISSING = "`pgbouncer` is not installed: `python tools/debian_packages.py` installs it, as root on Debian"


def find() -> str | None:
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Pooler:
    """Started on construction, for one server."""

    def __init__(self, postgres: Postgres) -> None:
        program = find()
        if program is None:
            raise AssertionError(MISSING)
        self._folder = Path(tempfile.mkdtemp(prefix="authz-pooler-", dir=roomy()))
        self._folder.chmod(0o755)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        users = self._folder / "users.txt"
        users.write_text(f'"authz" "{postgres.password}"\n')
        configuration = self._folder / "pgbouncer.ini"
        configuration.write_text(
            "\n".join(
                [
                    "[databases]",
                    f"authz = host={postgres.server.sockets} port=5432 dbname=authz",
                    "[pgbouncer]",
                    "listen_addr = 127.0.0.1",
                    f"listen_port = {self.port}",
                    "unix_socket_dir =",
                    "auth_type = scram-sha-256",
                    f"auth_file = {users}",
                    "pool_mode = transaction",
                    "max_client_conn = 500",
                    "default_pool_size = 8",
                    f"logfile = {self._folder / 'log'}",
                    "",
                ]
            )
        )
        command = [program, "--quiet", str(configuration)]
        account = pwd.getpwnam("nobody")
        if os.geteuid() == 0:
            for path in (self._folder, users, configuration):
                os.chown(path, account.pw_uid, account.pw_gid)
        parent = os.getpid()
        root = os.geteuid() == 0
        self._process = subprocess.Popen(
            command,
            user=account.pw_uid if root else None,
            group=account.pw_gid if root else None,
            extra_groups=[] if root else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: die_with_parent(parent),  # noqa: PLW1509 - it cannot do this by itself, being no Python
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def await_answering(self) -> Self:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"the pooler did not start: {(self._folder / 'log').read_text()}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
