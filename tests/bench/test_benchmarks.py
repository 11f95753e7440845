"""The benchmarks run, and what they measure gives right answers. How fast it is belongs to `make bench`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from benchmarks import plot, report
from benchmarks.oracle import (
    GRANTED,
    OUTSIDE_REACH,
    OWNER_NOT_MEMBER,
    PERMISSION_MISSING,
    Ask,
    Grant,
    Holder,
    right_answer,
)
from benchmarks.pressure import _unchunk
from benchmarks.targets import at_least, at_most
from benchmarks.workload import make_batches, make_groups, make_workload

ROOT = Path(__file__).resolve().parents[2]
OURS = {"check", "http", "batch", "batch20", "quick", "quick_batch", "engine", "documents", "routes"}
BARE = {"echo", "lookup", "plain"}


def measure(module: str, output: Path) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", module, "--quick", "--output", str(output)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(output.read_text("utf-8"))


def test_a_quick_run_asks_everybody_the_same_and_finds_no_wrong_answer(tmp_path):
    found = measure("benchmarks.decisions", tmp_path / "decisions.json")
    rows = {row["name"]: row for row in found["rows"]}
    assert rows.keys() >= OURS | BARE
    # Whoever is not there is named as left out: none is forgotten.
    absent = {each["name"] for each in found["left_out"]}
    assert {name for name in ("cedar", "casbin") if name not in rows} | {"cerbos"} >= absent
    for row in rows.values():
        assert row["checked"] >= found["method"]["asks"] / 2, row
        assert row["wrong"] == 0, row
        assert row["failed"] == 0, row
        assert row["rate"] > 0, row
    assert [each["share"] for each in found["open_loop"]] == [0.5, 0.85]
    assert all(each["failed"] == 0 for each in found["open_loop"])
    assert found["workers"]["wrong"] == 0
    assert {each["label"] for each in found["catalogs"]} == {"gitlab@2", "github@1"}
    assert all(each["compile_s"] > 0 and each["bytes"] > 0 for each in found["catalogs"])
    assert len(found["targets"]) >= 6
    assert "| authz-service, `/check` | HTTP |" in report.table(found)
    for drawn in report.charts(found).values():
        ET.fromstring(drawn)


@pytest.mark.long
def test_a_quick_run_of_the_scale_finds_no_wrong_answer(tmp_path):
    found = measure("benchmarks.scale", tmp_path / "scale.json")
    assert [step["tokens"] for step in found["steps"]] == [100, 400]
    for step in found["steps"]:
        assert step["wrong"] == 0
        assert step["checked"] >= step["warm"]
    assert len(found["targets"]) == 3
    for drawn in report.charts(found).values():
        ET.fromstring(drawn)


def test_the_workload_is_the_same_each_time_and_half_of_it_is_allowed():
    workload = make_workload(tokens=200, asks=4000)
    assert workload == make_workload(tokens=200, asks=4000)
    assert 0.47 < sum(workload.allowed) / 4000 < 0.53
    assert set(workload.answers) == {GRANTED, OUTSIDE_REACH, PERMISSION_MISSING}
    assert {len(holder.grants) for holder in workload.tokens} == set(range(1, 9))


def test_sixty_groups_nest_three_deep():
    groups = make_groups()
    assert len(set(groups)) == 60
    assert {group.count("/") for group in groups} == {0, 1, 2}
    assert all(group.rpartition("/")[0] in (*groups, "") for group in groups)


def test_a_batch_asks_about_one_token():
    workload = make_workload(tokens=20, asks=10)
    for batch in make_batches(workload, size=50, count=5):
        assert {ask.token for ask in batch.asks} == {batch.token}
        assert len(batch.answers) == 50


@pytest.mark.parametrize(
    ("permission", "target", "answer"),
    [
        ("job:read", "acme/web", GRANTED),
        ("job:read", "acme/web/deep", GRANTED),
        ("job:read", "acme/website", OUTSIDE_REACH),
        ("job:read", "acme", OUTSIDE_REACH),
        ("job:run", "acme/web", PERMISSION_MISSING),
        ("job:read", "other/api", OWNER_NOT_MEMBER),
    ],
)
def test_the_oracle_is_right_where_a_person_can_see_it(permission, target, answer):
    holder = Holder("t", "dana", (Grant("acme/web", ("job:read",)), Grant("other", ("job:read",))))
    assert right_answer(holder, Ask(0, permission, target), {"dana": ("acme",)}) == answer


def test_a_missed_target_says_by_how_much():
    assert at_least("rate", 100, 90)["missed_by"] == 0.1
    assert at_least("rate", 100, 110)["missed_by"] == 0
    assert at_most("time", 5, 6)["missed_by"] == 0.2
    assert at_most("time", 5, 4)["missed_by"] == 0


def test_a_reply_in_chunks_is_whole_only_with_its_last():
    whole = b"4\r\nabcd\r\n2;x=y\r\nef\r\n0\r\n\r\n"
    assert _unchunk(whole) == b"abcdef"
    assert all(_unchunk(whole[:end]) is None for end in range(whole.index(b"0\r\n")))


def test_charts_are_drawings_with_every_row_in_them():
    drawn = plot.bars("Speed", [("ours & theirs", 50_000, True), ("theirs", 120, False)], unit="a second")
    texts = [element.text for element in ET.fromstring(drawn).iter() if element.text]
    assert "ours & theirs" in texts
    assert "50,000" in texts


def test_the_page_has_the_places_where_results_are_written():
    text = report.PAGE.read_text("utf-8")
    for kind in ("decisions", "scale"):
        assert text.index(f"<!-- {kind}: begin -->") < text.index(f"<!-- {kind}: end -->")


@pytest.mark.skipif(shutil.which("wrk") is None, reason="`wrk` is not installed: it comes from the system's packages")
def test_a_quick_run_goes_through_every_gateway_that_is_there(tmp_path):
    found = measure("benchmarks.gateways", tmp_path / "gateways.json")
    names = {row["name"] for row in found["rows"]} | {each["name"] for each in found["left_out"]}
    assert names == {"nginx", "haproxy", "caddy", "envoy", "envoy-grpc"}
    for row in found["rows"]:
        assert row["checked"] == 102, row
        for side in ("with", "without"):
            assert row[side]["failed"] == 0, row
            assert row[side]["rate"] > 0, row
