"""Shortages of the machine are told from other errors, however libraries pass them on."""

import errno

import pytest

from avshare_jax.data.errors import shortage


def passed_on(error: Exception) -> Exception:
    try:
        try:
            raise error
        except Exception as cause:
            raise RuntimeError("A library failed.") from cause
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many files are open"),
        (passed_on(OSError(errno.ENFILE, "File table overflow")), "Too many files are open"),
        (RuntimeError("open() failed: Too many open files; reading x"), "Too many files are open"),
        (passed_on(MemoryError()), "Memory has run out"),
        (RuntimeError("can't start new thread"), "Memory has run out"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Memory has run out"),
        (OSError(errno.ENOSPC, "No space left on device"), ""),
        (passed_on(ValueError("bad")), ""),
        (OSError(errno.EINVAL, "Invalid data", "/videos/Cannot allocate memory.mp4"), ""),
    ],
)
def test_shortages_have_sentences(error, sentence):
    assert shortage(error).startswith(sentence) and bool(shortage(error)) == bool(sentence)
