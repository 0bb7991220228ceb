"""What everything about data raises for the user's mistakes, and sentences for what a machine lacks."""

import errno
import resource

NO_MEMORY = ("can't start new thread", "Cannot allocate memory", "failed to map segment from shared object")


class DatasetError(ValueError):
    """A data set cannot be written or used; the message is a sentence that says why and what to do."""


def shortage(error: BaseException | None) -> str:
    """A sentence where an error, or one that it came from, says that memory or file descriptors ran out; else ""."""
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
        error = error.__cause__ or error.__context__
    return ""
