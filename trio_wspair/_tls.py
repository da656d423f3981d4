"""The check of TLS contexts, which the pure core need not know about."""

import ssl

__all__ = ("check_ssl_context",)


def check_ssl_context(context: object, *, server: bool) -> None:
    """Check what TLS is to be spoken with; `None` is no TLS.

    Raises:
        TypeError: It is no context.
        ValueError: It is one for the other side.
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
