"""A running service with its console, a browser before it, and somebody who is signed in."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from tests.support.browser import WIDE, browser
from tests.support.processes import DevService, dev_service

from authz_service.admin.signing import make_link
from authz_service.config import load_settings
from authz_service.running import open_management

CHECKOUT = "project:bakery/shop/checkout"
PATIENCE = 60_000
"""Milliseconds until a page that does not come is a fault: a machine may be slow."""


@dataclass
class Room:
    """`state` is that of the browser of whoever signed in by the link that the service printed: `admin`."""

    dev: DevService
    browser: Any
    state: Any

    def page(
        self,
        *,
        scripts: bool = True,
        size: Any = WIDE,
        scheme: str = "light",
        zone: str = "Europe/Berlin",
        state: Any = None,
        stranger: bool = False,
    ) -> Any:
        """A page of a new browser window, signed in as `state` says, or as nobody."""
        context = self.browser.new_context(
            base_url=self.dev.url,
            storage_state=None if stranger else state or self.state,
            viewport=size,
            color_scheme=scheme,
            java_script_enabled=scripts,
            timezone_id=zone,
            reduced_motion="reduce",
        )
        context.set_default_timeout(PATIENCE)
        return context.new_page()

    def sign_in(self, username: str) -> Any:
        """The state of a browser in which this user signed in by a one-time link."""
        settings = load_settings(self.database())

        async def make() -> str:
            async with open_management(settings) as management:
                return await make_link(management, username, timedelta(minutes=10))

        with ThreadPoolExecutor(1) as beside:  # this thread has the browser's own loop
            code = beside.submit(lambda: asyncio.run(make())).result()
        page = self.page(stranger=True)
        page.goto(f"/console/sign-in/link?code={code}")
        page.wait_for_url("**/console/tokens")
        state = page.context.storage_state()
        page.context.close()
        return state

    def database(self) -> dict[str, str]:
        """Variables for commands that work on the database itself."""
        return {
            "AUTHZ_DATABASE_URL": str(self.dev.ready["database_url"]),
            "AUTHZ_PEPPERS_FILE": str(self.dev.folder / "data" / "peppers"),
        }

    def decide(self, secret: str, action: str, target: str, resource: str = "container_repository") -> str:
        with self.dev.client(self.dev.ready["gateway_token"]) as http:
            answer = self.dev.check(http, token=secret, resource=resource, action=action, target=target)
            return str(answer.json()["decision"])

    def make(self, **changes: Any) -> dict[str, Any]:
        """A token made past the console, by an admin."""
        body = {
            "name": "made beforehand",
            "owner": "dana",
            "catalog": "gitlab",
            "expires_at": "2030-01-01T00:00:00Z",
            "scopes": [{"reach": {"kind": "selected", "nodes": [CHECKOUT]}, "permissions": ["job:read"]}],
        }
        with self.dev.client(self.dev.ready["admin_token"]) as http:
            made = http.post("/v1/tokens", json=body | changes)
            assert made.status_code == httpx.codes.CREATED, made.text
            return dict(made.json())


@contextmanager
def console_room() -> Iterator[Room]:
    """Until left."""
    folder = Path(tempfile.mkdtemp(prefix="authz-console-"))
    folder.chmod(0o755)  # the database's user must pass through
    try:
        with browser() as found, dev_service(folder) as dev:
            context = found.new_context(base_url=dev.url)
            context.set_default_timeout(PATIENCE)
            page = context.new_page()
            page.goto(dev.ready["sign_in_url"])
            page.wait_for_url(f"{dev.url}/console/tokens")
            state = context.storage_state()
            context.close()
            yield Room(dev, found, state)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
