"""A client for the echo server: sends its arguments, and prints the answers.

Run it with `python examples/echo_client.py ws://127.0.0.1:8000/ hello world`.
"""

import argparse
import sys

import trio

from trio_wspair import ConnectionClosedError, HandshakeError, open_websocket


async def main(url: str, messages: list[str]) -> None:
    """Send each message and wait for its echo."""
    async with open_websocket(url) as ws:
        for message in messages:
            ws.send(message)
            print(await ws.receive())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A client for the echo server.")
    parser.add_argument("url", help="such as ws://127.0.0.1:8000/")
    parser.add_argument("messages", nargs="+", metavar="message")
    options = parser.parse_args()
    try:
        trio.run(main, options.url, options.messages)
    except (OSError, HandshakeError, ConnectionClosedError) as exc:
        sys.exit(f"echo_client.py: {exc}")
