"""What everything about data raises for the user's mistakes, and sentences for what a machine lacks."""

import errno
import resource


class DatasetError(ValueError):
    """A data set cannot be written or used; the message is a sentence that says why and what to do."""


def shortage(error: BaseException | None) -> str:
    """A sentence where an error, or one that it came from, says that memory or file descriptors ran out; else ""."""
    while error is not None:
        if isinstance(error, MemoryError):
            return "Memory has run out: close other programs, allow more, or use fewer workers or smaller batches."
        # Many libraries have errors of their own for it.
        if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE) or "Too many open files" in str(error):
            allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            return f"Too many files are open (this process may open {allowed}): allow more, as with `ulimit -n 4096`."
        error = error.__cause__ or error.__context__
    return ""
