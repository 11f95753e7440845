"""What is published: the wheel is whole, and asks for all it imports; the image is built from the same files."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_wheel", ROOT / "tools" / "check_wheel.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def wheel(tool: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tool.build(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_is_fit_to_publish() -> None:
    outcome = subprocess.run(
        [sys.executable, ROOT / "tools" / "check_wheel.py"], capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_the_wheel_carries_migrations_types_and_licence(wheel: Path) -> None:
    held = zipfile.ZipFile(wheel).namelist()
    assert "authz_service/py.typed" in held
    assert "authz_service/_migrations/env.py" in held
    assert any(name.startswith("authz_service/_migrations/versions/") for name in held)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in held)


def test_a_file_that_the_wheel_lacks_is_named(tool: ModuleType, wheel: Path, tmp_path: Path) -> None:
    poorer = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(poorer, "w") as poor:
        for name in whole.namelist():
            if name != "authz_service/py.typed":
                poor.writestr(name, whole.read(name))
    assert tool.missing_from(poorer) == ["authz_service/py.typed"]


def test_a_module_that_wants_more_than_its_extra_brings_is_caught(tool: ModuleType, wheel: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        tool.import_with(set(), wheel, ["authz_service.store.database"])
    tool.import_with({"server"}, wheel, ["authz_service.store.database"])


def test_a_module_that_writes_beside_itself_is_caught(tool: ModuleType, wheel: Path, tmp_path: Path) -> None:
    careless = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(careless, "w") as copy:
        for name in whole.namelist():
            text = whole.read(name)
            if name == "authz_service/errors.py":
                text += b"\nimport pathlib\npathlib.Path(__file__).with_name('cache.bin').write_bytes(b'x')\n"
            copy.writestr(name, text)
    with pytest.raises((RuntimeError, subprocess.CalledProcessError)):
        tool.import_with(set(), careless, ["authz_service.errors"])


def test_the_image_is_built_from_files_that_its_context_holds(tool: ModuleType) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    taken = tool.copied_by_dockerfile()
    assert "src" in taken
    assert {f"!{source}" for source in taken} <= set(ignored)
    assert all((ROOT / source).exists() for source in taken)
