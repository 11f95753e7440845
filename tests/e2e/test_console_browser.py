"""The console in a real browser, with scripts and without: the walk through it, its looks, its manners."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.browser import PHONE, WIDE, browser, complaints_of, faults_of, shoot
from tests.support.processes import DevService, dev_service

CHECKOUT = "project:bakery/shop/checkout"
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
    "policies": "/console/policies?node=group:bakery&catalog=gitlab",
    "directory": "/console/directory",
    "audit": "/console/audit",
    "system": "/console/system",
    "account": "/console/account",
    "error": "/console/nothing-here",
}


@dataclass
class Room:
    """A running service, a browser, and the state of somebody who signed in."""

    dev: DevService
    browser: Any
    state: Any

    def page(
        self, *, scripts: bool = True, size: Any = WIDE, scheme: str = "light", zone: str = "Europe/Berlin"
    ) -> Any:
        context = self.browser.new_context(
            base_url=self.dev.url,
            storage_state=self.state,
            viewport=size,
            color_scheme=scheme,
            java_script_enabled=scripts,
            timezone_id=zone,
            reduced_motion="reduce",
        )
        context.set_default_timeout(15_000)
        return context.new_page()

    def decide(self, secret: str, action: str, target: str, resource: str = "container_repository") -> str:
        with self.dev.client(self.dev.ready["gateway_token"]) as http:
            answer = self.dev.check(http, token=secret, resource=resource, action=action, target=target)
            return str(answer.json()["decision"])


@pytest.fixture(scope="module")
def room() -> Iterator[Room]:
    folder = Path(tempfile.mkdtemp(prefix="authz-console-"))
    folder.chmod(0o755)  # the database's user must pass through
    with browser() as found, dev_service(folder) as dev:
        context = found.new_context(base_url=dev.url)
        page = context.new_page()
        page.goto(dev.ready["sign_in_url"])
        assert page.url == f"{dev.url}/console/tokens"
        state = context.storage_state()
        context.close()
        yield Room(dev, found, state)
    shutil.rmtree(folder, ignore_errors=True)


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


def test_the_first_curl_that_is_shown_works(room):
    import subprocess

    page = room.page()
    page.goto(PAGES["finish"])
    page.get_by_label("Name", exact=True).fill("to be tried")
    page.get_by_role("button", name="Create the token").click()
    for element, expected in (("#curl", '"to be tried"'), ("#ask", '"decision"')):
        command = page.locator(element).inner_text()
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert expected in done.stdout, done.stdout


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_page(room, scheme):
    page = room.page(scheme=scheme)
    found = {}
    for name, path in PAGES.items():
        page.goto(path)
        shoot(page, f"{name} {scheme}")
        found[name] = faults_of(page)
    page.goto("/console/tokens")
    page.locator("td.name a").first.click()
    shoot(page, f"token {scheme}")
    found["token"] = faults_of(page)
    stranger = room.browser.new_context(base_url=room.dev.url, color_scheme=scheme).new_page()
    stranger.goto("/console/sign-in")
    shoot(stranger, f"sign in {scheme}")
    found["sign in"] = faults_of(stranger)
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_no_page_is_wider_than_a_phone(room):
    page = room.page(size=PHONE)
    for name, path in PAGES.items():
        page.goto(path)
        shoot(page, f"{name} phone")
        widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= widths[1], name


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


def test_a_name_with_a_script_in_it_runs_nothing(room):
    import httpx

    hostile = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    body = {
        "name": hostile,
        "owner": "dana",
        "catalog": "gitlab",
        "expires_at": "2030-01-01T00:00:00Z",
        "reason": hostile,
        "scopes": [{"reach": {"kind": "selected", "nodes": [CHECKOUT]}, "permissions": ["job:read"]}],
    }
    with room.dev.client(room.dev.ready["admin_token"]) as http:
        made = http.post("/v1/tokens", json=body)
        assert made.status_code == httpx.codes.CREATED, made.text
    page = room.page()
    complaints = complaints_of(page)
    for path in (
        "/console/tokens",
        f"/console/tokens/{made.json()['id']}",
        f"/console/tokens/{made.json()['id']}/revoke",
    ):
        page.goto(path)
        assert page.title().endswith("· Authz"), path
        assert not page.title().startswith("owned")
        assert page.locator("img[src=x]").count() == 0
    assert complaints == []
