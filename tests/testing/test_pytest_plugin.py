"""The pytest plugin: its fixtures, options, and output."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., pytest.RunResult]

PLUGIN = "trio_wspair.testing.pytest_plugin"
HANDLER = """
import pytest
import trio
from trio_wspair import HandshakeError, ReadyState, Response, WebSocketPair

async def fetch(request):
    client, server = WebSocketPair()
    server.accept()
    server.send("Who are you?")

    @server.on("message")
    def greet(event):
        if event.data == "stranger":
            raise KeyError(event.data)
        server.send(f"Hello {event.data}")

    return Response(None, status=101, web_socket=client)
"""
TRIO_MODE = "[pytest]\ntrio_mode = true\n"


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Run tests with the plugin, as if found by its entry point."""

    def run_tests(tests: str, *options: str, ini: str = TRIO_MODE) -> pytest.RunResult:
        pytester.makeini(ini)
        pytester.makepyfile(HANDLER + tests)
        plugins = ("-p", "no:trio_wspair", "-p", PLUGIN)
        return pytester.runpytest_inprocess(*plugins, *options)

    return run_tests


def test_the_fixtures_are_a_pair_a_recorded_pair_and_a_client(run: Run) -> None:
    run("""
async def test_a_pair(websocket_pair):
    client, server = websocket_pair
    server.accept(pull=True)
    client.accept()
    client.send("hello")
    assert await server.receive() == "hello"

async def test_a_recorded_pair(recorded_pair):
    client, server = recorded_pair
    client.accept()
    client.send("hello")
    await server.expect("hello")

async def test_a_client(websocket_client):
    client = await websocket_client(fetch, "/ada", protocols=["chat"], within=1)
    assert client.url == "ws://localhost/ada"
    await client.expect("Who are you?")

async def test_several_clients(websocket_client):
    for name in "Ada", "Bob":
        client = await websocket_client(fetch, "/", names=(name, "server"))
        client.send(name)
        await client.expect("Who are you?")
        await client.expect(f"Hello {name}")
        assert name in client.record.halves

async def test_in_virtual_time(websocket_client, autojump_clock):
    client = await websocket_client(fetch, "/")
    await trio.sleep(3600)
    await client.expect("Who are you?")
""").assert_outcomes(passed=5)


def test_a_mark_works_like_the_mode(run: Run) -> None:
    test = """
@pytest.mark.trio
async def test_it(websocket_client, websocket_pair, recorded_pair):
    client = await websocket_client(fetch, "/")
    await client.expect("Who are you?")
    websocket_pair[0].accept()
    recorded_pair[0].accept()
"""
    run(test, ini="").assert_outcomes(passed=1)


def test_one_test_runs_over_both_transports(run: Run) -> None:
    run("""
@pytest.mark.parametrize("websocket_transport", ["memory", "loopback"])
async def test_it(websocket_client, websocket_transport):
    client = await websocket_client(fetch, "/")
    await client.expect("Who are you?")
    host = {"memory": "localhost/", "loopback": "127.0.0.1:"}[websocket_transport]
    assert host in client.url
""").assert_outcomes(passed=2)


IN_A_PLAIN_FUNCTION = """
from trio_wspair.testing import open_recorded_pair

async def main(step):
    async with open_recorded_pair() as (client, server):
        server.accept()
        server.send("hello")
        await step(client)

@pytest.mark.parametrize("step", [
    lambda client: client.expect("other"),
    lambda client: client.expect_json(),
    lambda client: client.expect_close(),
    lambda client: client.expect_nothing(),
])
def test_it(step):
    trio.run(main, step)
"""


def test_a_traceback_ends_in_the_test(run: Run) -> None:
    result = run(IN_A_PLAIN_FUNCTION)
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines(["*await step(client)"] * 4)
    result.stdout.no_fnmatch_line("*_recorded.py:*: ConversationError")


OTHER_OPTIONS = """
async def test_it(websocket_client, golden_record):
    with pytest.raises(TypeError, match=r"^websocket_client\\(\\) .* 'protocols'"):
        await websocket_client(fetch, "/", subprotocols=["chat"])
    with pytest.raises(TypeError, match="'over': override the fixture"):
        await websocket_client(fetch, "/", over="loopback")
    with pytest.raises(TypeError, match=r"^golden_record\\(\\) .* 'within'"):
        await golden_record(fetch, "greeting.json", timeout=3)
"""


def test_the_error_for_a_misspelled_option_has_the_name_of_the_fixture(
    run: Run,
) -> None:
    run(OTHER_OPTIONS).assert_outcomes(passed=1)


def test_clients_are_closed_after_the_test(run: Run) -> None:
    run("""
opened = []

async def test_it(websocket_client, websocket_pair, recorded_pair):
    opened.append(await websocket_client(fetch, "/"))
    opened.extend(websocket_pair)
    opened.extend(recorded_pair)

def test_they_are_closed():
    assert len(opened) == 5
    assert {ws.ready_state for ws in opened} == {ReadyState.CLOSED}
    ends = [e.code for e in opened[0].record.entries if e.what == "closed"]
    assert ends == [1000, 1000]
""").assert_outcomes(passed=2)


def test_a_refusal_is_raised_where_the_client_is_opened(run: Run) -> None:
    run("""
async def test_it(websocket_client):
    async def refuse(request):
        return Response("no", status=403)

    with pytest.raises(HandshakeError, match="403"):
        await websocket_client(refuse, "/")
""").assert_outcomes(passed=1)


# -- output ---------------------


def printed(result: pytest.RunResult) -> str:
    result.assert_outcomes(failed=1)
    # With CI in the environment, the summary repeats the whole error.
    return result.stdout.str().partition("short test summary")[0]


def test_a_failed_expectation_prints_the_conversation_once(run: Run) -> None:
    result = run("""
async def test_it(websocket_client):
    client = await websocket_client(fetch, "/")
    await client.expect("Who are you?")
    client.send("Ada")
    await client.expect("Hello, Ada!")
""")
    text = printed(result)
    assert "ConversationError: client expected 'Hello, Ada!', got 'Hello Ada'" in text
    assert text.count("time  client") == 1
    assert "WebSocket conversation" not in text


@pytest.mark.parametrize(
    "opening",
    ["client = await websocket_client(fetch, '/')", "client, server = recorded_pair"],
)
def test_any_other_failure_also_prints_the_conversation(run: Run, opening: str) -> None:
    result = run(f"""
async def test_it(websocket_client, recorded_pair):
    {opening}
    client.accept(pull=True)
    client.send("Ada")
    assert client.url == "nowhere"
""")
    text = printed(result)
    assert "- WebSocket conversation -" in text
    assert "time  client" in text.partition("- WebSocket conversation -")[2]
    assert '"Ada"' in text.partition("- WebSocket conversation -")[2]


def test_a_handler_that_raises_fails_the_test(run: Run) -> None:
    result = run("""
async def test_it(websocket_client):
    client = await websocket_client(fetch, "/")
    await client.expect("Who are you?")
    client.send("stranger")
    await client.expect_close(1011)
""")
    text = printed(result)
    assert "KeyError: 'stranger'" in text
    assert text.count("time  client") == 1


def test_the_conversation_is_printed_as_it_was_when_the_test_failed(run: Run) -> None:
    result = run("""
async def test_it(websocket_client):
    client = await websocket_client(fetch, "/")
    assert await client.receive() == "Hello"
""")
    story = printed(result).partition("- WebSocket conversation -")[2]
    assert "Close" not in story
    assert "✗ the test failed here: AssertionError: assert" in story
    assert "OPEN, accepted" in story


def test_an_error_of_a_handler_is_printed_first(run: Run) -> None:
    result = run("""
async def test_it(websocket_client):
    client = await websocket_client(fetch, "/")
    await client.expect("Who are you?")
    client.send("stranger")
    await client.expect("Hello stranger")
""")
    text = printed(result)
    bug, missed = (
        text.index("KeyError: 'stranger'"),
        text.index("ConversationError: cl"),
    )
    assert bug < missed
    assert text.count("time  client") == 1


def test_both_failures_are_printed_with_one_conversation(run: Run) -> None:
    result = run("""
async def test_it(websocket_client):
    client = await websocket_client(fetch, "/")
    client.send("stranger")
    await client.expect("Who are you?")
    await client.expect_close(1011)
    assert client.url == "nowhere"
""")
    text = printed(result)
    assert text.index("KeyError: 'stranger'") < text.index(
        "AssertionError: assert 'ws:"
    )
    assert text.count("time  client") == 1


def test_a_failure_of_a_handler_can_be_expected(run: Run) -> None:
    run("""
async def test_it(websocket_client):
    client = await websocket_client(fetch, "/")
    client.send("stranger")
    await client.expect_handler_error(KeyError)

async def test_pages(websocket_client):
    client = await websocket_client(fetch)
    assert (await client.get("/")).status == 426
    ws = await client.open_websocket("/", names=("Ada", "server"))
    await ws.expect("Who are you?")
""").assert_outcomes(passed=2)


def test_several_failures_fail_the_test_in_one_group(run: Run) -> None:
    text = printed(
        run("""
async def test_it(websocket_client):
    for name in "Ada", "Bob":
        client = await websocket_client(fetch, "/")
        client.send("stranger")
        await client.expect("Who are you?")
        await client.expect_close(1011)
""")
    )
    assert "handlers have raised (2 sub-exceptions)" in text


def test_clients_share_an_application_that_is_opened_once(run: Run) -> None:
    run("""
from contextlib import asynccontextmanager

events = []

@asynccontextmanager
async def another():
    yield fetch

@asynccontextmanager
async def application():
    events.append("opened")
    yield fetch
    events.append("closed")

async def test_it(websocket_client):
    for name in "Ada", "Bob":
        client = await websocket_client(application, "/", names=(name, "server"))
        await client.expect("Who are you?")
    assert events == ["opened"]
    client = await websocket_client(another, "/")
    await client.expect("Who are you?")

def test_it_is_closed():
    assert events == ["opened", "closed"]

@asynccontextmanager
async def broken():
    raise OSError("no database")
    yield

async def test_that_can_not_be_opened(websocket_client):
    with pytest.raises(OSError, match="no database"):
        await websocket_client(broken, "/")
""").assert_outcomes(passed=3)


def test_a_test_without_a_websocket_prints_none(run: Run) -> None:
    assert "conversation" not in printed(run("def test_it(): assert 1 == 2"))


def test_an_unexpected_pass_prints_none(run: Run) -> None:
    result = run("""
@pytest.mark.xfail(strict=True)
async def test_it(recorded_pair):
    pass
""")
    assert "conversation" not in printed(result)


# -- golden records ---------------------

GOLDEN = """
async def test_it(golden_record):
    await golden_record(fetch, "greeting.json", "/ada", within=1)
"""
MAKE = """
async def test_make(websocket_client, request):
    client = await websocket_client(fetch, "/")
    await client.expect("Who are you?")
    client.send("Ada")
    await client.expect("Hello Ada")
    text = client.record.to_json()
    request.path.with_name("greeting.json").write_text(text, encoding="utf-8")
"""


def test_a_handler_is_checked_against_the_file_beside_the_test(run: Run) -> None:
    run(MAKE).assert_outcomes(passed=1)
    run(GOLDEN).assert_outcomes(passed=1)
    changed = GOLDEN.replace("fetch,", "polite,") + POLITE
    text = printed(run(changed))
    assert "ConversationError: client expected 'Who are you?', got 'Your name" in text
    assert "The recorded conversation is:" in text
    assert "pytest --update-records" in text


POLITE = """
async def polite(request):
    client, server = WebSocketPair()
    server.accept()
    server.send("Your name, please?")
    server.on("message")(lambda event: server.send(f"Hello {event.data}"))
    return Response(None, status=101, web_socket=client)
"""


def test_the_option_records_the_current_conversation(run: Run) -> None:
    run(MAKE).assert_outcomes(passed=1)
    changed = GOLDEN.replace("fetch,", "polite,") + POLITE
    run(changed, "--update-records").assert_outcomes(passed=1)
    run(changed).assert_outcomes(passed=1)
    printed(run(GOLDEN))


def test_the_error_for_a_missing_record_says_how_to_make_it(run: Run) -> None:
    assert "record.to_json() to this file" in printed(run(GOLDEN))


# -- without pytest-trio ---------------------


def test_without_pytest_trio_only_its_fixtures_fail(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "def test_sync(websocket_transport, golden_record): pass\n"
        "def test_pair(websocket_pair): pass\n",
        encoding="utf-8",
    )
    code = f"""if True:
        import sys
        import pytest
        sys.modules["pytest_trio"] = None
        sys.exit(pytest.main(["-q", "-p", "{PLUGIN}", "-p", "no:cacheprovider"]))
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 passed, 1 error" in done.stdout, done.stdout + done.stderr
    needs = "the fixture websocket_pair needs pytest-trio: pip install"
    assert needs in done.stdout
