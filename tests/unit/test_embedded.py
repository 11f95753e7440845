"""How the embedded server's places and programs are chosen, as far as no server is needed for it."""

import os
import stat
from pathlib import Path

import pytest

from authz_service.embedded.binaries import _newest_first
from authz_service.embedded.places import PLAIN_PATH, Account


def status(mode: int, *, uid: int = 0, gid: int = 0) -> os.stat_result:
    return os.stat_result((stat.S_IFDIR | mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "passes"),
    [
        (0o700, 7, 7, True),
        (0o600, 7, 7, False),
        (0o077, 7, 7, False),  # the owner's bits count for the owner, however open the rest
        (0o710, 0, 7, True),
        (0o707, 0, 7, False),
        (0o711, 0, 0, True),
        (0o710, 0, 0, False),
    ],
)
def test_a_user_passes_by_the_bits_meant_for_it(mode: int, uid: int, gid: int, passes: bool) -> None:
    assert Account(uid=7, gid=7)._has(status(mode, uid=uid, gid=gid), 0o1) is passes


def test_newer_programs_come_first_and_unnumbered_ones_last() -> None:
    folders = [Path(name) / "bin" for name in ("pginstall", "9.6", "pginstall18", "10", "pginstall16")]
    names = [folder.parent.name for folder in _newest_first(iter(folders))]
    assert names == ["pginstall18", "pginstall16", "10", "9.6", "pginstall"]


@pytest.mark.parametrize("path", ["/tmp/a b", "/tmp/a,b", '/tmp/a"b', "/tmp/a%b", "/tmp/ä", "/tmp/a'b"])
def test_a_path_that_a_url_or_a_setting_could_misread_is_no_place_for_sockets(path: str) -> None:
    assert not PLAIN_PATH.fullmatch(path)
    assert PLAIN_PATH.fullmatch("/var/lib/authz-1.2_x/@me+you/~")
