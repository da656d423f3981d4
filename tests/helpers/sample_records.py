"""Records of conversations: one written by hand, and a strategy for all others."""

from collections.abc import Sequence
from typing import Any, Final

from hypothesis import strategies as st

from trio_wspair.testing._entries import Entry

__all__ = ("ANY", "NAMES", "TALK", "at")

NAMES: Final = ("client", "server")


def at(
    time: float, line: str, message: str | bytes | None = None, **more: Any
) -> Entry:
    """Return an entry from a text such as ``"client send"``."""
    half, _, what = line.partition(" ")
    return Entry(time, half, what, message, **more)  # type: ignore[arg-type]


TALK: Final = (
    at(0, "client accept"),
    at(0, "server accept"),
    at(0, "client send", "hello"),
    at(0, "server receive", "hello"),
    at(0.25, "server send", '{"hello": ["client", 1]}'),
    at(0.5, "client send", b"\x00\x01\xff"),
    at(1, "client receive", '{"hello": ["client", 1]}'),
    at(1, "server receive", b"\x00\x01\xff"),
    at(1, "server send", "sent, never taken"),
    at(2, "client close", code=1000, reason="bye"),
    at(2, "server closed", code=1000, reason="bye", was_clean=True),
    at(2, "server close", code=1000, reason="bye"),
    at(2.5, "client closed", code=1000, reason="bye", was_clean=True),
)
"""A conversation without failures, with every kind of entry."""

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_messages = st.one_of(
    st.sampled_from(["a", "b", b"a", "</script>", "]]>", "&", "\0", "日本" * 99]),
    _texts,
    st.binary(max_size=30),
    st.sampled_from([100, 20_000]).map(lambda size: "x" * size),
    st.sampled_from([100, 20_000]).map(bytes),
)


def _entries(time: float) -> st.SearchStrategy[Entry]:
    halves = st.sampled_from(NAMES)
    codes = st.sampled_from([1000, 1005, 1006, 4999])
    reasons = st.sampled_from(["", "bye"]) | _texts
    return st.one_of(
        st.builds(Entry, st.just(time), halves, st.just("accept")),
        st.builds(
            Entry,
            st.just(time),
            halves,
            st.sampled_from(["send", "receive"]),
            _messages,
        ),
        st.builds(
            Entry,
            st.just(time),
            halves,
            st.just("close"),
            code=codes,
            reason=reasons,
        ),
        st.builds(
            Entry,
            st.just(time),
            halves,
            st.just("closed"),
            code=codes,
            reason=reasons,
            was_clean=st.booleans(),
            error=_texts,
        ),
    )


@st.composite
def _conversations(draw: st.DrawFn) -> Sequence[Entry]:
    times = sorted(draw(st.lists(st.floats(0, 100_000), max_size=60)))
    return [draw(_entries(time)) for time in times]


ANY: Final[st.SearchStrategy[Sequence[Entry]]] = _conversations()
"""Any record that a file may hold."""
