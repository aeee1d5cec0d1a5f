"""The other end of mesh_client_child.py: what a client was promised while services died, as lists."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.e2e.running_mesh import Mesh, environment

CHILD = Path(__file__).with_name("mesh_client_child.py")


class MeshClient:
    """A client process that works until `finish`."""

    def __init__(self, mesh: Mesh, symbol: str) -> None:
        self.entries: list[dict[str, Any]] = []
        self._errors = mesh.data_dir.parent / "client.stderr"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(CHILD), mesh.registry, symbol],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment(), text=True,
            )  # fmt: skip
        self._reader = threading.Thread(target=self._read, name="lines of the client")
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.entries.append(json.loads(line))

    def told(self, what: str) -> list[dict[str, Any]]:
        """Everything of one kind so far."""
        return [entry for entry in list(self.entries) if entry["what"] == what]

    def count(self) -> dict[str, int]:
        """How much of each kind there was so far."""
        entries = list(self.entries)
        return {kind: sum(entry["what"] == kind for entry in entries) for kind in ("ticks", "order", "event")}

    def beyond(self, before: dict[str, int]) -> bool:
        """Whether something of every kind came since."""
        return all(count > before[kind] for kind, count in self.count().items())

    def finish(self) -> None:
        """Lets it finish what it has begun; asserts that it ended well."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        code = self._process.wait(timeout=30)
        self._reader.join(timeout=10)
        assert code == 0, self._errors.read_text(encoding="utf-8")
        assert self.told("done")

    def close(self) -> None:
        """Ends it if it is still there."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(timeout=10)
        self._reader.join(timeout=10)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
