"""A conversation in memory: two halves of a pair, no network.

Run it with `python examples/conversation.py`.
"""

import trio

from trio_wspair import CloseEvent, MessageEvent, open_websocket_pair


async def main() -> None:
    """Ask three questions, receive three answers, and close."""
    async with open_websocket_pair() as (client, server):

        @server.on("message")
        async def answer(event: MessageEvent) -> None:
            await trio.sleep(0.01)  # The next question waits meanwhile.
            server.send(f"You said {event.data!r}.")

        @server.on("close")
        def report(event: CloseEvent) -> None:
            print(f"server: closed with {event.code}, {event.reason!r}")

        server.accept()
        client.accept(pull=True)
        for question in ("Hello?", "Is it me?", "Goodbye."):
            client.send(question)
            print("client:", question)
            print("server:", await client.receive())
        await client.aclose(1000, "that was all")


if __name__ == "__main__":
    trio.run(main)
