"""The files of the command's TLS options: read, and told in plain words if they fail.

Knows certificates and keys; not what is spoken with them.
"""

import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

from .process import UsageError, state

__all__ = ("client_context", "server_context")

_REASONS: Final = {
    "KEY_VALUES_MISMATCH": "the key belongs to another certificate",
    "NO_CERTIFICATE_OR_CRL_FOUND": "there is no certificate in it (PEM)",
    "NO_START_LINE": "there is no certificate in it (PEM)",
}
"""What reasons of OpenSSL mean."""
_NO_PEM: Final = "a certificate and its private key (PEM) are not both there"


def server_context(
    certfile: str | None, keyfile: str | None, client_ca: str | None
) -> ssl.SSLContext | None:
    """Return what a server speaks TLS with, or `None` if there is no certificate.

    Args:
        certfile: The certificate chain.
        keyfile: Its key, if that is another file.
        client_ca: Certificates of which one has to have signed the client's.

    Raises:
        UsageError: A file can't be used, or the certificate is missing.
    """
    for option, file in ("--keyfile", keyfile), ("--client-ca", client_ca):
        if certfile is None and file is not None:
            msg = f"{option} is for a --certfile, and there is none"
            raise UsageError(msg)
    if certfile is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load_certificate(context, certfile, keyfile)
    _warn_of_refusals(context, certfile)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        _load_authorities(context, client_ca)
    return context


def client_context(
    *, cafile: str | None, certfile: str | None, keyfile: str | None, insecure: bool
) -> ssl.SSLContext | None:
    """Return what a client speaks TLS with, or `None` for what is usual.

    Args:
        cafile: Certificates to trust, instead of the system's.
        certfile: The client's own certificate, with the chain.
        keyfile: Its key, if that is another file.
        insecure: Take any certificate of the server.

    Raises:
        UsageError: A file can't be used, or options contradict each other.
    """
    if keyfile is not None and certfile is None:
        msg = "--keyfile is for a --certfile, and there is none"
        raise UsageError(msg)
    if insecure and cafile is not None:
        msg = "--insecure checks no certificate, so --cafile would be without effect"
        raise UsageError(msg)
    if cafile is None and certfile is None and not insecure:
        return None
    context = ssl.create_default_context()
    if cafile is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _load_authorities(context, cafile)
    if certfile is not None:
        _load_certificate(context, certfile, keyfile)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _load_certificate(
    context: ssl.SSLContext, certfile: str, keyfile: str | None
) -> None:
    key = keyfile or certfile

    def refuse_to_ask() -> NoReturn:  # It would ask on the terminal, and wait.
        msg = f"the key in {key} has a password: 'openssl pkey -in {key}' takes it off"
        raise UsageError(msg)

    def load() -> None:
        context.load_cert_chain(certfile, keyfile, password=refuse_to_ask)

    files = [certfile] if keyfile is None else [certfile, keyfile]
    _load(load, files, _NO_PEM)


def _warn_of_refusals(context: ssl.SSLContext, certfile: str) -> None:
    """Say that clients will refuse a certificate, most often as it has expired.

    A client in memory, which trusts the certificate and checks no name, tells.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(certfile)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = context.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server)
    try:
        for side in (theirs, ours, theirs):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLError as exc:
        why = getattr(exc, "verify_message", exc.reason)
        state(f"trio-wspair: warning: clients will refuse {certfile}: {why}", "red")


def _load_authorities(context: ssl.SSLContext, file: str) -> None:
    def load() -> None:
        context.load_verify_locations(file)

    _load(load, [file], "there is no certificate in it (PEM)")


def _load(load: Callable[[], None], files: list[str], otherwise: str) -> None:
    """Load files, and say which of them can't be used and why.

    Raises:
        UsageError: One can't be.
    """
    try:
        for file in files:  # OpenSSL does not say which one is missing.
            with Path(file).open("rb"):
                pass
        load()
    except ssl.SSLError as exc:
        reason = _REASONS.get(exc.reason or "", otherwise)
        msg = f"can't use {' with '.join(files)}: {reason}"
        raise UsageError(msg) from exc
    except OSError as exc:
        msg = f"can't use {exc.filename or ' with '.join(files)}: {exc.strerror}"
        raise UsageError(msg) from exc
    except ValueError as exc:
        msg = f"can't use {' with '.join(files)}: {exc}"
        raise UsageError(msg) from exc
