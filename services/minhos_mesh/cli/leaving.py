"""Decides how a command's process ends: at once when all is said, since taking a loaded program apart takes a tenth of a second."""

from __future__ import annotations

import os
import sys
import threading
from typing import NoReturn


def leave(end: SystemExit) -> NoReturn:
    """Ends the process with what is in `end`.

    Leaves Python's own way when a thread is still at work, which that waits for, or when not all can be said, which that tells.
    """
    if not isinstance(end.code, int | None) or _at_work():
        raise end
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # nobody reads any more, or there is no room
        raise end from None
    os._exit(end.code or 0)


def _at_work() -> bool:
    return any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())
