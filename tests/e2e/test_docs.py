"""What the runner of the documentation's pages sees and lets pass: every block, every mark, nothing by accident."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from tests.support.docs_kinds import WrongBlockError, check_data
from tests.support.docs_pages import FIRST, FOLDERS, GUIDES, ROOT, blocks, pages, read_blocks
from tests.support.docs_run import page_folder, run_page
from tests.support.docs_shown import differences, read_loose, same_text

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)#\s:]+)(?:#([^)\s]*))?\)")


def test_every_page_is_run_by_one_of_the_files():
    assert Counter([*FIRST, *GUIDES[0], *GUIDES[1], *FOLDERS]) == Counter(pages())


def test_blocks_in_lists_and_indented_ones_are_seen():
    text = "- item\n\n  ```sh\n  true\n  ```\n\ntext\n\n    indented\n"
    assert [(one.language, one.text) for one in read_blocks("p", text)] == [("sh", "true\n"), ("", "indented\n")]


def test_a_mark_belongs_to_the_next_block_alone():
    text = "<!-- not run: it needs a cluster -->\n```sh\na\n```\n\n```sh\nb\n```\n"
    assert [one.why_not_run for one in read_blocks("p", text)] == ["it needs a cluster", None]


def test_a_mark_without_a_block_is_no_licence_for_a_later_one():
    text = "<!-- not run: it needs a cluster -->\n\nwords\n\n```sh\nb\n```\n"
    stray, block = read_blocks("p", text)
    assert stray.marks == {"stray": "not run"}
    assert block.why_not_run is None


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("", "anything"),
        ("nginx", "listen 80;"),
        ("yaml", "a: 1"),
        ("yaml", "catalog: x\nversion: 1\npermissions: {a: {b: [nowhere]}}"),
        ("json", '{"a": 1}'),
        ("toml", '[[needs]]\npermissions = "job"\nat = "acme/web"'),
        ("yaml", "groups: [{name: a, rules: [{alert: A, expr: authz_no_such_figure > 0}]}]"),
        ("yaml", "job: {stage: test, script: [x]}\nother: {stage: test}"),
    ],
)
def test_a_block_that_is_nothing_known_or_has_a_fault_is_refused(language, text):
    [block] = read_blocks("p", f"```{language}\n{text}\n```\n")
    with pytest.raises(WrongBlockError, match=r"^p:1: "):
        check_data(block)


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("```sh\nfalse\n```", "a command failed"),
        ("```sh\necho one\n```\n\n```text\ntwo\n```", "printed"),
        ("```text\ntwo\n```", "nothing printed this"),
        ("```sh\nexit 3\n```", "a command failed"),
        ("<!-- exits: 1 -->\n```sh\ntrue\n```", "exit status 0"),
        ("<!-- not run: no -->\n```sh\ntrue\n```", "say why"),
        ("```lua\nx\n```", "neither run nor checked"),
        ("    indented", "neither run nor checked"),
        ("```python\nraise SystemExit(2)\n```", "a command failed"),
        ('```sh\necho \'{"a": 1, "b": 2}\'\n```\n\n```json\n{"a": 1}\n```', "leaves out"),
        ("```console\n$ echo a\nb\n```", "printed"),
    ],
)
def test_a_page_that_is_not_true_fails(page, said, open_folder, monkeypatch):
    monkeypatch.setattr("tests.support.docs_run.blocks", lambda _: tuple(read_blocks("p", page + "\n")))
    monkeypatch.setattr("tests.support.docs_run.Session.service", None)
    with page_folder(open_folder, "p") as folder, pytest.raises(AssertionError, match=said):
        run_page("p", folder)


def test_a_page_keeps_its_variables_and_compares_what_is_printed(open_folder, monkeypatch):
    page = (
        "```sh\nNAME=dana\ncd /\n```\n\n<!-- run: echo $NAME in $PWD -->\n```text\ndana …\n```\n\n"
        '```sh\necho \'{"id": "tok_1", "at": "2026-01-01T00:00:00Z", "more": [1, 2]}\'\n```\n\n'
        '```json\n{"id": "tok_…", "at": "2020-02-02T00:00:00Z", …}\n```\n'
    )
    monkeypatch.setattr("tests.support.docs_run.blocks", lambda _: tuple(read_blocks("p", page)))
    monkeypatch.setattr("tests.support.docs_run.Session.service", None)
    with page_folder(open_folder, "p") as folder:
        assert run_page("p", folder) == Counter(run=3, shown=2)


def test_gaps_in_shown_json_are_values_members_and_elements():
    shown = read_loose('{"a": …, "b": [1, …, {…}], "c": "x…", …}')
    assert differences({"a": {"z": 1}, "b": [1, 5, 6, {"q": 1}], "c": "xyz", "d": 0}, shown) == []
    assert differences({"a": 1, "b": [2, {}], "c": "yz"}, shown)
    assert differences([1, True], [1, 1])
    assert same_text("one\n two   three\n", "one\ntwo …")


def test_every_link_of_a_page_outside_of_the_site_leads_somewhere():
    outside = [
        *ROOT.glob("*.md"),
        *(ROOT / "deploy").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    ]
    for page in outside:
        for target, _ in LINK.findall(page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_target_of_make_that_a_page_names_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in (*pages(), "CONTRIBUTING.md"))
    named = set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", text, re.MULTILINE))
    assert named <= targets, named - targets


def test_few_blocks_are_not_run_and_each_says_why():
    left = [block for page in pages() for block in blocks(page) if block.why_not_run is not None]
    everything = [block for page in pages() for block in blocks(page)]
    assert len(left) < len(everything) / 4
    assert all(len((block.why_not_run or "").split()) > 2 for block in left)
