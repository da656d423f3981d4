"""Frames: masking without the compiled module of `websockets`."""

import importlib.util
import sys

import pytest

from trio_wspair.transports.rfc6455 import _frames


def test_masking_works_without_the_compiled_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "websockets.speedups", None)
    name = "trio_wspair.transports.rfc6455.slow_frames"
    spec = importlib.util.spec_from_file_location(name, _frames.__file__)
    assert spec is not None
    assert spec.loader is not None
    slow = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(slow)
    frame = slow.framed(0x81, b"hello", masked=True)
    quick = _frames.FrameReader(masked=True, compressed=False, max_message_bytes=9)
    assert list(quick.feed(frame)) == [(0x81, b"hello")]
