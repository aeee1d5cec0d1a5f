"""Decides how changes in a folder are heard of: Linux inotify by ctypes, one descriptor for the event loop, no thread."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_IN_MODIFY = 0x0002
_IN_MOVED_FROM = 0x0040
_IN_MOVED_TO = 0x0080
_IN_CREATE = 0x0100
_IN_DELETE = 0x0200
_IN_DELETE_SELF = 0x0400
_IN_MOVE_SELF = 0x0800
_IN_Q_OVERFLOW = 0x4000
_IN_IGNORED = 0x8000
_WATCHED = _IN_MODIFY | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE | _IN_DELETE_SELF | _IN_MOVE_SELF
_GONE = _IN_IGNORED | _IN_DELETE_SELF | _IN_MOVE_SELF
_EVENT = struct.Struct("iIII")
_READ_SIZE = 65_536


class WatchUnavailable(OSError):
    """Expected: the folder is missing, or the system gives no inotify; the caller polls instead."""


class FolderWatch:
    """Changes of the files in one folder, as names."""

    def __init__(self, folder: Path) -> None:
        """Starts to watch. Raises WatchUnavailable with the reason."""
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            init, add = libc.inotify_init1, libc.inotify_add_watch
        except (OSError, AttributeError) as error:
            raise WatchUnavailable(f"no inotify on this system: {error}") from error
        self._descriptor = int(init(os.O_NONBLOCK | os.O_CLOEXEC))
        if self._descriptor < 0:
            raise WatchUnavailable(f"inotify cannot start: {os.strerror(ctypes.get_errno())}")
        if add(self._descriptor, os.fsencode(folder), _WATCHED) < 0:
            reason = os.strerror(ctypes.get_errno())
            self.close()
            raise WatchUnavailable(f"{folder} cannot be watched: {reason}")
        self.lost = False
        """True once the folder itself was removed or moved: nothing more will be heard."""

    def fileno(self) -> int:
        """Descriptor that becomes readable when something changed."""
        return self._descriptor

    def changed(self) -> set[str] | None:
        """Names that changed since the last call; None when the kernel dropped some, so any may have."""
        names: set[str] = set()
        dropped = False
        while data := self._read():
            offset = 0
            while offset < len(data):
                _, mask, _, length = _EVENT.unpack_from(data, offset)
                offset += _EVENT.size
                name = data[offset : offset + length].rstrip(b"\0")
                offset += length
                dropped = dropped or bool(mask & _IN_Q_OVERFLOW)
                self.lost = self.lost or bool(mask & _GONE)
                if name:
                    names.add(os.fsdecode(name))
        return None if dropped or self.lost else names

    def close(self) -> None:
        """Ends the watch; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, _READ_SIZE)
        except BlockingIOError:
            return b""
