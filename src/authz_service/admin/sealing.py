"""The audit's seal: one replica links new rows once a second, and now and then somebody's key signs the head."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.errors import DatabaseUnavailableError, InvalidInputError, StartError
from authz_service.pdp.secrets import Peppers
from authz_service.store import audit_chain
from authz_service.store.audit_chain import Checkpoint, Head
from authz_service.store.changes import load_clock
from authz_service.store.database import Database

ED25519: Final = "ed25519"
BY_PEPPER: Final = "hmac-sha256"
_PURPOSE: Final = "audit-checkpoint"
_SECONDS: Final = 1.0
_log = logging.getLogger("authz_service.audit")


class Signer(Protocol):
    """Whoever signs checkpoints. `key_id` names the key, and is public."""

    algorithm: str
    key_id: str

    def sign(self, message: bytes) -> bytes: ...


class Ed25519Signer:
    """Anybody with the public key can verify what it signed."""

    algorithm = ED25519

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        self.key_id = key_id_of(key.public_key())

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


class PepperSigner:
    """Only who has the pepper can verify what it signed, and whoever has it can sign: better than nothing."""

    algorithm = BY_PEPPER

    def __init__(self, peppers: Peppers) -> None:
        self._peppers = peppers
        self.key_id = peppers.current

    def sign(self, message: bytes) -> bytes:
        return _hmac(self._peppers, self.key_id, message) or b""


def _hmac(peppers: Peppers, kid: str, message: bytes) -> bytes | None:
    key = peppers.derive(_PURPOSE + "/1", kid)
    return None if key is None else hmac.digest(key, message, hashlib.sha256)


def key_id_of(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the raw key."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def read_signer(key_file: Path | None, peppers: Peppers) -> Ed25519Signer | PepperSigner:
    """The signer of the settings. Raises StartError for a file that holds no Ed25519 private key."""
    if key_file is None:
        return PepperSigner(peppers)
    try:
        key = load_pem_private_key(key_file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise StartError(_NO_KEY.format(path=key_file)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StartError(_NO_KEY.format(path=key_file))
    return Ed25519Signer(key)


_NO_KEY: Final = (
    "AUTHZ_AUDIT_KEY_FILE: `{path}` holds no unencrypted Ed25519 private key in PEM; `openssl genpkey -algorithm"
    " ed25519` prints one"
)


class Verifier:
    """Tells whether a checkpoint's signature is one of the keys given: public keys in PEM, and peppers."""

    def __init__(self, public_keys: Mapping[str, Ed25519PublicKey], peppers: Peppers | None) -> None:
        self._keys = dict(public_keys)
        self._peppers = peppers

    @classmethod
    def of(cls, signer: Ed25519Signer | PepperSigner | None, peppers: Peppers | None) -> Verifier:
        keys = {}
        if isinstance(signer, Ed25519Signer):
            keys = {signer.key_id: read_public_key(signer.public_pem.encode())}
        return cls(keys, peppers)

    def with_key(self, pem: bytes) -> Verifier:
        """And this public key. Raises InvalidInputError when it is none."""
        key = read_public_key(pem)
        return Verifier({**self._keys, key_id_of(key): key}, self._peppers)

    def holds(self, checkpoint: Checkpoint) -> bool | None:
        """None when there is no key to tell by."""
        if checkpoint.algorithm == ED25519:
            key = self._keys.get(checkpoint.key_id)
            if key is None:
                return None
            try:
                key.verify(checkpoint.signature, checkpoint.message())
            except InvalidSignature:
                return False
            return True
        if checkpoint.algorithm == BY_PEPPER and self._peppers is not None:
            wanted = _hmac(self._peppers, checkpoint.key_id, checkpoint.message())
            return None if wanted is None else hmac.compare_digest(wanted, checkpoint.signature)
        return None


def read_public_key(pem: bytes) -> Ed25519PublicKey:
    """Raises InvalidInputError for anything but an Ed25519 public key in PEM."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError) as error:
        raise InvalidInputError("the file holds no public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidInputError("the public key is no Ed25519 one")
    return key


def format_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """JSON of a checkpoint: what a line of the file, and an item of the list, is."""
    return {
        "seal": checkpoint.seal,
        "hash": checkpoint.hash.hex(),
        "at": checkpoint.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "algorithm": checkpoint.algorithm,
        "key_id": checkpoint.key_id,
        "signature": base64.b64encode(checkpoint.signature).decode(),
    }


def parse_checkpoint(line: str | bytes) -> Checkpoint:
    """What `format_checkpoint` wrote, as JSON text. Raises InvalidInputError."""
    try:
        found = json.loads(line)
        return Checkpoint(
            seal=int(found["seal"]),
            hash=bytes.fromhex(found["hash"]),
            at=datetime.fromisoformat(found["at"]),
            algorithm=str(found["algorithm"]),
            key_id=str(found["key_id"]),
            signature=base64.b64decode(found["signature"], validate=True),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInputError(
            "a line is no checkpoint; give the lines as `GET /v1/audit/checkpoints` does"
        ) from error


class Sealer:
    """Seals for as long as it runs; in every worker, and at any time in one of them."""

    def __init__(
        self,
        database: Database,
        signer: Signer,
        *,
        interval: float = 300.0,
        file: Path | None = None,
        observe: Callable[[int, bool], None] = lambda rows, broken: None,  # noqa: ARG005 - whoever wants to know
    ) -> None:
        """`observe` hears how many rows each round sealed, and whether the chain lost its last checkpoint."""
        self._database = database
        self._signer = signer
        self._interval = timedelta(seconds=interval)
        self._file = file
        self._observe = observe
        self._told = False

    async def run(self) -> None:
        """Until it is cancelled. A database that is away is asked again a second later."""
        while True:
            try:
                await self.seal_now()
            except DatabaseUnavailableError:
                _log.warning("the audit is not sealed: the database does not answer")
            await asyncio.sleep(_SECONDS)

    async def seal_now(self, *, checkpoint: bool = False) -> int:
        """Seal all that is committed, unless another replica does; how many rows. `checkpoint`: sign in any case."""
        rows, more = 0, True
        while more:
            new: Checkpoint | None = None
            async with self._database.transaction() as conn:
                done = await audit_chain.seal_rows(conn)
                if done is None:
                    return rows
                more = done.more
                rows += done.rows
                broken = False
                if not more:
                    new, broken = await self._sign(conn, done.head, due=checkpoint)
            if new is not None and self._file is not None:
                await asyncio.to_thread(_append, self._file, json.dumps(format_checkpoint(new)) + "\n")
            self._observe(done.rows, broken)
        return rows

    async def _sign(self, conn: AsyncConnection, head: Head, *, due: bool) -> tuple[Checkpoint | None, bool]:
        """A new checkpoint when it is time for one, and whether the last one is not in the chain any more."""
        last = await audit_chain.last_checkpoint(conn)
        now = await load_clock(conn)
        if last is not None:
            found = await audit_chain.load_links(conn, after=last.seal - 1, limit=1)
            if not found or found[0].seal != last.seal or found[0].hash != last.hash:
                if not self._told:
                    _log.error("the audit chain has lost its last checkpoint; run `authz audit verify`")
                self._told = True
                return None, True
            if last.seal == head.seal or (not due and now - last.at < self._interval):
                return None, False
        elif head.seal == 0:
            return None, False
        new = Checkpoint(head.seal, head.hash, now, self._signer.algorithm, self._signer.key_id)
        new = replace(new, signature=self._signer.sign(new.message()))
        await audit_chain.add_checkpoint(conn, new)
        return new, False


def _append(file: Path, line: str) -> None:
    try:
        number = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            os.write(number, line.encode())
        finally:
            os.close(number)
    except OSError as error:
        _log.warning("a checkpoint could not be added to its file: %s", error.strerror)
