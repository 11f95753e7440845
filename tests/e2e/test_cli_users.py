"""`authz user`: passwords and links for the console, by access to the database alone."""

from __future__ import annotations

import base64
import json

import pytest
from tests.support.processes import run

PASSWORD = "some plain words to keep"


@pytest.fixture
def settings(database_url: str) -> dict[str, str]:
    pepper = base64.b64encode(bytes(range(50, 82))).decode()
    env = {"AUTHZ_DATABASE_URL": database_url.replace("+asyncpg", ""), "AUTHZ_PEPPERS": f"k1:{pepper}"}
    assert run("bootstrap", "--username", "root", env=env).returncode == 0
    return env


def test_a_password_is_read_from_a_file_or_standard_input_and_never_shown(settings, tmp_path):
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    for done in (
        run("user", "set-password", "root", "--password-file", str(file), env=settings),
        run("user", "set-password", "ROOT", "--password-file", "-", env=settings, given=PASSWORD),
    ):
        assert done.returncode == 0, done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        assert "`root` signs in with the new password" in done.stderr


@pytest.mark.parametrize(
    ("name", "password", "said"),
    [
        ("root", "short", "12 characters"),
        ("root", "x" * 600, "longer than 512"),
        ("nobody", PASSWORD, "there is no user `nobody`"),
    ],
)
def test_what_will_not_do_is_said_and_nothing_is_set(settings, name, password, said):
    done = run("user", "set-password", name, "--password-file", "-", env=settings, given=password)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_terminal_and_a_file_there_is_nobody_to_type(settings):
    done = run("user", "set-password", "root", env=settings)
    assert done.returncode == 2
    assert "--password-file" in done.stderr


def test_a_link_is_printed_for_the_address_that_people_use(settings):
    env = settings | {"AUTHZ_PUBLIC_URL": "https://authz.example.com"}
    done = run("user", "sign-in-link", "root", "--output", "json", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sign_in_url"].startswith("https://authz.example.com/console/sign-in/link?code=")


def test_an_account_at_a_provider_is_linked_once_and_unlinked(settings):
    there = ("--issuer", "https://id.example")
    done = run("user", "link", "root", "--subject", "2482", *there, env=settings)
    assert done.returncode == 0, done.stderr
    assert "`root` signs in as `2482` of https://id.example" in done.stderr
    done = run("user", "link", "root", "--subject", "2482", *there, env=settings)
    assert done.returncode == 1
    assert "somebody's account already" in done.stderr
    done = run("user", "unlink", "root", *there, env=settings)
    assert "had 1 account at https://id.example" in done.stderr
    done = run("user", "unlink", "root", env=settings)
    assert done.returncode == 2
    assert "AUTHZ_OPENID_ISSUER" in done.stderr
