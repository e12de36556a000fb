from __future__ import annotations

import io
import socket

import pytest
from PIL import Image

from wsicurate.errors import ConfigError, in_words, with_name


def from_pillow() -> Exception:
    with pytest.raises(OSError, match="cannot identify") as caught:
        Image.open(io.BytesIO(b"no picture"))
    return caught.value


def from_python() -> Exception:
    with pytest.raises(UnicodeDecodeError) as caught:
        b"ab\xff".decode("utf-8")
    return caught.value


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (from_pillow(), "cannot identify image file"),
        (from_python(), "it is not UTF-8 text (byte 2)"),
        (FileNotFoundError(2, "No such file or directory", "/a/b"), "No such file or directory"),
        (OSError("broken data stream"), "broken data stream"),
        (ValueError(""), "ValueError"),
        (ValueError("two\n  lines"), "two lines"),
        (TypeError(f"{object()!r} is no {io.BytesIO()!r}"), "is no"),
        (ValueError("a" * 501), "a" * 500 + "..."),
        (ConfigError("ours  at 0x1F <x at 0x2>"), "ours  at 0x1F <x at 0x2>"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
    ],
)
def test_what_others_say_is_the_same_each_time(error: Exception, words: str) -> None:
    assert in_words(error) == words
    assert with_name(error) == f"{type(error).__name__}: {words}"
