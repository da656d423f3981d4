"""`RequestLog`: the log records of one request: its failures, warnings and access line.

Knows the facts about a request, and the loggers ``trio_wspair`` and
``trio_wspair.access``; not how a request is handled.
"""

import logging
from collections.abc import Mapping
from typing import Final

from trio_wspair._http.messages import Response
from trio_wspair._pair.instruments import ConnectionInfo
from trio_wspair._pair.websocket import CloseEvent
from trio_wspair._rules.display import redacted
from trio_wspair._rules.state import End
from trio_wspair._tasks.nurseries import bare, failure_in
from trio_wspair.transports._conversation import Conversation

__all__ = ("RequestLog",)

_logger: Final = logging.getLogger("trio_wspair")
_access: Final = logging.getLogger("trio_wspair.access")


class RequestLog:
    """Writes the log records of one request.

    Args:
        request: The method and the target, printable; without the query, unless that
            may be logged.
        client: The address of the client.
        log_query: Whether records contain the query of the URL.
        warned: The kinds of warnings that are logged once and were; shared by the
            requests of a server.
    """

    def __init__(
        self, request: str, client: str, *, log_query: bool, warned: set[str]
    ) -> None:
        self._request = request
        self._client = client
        self._log_query = log_query
        self._warned = warned
        self._accept_is_missing = False
        self.url = ""
        """The URL, when the handler is called."""
        self.connection: ConnectionInfo | None = None
        """The connection, when a WebSocket is open."""

    def _facts(self) -> dict[str, object]:
        """Return the attributes of every record."""
        facts = {} if self.connection is None else self.connection.extra
        return {
            **facts,
            "request": self._request,
            "peer": self._client,
            "url": self.url if self._log_query else redacted(self.url),
        }

    # -- failures and warnings ------------------------------------------------------

    def failure(self, failure: Exception, end: End | None) -> None:
        """Log what the handler, a listener or a task has raised.

        Args:
            failure: The exception, perhaps a group.
            end: The end that came from the client, if any: errors that only report it
                are no failures.
        """
        left = failure_in(failure, end)
        if left is None:
            what = "%s: the handler ended because its client has closed: %s"
            values = self._request, bare(failure)
            _logger.debug(what, *values, extra=self._facts())
            return
        what = "handling %s failed"
        _logger.error(what, self._request, exc_info=left, extra=self._facts())

    def cancelled_handler(self) -> None:
        """Log that the handler has cancelled its own nursery."""
        what = "fetch was cancelled, because the handler has cancelled request.nursery"
        _logger.error("%s: %s", self._request, what, extra=self._facts())

    def warn(self, what: str) -> None:
        """Log a warning about this request."""
        _logger.warning("%s: %s", self._request, what, extra=self._facts())

    def warn_once(self, kind: str, what: str) -> None:
        """Log a warning, unless the server has logged one of this kind."""
        if kind not in self._warned:
            self._warned.add(kind)
            self.warn(f"{what} (this is logged once)")

    def missing_accept(self, when: str) -> None:
        """Warn once that the handler's half is not accepted, so its messages wait."""
        if not self._accept_is_missing:
            self._accept_is_missing = True
            self.warn(f"the handler's half {when}: call server.accept()")

    # -- access ---------------------------------------------------------------------

    def answered(self, response: Response, seconds: float) -> None:
        """Log a request that got a response."""
        body = response.body
        size = f"{len(body)} bytes" if isinstance(body, bytes) else "streamed"
        values = response.status, size, seconds * 1000
        facts = {"duration": seconds, "status": response.status}
        self._log_access("%d, %s, %.1f ms", values, facts)

    def conversed(
        self, conversation: Conversation, end: CloseEvent | None, seconds: float
    ) -> None:
        """Log a request that got a WebSocket, when its connection has ended."""
        code = end.code if end is not None else 1006
        received, sent = conversation.received, conversation.sent
        facts: dict[str, object] = {
            "duration": seconds,
            "status": 101,
            "code": code,
            "received_messages": received.messages,
            "received_bytes": received.bytes,
            "sent_messages": sent.messages,
            "sent_bytes": sent.bytes,
        }
        values = code, seconds, received, sent
        line = "101, closed with %d after %.1f s, %s received, %s sent"
        self._log_access(line, values, facts)

    def _log_access(
        self, line: str, values: tuple[object, ...], facts: Mapping[str, object]
    ) -> None:
        if _access.isEnabledFor(logging.INFO):
            values = (self._client or "-", self._request, *values)
            extra = {**self._facts(), **facts}
            _access.info(f'%s "%s" {line}', *values, extra=extra)
