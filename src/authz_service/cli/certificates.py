"""Certificates of listeners: read at the start, read again on request, and never half."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from authz_service.config import Settings
from authz_service.errors import Fault, StartError


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where they lie, and the variables that said so. With `authorities`, clients have to show a certificate."""

    certificate: Path
    key: Path
    authorities: Path | None
    prefix: str

    def read(self) -> ssl.SSLContext:
        """A context of TLS 1.2 at least. Raises StartError with a fault for each file that cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A session that is taken up again would not be asked for its certificate any more, and might be one of before
        # a reload.
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.num_tickets = 0
        context.set_alpn_protocols(["http/1.1"])
        faults: list[Fault] = []
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            faults.append(self._fault("CERT_FILE", self.certificate, error, f"and `{self.key}` are no pair"))
        if self.authorities is not None:
            try:
                context.load_verify_locations(self.authorities)
            except OSError as error:
                faults.append(self._fault("CLIENT_CA_FILE", self.authorities, error, "holds no certificates"))
            context.verify_mode = ssl.CERT_REQUIRED
        if faults:
            listed = "; ".join(f"{fault.where}: {fault.message}" for fault in faults)
            raise StartError(f"TLS cannot be served: {listed}", faults=faults)
        return context

    def _fault(self, name: str, path: Path, error: Exception, otherwise: str) -> Fault:
        if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
            gone = next((one for one in (path, self.key) if not one.is_file()), path)
            why = (error.strerror or "it is no file").lower()
            return Fault(f"{self.prefix}{name}", "unreadable", f"`{gone}` cannot be read: {why}")
        return Fault(f"{self.prefix}{name}", "invalid", f"`{path}` {otherwise}, in PEM and without a password")


def _no_password() -> str:
    """Nobody is there to be asked."""
    raise ValueError("the key has a password")


class Certificates:
    """What listeners show. `context` stays the same object; handshakes after a `reload` use what was read then."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises StartError."""
        self._files = files
        self.context = self._current = files.read()
        self.context.sni_callback = self._choose

    def reload(self) -> None:
        """Read the files again. Raises StartError, and goes on with what was read last, where any is of no use.

        Connections that stand go on; whose certificate counts no more has to be cut off by whoever wants that.
        """
        self.use(self.read())

    def read(self) -> ssl.SSLContext:
        """What the files say now, not used yet. Raises StartError."""
        return self._files.read()

    def use(self, context: ssl.SSLContext) -> None:
        """From the next handshake on."""
        self._current = context

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        """OpenSSL asks at each handshake, also of those that name no server."""
        del name
        connection.context = self._current


@dataclass(frozen=True, slots=True)
class Shown:
    """The certificates of a worker's listeners; None where it listens without TLS."""

    clients: Certificates | None
    """At AUTHZ_PORT and the addresses of surfaces."""
    probes: Certificates | None
    """The same, and clients show none."""
    gateways: Certificates | None
    """At the gateway's own listener."""

    def reload(self) -> None:
        """All of them or, where any file is of no use, none: then raises StartError. Reads files, so takes moments."""
        fresh = [(one, one.read()) for one in (self.clients, self.probes, self.gateways) if one is not None]
        for one, context in fresh:
            one.use(context)


def read_certificates(settings: Settings) -> Shown:
    """What the settings name. Raises StartError for files that cannot be used."""
    cert, key, authorities = settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file
    clients = probes = gateways = None
    if cert is not None and key is not None:
        clients = Certificates(TlsFiles(cert, key, authorities, "AUTHZ_TLS_"))
        probes = clients if authorities is None else Certificates(TlsFiles(cert, key, None, "AUTHZ_TLS_"))
    cert, key, authorities = settings.gateway_cert_file, settings.gateway_key_file, settings.gateway_client_ca_file
    if cert is not None and key is not None and settings.gateway_listen is not None:
        gateways = Certificates(TlsFiles(cert, key, authorities, "AUTHZ_GATEWAY_"))
    return Shown(clients, probes, gateways)
