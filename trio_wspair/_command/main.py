"""The command `trio-wspair`: its arguments, help texts and exit statuses.

Knows options and how they exclude each other, not servers or connections.
"""

import argparse
import logging
import math
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, get_args

import attrs
import trio

from trio_wspair._http.messages import Headers
from trio_wspair._version import __version__
from trio_wspair.transports._engines import EngineName, engine_named

from .connect import ConnectCommand
from .process import (
    INTERRUPTED,
    CommandError,
    ReaderGoneError,
    UsageError,
    escaped_lines,
    exceptions_in,
    flush_streams,
    prepare_streams,
    print_error,
    print_output,
    print_to_stderr,
)
from .program import ProgramError, load_application, split_name
from .serve import LogHandler, ServeCommand, serve_and_reload

__all__ = ("main",)

_STATUSES: Final = """\
The exit status is 0 after a normal end, 1 after a failure, 2 for wrong
arguments, and 130 after Ctrl-C.
"""
_SERVE_DESCRIPTION: Final = """\
Serve an application, WebSockets and HTTP, until Ctrl-C. Clients then get a
Close and 5 seconds to answer it; a second Ctrl-C ends the server at once.

The application is 'app' or else 'fetch' in a file or module: an async function
of a request, an object with an async method fetch(), or an async context
manager that yields one of these.
"""
_SERVE_EXAMPLES: Final = """\
examples:
  trio-wspair serve app.py
  trio-wspair serve app.py:fetch --port 9000 --reload
  trio-wspair serve package.module --host "*" --certfile cert.pem
  trio-wspair serve app.py --unix /run/app.sock --proxy-headers

"""
_CONNECT_DESCRIPTION: Final = """\
Talk to a WebSocket server: send each line of the input as a message, and print
each message that arrives. Ctrl-D, the end of a pipe, or Ctrl-C closes with
1000. Messages go to the standard output, everything else to the standard error.
"""
_CONNECT_EXAMPLES: Final = """\
examples:
  trio-wspair connect ws://127.0.0.1:8000/
  echo hello | trio-wspair connect wss://example.com/chat --wait 2
  trio-wspair connect wss://example.com/ --header 'Authorization: Bearer 123'
  trio-wspair connect ws://localhost/ --unix /run/app.sock

"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command, and exit with its status."""
    prepare_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(flush_streams(_status(given)))


def _status(arguments: Sequence[str]) -> int:
    """Run the command, print its error if it fails, and return the exit status."""
    try:
        options = _parsed(arguments)
        _check_engine(options)
        status: int = options.run(options, arguments)
    except BaseException as exc:  # noqa: BLE001, ASYNC103 - outside of Trio
        return _status_of(exc)  # noqa: ASYNC104
    return status


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:  # argparse would name the help of `trio-wspair`, without options.
        what = f"unrecognized arguments: {' '.join(unknown)}"
        raise UsageError(f"{what} (see: {options.prog} --help)")
    return options


def _status_of(exc: BaseException) -> int:
    """Print the error for an exception, and return the exit status.

    Raises:
        BaseException: This exception, if it shows a bug of the command itself.
    """
    leaves = exceptions_in(exc)
    for error in (leaf for leaf in leaves if isinstance(leaf, CommandError)):
        if isinstance(error, ProgramError):
            print_to_stderr(escaped_lines(str(error)))
        elif not isinstance(error, ReaderGoneError):
            print_error(str(error))
        return error.status
    for leaf in leaves:
        if isinstance(leaf, SystemExit):
            if isinstance(leaf.code, str):
                print_error(leaf.code)
            return leaf.code if isinstance(leaf.code, int) else int(bool(leaf.code))
        if isinstance(leaf, KeyboardInterrupt):
            return INTERRUPTED
    raise exc


def _check_engine(options: argparse.Namespace) -> None:
    if options.compression and options.engine == "trio-websocket":
        raise UsageError("--compression needs --engine websockets")
    try:
        engine_named(options.engine, compression=options.compression)
    except (ImportError, ValueError) as exc:
        raise UsageError(str(exc)) from exc


def _serve(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    if options.unix is not None and (options.host, options.port) != (None, None):
        msg = "--unix excludes --host and --port: pass the Unix socket or the port"
        raise UsageError(msg)
    if (options.proxies or 1) > 1 and not options.proxy_headers:
        raise UsageError("--proxies needs --proxy-headers or --forwarded")
    if options.reload:
        place = Path(split_name(options.application)[0])
        is_file = place.suffix == ".py" or place.is_file()
        if is_file and not place.is_file():
            msg = f"there is no file {str(place)!r}"
            raise UsageError(msg)
        folder = place.resolve().parent if is_file else Path.cwd()
        others = [argument for argument in arguments if argument != "--reload"]
        return trio.run(serve_and_reload, others, folder)
    log = LogHandler()
    logging.basicConfig(level=options.log_level.upper(), handlers=[log])
    serving = ServeCommand(**_fields(options, ServeCommand))

    async def load_and_serve() -> int:
        return await serving.run(load_application(options.application), log)

    return trio.run(load_and_serve)


def _connect(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    if options.unix is not None and options.proxy is not None:
        msg = "--unix and --proxy exclude each other: a Unix socket is on this machine"
        raise UsageError(msg)
    return trio.run(ConnectCommand(**_fields(options, ConnectCommand)).run)


def _fields(
    options: argparse.Namespace, kind: type[attrs.AttrsInstance]
) -> dict[str, Any]:
    """Return the given options that are fields of a class."""
    given = vars(options)
    names = [field.name for field in attrs.fields(kind)]
    return {name: given[name] for name in names if given.get(name) is not None}


# -- arguments ------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Reports wrong arguments on one line."""

    def error(self, message: str) -> NoReturn:
        """Report wrong arguments; `argparse` calls this."""
        raise UsageError(f"{message} (see: {self.prog} --help)")

    def _print_message(self, message: str, file: object = None) -> None:  # noqa: ARG002
        """Print a help text; `argparse` itself would hide that it can't be written."""
        print_output(message)


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65535:
        msg = f"must be a number from 0 to 65535, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) == 0:
        msg = f"must be a number from 1 to 999999999, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        msg = f"must be a number of seconds from 0 on, or inf, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return seconds


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        # The text is not shown: it may be a secret.
        msg = "must be like 'Name: value', and it has no colon"
        raise argparse.ArgumentTypeError(msg)
    header = name.strip(), value.strip()
    try:
        Headers([header])
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    return header


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="trio-wspair",
        description="WebSockets and HTTP with Trio.",
        epilog="trio-wspair COMMAND --help shows the options of a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        required=True, metavar="COMMAND", title="commands", parser_class=_Parser
    )
    shared = _Parser(add_help=False)
    shared.add_argument(
        "--engine",
        choices=get_args(EngineName),
        default="trio-websocket",
        help="the implementation of the protocol; websockets is faster, and needs the "
        "extra trio-wspair[websockets]; default: %(default)s",
    )
    shared.add_argument(
        "--compression",
        action="store_true",
        help="negotiate permessage-deflate; needs --engine websockets",
    )
    add = partial(
        commands.add_parser,
        parents=[shared],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_serve(
        add(
            "serve",
            help="serve an application on a port or a Unix socket",
            description=_SERVE_DESCRIPTION,
            epilog=_SERVE_EXAMPLES + _STATUSES,
        )
    )
    _add_connect(
        add(
            "connect",
            help="talk to a WebSocket server",
            description=_CONNECT_DESCRIPTION,
            epilog=_CONNECT_EXAMPLES + _STATUSES,
        )
    )
    return parser


def _add_serve(serve: argparse.ArgumentParser) -> None:
    serve.set_defaults(run=_serve, prog=serve.prog)
    serve.add_argument(
        "application",
        metavar="APPLICATION",
        help="FILE, FILE:NAME, MODULE or MODULE:NAME, such as app.py:fetch",
    )
    address = serve.add_argument_group("address")
    address.add_argument(
        "--host",
        type=_host,
        help="an address or name of this machine; '*' for all; default: 127.0.0.1",
    )
    address.add_argument("--port", type=_port, help="0 picks a free one; default: 8000")
    address.add_argument(
        "--unix", metavar="PATH", help="listen on a Unix socket instead of a port"
    )
    _add_clients(serve.add_argument_group("clients"))
    tls = serve.add_argument_group("TLS")
    tls.add_argument("--certfile", metavar="FILE", help="the certificate chain (PEM)")
    tls.add_argument(
        "--keyfile", metavar="FILE", help="its private key, if it is in another file"
    )
    tls.add_argument(
        "--client-ca",
        metavar="FILE",
        help="require client certificates, signed by one of these authorities",
    )
    work = serve.add_argument_group("development and logs")
    work.add_argument(
        "--reload",
        action="store_true",
        help="restart when a .py file beside the application changes; open WebSockets "
        "get Close 1012; needs the extra trio-wspair[reload]",
    )
    work.add_argument(
        "--inspect",
        type=_port,
        nargs="?",
        const=8001,
        metavar="PORT",
        dest="inspect_port",
        help="show connections and their frames on a local web page; 0 picks a free "
        "port; default: %(const)s",
    )
    work.add_argument(
        "--log-level",
        default="info",
        choices=["debug", "info", "warning", "error"],
        help="info logs a line for each request; default: %(default)s",
    )
    work.add_argument(
        "--log-query",
        action="store_true",
        help="log the query of URLs, which often contains secrets",
    )
    serve.add_argument("--lifeline", type=int, help=argparse.SUPPRESS)


def _add_clients(group: "argparse._ArgumentGroup") -> None:
    believed = group.add_mutually_exclusive_group()
    believed.add_argument(
        "--proxy-headers",
        action="store_true",
        help="trust X-Forwarded-For, -Proto, -Host and -Port; only behind a proxy "
        "that sets them",
    )
    believed.add_argument(
        "--forwarded",
        action="store_const",
        const="forwarded",
        dest="proxy_headers",
        help="trust Forwarded (RFC 7239) instead",
    )
    group.add_argument(
        "--proxies",
        type=_count,
        metavar="N",
        help="the number of proxies, one behind the other, that add to these headers; "
        "default: 1",
    )
    group.add_argument(
        "--max-connections-per-client",
        type=_count,
        metavar="N",
        help="refuse further connections from the same address; default: no limit",
    )


def _add_connect(connect: argparse.ArgumentParser) -> None:
    connect.set_defaults(run=_connect, prog=connect.prog)
    connect.add_argument("url", metavar="URL", help="ws:// or wss://")
    connect.add_argument(
        "--protocol",
        action="append",
        dest="protocols",
        metavar="NAME",
        help="offer this subprotocol; can be repeated",
    )
    connect.add_argument(
        "--header",
        action="append",
        dest="headers",
        metavar="HEADER",
        type=_header,
        help="send this header, 'Name: value'; can be repeated",
    )
    connect.add_argument(
        "--binary", action="store_true", help="send lines as binary messages"
    )
    connect.add_argument(
        "--wait",
        type=_seconds,
        metavar="SECONDS",
        help="wait this long for messages after the end of the input; default: 0",
    )
    way = connect.add_argument_group("connection")
    way.add_argument(
        "--unix", metavar="PATH", help="connect to a Unix socket of this machine"
    )
    way.add_argument(
        "--proxy",
        metavar="URL",
        help="connect through this proxy, such as socks5://host:1080; default: from "
        "the environment (HTTPS_PROXY, ALL_PROXY and others); SOCKS needs the extra "
        "trio-wspair[proxy]",
    )
    way.add_argument(
        "--no-proxy", action="store_true", help="ignore the proxy of the environment"
    )
    tls = connect.add_argument_group("TLS")
    tls.add_argument(
        "--cafile", metavar="FILE", help="trust these authorities, not the system's"
    )
    tls.add_argument(
        "--certfile", metavar="FILE", help="show this certificate to the server (PEM)"
    )
    tls.add_argument(
        "--keyfile", metavar="FILE", help="its private key, if it is in another file"
    )
    tls.add_argument(
        "--insecure", action="store_true", help="accept any certificate of the server"
    )


def _host(text: str) -> str:
    """Return the host to listen on; the empty string means all addresses."""
    return "" if text == "*" else text
