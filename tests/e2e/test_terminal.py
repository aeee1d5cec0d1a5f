"""`minhos up` without --detach: what a person sees, and what Ctrl-C leaves."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl

import pytest
from tests.e2e.running_mesh import SERVICES, Mesh, environment, processes_of
from tests.waiting import until

pytestmark = pytest.mark.timeout(90)

IN_A_TERMINAL = "import os, sys; os.close(os.open(os.ttyname(0), os.O_RDWR)); os.execv(sys.argv[1], sys.argv[1:])"
"""Becomes a program whose terminal is its standard input, as a shell would start it."""
CTRL_C = b"\x03"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A program in a terminal of its own, and a person before it."""

    def __init__(self, mesh: Mesh, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 180, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_A_TERMINAL, *mesh.command(*arguments)],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True, cwd=mesh.home(),
            env=environment({**mesh.settings, "TERM": "xterm-256color"}),
        )  # fmt: skip
        os.close(slave)
        self.raw = b""

    @property
    def text(self) -> str:
        """Everything that was shown, without colours and movements."""
        return _ESCAPES.sub("", self.raw.decode(errors="replace"))

    def read_until(self, *patterns: str, within_s: float = 30.0) -> None:
        """Reads until everything of `patterns` was shown."""
        deadline = time.monotonic() + within_s
        while not all(re.search(pattern, self.text) for pattern in patterns):
            assert self._read(deadline), (
                f"not shown: {[p for p in patterns if not re.search(p, self.text)]}\n{self.text[-4000:]}"
            )

    def type(self, keys: bytes) -> None:
        """What the person types."""
        os.write(self._master, keys)

    def wait(self, within_s: float = 30.0) -> int:
        """Reads to the end; returns the exit code."""
        deadline = time.monotonic() + within_s
        while self._read(deadline):
            pass
        return self.process.wait(timeout=max(0.1, deadline - time.monotonic()))

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            got = os.read(self._master, 65_536)
        except OSError:  # the other side is closed
            return False
        self.raw += got
        return bool(got)

    def close(self) -> None:
        """Ends the program if it is still there."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=10)
        os.close(self._master)


@contextlib.contextmanager
def terminal(mesh: Mesh, *arguments: str) -> Iterator[Terminal]:
    made = Terminal(mesh, *arguments)
    try:
        yield made
    finally:
        made.close()


def stop_order(text: str) -> list[str]:
    return [match.group(1) for match in re.finditer(r" s  (\w+) +stopped ", text)]


def test_the_live_table_appears_and_ctrl_c_stops_everything_in_reverse_order(own: Mesh) -> None:
    with terminal(own, "up") as shown:
        shown.read_until(r"HEALTHY", r"ticks/s", r"(BUY|SELL) 0\.\d\d", r"FULL_AUTO", r"realized", *SERVICES)
        own.services()
        shown.type(CTRL_C)
        assert shown.wait() == 0
        assert "Traceback" not in shown.text
        assert "the mesh is down" in shown.text
        order = stop_order(shown.text)
    assert set(order) == SERVICES - {"registry"}
    assert order.index("trading_engine") < order.index("risk_manager") < order.index("state_manager")
    assert order.index("sierra_client") < order.index("market_data") < order.index("event_bus")
    own.assert_nothing_left()


def test_ctrl_c_while_it_starts_leaves_nothing(own: Mesh) -> None:
    with terminal(own, "up") as shown:
        shown.read_until(r"event_bus +starting")
        shown.type(CTRL_C)
        assert shown.wait() != 0
        assert "Traceback" not in shown.text
    assert processes_of(own.data_dir) == {}


def test_ctrl_c_before_the_keeper_answers_leaves_nothing(own: Mesh) -> None:
    with terminal(own, "up") as shown:
        until(own.paths.log_dir.joinpath("keeper.stderr.log").exists, "the keeper is about to start")
        shown.type(CTRL_C)
        assert shown.wait() != 0
        assert "Traceback" not in shown.text
    assert processes_of(own.data_dir) == {}


def test_a_second_ctrl_c_does_not_leave_half_of_it_behind(own: Mesh) -> None:
    with terminal(own, "up") as shown:
        shown.read_until(r"trading_engine +ready", r"ticks/s")
        shown.type(CTRL_C)
        shown.read_until(r"stopping, dependents first")
        shown.type(CTRL_C)
        shown.wait()
        assert "Traceback" not in shown.text
    assert processes_of(own.data_dir) == {}


def test_terminate_without_a_terminal_ends_it_in_order_too(own: Mesh) -> None:
    with subprocess.Popen(
        own.command("up"), env=environment(own.settings), cwd=own.home(), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert "all services are HEALTHY" in process.stdout.readline()
        own.services()
        process.send_signal(signal.SIGTERM)
        _out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert set(stop_order(err)) == SERVICES - {"registry"}
    own.assert_nothing_left()
