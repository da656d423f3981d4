"""The command `trio-wspair`: what can be asked of it, and the way to who does it.

Knows arguments, exit codes and Ctrl-C, not what is served or said.
"""

import argparse
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import get_args

import trio

from ._command_connect import converse
from ._command_serve import UsageError, run_reloading, serve_handler
from ._version import __version__
from .transports._engines import EngineName, engine_named

__all__ = ("main",)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 0, with 1 after a failure, or 2 after misuse."""
    parser = _parser()
    options = parser.parse_args(arguments)
    status, misuse = 130, ""
    try:
        _check_engine(options)
        status = options.run(options)
    except* UsageError as group:
        misuse = str(group.exceptions[0])
    except* KeyboardInterrupt:
        pass
    if misuse:
        parser.error(misuse)
    sys.exit(status)


def _check_engine(options: argparse.Namespace) -> None:
    try:
        engine_named(options.engine, compression=options.compression)
    except (ImportError, ValueError) as exc:
        raise UsageError(str(exc)) from exc


def _serve(options: argparse.Namespace) -> int:
    run = partial(_run_server, options)
    if options.reload:
        return run_reloading(options.handler, run)
    return run()


def _run_server(options: argparse.Namespace) -> int:
    logging.basicConfig(
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
    )
    main = partial(
        serve_handler,
        options.handler,
        host=options.host,
        port=options.port,
        certfile=options.certfile,
        keyfile=options.keyfile,
        proxy_headers=options.proxy_headers,
        restarts=options.reload,
        inspect_port=options.inspect,
        engine=options.engine,
        compression=options.compression,
    )
    return _run(main)


def _connect(options: argparse.Namespace) -> int:
    return _run(
        partial(
            converse,
            options.url,
            protocols=options.protocol,
            headers=options.header,
            proxy=options.proxy,
            wait=options.wait,
            engine=options.engine,
            compression=options.compression,
        )
    )


def _run(main: Callable[[], Awaitable[int]]) -> int:
    # Ctrl-C is for the main task alone then, and every peer gets its Close.
    return trio.run(main, restrict_keyboard_interrupt_to_checkpoints=True)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        msg = f"a header is 'Name: value', not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return name.strip(), value.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trio-wspair", description="WebSockets and HTTP with Trio."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    wire = argparse.ArgumentParser(add_help=False)
    wire.add_argument(
        "--engine",
        choices=get_args(EngineName),
        default="trio-websocket",
        help="what speaks the protocol (the other one is faster, and needs the extra "
        "trio-wspair[websockets]); default: %(default)s",
    )
    wire.add_argument(
        "--compression",
        action="store_true",
        help="agree on permessage-deflate, with --engine websockets",
    )

    serve = commands.add_parser(
        "serve", help="serve a handler on a port", parents=[wire]
    )
    serve.add_argument(
        "handler",
        help="a file such as examples/echo_server.py, or a module; the async function "
        "in it is 'fetch', or what comes after a colon: app.py:handler",
    )
    serve.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    serve.add_argument(
        "--port",
        type=int,
        default=8000,
        help="0 picks a free one; default: %(default)s",
    )
    serve.add_argument(
        "--reload",
        action="store_true",
        help="restart when a .py file beside the handler changes; open sockets are "
        "closed with 1012 (needs the extra trio-wspair[reload])",
    )
    serve.add_argument(
        "--inspect",
        type=int,
        nargs="?",
        const=8001,
        metavar="PORT",
        help="show the connections and their frames on a page of this machine; 0 "
        "picks a free port, default: %(const)s",
    )
    serve.add_argument("--certfile", help="the certificate chain, for TLS")
    serve.add_argument("--keyfile", help="its private key, if that is another file")
    serve.add_argument(
        "--proxy-headers",
        action="store_true",
        help="believe X-Forwarded-For, -Proto and -Host; only behind a proxy",
    )
    serve.add_argument(
        "--log-level",
        default="info",
        choices=["debug", "info", "warning", "error"],
        help="default: %(default)s, with a line for each request",
    )
    serve.set_defaults(run=_serve)

    connect = commands.add_parser(
        "connect",
        help="talk to a WebSocket server",
        parents=[wire],
        description="Send each line of the input as a message, and print what comes. "
        "Ctrl-D, or the end of a pipe, closes with 1000.",
    )
    connect.add_argument("url", help="ws:// or wss://")
    connect.add_argument(
        "--protocol", action="append", default=[], help="offer this subprotocol"
    )
    connect.add_argument(
        "--header",
        action="append",
        default=[],
        type=_header,
        help="send this header, 'Name: value'",
    )
    connect.add_argument("--proxy", help="go through this proxy")
    connect.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="wait for messages so long after the end of the input; default: 0",
    )
    connect.set_defaults(run=_connect)
    return parser
