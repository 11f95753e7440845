"""What others try against the console in a real browser: other sites, hostile names, somebody else's session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.browser import complaints_of
from tests.support.room import Room, console_room

HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>",
    "'; drop table token; -- \"><svg onload=\"document.title='owned'\">",
    "\u05d0\u05d1\u05d2 \u0645\u0631\u062d\u0628\u0627 right to left",
    "W" * 100,
)
OF_A_TOKEN = ("", "/edit", "/rotate", "/clone", "/shrink", "/radius", "/revoke")


@pytest.fixture(scope="module")
def room() -> Iterator[Room]:
    with console_room() as found:
        yield found


def test_a_frame_of_another_site_shows_nothing(room):
    page = room.page()
    page.goto("/console/tokens")
    page.goto("data:text/html,<iframe></iframe>")
    blocked = []
    page.on("console", lambda message: blocked.append(message.text))
    page.evaluate(f"document.querySelector('iframe').src = '{room.dev.url}/console/tokens'")
    page.wait_for_timeout(500)
    assert all("New token" not in frame.content() for frame in page.frames[1:])


def test_a_form_of_another_site_signs_nobody_out(room):
    page = room.page()
    page.goto("data:text/html,<form method=post><button>x</button></form>")
    page.evaluate(f"document.querySelector('form').action = '{room.dev.url}/console/sign-out'")
    page.click("button")
    page.wait_for_load_state()
    page.goto(f"{room.dev.url}/console/tokens")
    assert page.get_by_role("heading", name="Tokens").is_visible()


@pytest.mark.parametrize("name", HOSTILE, ids=["script", "sql", "right to left", "long"])
def test_a_hostile_name_runs_nothing_on_any_page(room, name):
    made = room.make(name=name, reason=name)
    page = room.page()
    complaints = complaints_of(page)
    paths = [f"/console/tokens/{made['id']}{way}" for way in OF_A_TOKEN]
    for path in ("/console/tokens", *paths, "/console/audit", f"/console/playground?token={made['id']}"):
        page.goto(path)
        assert page.title().endswith("· Authz"), path
        assert page.title() != "owned"
        assert page.locator("img[src=x]").count() == 0, path
        assert page.locator("svg[onload]").count() == 0, path
        widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= widths[1], path
    assert complaints == []


def test_one_session_never_shows_anothers(room):
    mine = room.make(name="of dana alone", owner="dana")
    dana, leo = room.page(state=room.sign_in("dana")), room.page(state=room.sign_in("leo"))
    for _ in range(3):
        for page, name, seen in ((dana, "dana", True), (leo, "leo", False)):
            page.goto("/console/tokens")
            assert page.locator(".who a").inner_text().strip() == name
            assert (page.get_by_text("of dana alone").count() > 0) is seen
            answer = page.goto(f"/console/tokens/{mine['id']}")
            assert answer.status == (200 if seen else 404)
    leo.goto("/console/account")
    leo.get_by_role("button", name="Sign out everywhere").click()
    leo.wait_for_url("**/console/sign-in*")
    dana.goto("/console/tokens")
    assert dana.locator(".who a").inner_text().strip() == "dana"


def test_the_cookies_are_for_this_host_alone_and_no_script_reads_them(room):
    page = room.page()
    page.goto("/console/tokens")
    [cookie] = [one for one in page.context.cookies() if one["name"] == "__Host-authz-session"]
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"], cookie["path"]) == (True, True, "Strict", "/")
    assert "authz-session" not in page.evaluate("document.cookie")
