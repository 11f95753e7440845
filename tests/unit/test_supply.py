"""Known holes: what an advisory service says, and what its silence does not say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import supply  # noqa: E402 - a script of the Makefile

PINS = (ROOT / "constraints.txt").read_text(encoding="utf-8")


def test_a_hole_is_named_with_what_mends_it():
    found = [
        {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2", "1.1"]}]},
        {"name": "b", "version": "2", "vulns": [{"id": "GHSA-x", "fix_versions": []}]},
        {"name": "c", "version": "3", "vulns": []},
    ]
    holes, skipped = supply.judge(found)
    assert holes == ["a 1: PYSEC-1, mended in 2, 1.1", "b 2: GHSA-x, mended in nothing yet"]
    assert skipped == []


def test_what_was_skipped_is_no_good_news(monkeypatch, capsys):
    answer = '{"dependencies": [{"name": "a", "skip_reason": "not found"}]}'
    for said in (answer, "", "no JSON", '{"dependencies": []}'):
        monkeypatch.setattr(
            supply, "_run", lambda *_, said=said: type("Done", (), {"stdout": said, "stderr": "no network"})
        )
        assert supply.audit() == supply.NOT_ASKED
        assert "no known hole" not in capsys.readouterr().out


def test_every_pin_is_one_exact_version():
    pins = supply.pinned(PINS)
    assert len(pins) > 80
    assert len({name for name, _ in pins}) == len(pins)
    for name, version in pins:
        assert re.fullmatch(r"[a-z0-9]+([-.][a-z0-9]+)*", name), name
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), (name, version)
    assert "://" not in PINS


def test_the_lock_names_every_package_by_hash_and_no_host():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    blocks = re.findall(r"^[a-z0-9][^\n]*(?:\n    [^\n]+)*", lock, re.MULTILINE)
    assert len(blocks) > 80
    for block in blocks:
        assert re.match(r"[a-z0-9.-]+==[0-9][0-9a-z.]* \\\n    --hash=sha256:[0-9a-f]{64}", block), block[:80]
    assert "://" not in lock
    assert {"fastapi", "sqlalchemy", "pip", "hatchling"} <= {block.partition("==")[0] for block in blocks}


def test_a_lock_of_other_pins_is_not_used(tmp_path, monkeypatch):
    import setup_venv

    monkeypatch.setattr(setup_venv, "LOCK", str(tmp_path / "requirements.lock"))
    assert not setup_venv._is_locked()
    (tmp_path / "requirements.lock").write_text(f"# x\n# pins: {setup_venv.digest_of_pins()}\na==1\n")
    assert setup_venv._is_locked()
    (tmp_path / "requirements.lock").write_text("# x\n# pins: 0\na==1\n")
    assert not setup_venv._is_locked()
