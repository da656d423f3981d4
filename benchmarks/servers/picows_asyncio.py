"""picows, with framing in Cython, on asyncio's default event loop."""

import asyncio
import sys

from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_create_server,  # pyright: ignore[reportUnknownVariableType]
)


class Echo(WSListener):
    """One connection."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type in {WSMsgType.TEXT, WSMsgType.BINARY}:
            transport.send(frame.msg_type, frame.get_payload_as_bytes())


def make_echo(_request: WSUpgradeRequest) -> Echo:
    return Echo()


async def main(port: int) -> None:
    server = await ws_create_server(make_echo, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    _, _app, port = sys.argv
    asyncio.run(main(int(port)))
