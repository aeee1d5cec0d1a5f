"""The keeper's own log: one line of JSON per event."""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path

from minhos_mesh.runtime.clock import Clock


class Journal:
    """Appends to `<data>/log/keeper.log`. A full disk loses lines and never stops the keeper."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, event: str, *, level: str = "info", **fields: object) -> None:
        """Writes one event with its fields."""
        seconds = self._clock.wall_ns() / 1e9
        when = dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="microseconds")
        line = {"timestamp": when, "level": level, "service": "keeper", "event": event, **fields}
        try:
            os.write(self._fd, json.dumps(line, default=str).encode() + b"\n")
        except OSError:
            # Nobody can be told: the log is the place where it would be said.
            return

    def close(self) -> None:
        """Closes the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
