"""`minhos` without its loading: each command is a process of its own, forked from one that has loaded the program once.

The process that waits has imported the commands and nothing else: no thread, no connection, no event loop. What a command does,
prints, reads of its environment and ends with is its own; only the third of a second of imports is saved.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_LONGEST: Final = 150_000
"""Bytes of a request; the kernel takes no longer message."""
_FDS: Final = 3
"""What goes with a request: standard output, standard error, and where the process and its end are told."""
_FORKABLE: Final = {"OPENBLAS_NUM_THREADS": "1"}
"""numpy's BLAS would start a thread per core while it is imported, and a process with threads must not fork."""
_END_S: Final = 10.0


class LoadedProgram:
    """The waiting process."""

    def __init__(self, command: Path) -> None:
        plain = {key: value for key, value in os.environ.items() if not key.startswith(("MINHOS_", "GRPC_"))}
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), str(command), str(theirs.fileno())],
            env={**plain, **_FORKABLE}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
        )  # fmt: skip
        theirs.close()

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], cwd: Path, timeout_s: float
    ) -> tuple[int, str, str]:
        """Runs a command to its end: exit code, output, errors. Raises subprocess.TimeoutExpired after having killed it."""
        request = json.dumps([list(arguments), dict(environment), str(cwd)]).encode()
        told, tell = os.pipe()
        try:
            with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
                try:
                    socket.send_fds(self._requests, [request], [out.fileno(), err.fileno(), tell])
                finally:
                    os.close(tell)
                code = _end_of(told, arguments, timeout_s)
                return code, _text(out), _text(err)
        finally:
            os.close(told)

    def close(self) -> None:
        """Ends it."""
        self._requests.close()
        self._process.wait(_END_S)


@functools.cache
def program(command: Path) -> LoadedProgram:
    """The one for all tests of this process; it ends with them."""
    made = LoadedProgram(command)
    atexit.register(made.close)
    return made


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode().replace("\r\n", "\n"))


def _end_of(told: int, arguments: Sequence[str], timeout_s: float) -> int:
    """The exit code of a command, which is told in a second line behind its process id."""
    deadline, said = time.monotonic() + timeout_s, b""
    while said.count(b"\n") < 2:
        if not select.select([told], [], [], max(0.0, deadline - time.monotonic()))[0]:
            pid, _, _ = said.partition(b"\n")
            if pid:
                os.kill(int(pid), signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(arguments), timeout_s)
        got = os.read(told, 100)
        assert got, f"the process that holds the program went away under {arguments}"
        said += got
    return int(said.split()[1])


def _serve(command: str, requests: socket.socket) -> None:
    """Forks for each request, and returns in the fork that is to run the command; ends with its last asker."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        request, fds, _, _ = socket.recv_fds(requests, _LONGEST, _FDS)
        if not request:
            sys.exit()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            requests.close()
            _watch(fds[2])
            _become(command, *json.loads(request), *fds[:2])
            return
        for fd in fds:
            os.close(fd)


def _watch(tell: int) -> None:
    """Forks once more and returns there; the other one waits for its end and tells it."""
    pid = os.fork()
    if pid == 0:
        os.close(tell)
        return
    os.write(tell, f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):  # nobody waits for what was killed because it took too long
        os.write(tell, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(command: str, arguments: list[str], environment: dict[str, str], cwd: str, out: int, err: int) -> None:
    """Takes the place that a shell would have given a new process."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, place in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(fd, place)
        os.close(fd)
    os.chdir(cwd)
    for name in set(os.environ) & _STARTED_WITH - set(environment):
        del os.environ[name]
    os.environ.update(environment)
    sys.argv = [command, *arguments]


def _load() -> Any:
    """Imports every command; returns what the `minhos` of the README calls."""
    from minhos_mesh import cli

    for module in pkgutil.iter_modules(cli.__path__, "minhos_mesh.cli."):
        importlib.import_module(module.name)
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"loading the commands has started {threads - 1} threads"
    gc.freeze()  # what is loaded stays shared with all forks
    return importlib.import_module("minhos_mesh.cli.main").app_entry


if __name__ == "__main__":
    _STARTED_WITH: Final = frozenset(os.environ)
    _entry = _load()
    _serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
    sys.exit(_entry())
