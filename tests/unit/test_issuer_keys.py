"""Keys of issuers and partners: asked for once by a crowd, and no more often than is said."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authz_service.admin.job_tokens import IssuerKeys, JobTokenError
from authz_service.admin.outbound import Answer, OutboundError
from authz_service.admin.partners import PartnerKeys
from authz_service.errors import UnauthenticatedError

ISSUER = "https://issuer.test"


class Out:
    """Answers once it is let; `asked` are the URLs."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails = False
        self.kid = "one"
        self.open = asyncio.Event()
        self.open.set()
        self.came = asyncio.Event()
        self.document: dict | None = None

    async def send(self, method, url, **_):
        assert method == "GET"
        self.asked.append(url)
        self.came.set()
        await self.open.wait()
        if self.fails:
            raise OutboundError("no answer")
        said = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"} if url.endswith("configuration") else None
        said = self.document or said or {"keys": [{"kid": self.kid, "kty": "RSA"}]}
        return Answer(200, json.dumps(said).encode())


class Crowd:
    """One issuer, and a clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.out = Out()
        self.keys = IssuerKeys(lambda: self.now)

    async def one(self, kid: str | None = "one") -> list[str] | str:
        """The ids of the keys found, or why there are none."""
        try:
            return [str(key["kid"]) for key in await self.keys.find(self.out, ISSUER, kid)]
        except JobTokenError as error:
            return str(error)

    async def many(self, *kids: str | None) -> list[list[str] | str]:
        """All of them ask before the issuer answers."""
        self.out.came.clear()
        self.out.open.clear()
        waiting = [asyncio.create_task(self.one(kid)) for kid in kids]
        await self.out.came.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        self.out.open.set()
        return list(await asyncio.gather(*waiting))


async def test_jobs_that_start_at_the_same_moment_all_get_the_keys_by_one_question():
    crowd = Crowd()
    assert await crowd.many(*["one"] * 5) == [["one"]] * 5
    assert len(crowd.out.asked) == 2
    crowd.now += 301
    assert await crowd.many(*["one"] * 5) == [["one"]] * 5
    assert len(crowd.out.asked) == 4


async def test_keys_of_four_minutes_are_asked_for_again_and_work_for_another_one_where_that_fails():
    crowd = Crowd()
    assert await crowd.one() == ["one"]
    crowd.now += 239
    assert await crowd.one() == ["one"]
    assert len(crowd.out.asked) == 2
    crowd.now += 1
    crowd.out.fails = True
    assert await crowd.many("one", None, "two") == [["one"]] * 3
    assert len(crowd.out.asked) == 3
    crowd.now += 29
    assert await crowd.one() == ["one"]
    assert len(crowd.out.asked) == 3, "left alone for half a minute"
    crowd.now += 31
    assert await crowd.one() == "the issuer does not answer", "five minutes, and no longer"
    assert len(crowd.out.asked) == 4
    assert await crowd.one() == "the issuer did not answer a moment ago"
    crowd.out.fails, crowd.out.kid = False, "two"
    crowd.now += 30
    assert await crowd.many("one", "two") == [["two"]] * 2


async def test_keys_that_are_withdrawn_work_no_longer_than_five_minutes_whoever_asks():
    crowd = Crowd()
    assert await crowd.one() == ["one"]
    crowd.out.kid = "two"
    for _ in range(10):
        crowd.now += 30
        found = await crowd.one()
    assert found == ["two"]


async def test_who_leaves_takes_nobody_along():
    crowd = Crowd()
    crowd.out.open.clear()
    first = asyncio.create_task(crowd.one())
    await crowd.out.came.wait()
    second = asyncio.create_task(crowd.one())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    crowd.out.open.set()
    assert await second == ["one"]
    assert len(crowd.out.asked) == 2


async def test_reports_that_come_at_the_same_moment_are_all_taken_by_one_question():
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    out = Out()
    out.document = {"public_keys": [{"key_identifier": "one", "key": pem}]}
    out.open.clear()
    partners = PartnerKeys(out, url="https://partner.test/keys")
    signature = base64.b64encode(key.sign(b"[]", ec.ECDSA(SHA256()))).decode()

    async def report(key_id: str) -> bool:
        try:
            await partners.require_signed(key_id, signature, b"[]")
        except UnauthenticatedError:
            return False
        return True

    waiting = [asyncio.create_task(report(one)) for one in ("one", "one", "two", "one")]
    await out.came.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    out.open.set()
    assert await asyncio.gather(*waiting) == [True, True, False, True]
    assert len(out.asked) == 1
