"""How the console looks and is handled in a real browser: axe, a phone, the keyboard, times, nothing that jumps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.browser import PHONE, faults_of, shoot
from tests.support.room import CHECKOUT, Room, console_room

PAGES = {
    "tokens": "/console/tokens",
    "where": "/console/tokens/new?catalog=gitlab",
    "what": f"/console/tokens/new?catalog=gitlab&node={CHECKOUT}&step=what&p=container_repository:create",
    "finish": f"/console/tokens/new?catalog=gitlab&node={CHECKOUT}&step=finish&p=container_repository:create",
    "catalogs": "/console/catalogs",
    "catalog": "/console/catalogs/gitlab?search=GET+/api/v4/projects/7/jobs",
    "permission": "/console/catalogs/gitlab/permissions/job:read",
    "playground": "/console/playground",
    "requests": "/console/requests",
    "grants": "/console/grants",
    "leaks": "/console/leaks",
    "draft": f"/console/playground?draft=yes&catalog=gitlab&node={CHECKOUT}&p=job:read",
    "policies": "/console/policies?node=group:bakery&catalog=gitlab",
    "directory": "/console/directory",
    "audit": "/console/audit",
    "system": "/console/system",
    "account": "/console/account",
    "error": "/console/nothing-here",
}
OF_A_TOKEN = ("", "/edit", "/rotate", "/clone", "/shrink", "/radius", "/revoke")


@pytest.fixture(scope="module")
def room() -> Iterator[Room]:
    with console_room() as found:
        yield found


@pytest.fixture(scope="module")
def pages(room) -> dict[str, str]:
    """Every kind of page there is, by a name for its picture."""
    made = room.make(name="looked at", reason="so that there is one")
    return PAGES | {f"token{way.replace('/', ' ')}": f"/console/tokens/{made['id']}{way}" for way in OF_A_TOKEN}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_page(room, pages, scheme):
    page = room.page(scheme=scheme)
    found = {}
    for name, path in pages.items():
        page.goto(path)
        shoot(page, f"{name} {scheme}")
        found[name] = faults_of(page)
    stranger = room.page(scheme=scheme, stranger=True)
    stranger.goto("/console/sign-in")
    shoot(stranger, f"sign in {scheme}")
    found["sign in"] = faults_of(stranger)
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_no_page_is_wider_than_a_phone(room, pages):
    page = room.page(size=PHONE)
    for name, path in pages.items():
        page.goto(path)
        shoot(page, f"{name} phone")
        widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= widths[1], name


def test_no_word_of_a_policy_is_broken_on_a_narrow_screen(room, pages):
    """The values in force stand beside the form: a word that has to be cut takes more lines than one."""
    page = room.page(size={"width": 1200, "height": 800})
    page.goto(pages["policies"])
    broken = page.evaluate(
        """() => [...document.querySelectorAll("dd")].flatMap((dd) => {
            const text = dd.firstChild;
            return [...text.data.matchAll(/\\S+/g)].filter((word) => {
                const range = document.createRange();
                range.setStart(text, word.index);
                range.setEnd(text, word.index + word[0].length);
                return range.getClientRects().length > 1;
            }).map((word) => word[0]);
        })"""
    )
    assert broken == []


def test_every_page_says_the_same_without_scripts(room, pages):
    plain = room.page(scripts=False)
    for name, path in pages.items():
        answer = plain.goto(path)
        assert answer.status == (404 if name == "error" else 200), name
        assert plain.locator("h1").inner_text(), name
        for button in plain.locator("button.js").all():
            assert not button.is_visible(), name


def test_nothing_jumps_while_a_page_loads(room):
    page = room.page()
    script = """() => new Promise((done) => {
        let sum = 0;
        new PerformanceObserver((list) => { for (const one of list.getEntries()) sum += one.value; })
            .observe({type: "layout-shift", buffered: true});
        setTimeout(() => done(sum), 300);
    })"""
    for path in ("/console/tokens", PAGES["what"], "/console/audit"):
        page.goto(path)
        assert page.evaluate(script) < 0.02, path


def test_the_keyboard_alone_gets_everywhere(room):
    page = room.page()
    page.goto("/console/tokens")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "New token"
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/tokens/new")
    search = page.get_by_label("Find groups and projects")
    search.focus()
    page.keyboard.type("website")
    others = page.get_by_role("button", name="Add group:bakery/shop", exact=True)
    others.wait_for(state="detached")
    assert page.evaluate("document.activeElement.name") == "find", "the cursor left the field"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Remove project:bakery/website").wait_for()


def test_times_are_the_readers_own_on_the_first_page_and_after(room):
    page = room.page(zone="Asia/Tokyo")
    page.context.clear_cookies(name="authz-zone")
    hours = []
    for _ in range(2):
        page.goto("/console/audit")
        time = page.locator("tbody time").last
        hours.append((time.get_attribute("datetime")[11:13], time.inner_text()[-5:-3]))
    assert {(int(exact) + 9) % 24 == int(shown) for exact, shown in hours} == {True}
    assert hours[0] == hours[1]
