"""Shortages of the machine are told from other errors, however libraries pass them on."""

import errno
from concurrent.futures.process import BrokenProcessPool

import jax.numpy as jnp
import pytest

from avshare_jax.data.errors import shortage

DEVICES = "It does not fit the memory of the devices (RESOURCE_EXHAUSTED: "


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
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4770354232 bytes.\nStats:"), DEVICES),
        (RuntimeError("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in hbm."), DEVICES),
        (RuntimeError("RESOURCE_EXHAUSTED: Attempting to reserve 3.95G at the bottom of memory."), DEVICES),
        (RuntimeError("RESOURCE_EXHAUSTED: Received message larger than max (7 vs. 4)"), ""),
        (RuntimeError("RESOURCE_EXHAUSTED: Quota exceeded for requests per minute"), ""),
        (passed_on(BrokenProcessPool("terminated abruptly")), "A worker process has died"),
        (OSError(errno.ENOSPC, "No space left on device"), ""),
        (passed_on(ValueError("bad")), ""),
        (OSError(errno.EINVAL, "Invalid data", "/videos/Cannot allocate memory.mp4"), ""),
    ],
)
def test_shortages_have_sentences(error, sentence):
    assert shortage(error).startswith(sentence) and bool(shortage(error)) == bool(sentence)


def test_what_jax_raises_for_too_large_an_array_is_a_shortage():
    with pytest.raises(RuntimeError) as caught:
        jnp.zeros(2**46, jnp.float32).block_until_ready()
    assert shortage(caught.value).startswith(DEVICES) and "config.batch_size" in shortage(caught.value)
