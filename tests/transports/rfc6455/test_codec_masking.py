"""Masking without the compiled module of `websockets`."""

import importlib.util
import sys

import pytest

from trio_wspair.transports.rfc6455 import _codec


def test_masking_works_without_the_compiled_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "websockets.speedups", None)
    name = "trio_wspair.transports.rfc6455.slow_codec"
    spec = importlib.util.spec_from_file_location(name, _codec.__file__)
    assert spec is not None
    assert spec.loader is not None
    slow = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, slow)
    spec.loader.exec_module(slow)
    frame = slow.Codec(is_client=True, max_message_bytes=9).encode("hello")
    codec = _codec.Codec(is_client=False, max_message_bytes=9)
    assert list(codec.feed(frame)) == ["hello"]
