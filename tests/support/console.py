"""A visitor of the console without a browser: keeps cookies, finds the form's token, sends forms as a browser does."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx
from tests.support.managing import Stage

from authz_service.admin.passwords import Passwords
from authz_service.admin.signing import set_password
from authz_service.console.guarding import COOKIE

ORIGIN = "http://127.0.0.1"
PASSWORD = "four plain words here"
QUICK = {"memory_kib": 64, "rounds": 1}
"""Costs of a hash that no test has to wait for."""


@dataclass
class Visitor:
    """One browser. `page` is the last one that it got."""

    stage: Stage
    cookies: dict[str, str] = field(default_factory=dict)
    page: httpx.Response | None = None
    agent: str = "test browser"

    async def get(self, path: str, **more: Any) -> httpx.Response:
        return await self._send("GET", path, **more)

    async def post(
        self,
        path: str,
        fields: Mapping[str, str | Sequence[str]] | Sequence[tuple[str, str]] = (),
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        without: Sequence[str] = (),
    ) -> httpx.Response:
        """With the token of the last page's forms, and the origin; `headers` differ, `without` are left out."""
        given = list(fields.items()) if isinstance(fields, Mapping) else list(fields)
        pairs = [("form_token", self.form_token() if token is None else token), *given]
        sent = {"origin": ORIGIN, "content-type": "application/x-www-form-urlencoded"} | dict(headers or {})
        sent = {name: value for name, value in sent.items() if name not in without}
        return await self._send("POST", path, content=urlencode(pairs, doseq=True).encode(), headers=sent)

    async def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = [("user-agent", self.agent), *dict(more.pop("headers", {})).items()]
        if self.cookies and not any(name.lower() == "cookie" for name, _ in headers):
            headers.append(("cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items())))
        # The client's own jar would hold back what is for TLS alone; browsers take this machine for safe enough.
        self.stage.client.cookies.clear()
        self.page = await self.stage.client.request(method, f"{ORIGIN}{path}", headers=headers, **more)
        for given in self.page.headers.get_list("set-cookie"):
            name, _, rest = given.partition("=")
            value = rest.partition(";")[0]
            if "Max-Age=0" in given:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value.strip('"')
        return self.page

    async def follow(self) -> httpx.Response:
        """Until a page is no redirect any more."""
        for _ in range(5):
            if self.page is None or not self.page.is_redirect:
                break
            await self.get(self.page.headers["location"])
        assert self.page is not None
        return self.page

    def form_token(self) -> str:
        assert self.page is not None, "no page was loaded that holds a form"
        return field_of(self.page.text, "form_token")

    @property
    def text(self) -> str:
        """The last page's words, without its tags."""
        assert self.page is not None
        return words_of(self.page.text)

    @property
    def signed_in(self) -> bool:
        return COOKIE in self.cookies

    async def sign_in(self, name: str, password: str = PASSWORD, **fields: str) -> httpx.Response:
        await self.get("/console/sign-in")
        return await self.post("/console/sign-in", {"way": "password", "name": name, "password": password} | fields)

    async def sign_in_by_token(self, secret: str) -> httpx.Response:
        await self.get("/console/sign-in")
        return await self.post("/console/sign-in", {"way": "token", "token": secret})


def field_of(page: str, name: str) -> str:
    """The value of a hidden field, the first of its name."""
    found = re.search(rf'<input type="hidden" name="{name}" value="([^"]*)"', page)
    assert found is not None, f"the page has no field {name}: {words_of(page)[:300]}"
    return html.unescape(found[1])


def fields_of(page: str) -> list[tuple[str, str]]:
    """Every hidden field of the form that makes a token, but for its token."""
    form = page.partition('id="maker"')[2].partition("</form>")[0]
    found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', form)
    return [(name, html.unescape(value)) for name, value in found if name != "form_token"]


def secret_of(page: str) -> str:
    """The secret that a page shows, this once."""
    return page.partition('aria-label="The secret">')[2].partition("<")[0]


def token_of(page: str) -> str:
    """The id of the token that the page of a new secret leads to."""
    found = re.search(r'<a class="button primary" href="/console/tokens/(tok_\w+)">', page)
    assert found is not None, words_of(page)[:300]
    return found[1]


async def make(visitor: Visitor, *steps: tuple[str, dict[str, Any]], begin: str = "", path: str = "") -> Any:
    """Press one button after another of the form that makes a token, each with what is filled in on its page.

    `path` is that of another form in steps, and nothing for the one that makes a token.
    """
    where = path or "/console/tokens/new"
    await visitor.get(f"{where}{begin}")
    for go, filled in steps:
        assert visitor.page is not None
        kept = [(name, value) for name, value in fields_of(visitor.page.text) if name not in filled]
        given = [
            (name, one) for name, value in filled.items() for one in ([value] if isinstance(value, str) else value)
        ]
        await visitor.post(where, [*kept, *given, ("go", go)])
    return visitor.page


def words_of(page: str) -> str:
    """Without tags; what was escaped is as its reader sees it."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page))).strip()


async def give_password(stage: Stage, *names: str, password: str = PASSWORD) -> None:
    passwords = Passwords(**QUICK)
    for name in names:
        await set_password(stage.app.state.services.management, passwords, name, password)


async def signed_in(stage: Stage, name: str) -> Visitor:
    """A visitor with a session of this user's own."""
    await give_password(stage, name)
    visitor = Visitor(stage)
    response = await visitor.sign_in(name)
    assert response.status_code == 303, visitor.text
    assert visitor.signed_in
    await visitor.get("/console/account")
    return visitor
