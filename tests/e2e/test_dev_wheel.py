"""What is published works where nothing else is: the wheel alone, in an empty folder."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.processes import dev_service, run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unpacked() -> Iterator[Path]:
    """The wheel as pip would lay it down; the packages it needs are those of this environment."""
    spec = importlib.util.spec_from_file_location("check_wheel", ROOT / "tools" / "check_wheel.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    folder = Path(tempfile.mkdtemp(prefix="authz-wheel-"))
    folder.chmod(0o755)  # the database's user must pass through
    wheel = tool.build(folder)
    zipfile.ZipFile(wheel).extractall(folder / "installed")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_the_installed_wheel_serves_its_demo_from_an_empty_folder(unpacked):
    empty = unpacked / "empty"
    empty.mkdir()
    empty.chmod(0o755)
    env = {"PYTHONPATH": str(unpacked / "installed")}
    where = run(
        "-c", "import authz_service; print(authz_service.__file__)", program=(sys.executable,), env=env, cwd=empty
    )
    assert where.stdout.startswith(str(unpacked / "installed"))
    with (
        dev_service(empty, "--workers", "2", env=env, cwd=empty) as dev,
        dev.client(dev.ready["gateway_token"]) as http,
    ):
        assert dev.check(http).json()["decision"] == "allow"
        assert dev.check(http, action="run").json()["reason"] == "permission_missing"
        done = run("can-i", "job:read", "bakery/shop/checkout", env=env | dev.as_token("sample_token"), cwd=empty)
        assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in empty.iterdir()) == ["data", "output.txt", "ready.json"]
