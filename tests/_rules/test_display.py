"""`printable`, `quoted` and `redacted`: text from the network in logs and errors."""

import ast
import unicodedata

import pytest
from hypothesis import given, strategies as st

from trio_wspair._rules.display import printable, quoted, redacted

any_text = st.text(st.characters() | st.characters(categories=["Cs", "Cc", "Cf"]))


@given(any_text)
def test_printable_text_is_a_literal_of_the_text(text: str) -> None:
    assert ast.literal_eval(f'"{printable(text)}"') == text


@given(any_text)
def test_printable_text_has_no_control_sequences(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert '"' not in shown.replace('\\"', "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("GET /chat", "GET /chat"),
        ("zimmer/größe/日本", "zimmer/größe/日本"),
        ('a" 200 "b', 'a\\" 200 \\"b'),
        ("a\\b", "a\\\\b"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines\r\x85\u2028\u2029", "two\\x0alines\\x0d\\x85\\u2028\\u2029"),
        ("\u202egnp.exe\u200b\ufeff", "\\u202egnp.exe\\u200b\\ufeff"),
        ("\udc80", "\\udc80"),
        ("\u00a0\u3164\u2800\ufe0f", "\\xa0\\u3164\\u2800\\ufe0f"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("wss://h/p?token=secret", "wss://h/p?token=..."),
        ("wss://me:secret@h/p", "wss://h/p"),
        ("wss://me:secret@h", "wss://h"),
        ("//me:secret@h/p", "//h/p"),
        ("me:secret@h/p", "h/p"),
        ("wss:/me:secret@h/p", "wss:/h/p"),
        ("https:///me:secret@h/p", "https:///h/p"),
        ("wss://\n/me:secret@h/p", "wss:///h/p"),
        (" wss://me:secret@h/p", " wss://h/p"),
        ("wss//me:secret@h/p", "h/p"),
        ("me:/secret@h/p", "h/p"),
        ("http://h:3128:me:secret", "http://h:..."),
        ("wss://me:secret%40h/p", "wss://me:.../p"),
        ("wss://[::1]:secret/p", "wss://[::1]:.../p"),
        ("wss://me:sec@ret@h/p", "wss://h/p"),
        ("wss://me:sec/ret@h/p?x=1", "wss://h/p?x=..."),
        ("wss://me:sec?ret@h/p", "wss://h/p"),
        ("wss://me:sec#ret@h/p", "wss://h/p"),
        ("wss:\\\\me:secret@h\\p", "wss:\\\\\\\\h\\\\p"),
        ("wss://h/@me/feed", "wss://h/@me/feed"),
        (
            "wss://[::1]:80/p?a=secret&secret&b=secret",
            "wss://[::1]:80/p?a=...&...&b=...",
        ),
        ("/p?c2VjcmV0==", "/p?..."),
        ("/p?a=1&&", "/p?a=...&&"),
        ("/p#access_token=secret", "/p#..."),
        ("/p?", "/p?"),
        ("http://[/p", "http://[/p"),
        ("http://h/\x1b[31m", "http://h/\\x1b[31m"),
        ("", ""),
    ],
)
def test_secrets_of_a_url_are_not_shown(url: str, shown: str) -> None:
    assert redacted(url) == shown


@given(
    st.sampled_from(["wss://", "http:/", "ws:\\\\", "https:///", "//", ""]),
    st.text(st.characters(exclude_characters="/?#@\\:")),
    st.text(st.characters(exclude_characters="@")),
    st.sampled_from(["h", "h:1", "[::1]"]),
)
def test_a_password_is_never_shown(
    scheme: str, user: str, password: str, host: str
) -> None:
    url = f"{scheme}{user}:x{password}xSECRETx@{host}/path"
    shown = scheme.replace("\\", "\\\\")
    assert redacted(url) == f"{shown}{host}/path"


@given(any_text)
def test_any_text_can_be_redacted(text: str) -> None:
    assert redacted(text).isprintable()


@given(any_text)
def test_only_names_are_shown_after_a_question_mark(text: str) -> None:
    assert "SECRET" not in redacted(f"http://h/?token={text.replace('#', '')}SECRET")


@given(any_text)
def test_quoted_text_is_a_literal_of_its_beginning(text: str) -> None:
    assert ast.literal_eval(quoted(text[:100])) == text[:100]


def test_long_text_is_shortened_in_quotes() -> None:
    assert quoted("a" * 100) == f'"{"a" * 100}"'
    assert quoted("a" * 101) == f'"{"a" * 100}..."'
