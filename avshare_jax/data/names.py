"""Names of files, classes and videos as text that can be written to any file and any terminal, and compared."""

import os
import re
import unicodedata

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line breaks, characters that turn the direction of text, and bytes that are not UTF-8."""


def printable(text: str) -> str:
    r"""Returns text that can be written anywhere, the same for what is printable already.

    A byte that is not UTF-8 becomes `\xNN`, a character that a terminal would obey `\uNNNN`. Texts that differ stay
    different, unless one of them has such an escape written out.
    """
    return UNPRINTABLE.sub(_escape, text)


def printable_lines(text: str) -> str:
    """Returns text of several lines that is printable but for its line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    # Python keeps a byte that is not UTF-8 as one of these.
    return rf"\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else rf"\u{code:04x}"


def printable_path(path: str | os.PathLike[str]) -> str:
    """Returns a path as printable text, with letters composed."""
    return printable(composed(os.fspath(path)))


def composed(text: str) -> str:
    """Returns text in Unicode's form NFC: é may be one character, or two, as macOS writes it, and looks the same."""
    return unicodedata.normalize("NFC", text)
