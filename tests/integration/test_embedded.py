"""The embedded server against real PostgreSQL: it starts, keeps its data, and never outlives its owner."""

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from authz_service.embedded import (
    EmbeddedPostgres,
    EmbeddedPostgresError,
    EmbeddedPostgresInUseError,
    PostgresBinariesMissingError,
    find_binaries,
)
from authz_service.embedded.places import LONGEST_SOCKET_FOLDER, Account, reachable

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands its server to another user")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
QUICK = {"fsync": "off"}

OWNER = """
import sys, time
from pathlib import Path
from authz_service.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), settings={"fsync": "off"}).start()
print(server.pid, flush=True)
time.sleep(120)
"""


@pytest.fixture
def data(open_folder: Path) -> Path:
    """A data folder that does not exist yet."""
    return open_folder / "data"


@pytest.fixture
def owner(data: Path) -> Iterator[Callable[[], tuple["subprocess.Popen[str]", int]]]:
    """Starts a process that owns a server on `data`; gives the process and the server's id."""
    started: list[tuple[subprocess.Popen[str], int]] = []

    def start() -> tuple["subprocess.Popen[str]", int]:
        process = subprocess.Popen([sys.executable, "-c", OWNER, data], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        started.append((process, int(process.stdout.readline())))
        return started[-1]

    yield start
    for process, server in started:
        process.kill()
        process.communicate()
        if process.returncode == -signal.SIGKILL and sys.platform != "linux":
            os.kill(server, signal.SIGINT)
        wait_for_the_end_of(server)


def ask(server: EmbeddedPostgres, statement: str) -> object:
    async def run() -> object:
        connection = await asyncpg.connect(server.dsn)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


def alive(pid: int) -> bool:
    """Whether the process runs; a dead one that nobody has buried yet does not."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
    except (ProcessLookupError, FileNotFoundError):
        return False


def wait_for_the_end_of(pid: int) -> None:
    end = time.monotonic() + 60
    while alive(pid):
        assert time.monotonic() < end, f"process {pid} runs on"
        time.sleep(0.02)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_first_start_makes_a_database_that_both_drivers_reach(data: Path) -> None:
    async def through_sqlalchemy(url: str) -> object:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            found = (await connection.execute(text("SELECT current_database()"))).scalar()
        await engine.dispose()
        return found

    with EmbeddedPostgres(data, settings=QUICK) as server:
        assert ask(server, "SELECT current_database()") == "authz"
        assert asyncio.run(through_sqlalchemy(server.url)) == "authz"
        assert server.version == str(ask(server, "SHOW server_version")).split()[0]


@pytest.fixture(scope="module")
def defaults() -> Iterator[EmbeddedPostgres]:
    """A server without any setting of ours, on the disk that a developer's has."""
    with EmbeddedPostgres(Path(tempfile.gettempdir()) / f"authz-tests-{uuid.uuid4().hex[:12]}") as server:
        yield server
    shutil.rmtree(server.folder)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("lc_collate", "C"),
        ("listen_addresses", ""),
        ("unix_socket_permissions", "0700"),
        ("password_encryption", "scram-sha-256"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("timezone", "UTC"),
    ],
)
def test_the_server_is_private_and_keeps_its_promises(defaults: EmbeddedPostgres, setting: str, value: str) -> None:
    statement = (
        "SELECT datcollate FROM pg_database WHERE datname = 'authz'" if setting == "lc_collate" else f"SHOW {setting}"
    )
    assert ask(defaults, statement) == value


def test_nobody_else_can_read_the_password_the_data_or_the_log(defaults: EmbeddedPostgres) -> None:
    assert mode(defaults.folder / "password") == 0o600
    assert mode(defaults.folder / "postgres") == 0o700
    assert mode(defaults.folder / "postgres.log") == 0o600
    assert mode(defaults.sockets) == 0o700


def test_no_way_in_goes_without_the_password(defaults: EmbeddedPostgres) -> None:
    async def knock() -> None:
        await asyncpg.connect(host=str(defaults.sockets), user="authz", password="wrong", database="authz")

    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(knock())
    rules = ask(defaults, "SELECT string_agg(DISTINCT auth_method, ',') FROM pg_hba_file_rules")
    assert rules == "scram-sha-256"


def test_the_password_shows_in_no_repr(defaults: EmbeddedPostgres) -> None:
    password = (defaults.folder / "password").read_text()
    assert password in defaults.dsn
    assert password not in repr(defaults)


def test_a_keystroke_for_the_service_does_not_reach_its_database(defaults: EmbeddedPostgres) -> None:
    assert defaults.pid is not None
    assert os.getpgid(defaults.pid) != os.getpgid(0)


async def test_databases_are_made_and_dropped_inside_an_event_loop(defaults: EmbeddedPostgres) -> None:
    url = defaults.create_database("first")
    connection = await asyncpg.connect(defaults.dsn_of("first"))
    await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    await connection.close()
    defaults.create_database("second", template="first")
    connection = await asyncpg.connect(defaults.dsn_of("second"))
    assert await connection.fetchval("SELECT answer FROM kept") == 42
    assert url == defaults.url_of("first")

    for name in ("first", "second"):  # one of them is still in use
        defaults.drop_database(name)
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(defaults.dsn_of("second"))
    connection.terminate()


@pytest.mark.parametrize("name", ["", "a-b", "Upper", "1st", 'x"; DROP DATABASE authz; --', "a" * 64])
def test_a_name_that_would_need_quoting_is_refused(defaults: EmbeddedPostgres, name: str) -> None:
    with pytest.raises(EmbeddedPostgresError, match="cannot name a database"):
        defaults.create_database(name)


def test_a_database_that_exists_is_not_made_again(defaults: EmbeddedPostgres) -> None:
    with pytest.raises(EmbeddedPostgresError, match="already exists"):
        defaults.create_database("authz")


def test_a_restart_keeps_the_data_and_the_password(data: Path) -> None:
    with EmbeddedPostgres(data, settings=QUICK) as server:
        ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        first = server.dsn
    assert server.pid is None
    with EmbeddedPostgres(data, settings=QUICK) as server:
        assert ask(server, "SELECT answer FROM kept") == 42
        assert server.dsn == first


def test_one_object_starts_again_after_its_stop_and_not_before(data: Path) -> None:
    server = EmbeddedPostgres(data, settings=QUICK)
    with server:
        with pytest.raises(EmbeddedPostgresError, match="started already"):
            server.start()
        assert server.pid is not None
    with server:
        assert ask(server, "SELECT 1") == 1
    server.stop()  # once more than needed


def test_a_second_process_on_the_same_data_is_told_who_has_it(
    data: Path, owner: Callable[[], tuple["subprocess.Popen[str]", int]]
) -> None:
    process, server = owner()
    with pytest.raises(EmbeddedPostgresInUseError, match=rf"in use by process {process.pid}") as caught:
        EmbeddedPostgres(data).start()
    assert caught.value.holder == process.pid
    assert alive(server)


@on_linux
def test_the_server_ends_in_order_when_its_owner_is_killed(
    data: Path, owner: Callable[[], tuple["subprocess.Popen[str]", int]]
) -> None:
    process, server = owner()
    assert alive(server)
    process.kill()
    process.wait()
    wait_for_the_end_of(server)
    assert "database system is shut down" in (data / "postgres.log").read_text()


def test_an_owner_that_just_exits_takes_its_server_along(data: Path) -> None:
    script = OWNER.replace("time.sleep(120)", "")
    outcome = subprocess.run([sys.executable, "-c", script, data], capture_output=True, text=True, check=True)
    assert not alive(int(outcome.stdout))
    assert "database system is shut down" in (data / "postgres.log").read_text()


def test_the_next_owner_need_not_wait_for_a_killed_one(
    data: Path, owner: Callable[[], tuple["subprocess.Popen[str]", int]]
) -> None:
    process, first = owner()
    process.kill()
    process.wait()
    with EmbeddedPostgres(data, settings=QUICK) as server:
        assert server.pid != first
        assert not alive(first)
        assert ask(server, "SELECT 1") == 1


@on_linux
def test_an_orphaned_server_is_ended_by_the_next_owner(data: Path) -> None:
    with EmbeddedPostgres(data, settings=QUICK) as server:
        settled = server._settled()
    account = settled.account
    programs = reachable(find_binaries(), account).folder
    command = [programs / "postgres", "-D", settled.data, "-k", settled.data]
    orphan = subprocess.Popen(
        [*command, "-c", "listen_addresses="],
        user=account.uid if account else None,
        cwd="/",
        stderr=subprocess.DEVNULL,
    )
    while len(_lines(settled.data / "postmaster.pid")) < 8:
        time.sleep(0.02)
    reaper = threading.Thread(target=orphan.wait)
    reaper.start()
    with server:
        assert ask(server, "SELECT 1") == 1
    reaper.join()
    assert orphan.returncode == 0


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_the_server_outlives_the_thread_that_started_it(data: Path) -> None:
    server = EmbeddedPostgres(data, settings=QUICK)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        time.sleep(0.2)  # as long as a death signal could take
        assert ask(server, "SELECT 1") == 1
    finally:
        server.stop()


def test_a_crash_is_noticed_and_the_next_start_recovers(data: Path) -> None:
    with EmbeddedPostgres(data, settings={"full_page_writes": "on"}) as server:
        ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        while server.pid is not None:
            time.sleep(0.01)
    with server:
        assert ask(server, "SELECT answer FROM kept") == 42


def test_a_number_that_passed_to_another_program_stops_no_start_and_harms_nobody(data: Path) -> None:
    with EmbeddedPostgres(data, settings=QUICK) as server:
        account = server._settled().account
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        while server.pid is not None:
            time.sleep(0.01)
    note = data / "postgres" / "postmaster.pid"
    stranger = subprocess.Popen(["sleep", "60"], user=account.uid if account else None, cwd="/")
    try:
        note.write_text("\n".join([str(stranger.pid), *note.read_text().splitlines()[1:]]) + "\n")
        with server:
            assert ask(server, "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_start_that_takes_too_long_leaves_nothing_behind(data: Path) -> None:
    with EmbeddedPostgres(data, settings=QUICK):
        pass
    with pytest.raises(EmbeddedPostgresError, match="not ready within 0 s"):
        EmbeddedPostgres(data, settings=QUICK, start_timeout=0).start()
    with EmbeddedPostgres(data, settings=QUICK) as server:
        assert ask(server, "SELECT 1") == 1


def test_a_server_that_refuses_its_settings_is_quoted(data: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match=r"ended as it started: .*no_such_setting"):
        EmbeddedPostgres(data, settings={**QUICK, "no_such_setting": "1"}).start()
    with EmbeddedPostgres(data, settings=QUICK) as server:
        assert ask(server, "SELECT 1") == 1


def test_a_start_cut_short_in_the_making_begins_again(data: Path) -> None:
    half_made = data / "postgres.new"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18")
    data.chmod(0o755)
    with EmbeddedPostgres(data, settings=QUICK) as server:
        assert ask(server, "SELECT 1") == 1


def test_a_path_too_long_for_a_socket_gets_a_short_one_for_it(data: Path) -> None:
    long = data / ("n" * LONGEST_SOCKET_FOLDER)
    with EmbeddedPostgres(long, settings=QUICK) as server:
        assert server.folder == long
        assert len(os.fsencode(server.sockets)) <= LONGEST_SOCKET_FOLDER
        assert mode(server.sockets) == 0o700
        assert ask(server, "SELECT 1") == 1
    assert not server.sockets.exists()


@pytest.mark.parametrize("name", ["with space", "a,b", "kätzchen", 'quo"te', "per%20cent"])
def test_a_path_of_any_letters_serves(data: Path, name: str) -> None:
    with EmbeddedPostgres(data / name, settings=QUICK) as server:
        assert server.folder == data / name
        assert ask(server, "SELECT 1") == 1


def test_a_folder_with_something_else_in_it_is_left_alone(data: Path) -> None:
    (data / "postgres").mkdir(parents=True)
    (data / "postgres" / "novel.txt").write_text("chapter one")
    data.chmod(0o755)
    with pytest.raises(EmbeddedPostgresError, match="something else than a database"):
        EmbeddedPostgres(data).start()
    assert (data / "postgres" / "novel.txt").read_text() == "chapter one"


def test_data_of_another_major_version_names_both_versions(data: Path) -> None:
    with EmbeddedPostgres(data, settings=QUICK) as server:
        pass
    (data / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(PostgresBinariesMissingError, match=r"made by PostgreSQL 9, and here is only .*") as caught:
        EmbeddedPostgres(data).start()
    assert server.version in caught.value.message


def test_a_lost_password_is_named_and_not_replaced(data: Path) -> None:
    with EmbeddedPostgres(data, settings=QUICK):
        pass
    (data / "password").unlink()
    with pytest.raises(EmbeddedPostgresError, match="is gone, and with it the way in"):
        EmbeddedPostgres(data).start()
    assert not (data / "password").exists()


def test_a_file_in_place_of_the_folder_is_a_clear_error(data: Path) -> None:
    data.write_text("not a folder")
    with pytest.raises(EmbeddedPostgresError, match="cannot be used"):
        EmbeddedPostgres(data).start()


def test_a_named_folder_without_programs_is_refused_and_not_passed_over(data: Path) -> None:
    with pytest.raises(PostgresBinariesMissingError, match="holds no `postgres` and `initdb` that run"):
        EmbeddedPostgres(data, bin_dir=data.parent).start()


@as_root
def test_no_file_of_root_is_written_through_a_link(data: Path) -> None:
    with EmbeddedPostgres(data, settings=QUICK) as server:
        pass
    precious = data.parent / "precious"
    precious.write_text("1\n2\n3\n4\n5\n6\n7\n8\n")
    (data / "postgres" / "postmaster.pid").symlink_to(precious)
    with pytest.raises(EmbeddedPostgresError, match="cannot be started"):
        server.start()
    (data / "lock").unlink()
    (data / "lock").symlink_to(precious)
    with pytest.raises(EmbeddedPostgresError, match="cannot be started"):
        server.start()
    assert precious.read_text().startswith("1\n2\n")


@as_root
def test_root_hands_the_server_to_nobody(data: Path) -> None:
    with EmbeddedPostgres(data, settings=QUICK) as server:
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0


@as_root
def test_a_folder_closed_to_the_servers_user_stays_closed(data: Path) -> None:
    data.parent.chmod(0o700)
    said: list[str] = []
    with EmbeddedPostgres(data, settings=QUICK, say=said.append) as server:
        ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        elsewhere = server.folder
    try:
        assert elsewhere.parent == Path(tempfile.gettempdir())
        assert len(said) == 1
        assert str(data) in said[0]
        assert str(elsewhere) in said[0]
        assert mode(data.parent) == 0o700
        assert not data.exists()
        with EmbeddedPostgres(data, settings=QUICK, say=said.append) as server:
            assert server.folder == elsewhere
            assert ask(server, "SELECT answer FROM kept") == 42
    finally:
        shutil.rmtree(elsewhere)


@as_root
def test_a_temporary_folder_that_somebody_else_made_is_not_trusted(data: Path) -> None:
    data.parent.chmod(0o700)
    with EmbeddedPostgres(data, settings=QUICK, say=lambda _: None) as server:
        elsewhere = server.folder
    try:
        shutil.rmtree(elsewhere)
        elsewhere.mkdir()
        os.chown(elsewhere, 12345, 12345)
        with pytest.raises(EmbeddedPostgresError, match="is not ours"):
            EmbeddedPostgres(data, settings=QUICK, say=lambda _: None).start()
        elsewhere.rmdir()
        elsewhere.symlink_to(data.parent)
        with pytest.raises(EmbeddedPostgresError, match="is not ours"):
            EmbeddedPostgres(data, settings=QUICK, say=lambda _: None).start()
    finally:
        elsewhere.unlink()


@as_root
def test_programs_that_the_servers_user_cannot_run_are_copied(data: Path) -> None:
    closed = data.parent / "closed"
    closed.mkdir(0o700)
    installation = find_binaries().folder.parent
    package = installation.parent
    shutil.copytree(installation, closed / package.name / installation.name, symlinks=True)
    if package.with_name(f"{package.name}.libs").exists():
        shutil.copytree(package.with_name(f"{package.name}.libs"), closed / f"{package.name}.libs")
    for path in closed.rglob("*"):  # as pip leaves it under a closed umask
        path.chmod(path.stat().st_mode & 0o700)
    programs = closed / package.name / installation.name / "bin"
    for _ in range(2):  # copied once, found the second time
        with EmbeddedPostgres(data, bin_dir=programs, settings=QUICK) as server:
            assert ask(server, "SELECT 1") == 1
            account = server._settled().account
    assert mode(closed) == 0o700
    shutil.rmtree(_home(programs, account))


def _home(programs: Path, account: Account | None) -> Path:
    """Where the copy of these programs is, which no test may leave behind."""
    folder = reachable(find_binaries(programs), account).folder
    assert folder != programs
    return folder.parents[3]
