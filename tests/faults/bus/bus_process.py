"""A real process of the bus that tests kill, freeze, put on a full disk or give another time, and start again at the same port."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from tests.ports import free_ports

CHILD = Path(__file__).with_name("bus_child.py")
START_S = 30.0
END_S = 40.0


class BusEnded(Exception):
    """The bus did not come up; the text is what it said."""


class BusProcess:
    """One bus on one folder and port."""

    def __init__(self, folder: Path, settings: dict[str, Any] | None = None) -> None:
        """`settings` are `event_bus`, its table of the configuration, and `limits`, fields of Limits."""
        self.folder = folder
        self.port = free_ports(1)[0]
        self.offset_s = 0.0
        """How far its clock is from the machine's when it starts."""
        self._settings = settings or {}
        self._process: asyncio.subprocess.Process | None = None
        self._standby: asyncio.subprocess.Process | None = None
        """The next one, which has loaded its program already and waits."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    async def start(self, point: str | None = None, passed_s: float = 0.0) -> None:
        """Returns once it serves, or is dead by its point; with a point it dies or freezes there. Raises BusEnded.

        `passed_s` is how long it takes itself to have run already.
        """
        process = self._process = self._standby or await self._spawn()
        assert process.stdin is not None
        assert process.stdout is not None
        order = json.dumps({"point": point, "offset_s": self.offset_s, "passed_s": passed_s})
        process.stdin.write(f"{order}\n".encode())
        async with asyncio.timeout(START_S):
            said = await process.stdout.readline()
        self._standby = await self._spawn()
        if said != b"serving\n":
            code = await process.wait()
            if point is not None and code == -signal.SIGKILL:
                return  # it came to the point before it served
            raise BusEnded(self.log.read_text(encoding="utf-8")[-2000:])

    async def _spawn(self) -> asyncio.subprocess.Process:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GRPC_VERBOSITY": "NONE"}
        command = (sys.executable, str(CHILD), str(self.folder), str(self.port), json.dumps(self._settings))
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        pipe = asyncio.subprocess.PIPE
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=log, env=environment)

    async def close(self) -> None:
        """Ends it, and the one that waits."""
        await self.kill()
        if self._standby is not None:
            self._standby.kill()
            await self._standby.wait()
            self._standby = None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def ended(self) -> None:
        """Returns once it is dead by itself."""
        assert self._process is not None
        async with asyncio.timeout(END_S):
            await self._process.wait()

    async def kill(self) -> None:
        """Ends it without a farewell, frozen or not."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT freeze it and let it go on, SIGUSR1 and SIGUSR2 set its clock."""
        os.kill(self.pid, number)

    async def frozen(self) -> None:
        """Returns once it stands still by itself."""
        async with asyncio.timeout(END_S):
            while _state(self.pid) != "T":
                await asyncio.sleep(0.01)

    def limit_files(self, size: int | None) -> None:
        """Lets none of its files grow beyond a size (bytes), or all again."""
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY if size is None else size, hard))


def _state(pid: int) -> str:
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return text.rpartition(")")[2].split()[0]
