from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from authz_service.config import READ_AGAIN, RELOADED, Settings, load_settings, require_reloadable
from authz_service.errors import StartError

PEPPER = base64.b64encode(os.urandom(32)).decode()
ENV = {"AUTHZ_DATABASE_URL": "postgresql://u:p@h/d", "AUTHZ_PEPPERS": f"k1:{PEPPER}"}


def settings(file: Path, text: str, **env: str) -> Settings:
    file.write_text(text)
    return load_settings({**ENV, "AUTHZ_SETTINGS_FILE": str(file), **env})


def test_a_file_says_what_the_environment_does_not(tmp_path: Path):
    text = "# ours\n\nAUTHZ_LOG_LEVEL=debug\nAUTHZ_POOL_SIZE=11\n"
    found = settings(tmp_path / "env", text, AUTHZ_POOL_SIZE="12")
    assert (found.log_level.value, found.pool_size) == ("debug", 12)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("AUTHZ_LOG_LEVEL debug", "AUTHZ_SETTINGS_FILE line 1"),
        ("\nPATH=/bin", "AUTHZ_SETTINGS_FILE line 2"),
        ("AUTHZ_PORT=1\nAUTHZ_PORT=2", "AUTHZ_SETTINGS_FILE line 2"),
        ("AUTHZ_SETTINGS_FILE=/other", "AUTHZ_SETTINGS_FILE line 1"),
        ("AUTHZ_PEPERS=x", "AUTHZ_SETTINGS_FILE"),
        ("AUTHZ_LOG_LEVEL=loud", "AUTHZ_LOG_LEVEL"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, where: str):
    with pytest.raises(StartError) as caught:
        settings(tmp_path / "env", text)
    assert [fault.where for fault in caught.value.faults] == [where]


def test_every_bad_line_is_named_and_no_value_is_repeated(tmp_path: Path):
    with pytest.raises(StartError) as caught:
        settings(tmp_path / "env", "one hunter2\nAUTHZ_PORT=1\ntwo hunter2\n")
    assert [fault.where for fault in caught.value.faults] == [
        "AUTHZ_SETTINGS_FILE line 1",
        "AUTHZ_SETTINGS_FILE line 3",
    ]
    assert "hunter2" not in caught.value.message


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path):
    with pytest.raises(StartError, match="cannot be read"):
        load_settings({**ENV, "AUTHZ_SETTINGS_FILE": str(tmp_path / "none")})


def test_what_needs_a_restart_is_named_and_nothing_else_is_taken_over():
    old = load_settings(ENV)
    require_reloadable(old, load_settings({**ENV, "AUTHZ_LOG_LEVEL": "debug", "AUTHZ_MAX_SCOPES": "3"}))
    changed = {**ENV, "AUTHZ_LOG_LEVEL": "debug", "AUTHZ_POOL_SIZE": "20", "AUTHZ_PORT": "1"}
    with pytest.raises(StartError) as caught:
        require_reloadable(old, load_settings(changed))
    assert {fault.where for fault in caught.value.faults} == {"AUTHZ_POOL_SIZE", "AUTHZ_PORT"}


def test_whatever_is_reloaded_is_a_setting():
    assert set(Settings.model_fields) >= RELOADED | READ_AGAIN
    assert not RELOADED & READ_AGAIN
