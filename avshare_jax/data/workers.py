"""What every worker process that handles media does when it starts, and how much memory it may take."""

import multiprocessing
import os
import resource
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import cv2
import psutil

Job = TypeVar("Job")

SHARE_OF_MEMORY = 0.75
"""Of the machine's memory, what all worker processes may take together by default."""

LEAST_MEMORY = 2**31
"""Bytes that a worker process may take by default on the smallest machine: ten minutes of ordinary video need less."""


def set_up_worker() -> None:
    """Keeps a worker process from competing for the cores, and from outliving the process that started it."""
    cv2.setNumThreads(1)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def run_in_workers(function: Callable[[Job], None], jobs: Sequence[Job], workers: int) -> Iterator[int]:
    """Calls a function with each job, in new processes; yields the number of finished jobs, in their order.

    Raises:
      OSError: the processes cannot be started.
      BrokenProcessPool: one has died.
      Exception: what the function raised; jobs that have not begun are left out then.
    """
    context, others = multiprocessing.get_context("spawn"), multiprocessing.active_children()
    with ProcessPoolExecutor(workers, mp_context=context, initializer=set_up_worker) as pool:
        try:
            futures = [pool.submit(function, job) for job in jobs]
        except OSError:  # Those that did start would be waited for.
            for process in multiprocessing.active_children():
                if process not in others:
                    process.kill()
            raise
        try:
            for done, future in enumerate(futures, start=1):
                future.result()
                yield done
        except BaseException:
            # Not by `map`, which cancels them while the pool's own thread may be ending them: that then fails, and is
            # waited for forever.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def memory_per_worker(workers: int) -> int:
    """The bytes that each of so many worker processes may take by default, on this machine and in its container."""
    limits = [psutil.virtual_memory().total, *_container_limits()]
    if (address_space := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
        limits.append(address_space)
    return max(LEAST_MEMORY, int(SHARE_OF_MEMORY * min(limits) / workers))


def _container_limits(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Limits of memory in bytes that Linux's control groups set for this process, those of containers included."""
    try:
        # Version 2 has one line, "0::/its/path"; in a container, the path may be the host's.
        path = own.read_text().strip().rpartition(":")[2].strip("/")
    except OSError:
        return []
    folders = [root / path, *(root / path).parents]
    files = [folder / "memory.max" for folder in folders] + [root / "memory" / "memory.limit_in_bytes"]  # of version 1
    return [int(text) for file in files if file.is_file() and (text := file.read_text().strip()).isdigit()]


def limit_memory(size: int) -> None:
    """Lets this process take at most `size` bytes more than now; what asks for more gets `MemoryError`.

    Libraries that do not check for that end the process instead.
    """
    taken = psutil.Process().memory_info().data
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = taken + size
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
