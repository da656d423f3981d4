"""TLS contexts from the options of the command, and the errors in their files.

Knows certificates and keys, not the connections that use them.
"""

import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

from .process import UsageError, print_warning

__all__ = ("client_context", "server_context")

_NO_CERTIFICATE: Final = "it contains no certificate in PEM format"
_REASONS: Final = {
    "KEY_VALUES_MISMATCH": "the key belongs to another certificate",
    "NO_CERTIFICATE_OR_CRL_FOUND": _NO_CERTIFICATE,
    "NO_START_LINE": _NO_CERTIFICATE,
}
"""The meaning of reasons of OpenSSL."""
_NO_PEM: Final = "a certificate and its private key are needed, both in PEM format"


def server_context(
    certfile: str | None, keyfile: str | None, client_ca: str | None
) -> ssl.SSLContext | None:
    """Return the TLS context of a server, or `None` without a certificate.

    Args:
        certfile: The certificate chain.
        keyfile: Its key, if that is in another file.
        client_ca: The authorities that sign the certificates of clients.

    Raises:
        UsageError: A file can't be used, or the certificate is missing.
    """
    for option, file in ("--keyfile", keyfile), ("--client-ca", client_ca):
        if certfile is None and file is not None:
            msg = f"{option} needs --certfile"
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
    """Return the TLS context of a client, or `None` for the default one.

    Args:
        cafile: The authorities to trust, in place of the system's.
        certfile: The certificate of the client, with its chain.
        keyfile: Its key, if that is in another file.
        insecure: Accept any certificate of the server.

    Raises:
        UsageError: A file can't be used, or options exclude each other.
    """
    if keyfile is not None and certfile is None:
        msg = "--keyfile needs --certfile"
        raise UsageError(msg)
    if insecure and cafile is not None:
        msg = "--insecure and --cafile exclude each other: one checks no certificate"
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

    def refuse_to_ask() -> NoReturn:  # OpenSSL would ask on the terminal, and block.
        msg = f"the key in {key} has a password: remove it with 'openssl pkey'"
        raise UsageError(msg)

    def load() -> None:
        context.load_cert_chain(certfile, keyfile, password=refuse_to_ask)

    files = [certfile] if keyfile is None else [certfile, keyfile]
    _load(load, files, _NO_PEM)


def _warn_of_refusals(context: ssl.SSLContext, certfile: str) -> None:
    """Print a warning if clients will refuse a certificate, usually an expired one.

    That is found out by a TLS handshake in memory, with a client that trusts the
    certificate and checks no name.
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
        print_warning(f"clients will refuse {certfile}: {why}")


def _load_authorities(context: ssl.SSLContext, file: str) -> None:
    def load() -> None:
        context.load_verify_locations(file)

    _load(load, [file], _NO_CERTIFICATE)


def _load(load: Callable[[], None], files: list[str], otherwise: str) -> None:
    """Load files.

    Args:
        load: The call that loads them.
        files: Their names, for errors.
        otherwise: The reason to show if OpenSSL gives none that is known.

    Raises:
        UsageError: One of them can't be used. The text says which and why.
    """
    try:
        for file in files:  # OpenSSL does not name the one that is missing.
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
