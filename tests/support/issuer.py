"""An OpenID Connect issuer of CI jobs' tokens on loopback, by TLS, with keys of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from tests.support.receiver import Received, Receiver, receiving, status

AUDIENCE = "https://authz.test"


@dataclass
class Issuer:
    """`published` are the keys that its key set shows; `discovery` differs from the usual document by these."""

    receiver: Receiver
    key: Any = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "one", "use": "sig"}, auto_kid=False))
    published: list[dict[str, Any]] = field(default_factory=list)
    discovery: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.published = [self.public()]
        self.receiver.answer = self._answer

    @property
    def url(self) -> str:
        return f"https://localhost:{self.receiver.port}"

    def public(self) -> dict[str, Any]:
        return dict(self.key.as_dict(private=False))

    def _answer(self, request: Received) -> bytes:
        if request.path == "/.well-known/openid-configuration":
            usual = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
            return status(200, json.dumps(usual | self.discovery).encode())
        return status(200, json.dumps({"keys": self.published}).encode())

    def sign(self, key: Any = None, alg: str = "RS256", header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A job's token, valid but for what is given; None leaves a claim out."""
        now = int(time.time())
        usual = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "project_path:acme/web:ref_type:branch:ref:main",
            "iat": now,
            "nbf": now - 5,
            "exp": now + 300,
            "jti": token_hex(16),
            "project_path": "acme/web",
            "ref": "main",
        }
        said = {name: value for name, value in (usual | claims).items() if value is not None}
        head = {"alg": alg, "typ": "JWT", "kid": "one"} | (header or {})
        return jwt.encode(head, said, key or self.key, algorithms=[alg])


def sign_by_public_key(issuer: Issuer) -> str:
    """Its public key taken for a shared secret: the oldest trick there is."""
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"one"}').rstrip(b"=")
    signed = head + b"." + issuer.sign().split(".")[1].encode()
    code = hmac.new(issuer.key.as_pem(private=False), signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(code).rstrip(b"=")).decode()


def another_key(kid: str = "one") -> ECKey:
    return ECKey.generate_key("P-256", {"kid": kid}, auto_kid=False)


@asynccontextmanager
async def issuing(folder: Path) -> AsyncIterator[Issuer]:
    """`folder` gets `ca.pem`."""
    async with receiving(folder) as receiver:
        yield Issuer(receiver)
