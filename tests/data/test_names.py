"""Names as text that can be written anywhere."""

import os
import unicodedata

import pytest

from avshare_jax.data.names import composed, printable, printable_lines, printable_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("-1 ü 動画 🎻\\ $x$ .mp4", "-1 ü 動画 🎻\\ $x$ .mp4"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # Persian needs this joiner, which only shapes letters.
        (os.fsdecode(b"caf\xe9\x9b.mp4"), r"caf\xe9\x9b.mp4"),
        ("a\nb\r\tc\x00\x7f", r"a\u000ab\u000d\u0009c\u0000\u007f"),
        ("\x1b]0;title\x07\x9b31m", r"\u001b]0;title\u0007\u009b31m"),
        ("a\u202egnp.exe\u2028\u2066", r"a\u202egnp.exe\u2028\u2066"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_cannot_be_written_or_commands_a_terminal_is_escaped(name, expected):
    assert printable(name) == expected == printable(expected)
    expected.encode()
    categories = {unicodedata.category(letter) for letter in printable(name)}
    assert not categories & {"Cc", "Cs", "Zl", "Zp"}


def test_every_byte_that_is_not_utf8_has_an_escape_of_its_own():
    names = {printable(os.fsdecode(bytes([byte]))) for byte in range(1, 256)}
    assert len(names) == 255 and all(name.isprintable() for name in names)


def test_lines_stay_lines():
    assert printable_lines("one\x1b\ntwo\r\n") == "one\\u001b\ntwo\\u000d\n"


def test_paths_are_composed():
    assert composed("cafe\u0301") == "caf\u00e9"
    assert printable_path(os.fsdecode(b"cafe\xcc\x81/\xff")) == "caf\u00e9/\\xff"
