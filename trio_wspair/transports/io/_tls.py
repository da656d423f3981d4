"""TLS: checks of contexts, the handshake of a client, and readable errors.

Knows `ssl` and Trio's streams; not the protocol inside TLS.
"""

import ssl
from typing import Final

import trio

from trio_wspair._rules.display import quoted
from trio_wspair._rules.errors import HandshakeError

__all__ = (
    "MAY_NEED_CERTIFICATE",
    "check_ssl_context",
    "is_without_tls",
    "start_tls",
    "tls_error",
)

MAY_NEED_CERTIFICATE: Final = (
    "it may require a client certificate, or not accept the one that was sent"
)
"""A possible cause. The client can't find out whether it has sent a certificate."""
_NO_TLS: Final = (
    (
        "the server does not speak TLS on this port; "
        "for plain TCP, the URL has to begin with {plain}"
    ),
    True,
)
_REFUSED: Final = ("the server refused the client certificate ({alert})", False)
_NO_VERSION: Final = ("the two sides have no version of TLS in common", False)
_REASONS: Final[dict[str, tuple[str, bool]]] = {
    "CERTIFICATE_REQUIRED": (
        "the server requires a client certificate; the ssl_context has loaded none",
        False,
    ),
    "ALERT_UNKNOWN_CA": _REFUSED,
    "ALERT_BAD_CERTIFICATE": _REFUSED,
    "ALERT_CERTIFICATE": _REFUSED,
    "ALERT_UNSUPPORTED_CERTIFICATE": _REFUSED,
    "ALERT_ACCESS_DENIED": _REFUSED,
    "ALERT_HANDSHAKE_FAILURE": (
        f"the server refused the handshake; {MAY_NEED_CERTIFICATE}",
        False,
    ),
    "NO_APPLICATION_PROTOCOL": (
        "the server speaks none of the protocols that the ssl_context offers (ALPN)",
        False,
    ),
    "UNRECOGNIZED_NAME": ("the server has no certificate for this name", False),
    "PROTOCOL_VERSION": _NO_VERSION,
    "UNSUPPORTED_PROTOCOL": _NO_VERSION,
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "UNEXPECTED_MESSAGE": _NO_TLS,
}
"""Part of OpenSSL's name for a reason -> what it means, whether to try again."""


def check_ssl_context(context: object, *, server: bool) -> None:
    """Check an `ssl_context`; `None` means no TLS.

    Raises:
        TypeError: The context is not an `ssl.SSLContext`.
        ValueError: The context is for the other side.
    """
    if context is None:
        return
    if not isinstance(context, ssl.SSLContext):
        msg = f"ssl_context must be an ssl.SSLContext, not {context!r}"
        raise TypeError(msg)
    side = "server" if server else "client"
    others = ssl.PROTOCOL_TLS_CLIENT if server else ssl.PROTOCOL_TLS_SERVER
    if context.protocol is others:
        msg = (
            f"this ssl_context is not for the {side}'s side: use "
            f"ssl.create_default_context({'ssl.Purpose.CLIENT_AUTH' if server else ''})"
        )
        raise ValueError(msg)


async def start_tls(
    stream: trio.abc.Stream,
    context: ssl.SSLContext,
    *,
    server_name: str,
    peer: str,
    plain: str = "ws:",
) -> trio.SSLStream[trio.abc.Stream]:
    """Return a TLS stream over `stream`, after the handshake of a client.

    If the handshake fails or is cancelled, `stream` is closed.

    Args:
        stream: The stream that carries TLS.
        context: A context for clients.
        server_name: The name that the server's certificate has to have.
        peer: The host and port of the server, for error messages.
        plain: The scheme of a URL for the same connection without TLS, for error
            messages.

    Raises:
        HandshakeError: TLS has failed, or the server has chosen another protocol than
            HTTP/1.1 for this connection.
    """
    try:
        secure = trio.SSLStream(
            stream, context, server_hostname=server_name, https_compatible=True
        )
        await secure.do_handshake()
        _check_protocol(secure.selected_alpn_protocol(), peer)
    except trio.BrokenResourceError as exc:
        await trio.aclose_forcefully(stream)
        raise tls_error(exc.__cause__, peer, plain) from exc.__cause__
    except BaseException:
        with trio.CancelScope(shield=True):  # This never waits.
            await trio.aclose_forcefully(stream)
        raise
    return secure


def _check_protocol(chosen: str | None, peer: str) -> None:
    """Check the protocol that the server has chosen by ALPN (RFC 7301), if any.

    Raises:
        HandshakeError: The server has chosen another protocol than HTTP/1.1.
    """
    if chosen not in (None, "http/1.1"):
        shown = f"{quoted(chosen)} by ALPN, as the ssl_context offers it"
        msg = f"no WebSocket at {peer}: the server chose {shown}; offer 'http/1.1'"
        raise HandshakeError(msg, retryable=False)


def is_without_tls(error: BaseException) -> bool:
    """Whether `start_tls()` raised this error because the server speaks no TLS."""
    cause = error.__cause__
    return isinstance(cause, ssl.SSLError) and _meaning(cause) is _NO_TLS


def tls_error(
    cause: BaseException | None, peer: str, plain: str = "ws:"
) -> HandshakeError:
    """Return the error of a client when TLS has failed.

    With TLS 1.3, a server judges the client's certificate after the handshake, so the
    client gets the alert at its first read.

    Args:
        cause: The exception behind the stream's `BrokenResourceError`.
        peer: The host and port of the server, for the error message.
        plain: As for `start_tls()`.
    """
    words, retryable = _explained(cause, plain)
    return HandshakeError(f"no TLS with {peer}: {words}", retryable=retryable)


def _explained(cause: BaseException | None, plain: str) -> tuple[str, bool]:
    if isinstance(cause, ssl.SSLCertVerificationError):
        words = f"certificate verify failed: {cause.verify_message.rstrip('.')}"
        if "self-signed" in words or "issuer" in words:
            words += "; to trust it, pass an ssl_context that does"
        return words, False
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        meaning = _meaning(cause)
        if meaning is None:
            return str(cause), True
        alert = _reason(cause).partition("ALERT_")[2].lower().replace("_", " ")
        return meaning[0].format(alert=alert, plain=plain), meaning[1]
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError):
        return f"the connection was lost: {cause.strerror}", True
    closed = "the server closed the connection during the handshake, without a reason"
    return f"{closed}; {MAY_NEED_CERTIFICATE}", True


def _reason(error: ssl.SSLError) -> str:
    # For some reasons, Python has no name, and only the text of the error says it.
    return error.reason or str(error).upper().replace(" ", "_")


def _meaning(error: ssl.SSLError) -> tuple[str, bool] | None:
    reason = _reason(error)
    return next((what for part, what in _REASONS.items() if part in reason), None)
