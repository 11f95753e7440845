"""Sign-in by an OpenID Connect provider: where it sends people, what it answers, and what of that is believed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from authz_service.admin.addresses import parse_receiver
from authz_service.admin.id_tokens import Account, Expected, IdTokenError, key_of, read_id_token
from authz_service.admin.outbound import Outbound, OutboundError
from authz_service.errors import InvalidInputError, OverloadedError, UnauthenticatedError
from authz_service.pdp.secrets import Peppers

FLOW_SECONDS: Final = 600
"""How long somebody may take at the provider."""
_PURPOSE: Final = "console/openid"
_DISCOVERY: Final = "/.well-known/openid-configuration"
_KEEP_SECONDS: Final = 300.0
_MOST_BYTES: Final = 128 * 1024
_MOST_CODE: Final = 4096
_AWAY: Final = "the provider does not answer as one just now; try again shortly, or sign in another way"
_NOT_OURS: Final = "this sign-in did not begin in this browser, or took too long; begin it here once more"
_NOT_TAKEN: Final = "what the provider said could not be proven, so nobody was signed in; begin once more"
_DECLINED: Final = "the provider signed nobody in; begin once more, or sign in another way"


@dataclass(frozen=True, slots=True)
class Client:
    """Who we are at the provider, as the settings say. `claim` holds a user's external id in `source`."""

    issuer: str
    client_id: str
    secret: str = field(repr=False)
    redirect_uri: str
    claim: str = "sub"
    source: str = "default"
    scopes: str = "openid"
    name: str = "your organisation"


@dataclass(frozen=True, slots=True)
class Flow:
    """One sign-in that is under way: known to the browser that began it, and to nobody else."""

    state: str
    nonce: str
    verifier: str
    next_page: str
    begun: int


@dataclass(frozen=True, slots=True)
class Returned:
    """What came back with the browser; `repeated` whether a parameter was given twice."""

    code: str = ""
    state: str = ""
    issuer: str | None = None
    error: str = ""
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Provider:
    """What the provider says of itself."""

    authorization: str
    token: str
    keys: str
    names_itself: bool
    """Whether each of its answers says whose it is (RFC 9207)."""
    auth_method: str


class OpenId:
    """The provider of this service. What it says of itself is kept for five minutes, and longer while it is silent."""

    def __init__(
        self,
        client: Client,
        outbound: Outbound,
        peppers: Peppers,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.client = client
        self._outbound = outbound
        self._peppers = peppers
        self._clock = clock
        self._now = now
        self._provider: tuple[float, Provider] | None = None
        self._keys: tuple[float, Sequence[Mapping[str, Any]]] | None = None

    # there

    async def begin(self, next_page: str) -> tuple[str, str]:
        """Where to send the browser, and the text of the cookie that it brings back. Raises OverloadedError."""
        provider = await self._find_provider()
        flow = Flow(
            secrets.token_urlsafe(32),
            secrets.token_urlsafe(32),
            secrets.token_urlsafe(48),
            next_page,
            int(self._now()),
        )
        where = prepare_grant_uri(
            provider.authorization,
            self.client.client_id,
            "code",
            redirect_uri=self.client.redirect_uri,
            scope=self.client.scopes,
            state=flow.state,
            nonce=flow.nonce,
            code_challenge=create_s256_code_challenge(flow.verifier),
            code_challenge_method="S256",
        )
        return str(where), self._seal(flow)

    # and back

    async def finish(self, cookie: str, returned: Returned) -> tuple[Account, Flow]:
        """Who signed in. Raises UnauthenticatedError for whatever is not right, OverloadedError for a silent provider.

        A code is sent to the provider only when the browser is the one that began, and the answer the provider's own.
        """
        flow = self._open(cookie)
        if flow is None or returned.repeated or not hmac.compare_digest(flow.state.encode(), returned.state.encode()):
            raise UnauthenticatedError(_NOT_OURS)
        provider = await self._find_provider()
        if returned.issuer is None and provider.names_itself:
            raise UnauthenticatedError(_NOT_TAKEN)
        if returned.issuer is not None and returned.issuer != self.client.issuer:
            raise UnauthenticatedError(_NOT_TAKEN)
        if returned.error or not 0 < len(returned.code) <= _MOST_CODE:
            raise UnauthenticatedError(_DECLINED)
        id_token, access_token = await self._redeem(provider, returned.code, flow.verifier)
        expected = Expected(self.client.issuer, self.client.client_id, flow.nonce, self.client.claim, access_token)
        try:
            keys = await self._find_keys(provider, key_of(id_token))
            return read_id_token(id_token, keys, expected, self._now()), flow
        except IdTokenError as error:
            raise UnauthenticatedError(_NOT_TAKEN) from error

    async def _redeem(self, provider: Provider, code: str, verifier: str) -> tuple[str, str | None]:
        """The ID token, and the access token that it may be bound to: that one is used for nothing, and not kept."""
        body = prepare_token_request(
            "authorization_code", code=code, redirect_uri=self.client.redirect_uri, code_verifier=verifier
        )
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        auth = ClientAuth(self.client.client_id, self.client.secret, provider.auth_method)
        _, headers, body = auth.prepare("POST", provider.token, headers, body)
        try:
            answer = await self._outbound.send(
                "POST", provider.token, headers=headers, body=body.encode(), max_bytes=_MOST_BYTES
            )
        except (OutboundError, InvalidInputError):
            raise OverloadedError(_AWAY) from None
        if answer.status >= 500:
            raise OverloadedError(_AWAY)
        document = _document(answer.body) if answer.status == 200 else None
        if document is None:
            raise UnauthenticatedError(_DECLINED)
        id_token, access_token = document.get("id_token"), document.get("access_token")
        if not isinstance(id_token, str):
            raise UnauthenticatedError(_NOT_TAKEN)
        return id_token, access_token if isinstance(access_token, str) else None

    # what the provider says of itself

    async def _find_provider(self) -> Provider:
        kept, now = self._provider, self._clock()
        if kept is not None and now - kept[0] < _KEEP_SECONDS:
            return kept[1]
        try:
            found = self._read_provider(await self._get(self.client.issuer.rstrip("/") + _DISCOVERY))
        except (OutboundError, InvalidInputError):
            if kept is not None:
                return kept[1]
            raise OverloadedError(_AWAY) from None
        self._provider = (now, found)
        return found

    def _read_provider(self, document: Mapping[str, Any]) -> Provider:
        places = [document.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
        if document.get("issuer") != self.client.issuer or not all(isinstance(one, str) for one in places):
            raise OutboundError("the provider describes another one")
        authorization, token, keys = (str(one) for one in places)
        for place in (authorization, token, keys):
            parse_receiver(place)
        methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        fitting = [one for one in ("client_secret_basic", "client_secret_post") if one in methods]
        if not isinstance(methods, list) or not fitting:
            raise OutboundError("the provider takes no secret of a client")
        names_itself = document.get("authorization_response_iss_parameter_supported") is True
        return Provider(authorization, token, keys, names_itself, fitting[0])

    async def _find_keys(self, provider: Provider, kid: str | None) -> Sequence[Mapping[str, Any]]:
        """Kept for five minutes; one that is not among them is asked for at once, as after a change of keys.

        Nobody but the provider makes us ask: `kid` is of what it answered to our own request.
        """
        kept, now = self._keys, self._clock()
        fresh = kept is not None and now - kept[0] < _KEEP_SECONDS
        if kept is not None and fresh and (kid is None or any(one.get("kid") == kid for one in kept[1])):
            return kept[1]
        try:
            keys = (await self._get(provider.keys)).get("keys")
        except (OutboundError, InvalidInputError):
            raise OverloadedError(_AWAY) from None
        if not isinstance(keys, list):
            raise OverloadedError(_AWAY)
        found = [one for one in keys if isinstance(one, dict)]
        self._keys = (now, found)
        return found

    async def _get(self, url: str) -> Mapping[str, Any]:
        answer = await self._outbound.send("GET", url, max_bytes=_MOST_BYTES, timeout=5.0)
        document = _document(answer.body) if answer.status == 200 else None
        if document is None:
            raise OutboundError("the provider does not answer as one")
        return document

    # the cookie of a sign-in under way

    def _seal(self, flow: Flow) -> str:
        kid = self._peppers.current
        body = msgspec.json.encode([flow.state, flow.nonce, flow.verifier, flow.next_page, flow.begun])
        return f"{kid}.{_text(body)}.{_text(self._mac(kid, body) or b'')}"

    def _open(self, cookie: str) -> Flow | None:
        """None for what was not sealed here, or too long ago."""
        kid, _, rest = cookie.partition(".")
        written, _, mac = rest.partition(".")
        try:
            body, given = _bytes(written), _bytes(mac)
        except (binascii.Error, ValueError):
            return None
        expected = self._mac(kid, body)
        if expected is None or not hmac.compare_digest(expected, given):
            return None
        flow = Flow(*msgspec.json.decode(body))
        return flow if 0 <= self._now() - flow.begun + 1 <= FLOW_SECONDS else None

    def _mac(self, kid: str, body: bytes) -> bytes | None:
        key = self._peppers.derive(_PURPOSE, kid)
        return None if key is None else hmac.digest(key, body, hashlib.sha256)


def _document(body: bytes) -> Mapping[str, Any] | None:
    try:
        found = msgspec.json.decode(body)
    except msgspec.MsgspecError:
        return None
    return found if isinstance(found, dict) else None


def _text(body: bytes) -> str:
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
