"""What every worker process that handles media does when it starts."""

import multiprocessing
import os
import threading

import cv2


def set_up_worker() -> None:
    """Keeps a worker process from competing for the cores, and from outliving the process that started it."""
    cv2.setNumThreads(1)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
