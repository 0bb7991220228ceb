"""What everything about data raises for the user's mistakes, and sentences for what a machine lacks."""

import errno
import re
import resource
from concurrent.futures import BrokenExecutor

NO_MEMORY = ("can't start new thread", "Cannot allocate memory", "failed to map segment from shared object")

# As XLA says it for CPUs, GPUs and TPUs. Services say RESOURCE_EXHAUSTED too, of quotas and of too large messages.
NO_DEVICE_MEMORY = re.compile(r"RESOURCE_EXHAUSTED.*(out of memory|to (allocate|reserve))", re.IGNORECASE | re.DOTALL)


class DatasetError(ValueError):
    """A data set cannot be written or used; the message is a sentence that says why and what to do."""


def shortage(error: BaseException | None) -> str:
    """A sentence where an error, or one that it came from, says that memory, of the machine or of a device, or file
    descriptors ran out, or that a process of a pool died, which is mostly for lack of them; else "".
    """
    while error is not None:
        # Many libraries have errors of their own for what the system says.
        # Without the name of a file, which may say anything.
        number, said = getattr(error, "errno", None), getattr(error, "strerror", None) or str(error)
        if isinstance(error, MemoryError) or number == errno.ENOMEM or any(text in said for text in NO_MEMORY):
            return (
                "Memory has run out: close other programs, allow this one more (`ulimit -v`), or use fewer workers or "
                "smaller batches."
            )
        if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in said:
            allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            return f"Too many files are open (this process may open {allowed}): allow more, as with `ulimit -n 4096`."
        if NO_DEVICE_MEMORY.search(said):
            return (
                f"It does not fit the memory of the devices ({_first_line(said)}): use more devices or smaller batches "
                "(config.batch_size, --batch_size), or train with --config.memory.remat=blocks, or with a larger "
                "config.memory.clip_chunks or config.memory.accumulation_steps (docs/sharding.md)."
            )
        if isinstance(error, BrokenExecutor):
            return (
                "A worker process has died, mostly because memory or open files ran out (what it said itself is "
                "above): close other programs, or allow more, as with `ulimit -n 4096`."
            )
        error = error.__cause__ or error.__context__
    return ""


def _first_line(text: str) -> str:
    return text.splitlines()[0].rstrip(".")
