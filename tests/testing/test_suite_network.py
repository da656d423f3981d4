"""`serve()` and `connect()` keep every promise that `check_websocket_pair()` checks."""

from functools import partial

import pytest
import trio
from network import Logged, Network, Tls

from trio_wspair.testing import check_websocket_pair
from trio_wspair.transports._engines import EngineName


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
async def test_a_server_and_a_client_keep_all_promises(
    logged: Logged,
    no_socket_left: None,
    engine: EngineName,
    tls: Tls,
    secure: bool,
) -> None:
    make_pair = Network().joined
    if secure:
        client = {"ssl_context": tls.client}
        make_pair = partial(make_pair, ssl_context=tls.server, client_options=client)
    with trio.fail_after(60):
        await check_websocket_pair(make_pair)
    assert (
        "raises this on purpose" in logged.take()
    )  # A listener of the server fails on purpose.
