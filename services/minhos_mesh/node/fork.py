"""How a child comes to be: a fork that inherits nothing but the loaded code, and that begins only when it is on record."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

_EXEC_DEADLINE_S: Final = 5.0
_NOT_RECORDED: Final = 70
"""Exit code of a child whose keeper died before the child was on record; it has done nothing."""
_EXEC_FAILED: Final = 127
_RESET: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGQUIT)
_FORKED_ENVIRONMENT: Final = {"GRPC_ENABLE_FORK_SUPPORT": "0"}


class SpawnFailed(Exception):
    """Expected: the program could not be started; the message says why."""


@dataclass(frozen=True, slots=True)
class Launch:
    """All that a child needs to know to begin."""

    service: str
    environment: Mapping[str, str]
    log_path: Path
    argv: tuple[str, ...] | None
    body: Callable[[], int]
    """What a forked service runs; its result is the exit code. Not used with `argv`."""


class NewChild:
    """A forked child that waits for `release`, which is called when it is on record; it ends if that never comes."""

    def __init__(self, pid: int, go: int, report: int, *, executes: bool) -> None:
        self.pid = pid
        self._executes = executes
        self._go = go
        self._report = report

    def release(self) -> None:
        """Lets the child begin. Raises SpawnFailed when its program cannot be executed."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._go, b"g")
        os.close(self._go)
        try:
            readable = self._executes and select.select([self._report], [], [], _EXEC_DEADLINE_S)[0]
            complaint = os.read(self._report, 4096) if readable else b""
        finally:
            os.close(self._report)
        if complaint:
            raise SpawnFailed(complaint.decode(errors="replace"))

    def abandon(self) -> None:
        """Ends the child, which has done nothing yet."""
        os.close(self._go)
        os.close(self._report)


def fork(launch: Launch, close_inherited: Callable[[], None]) -> NewChild:
    """Forks a child in a session of its own. `close_inherited` closes, in the child, what the keeper holds open.

    Raises SpawnFailed when the log cannot be opened or the machine has no room for a process.
    """
    try:
        launch.log_path.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(launch.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SpawnFailed(f"cannot open {launch.log_path}: {error.strerror}") from error
    go_read, go_write = os.pipe()
    report_read, report_write = os.pipe()
    _flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _RESET)
    try:
        pid = os.fork()
        if pid == 0:
            os.close(go_write)
            os.close(report_read)
            _run_child(launch, close_inherited, _Pipes(log, go_read, report_write))
    except OSError as error:
        os.close(go_write)
        os.close(report_read)
        raise SpawnFailed(f"cannot fork: {error.strerror}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for descriptor in (log, go_read, report_write):
            os.close(descriptor)
    return NewChild(pid, go_write, report_read, executes=launch.argv is not None)


@dataclass(frozen=True, slots=True)
class _Pipes:
    log: int
    go: int
    report: int


def _run_child(launch: Launch, close_inherited: Callable[[], None], pipes: _Pipes) -> NoReturn:
    """Never returns into the keeper's code, whatever happens."""
    code = 1
    try:
        code = _child(launch, close_inherited, pipes)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - the last frame of a process: it is written down and the process ends
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            _flush()
        os._exit(code)


def _child(launch: Launch, close_inherited: Callable[[], None], pipes: _Pipes) -> int:
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in _RESET:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    close_inherited()
    if not os.read(pipes.go, 1):
        os._exit(_NOT_RECORDED)
    os.close(pipes.go)
    _redirect(pipes.log)
    os.environ.clear()
    os.environ.update(launch.environment)
    if launch.argv is not None:
        _execute(launch.argv, pipes.report)
    os.close(pipes.report)
    os.environ.update(_FORKED_ENVIRONMENT)
    name_process(launch.service)
    faulthandler.enable()
    gc.enable()
    return launch.body()


def _execute(argv: tuple[str, ...], report: int) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(argv[0], argv, dict(os.environ))  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(report, f"cannot execute {argv[0]}: {error.strerror}".encode())
    os._exit(_EXEC_FAILED)


def _redirect(log: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for descriptor in (null, log):
        if descriptor > 2:
            os.close(descriptor)


def name_process(service: str) -> None:
    """Shows the service's name in `ps` and `top`, as far as the kernel's 15 characters go."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(service[:15])


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
