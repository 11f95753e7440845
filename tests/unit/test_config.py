from __future__ import annotations

import base64

import pytest

from authz_service.config import Settings, load_settings, read_peppers, to_environment, unknown_settings
from authz_service.errors import StartError

PEPPER = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(range(100, 132))).decode()
ENOUGH = {"DATABASE_URL": "postgresql://u:hush@db/authz", "AUTHZ_PEPPERS": f"k1:{PEPPER}"}


def faults(environ: dict[str, str]) -> dict[str, str]:
    """Which setting has which fault."""
    with pytest.raises(StartError) as caught:
        load_settings(environ)
    return {fault.where: fault.code for fault in caught.value.faults}


def test_a_database_and_a_pepper_are_enough():
    settings = load_settings(ENOUGH)
    assert settings.dsn == "postgresql://u:hush@db/authz"
    assert read_peppers(settings) == ({"k1": bytes(range(32))}, "k1")


def test_our_own_variable_wins_over_the_common_one():
    assert load_settings(ENOUGH | {"AUTHZ_DATABASE_URL": "postgresql://ours/x"}).dsn == "postgresql://ours/x"


def test_an_empty_variable_is_as_if_not_set():
    assert load_settings(ENOUGH | {"AUTHZ_PORT": "", "AUTHZ_DATABASE_URL": ""}).port == 8080


def test_all_that_is_missing_is_named_at_once():
    assert faults({}) == {"AUTHZ_DATABASE_URL": "missing", "AUTHZ_PEPPERS": "missing"}


def test_what_is_wrong_and_what_contradicts_are_told_together():
    found = faults(
        {
            "AUTHZ_WORKERS": "many",
            "AUTHZ_PORT": "70000",
            "AUTHZ_MAX_STALENESS": "2",
            "AUTHZ_UDS": "/run/authz.sock",
            "AUTHZ_HOST": "0.0.0.0",
            "AUTHZ_POOL_SIZE": "4",
            "AUTHZ_TOKEN_PREFIX": "a_b",
            "AUTHZ_DATABASE_URL": "mysql://x",
        }
    )
    assert found == {
        "AUTHZ_WORKERS": "invalid",
        "AUTHZ_PORT": "invalid",
        "AUTHZ_MAX_STALENESS": "contradiction",
        "AUTHZ_UDS": "contradiction",
        "AUTHZ_LOADS_RUNNING": "contradiction",
        "AUTHZ_TOKEN_PREFIX": "invalid",
        "AUTHZ_DATABASE_URL": "invalid",
        "AUTHZ_PEPPERS": "missing",
    }


@pytest.mark.parametrize(
    ("peppers", "kid", "where"),
    [
        ("nocolon", "", "AUTHZ_PEPPERS"),
        (f"K1:{PEPPER}", "", "AUTHZ_PEPPERS"),
        ("k1:not base64", "", "AUTHZ_PEPPERS"),
        ("k1:c2hvcnQ=", "", "AUTHZ_PEPPERS"),
        (f"k1:{base64.b64encode(bytes(32)).decode()}", "", "AUTHZ_PEPPERS"),
        (f"k1:{PEPPER},k1:{OTHER}", "k1", "AUTHZ_PEPPERS"),
        (f"k1:{PEPPER},k2:{OTHER}", "", "AUTHZ_PEPPER_KID"),
        (f"k1:{PEPPER}", "k2", "AUTHZ_PEPPER_KID"),
    ],
)
def test_a_pepper_that_protects_nothing_is_refused(peppers, kid, where):
    assert list(faults(ENOUGH | {"AUTHZ_PEPPERS": peppers, "AUTHZ_PEPPER_KID": kid})) == [where]


def test_peppers_come_from_a_file_too(tmp_path):
    file = tmp_path / "peppers"
    file.write_text(f"k1:{PEPPER}\nk2:{OTHER}\n")
    environ = {"DATABASE_URL": ENOUGH["DATABASE_URL"], "AUTHZ_PEPPERS_FILE": str(file), "AUTHZ_PEPPER_KID": "k2"}
    peppers, kid = read_peppers(load_settings(environ))
    assert (sorted(peppers), kid) == (["k1", "k2"], "k2")
    assert faults(environ | {"AUTHZ_PEPPERS": f"k1:{PEPPER}"}) == {"AUTHZ_PEPPERS_FILE": "contradiction"}
    assert faults(environ | {"AUTHZ_PEPPERS_FILE": str(tmp_path / "none")}) == {"AUTHZ_PEPPERS_FILE": "unreadable"}


def test_secrets_are_never_shown():
    settings = load_settings(ENOUGH)
    assert "hush" not in repr(settings) + str(settings)
    assert PEPPER not in repr(settings) + str(settings)
    with pytest.raises(StartError) as caught:
        load_settings(ENOUGH | {"AUTHZ_PEPPERS": f"k1:{PEPPER[:20]}", "AUTHZ_DATABASE_URL": "mysql://u:hush@x"})
    assert "hush" not in caught.value.message
    assert PEPPER[:20] not in caught.value.message


def test_a_port_from_a_kubernetes_service_link_is_explained():
    with pytest.raises(StartError, match="enableServiceLinks"):
        load_settings(ENOUGH | {"AUTHZ_PORT": "tcp://10.0.0.1:80"})


def test_a_worker_gets_the_very_settings_of_its_owner(tmp_path):
    settings = load_settings(ENOUGH | {"AUTHZ_UDS": str(tmp_path / "s"), "AUTHZ_BELL": "false", "AUTHZ_WORKERS": "3"})
    assert load_settings(to_environment(settings)) == settings


def test_a_slip_of_the_pen_is_named():
    environ = ENOUGH | {"AUTHZ_MAX_STALENES": "9", "AUTHZ_URL": "http://x", "AUTHZ_TOKEN": "y", "OTHER": "z"}
    assert unknown_settings(environ) == ["AUTHZ_MAX_STALENES"]


def test_every_setting_is_described():
    undescribed = [name for name, field in Settings.model_fields.items() if not field.description]
    assert undescribed == []
