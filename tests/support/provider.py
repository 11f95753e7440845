"""An OpenID Connect provider on loopback, as the console's sign-in meets one: it gives codes and redeems them once."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_urlsafe
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from joserfc import jwt
from tests.support.issuer import Issuer
from tests.support.receiver import Received, receiving, status

CLIENT_ID = "authz console"
CLIENT_SECRET = "a secret of the console alone"


@dataclass
class Given:
    """A code: what the browser asked with, and what the ID token will say in other words than usual."""

    asked: dict[str, str]
    claims: dict[str, Any]
    signed: Callable[[dict[str, Any]], str] | None = None


@dataclass
class Provider(Issuer):
    """`codes` are those not yet redeemed; `answer_of_token` stands in for the token endpoint's answer."""

    codes: dict[str, Given] = field(default_factory=dict)
    redeemed: list[dict[str, str]] = field(default_factory=list)
    answer_of_token: bytes | None = None
    forgetful: bool = False
    """Redeems a code as often as it is shown."""

    def _answer(self, request: Received) -> bytes:
        if request.path == "/.well-known/openid-configuration":
            usual = {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "authorization_endpoint": f"{self.url}/authorize?tenant=acme",
                "token_endpoint": f"{self.url}/token",
                "authorization_response_iss_parameter_supported": True,
            }
            return status(200, json.dumps(usual | self.discovery).encode())
        if request.path == "/token":
            return self._redeem(request)
        return status(200, json.dumps({"keys": self.published}).encode())

    def allow(self, where: str, signed: Callable[[dict[str, Any]], str] | None = None, **claims: Any) -> dict[str, str]:
        """Somebody signed in at the page that the browser was sent to: what they come back with."""
        assert where.startswith(f"{self.url}/authorize?tenant=acme&"), where
        asked = dict(parse_qsl(urlsplit(where).query))
        code = token_urlsafe(12)
        self.codes[code] = Given(asked, claims, signed)
        return {"code": code, "state": asked["state"], "iss": self.url}

    def _redeem(self, request: Received) -> bytes:
        if self.answer_of_token is not None:
            return self.answer_of_token
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        self.redeemed.append(form)
        expected = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        given = self.codes.get(form["code"])
        if not self.forgetful:
            self.codes.pop(form["code"], None)
        right = (
            given is not None
            and request.method == "POST"
            and request.headers.get("authorization") == f"Basic {expected}"
            and form["grant_type"] == "authorization_code"
            and form["redirect_uri"] == given.asked["redirect_uri"]
            and given.asked["code_challenge_method"] == "S256"
            and _challenge(form.get("code_verifier", "")) == given.asked["code_challenge"]
        )
        if not right or given is None:
            return status(400, b'{"error":"invalid_grant"}')
        body = {"access_token": "of-no-use", "token_type": "Bearer", "id_token": self.id_token(given)}
        return status(200, json.dumps(body).encode())

    def id_token(self, given: Given) -> str:
        now = int(time.time())
        usual = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "sub": "7",
            "iat": now,
            "exp": now + 300,
            "nonce": given.asked["nonce"],
        }
        said = {name: value for name, value in (usual | given.claims).items() if value is not None}
        if given.signed is not None:
            return given.signed(said)
        kid = self.key.as_dict(private=False).get("kid")
        return jwt.encode({"alg": "RS256", "kid": kid}, said, self.key, algorithms=["RS256"])


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


@asynccontextmanager
async def providing(folder: Path) -> AsyncIterator[Provider]:
    """`folder` gets `ca.pem`, and `secret.txt` with the client's secret."""
    (folder / "secret.txt").write_text(CLIENT_SECRET + "\n")
    async with receiving(folder) as receiver:
        yield Provider(receiver)
