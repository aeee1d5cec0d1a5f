"""How anything asks the keeper of a data folder: blocking for the command line, on the event loop for the registry."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, Final

from minhos_mesh.runtime.keeper_protocol import (
    MAX_LINE_BYTES,
    KeeperPaths,
    KeeperState,
    ProcessExit,
    ProcessInfo,
    SpawnRequest,
    encode,
)

CALL_DEADLINE_S: Final = 5.0
"""How long a keeper may take to answer; it answers within milliseconds, so longer means that it hangs."""
START_DEADLINE_S: Final = 20.0
"""How long a new keeper may take until it answers."""

_ALREADY_RUNNING_EXIT: Final = 4
_POLL_S: Final = 0.01
_END_MARGIN_S: Final = 30.0
_TAIL_LINES: Final = 15


class KeeperError(Exception):
    """What the keeper was asked for did not happen."""


class KeeperUnavailable(KeeperError):
    """Expected: no keeper answers for this data folder, or it went away in the middle of a call."""


class KeeperRefused(KeeperError):
    """Expected: the keeper says no. `code` is NOT_FOUND, BAD_REQUEST, UNKNOWN_SERVICE, SPAWN_FAILED, SHUTTING_DOWN,
    STUCK or FAILED.
    """

    def __init__(self, code: str, error: str) -> None:
        super().__init__(error)
        self.code = code


class KeeperClient:
    """Blocking calls to one keeper. Every call raises KeeperUnavailable or KeeperRefused."""

    def __init__(self, data_dir: Path, *, deadline_s: float = CALL_DEADLINE_S) -> None:
        self._paths = KeeperPaths(data_dir.absolute())
        self._deadline_s = deadline_s

    def spawn(self, request: SpawnRequest) -> ProcessInfo:
        """Starts a process; answers with the running one if this instance id runs already."""
        return ProcessInfo.from_json(self._call(request.to_json())["process"])

    def signal(self, instance_id: str, number: int) -> None:
        """Sends a signal to a process."""
        self._call({"op": "signal", "instance_id": instance_id, "signal": int(number)})

    def list(self) -> KeeperState:
        """What the keeper runs."""
        return KeeperState.from_json(self._call({"op": "list"}))

    def follow(self, name: str | None = None, *, timeout: float | None = None) -> Iterator[ProcessExit]:
        """Yields exits: with a name from the last one that this name was told of, without from now on.

        Ends when none came for `timeout` seconds; waits for ever when None.
        """
        with closing(self._connect()) as channel, channel.makefile("rb") as lines:
            channel.sendall(encode({"op": "follow", "name": name}))
            _answer(self._read(lines))
            channel.settimeout(timeout)
            while True:
                try:
                    line = lines.readline(MAX_LINE_BYTES)
                except TimeoutError:
                    return
                except OSError as error:
                    raise self._gone(error) from error
                yield _exit(_decode(line))

    def shutdown(self, *, deadline_s: float = 10.0) -> None:
        """Ends all processes, the registry last, and the keeper; returns when all are gone.

        What has not ended after `deadline_s` is killed. KeeperRefused with code STUCK names what would not end.
        """
        limit = 2 * deadline_s + _END_MARGIN_S
        pid = self.list().pid
        with closing(self._connect()) as channel, channel.makefile("rb") as lines:
            channel.settimeout(limit)
            channel.sendall(encode({"op": "shutdown", "deadline_s": deadline_s}))
            _answer(self._read(lines))
        _await_end(pid, self._deadline_s)

    def _call(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        with closing(self._connect()) as channel, channel.makefile("rb") as lines:
            channel.sendall(encode(message))
            return _answer(self._read(lines))

    def _connect(self) -> socket.socket:
        path = self._paths.current_socket()
        if path is None:
            raise KeeperUnavailable(f"no keeper runs for {self._paths.data_dir}")
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        channel.settimeout(self._deadline_s)
        try:
            channel.connect(str(path))
        except OSError as error:
            channel.close()
            raise self._gone(error) from error
        return channel

    def _read(self, lines: BinaryIO) -> Any:
        try:
            return _decode(lines.readline(MAX_LINE_BYTES))
        except OSError as error:
            raise self._gone(error) from error

    def _gone(self, error: OSError) -> KeeperUnavailable:
        return KeeperUnavailable(f"no keeper answers for {self._paths.data_dir}: {error.strerror or error}")


class AsyncKeeperClient:
    """The same calls on the event loop. Every call raises KeeperUnavailable or KeeperRefused."""

    def __init__(self, data_dir: Path, *, deadline_s: float = CALL_DEADLINE_S) -> None:
        self._paths = KeeperPaths(data_dir.absolute())
        self._deadline_s = deadline_s

    async def spawn(self, request: SpawnRequest) -> ProcessInfo:
        """Starts a process; answers with the running one if this instance id runs already."""
        answer = await self._call(request.to_json())
        return ProcessInfo.from_json(answer["process"])

    async def signal(self, instance_id: str, number: int) -> None:
        """Sends a signal to a process."""
        await self._call({"op": "signal", "instance_id": instance_id, "signal": int(number)})

    async def beat(self, instance_id: str, silence_s: float) -> None:
        """Says that the registry reacts; the keeper replaces it when it says nothing for `silence_s` seconds."""
        await self._call({"op": "beat", "instance_id": instance_id, "silence_s": silence_s})

    async def list(self) -> KeeperState:
        """What the keeper runs."""
        return KeeperState.from_json(await self._call({"op": "list"}))

    async def follow(self, name: str | None = None) -> AsyncIterator[ProcessExit]:
        """Yields exits: with a name from the last one that this name was told of, without from now on.

        Ends only by KeeperUnavailable, when the keeper goes away.
        """
        reader, writer = await self._open()
        try:
            writer.write(encode({"op": "follow", "name": name}))
            _answer(_decode(await self._line(reader, self._deadline_s)))
            while True:
                yield _exit(_decode(await self._line(reader, None)))
        finally:
            writer.close()

    async def _call(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        reader, writer = await self._open()
        try:
            writer.write(encode(message))
            return _answer(_decode(await self._line(reader, self._deadline_s)))
        finally:
            writer.close()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        path = self._paths.current_socket()
        if path is None:
            raise KeeperUnavailable(f"no keeper runs for {self._paths.data_dir}")
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asyncio.open_unix_connection(path, limit=MAX_LINE_BYTES)
        except OSError as error:
            raise self._gone(error) from error

    async def _line(self, reader: asyncio.StreamReader, deadline_s: float | None) -> bytes:
        try:
            async with asyncio.timeout(deadline_s):
                return await reader.readline()
        except TimeoutError:
            raise KeeperUnavailable(
                f"the keeper for {self._paths.data_dir} did not answer in {deadline_s:g} s"
            ) from None
        except OSError as error:
            raise self._gone(error) from error

    def _gone(self, error: OSError) -> KeeperUnavailable:
        return KeeperUnavailable(f"no keeper answers for {self._paths.data_dir}: {error.strerror or error}")


def keeper_state(data_dir: Path) -> KeeperState | None:
    """What the keeper of a data folder runs; None when no keeper answers."""
    try:
        return KeeperClient(data_dir).list()
    except KeeperUnavailable:
        return None


class PendingKeeper:
    """A keeper that was started and has not answered yet; it loads for a while, in which its starter can do other things."""

    def __init__(self, data_dir: Path, config: Path | None = None, *, held: bool = False) -> None:
        """Starts a keeper in a session of its own. A held one only loads, and touches nothing before `go`."""
        self._paths = paths = KeeperPaths(data_dir.absolute())
        paths.log_dir.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "minhos_mesh.node.keeper", "--data-dir", str(paths.data_dir)]
        if config is not None:
            command += ["--config", str(config.absolute())]
        if held:
            command += ["--held"]
        with paths.stderr_log.open("ab") as log:
            self._said_from = os.fstat(log.fileno()).st_size
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if held else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                close_fds=True,
            )

    def go(self) -> None:
        """Lets a held keeper begin; `config` is there by now."""
        self._say(b"go\n")

    def _say(self, word: bytes) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):  # it has ended, and `wait` will tell why
                self._process.stdin.write(word)
                self._process.stdin.close()

    def wait(self, deadline_s: float = START_DEADLINE_S) -> KeeperState:
        """Returns once it answers. Raises KeeperError with what it said when it ends instead, or is late."""
        state = _await_keeper(self._paths, self._process, self._said_from, time.monotonic() + deadline_s)
        # It is to outlive us: without this, Popen would complain that nobody waited for it.
        self._process.returncode = 0
        return state

    def cancel(self) -> None:
        """Ends it before it has answered, with all that it has started; does nothing once `wait` has returned."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.kill()  # still held: it has touched nothing, and what it loads is of no use any more
            self._process.stdin.close()
        elif self._process.poll() is None:
            self._process.terminate()
        self._process.wait(START_DEADLINE_S)


def start_keeper(data_dir: Path, config: Path | None = None, *, deadline_s: float = START_DEADLINE_S) -> KeeperState:
    """Starts a keeper in a session of its own, or finds the one that runs; returns once it answers.

    Raises KeeperError with what the keeper said when it ends instead, or with the end of its log after the deadline.
    """
    running = keeper_state(data_dir)
    return running if running is not None else PendingKeeper(data_dir, config).wait(deadline_s)


def _await_keeper(paths: KeeperPaths, process: subprocess.Popen[bytes], said_from: int, deadline: float) -> KeeperState:
    while True:
        state = keeper_state(paths.data_dir)
        if state is not None:
            return state
        code = process.poll()
        late = time.monotonic() > deadline
        if late and code is None:
            process.terminate()
        if late or code not in (None, _ALREADY_RUNNING_EXIT):
            outcome = "did not answer in time" if code is None else f"ended with code {code}"
            raise KeeperError(f"the keeper {outcome}: {_said(paths.stderr_log, said_from)}")
        time.sleep(_POLL_S)


def _await_end(pid: int, deadline_s: float) -> None:
    """Waits for the keeper that has said its last word; it needs a few milliseconds to be gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([pidfd], [], [], deadline_s)
    finally:
        os.close(pidfd)


def _said(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-_TAIL_LINES:]) or f"it said nothing in {log}"


def _decode(line: bytes) -> Any:
    if not line.endswith(b"\n"):
        raise KeeperUnavailable("the keeper went away in the middle of a call")
    return json.loads(line)


def _answer(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if not message.get("ok"):
        raise KeeperRefused(str(message.get("code")), str(message.get("error")))
    return message


def _exit(message: Mapping[str, Any]) -> ProcessExit:
    return ProcessExit.from_json(message.get("exit"))
