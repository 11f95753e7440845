"""The announcement's walk in a real browser, as somebody who has read nothing: issue, try, find, review, revoke."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from tests.support.browser import complaints_of, shoot
from tests.support.room import CHECKOUT, Room, console_room


@pytest.fixture(scope="module")
def room() -> Iterator[Room]:
    with console_room() as found:
        yield found


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_token_for_one_registry_is_made_tried_found_and_revoked(room, scripts):
    page = room.page(scripts=scripts)
    complaints = complaints_of(page)
    name = "image build" + ("" if scripts else ", by hand")
    page.goto("/console/tokens")
    page.get_by_role("link", name="New token").click()

    page.get_by_label("Find groups and projects").fill("checkout")
    if not scripts:
        page.get_by_role("button", name="Find", exact=True).click()
    page.get_by_role("button", name=f"Add {CHECKOUT}").click()
    page.get_by_role("button", name=f"Remove {CHECKOUT}").wait_for()
    page.get_by_role("button", name="Next: what it may do").click()

    page.get_by_label("Search GitLab").fill("container repository")
    if not scripts:
        page.get_by_role("button", name="Search", exact=True).last.click()
    page.get_by_role("checkbox", name="Container repository: create").check()
    page.get_by_role("checkbox", name="Container repository: read").check()
    if scripts:
        page.locator("#summary li").nth(1).wait_for()
        assert "push images" in page.locator("#summary").inner_text()
        shoot(page, "choosing permissions")
    page.get_by_role("button", name="Next: until when").click()

    assert "push images" in page.locator("aside").inner_text()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("7 days", exact=True).check()
    page.get_by_role("button", name="Create the token").click()

    secret = page.locator("#secret").inner_text()
    assert re.fullmatch(r"azt_\w+", secret)
    assert page.get_by_role("button", name="Copy").count() == (3 if scripts else 0)
    if scripts:
        shoot(page, "secret shown once")
    target = CHECKOUT.partition(":")[2]
    assert [room.decide(secret, one, target) for one in ("read", "create")] == ["allow", "allow"]
    assert [room.decide(secret, one, target) for one in ("delete", "update")] == ["deny", "deny"]
    assert room.decide(secret, "read", "bakery/website") == "deny"
    assert room.decide(secret, "read", target, resource="code") == "deny"

    page.get_by_role("link", name="I have copied it").click()
    page.get_by_role("link", name="Tokens", exact=True).first.click()
    page.get_by_label("Search").fill(name)
    page.get_by_role("button", name="Show").click()
    row = page.locator("tr", has_text=name)
    assert "Container repository" in row.first.inner_text()
    row.get_by_role("link", name=name, exact=True).click()
    page.get_by_role("link", name="Revoke").click()
    page.get_by_label("Wait until every replica knows").check()
    page.get_by_role("button", name="Revoke it for good").click()
    page.locator(".state.revoked").wait_for()
    assert room.decide(secret, "read", target) == "deny"
    assert complaints == []


def test_the_first_curls_that_are_shown_work(room):
    page = room.page()
    page.goto(f"/console/tokens/new?catalog=gitlab&node={CHECKOUT}&step=finish&p=container_repository:create")
    page.get_by_label("Name", exact=True).fill("to be tried")
    page.get_by_role("button", name="Create the token").click()
    for element, expected in (("#curl", '"to be tried"'), ("#ask", '"decision"')):
        command = page.locator(element).inner_text()
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert expected in done.stdout, done.stdout


def test_two_people_ask_look_approve_a_part_and_take_it_back(room):
    """`priya` owns the group, `dana` works in it; neither reads anything but the pages."""
    priya, dana = room.page(state=room.sign_in("priya")), room.page(state=room.sign_in("dana"))
    complaints = [complaints_of(priya), complaints_of(dana)]
    name = "deploys"

    priya.goto("/console/policies?node=group:bakery&catalog=gitlab")
    priya.get_by_label("By the group").select_option("required")
    priya.get_by_role("button", name="See what it would stop").click()
    priya.get_by_role("status").first.wait_for()
    shoot(priya, "what a policy would stop")
    priya.get_by_role("button", name="Set it").click()
    priya.get_by_text("It is set").wait_for()

    begin = f"/console/tokens/new?catalog=gitlab&node={CHECKOUT}&p=job:read&p=job:run&step=finish"
    dana.goto(begin)
    dana.get_by_text("Approval is needed.").wait_for()
    shoot(dana, "approval is needed")
    dana.get_by_label("Name", exact=True).fill(name)
    dana.get_by_role("button", name="Create the token").click()
    secret = dana.locator("#secret").inner_text()
    target = CHECKOUT.partition(":")[2]
    assert room.decide(secret, "read", target, resource="job") == "deny"

    priya.goto("/console/requests?node=group:bakery")
    card = priya.locator("article", has_text=name).first
    card.get_by_text("Approve only a part").click()
    card.get_by_role("checkbox", name="job:read").check()
    shoot(priya, "approving a part")
    card.get_by_role("button", name="Approve what is ticked").click()
    priya.get_by_text(re.compile(r"approved\.")).wait_for()
    until(lambda: room.decide(secret, "read", target, resource="job") == "allow")
    assert room.decide(secret, "run", target, resource="job") == "deny"

    priya.goto("/console/grants?node=group:bakery")
    priya.locator("article", has_text=name).first.get_by_role("button", name="End this grant").click()
    priya.get_by_text(re.compile(r"revoked\.")).first.wait_for()
    until(lambda: room.decide(secret, "read", target, resource="job") == "deny")
    assert complaints == [[], []]

    priya.goto("/console/policies?node=group:bakery&catalog=gitlab")
    priya.get_by_label("By the group").select_option("")
    priya.get_by_role("button", name="See what it would stop").click()
    priya.get_by_role("button", name="Set it").click()
    priya.get_by_text("It is set").wait_for()


def until(condition: Callable[[], bool]) -> None:
    """What one replica knows reaches all answers within seconds."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_token_is_asked_about_fixed_rotated_cloned_and_edited(room, scripts):
    page = room.page(scripts=scripts)
    complaints = complaints_of(page)
    made = room.make(name="to be changed" + ("" if scripts else " by hand"), owner="dana")
    page.goto(f"/console/tokens/{made['id']}")
    page.get_by_role("link", name="Ask what it may do").click()
    page.get_by_label("Permission", exact=True).fill("job:run")
    page.get_by_label("Target").fill(CHECKOUT)
    page.get_by_role("button", name="Decide").click()
    page.get_by_role("heading", name="Deny").wait_for()
    shoot(page, "a denial and its fix")
    page.get_by_role("link", name="Open the edit form with it").click()
    page.get_by_text("It gains in").wait_for()
    shoot(page, "what changes")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("It is changed").wait_for()

    page.get_by_role("link", name="Rotate").click()
    page.get_by_role("button", name="Make the new secret").click()
    assert page.locator("#secret").inner_text() != made["secret"]
    page.get_by_role("link", name="I have copied it").click()
    page.get_by_role("link", name="Clone").click()
    page.get_by_label("Name", exact=True).fill("the other one")
    page.get_by_role("button", name="Make the clone").click()
    page.locator("#secret").wait_for()
    page.get_by_role("link", name="I have copied it").click()

    page.get_by_role("link", name="Edit").click()
    if scripts:
        page.get_by_label("7 days from now").check()
        page.get_by_text("It ends").wait_for()
    else:
        page.get_by_label("7 days from now").check()
        page.get_by_role("button", name="See what changes").click()
    page.get_by_role("button", name="Save").click()
    page.get_by_text("It is changed").wait_for()
    page.get_by_role("link", name="Narrow").click()
    page.get_by_role("heading", name="Nothing to go by").wait_for()
    assert complaints == []
