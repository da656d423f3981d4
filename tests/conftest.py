"""The fixtures that tests of several packages share.

`net` also checks that a test ends in time, leaves no socket open, and takes every
warning that is logged.
"""

import logging
import ssl
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
import trio
import trustme

# Assertions in helpers are rewritten, too, so that they also fail with `python -O`.
SHARED = {path.stem for path in (Path(__file__).parent / "helpers").glob("*.py")}
pytest.register_assert_rewrite(*SHARED)

from engines import ENGINES, using  # noqa: E402 - see above
from network import Logged, Network, OneEnd, Tls  # noqa: E402
from processes import default_signals  # noqa: E402

from trio_wspair.transports._engines import EngineName  # noqa: E402

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session", autouse=True)
def signals_as_in_a_terminal() -> Generator[None]:
    """Let the tests, and the programs that they start, be interrupted by signals."""
    with default_signals():
        yield


@pytest.fixture(scope="session", autouse=True)
def output_as_in_a_terminal() -> Generator[None]:
    """Let the programs that tests start buffer their output, as they do by default."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONUNBUFFERED", raising=False)
        yield


@pytest.fixture
def logged() -> Generator[Logged]:
    """Keep warnings and errors that are logged; the test has to take each of them."""
    keeper = Logged()
    logging.getLogger().addHandler(keeper)
    try:
        yield keeper
        assert not keeper.records, [keeper.format(r) for r in keeper.records]
    finally:
        logging.getLogger().removeHandler(keeper)


@pytest.fixture
def no_socket_left() -> Generator[None]:
    """Check that the test closes every socket that it opens."""
    before = Network.open_sockets()
    yield
    assert Network.open_sockets() == before


@pytest.fixture(params=ENGINES, scope="module")
def engine(request: pytest.FixtureRequest) -> Generator[EngineName]:
    """Run a test on each engine, as every test on `net` does.

    A module for which the engine doesn't matter overrides this fixture.
    """
    with using(request.param):
        yield request.param


@pytest.fixture
def seconds() -> float:
    """The time limit of a test on `net`; a folder or a module may have another one."""
    return 10.0


@pytest.fixture
async def net(
    logged: Logged,
    no_socket_left: None,
    engine: EngineName,
    seconds: float,
) -> AsyncGenerator[Network]:
    """The network of a test, with a time limit."""
    with trio.fail_after(seconds):
        yield Network()


@pytest.fixture(params=["server", "client"])
def one_end(request: pytest.FixtureRequest, net: Network) -> OneEnd:
    """Open connections between a half and a `ScriptedPeer`, in either role."""
    return net.server_end if request.param == "server" else net.client_end


@pytest.fixture(scope="session")
def tls() -> Tls:
    """A certificate for this machine, and a client that trusts it."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.configure_cert(server)  # pyright: ignore[reportUnknownMemberType]
    client = ssl.create_default_context()
    authority.configure_trust(client)  # pyright: ignore[reportUnknownMemberType]
    return Tls(server, client, certificate.private_key_and_cert_chain_pem.bytes())
