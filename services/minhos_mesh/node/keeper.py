"""What the keeper of one machine does: it forks, watches and ends processes on request, and keeps the registry alive.

Run as `python -m minhos_mesh.node.keeper --data-dir DIR [--config FILE]`. It has no threads, no asyncio and no gRPC objects,
so that a fork of it is safe. Exit codes: 0 ended in order, 1 something would not end, 2 wrong arguments or a record that
cannot be read, 3 the preload failed, 4 another keeper holds the data folder.
"""

from __future__ import annotations

import functools
import os
import secrets
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from minhos_mesh.node import fork, identity, record, requests
from minhos_mesh.node.connections import Connection, Listener, remove_stale
from minhos_mesh.node.ending import DEFAULT_DEADLINE_S, Ending
from minhos_mesh.node.exits import ExitLog
from minhos_mesh.node.journal import Journal
from minhos_mesh.node.preload import PreloadFailed, preload
from minhos_mesh.node.processes import Ended, ProcessTable
from minhos_mesh.node.root import LOOK_S, STARTING_S, RootPolicy, RootSilence
from minhos_mesh.runtime.clock import SystemClock
from minhos_mesh.runtime.keeper_protocol import KeeperPaths, ProcessExit, ProcessInfo, RootState, SpawnRequest

Entry = Callable[[str, str, str, str | None], int]
"""Runs a service until it ends: service, instance id, data folder, configuration file; returns the exit code."""

_SPAWN_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class KeeperOptions:
    """What a keeper is started with."""

    data_dir: Path
    config_path: Path | None
    services: Mapping[str, str | None]
    """Services that can be forked, each with the module that is loaded before its first fork, if `preload` has not done so."""
    root: str | None
    """The service that the keeper starts by itself and restarts; None for none."""
    preload: Callable[[], Entry]
    """Loads what all services share and returns what runs one."""
    root_silence_s: float | None = None
    """How long the root service may be silent that an earlier keeper started, before it has said itself how long; None
    watches over none.
    """


class Keeper:
    """One keeper: `run` holds the data folder until it is asked to end."""

    def __init__(self, options: KeeperOptions) -> None:
        self._options = options
        self._paths = KeeperPaths(options.data_dir)
        for folder in (self._paths.run_dir, self._paths.log_dir):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = record.KeeperLock(self._paths.lock, options.data_dir)
        self._clock = SystemClock()
        self._journal = Journal(self._paths.log, self._clock)
        self._record = record.load(self._paths.record)
        self._environment = dict(os.environ)
        self._selector = selectors.DefaultSelector()
        self._table = ProcessTable(self._selector)
        self._exits = ExitLog(self._record)
        self._root = None if options.root is None else RootPolicy(options.root)
        self._silence = RootSilence()
        self._ending: Ending | None = None

    def run(self) -> int:
        """Serves until SIGTERM, SIGINT or a shutdown request; returns the exit code. Raises what the preload raises."""
        self._entry = self._options.preload()
        self._journal.write("preloaded", cpu_s=round(time.process_time(), 3), pid=os.getpid())
        remove_stale(self._record.socket, self._paths)
        self._listener = Listener(self._paths, self._selector, self._handle)
        self._record.socket = str(self._listener.path)
        self._listen_to_signals()
        self._adopt()
        self._save()
        while self._ending is None or not self._ending.done:
            self._turn()
        return self._finish(self._ending)

    # The loop.

    def _turn(self) -> None:
        now = time.monotonic()
        if self._ending is not None:
            self._ending.step(now)
            if self._ending.done:
                return
        elif self._root is not None and self._root.retry_at is not None and now >= self._root.retry_at:
            self._start_root(self._root)
        for key, events in self._selector.select(self._wait_s()):
            key.data(events)
        for ended in self._table.reap():
            self._on_exit(ended)
        if self._ending is None and self._silence.too_long(time.monotonic()):
            self._give_up_root()

    def _wait_s(self) -> float | None:
        due = self._root.retry_at if self._root is not None else None
        if due is None and self._silence.looked_at is not None:
            due = self._silence.looked_at + LOOK_S
        if self._ending is not None:
            due = self._ending.until
        return None if due is None else max(0.0, due - time.monotonic())

    def _listen_to_signals(self) -> None:
        self._wakeup_read, self._wakeup_write = socket.socketpair()
        for end in (self._wakeup_read, self._wakeup_write):
            end.setblocking(False)
        self._selector.register(self._wakeup_read, selectors.EVENT_READ, self._on_signals)
        signal.set_wakeup_fd(self._wakeup_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, _note_signal)

    def _on_signals(self, _events: int) -> None:
        numbers = set(self._wakeup_read.recv(4096))
        if numbers & {signal.SIGTERM, signal.SIGINT}:
            self._begin_ending(DEFAULT_DEADLINE_S)

    # Processes.

    def _adopt(self) -> None:
        for info in self._record.processes:
            adopted = replace(info, adopted=True)
            if self._table.adopt(adopted):
                self._journal.write("adopted", target=info.service, instance_id=info.instance_id, pid=info.pid)
                if self._root is not None and info.root:
                    self._root.started()
                    self._watch_root(info.instance_id, self._options.root_silence_s)
            else:
                self._on_exit(Ended(adopted, None, None))

    def _start(self, request: SpawnRequest, *, root: bool = False) -> ProcessInfo:
        """Forks, writes down, lets begin, in this order: a keeper that dies between leaves no process unknown.

        Raises fork.SpawnFailed, also when the module of the service cannot be loaded.
        """
        module = None if request.argv is not None else self._options.services.get(request.service)
        if module is not None:
            try:
                preload(module)
            except PreloadFailed as error:
                raise fork.SpawnFailed(str(error)) from error
        log_path = Path(request.log_path or self._paths.service_stderr_log(request.service))
        config = None if self._options.config_path is None else str(self._options.config_path)
        arguments = (request.service, request.instance_id, str(self._options.data_dir), config)
        launch = fork.Launch(
            service=request.service,
            environment=self._environment if request.environment is None else request.environment,
            log_path=log_path,
            argv=request.argv,
            body=functools.partial(self._entry, *arguments),
        )
        child = fork.fork(launch, self._close_inherited)
        info = ProcessInfo(
            service=request.service,
            instance_id=request.instance_id,
            pid=child.pid,
            start_ticks=identity.start_ticks(child.pid) or 0,
            started_ns=self._clock.wall_ns(),
            log_path=str(log_path),
            root=root,
        )
        self._table.add_child(info)
        try:
            self._save()
        except OSError as error:
            child.abandon()
            raise fork.SpawnFailed(f"cannot write {self._paths.record}: {error.strerror}") from error
        child.release()
        self._journal.write("started", target=info.service, instance_id=info.instance_id, pid=info.pid)
        return info

    def _start_root(self, root: RootPolicy) -> None:
        request = SpawnRequest(root.service, f"{root.service}-{secrets.token_hex(4)}")
        try:
            self._start(request, root=True)
            root.started()
            self._watch_root(request.instance_id, STARTING_S)
        except fork.SpawnFailed as error:
            self._journal.write("not_started", level="error", target=root.service, error=str(error))
            root.retry_at = time.monotonic() + _SPAWN_RETRY_S

    def _watch_root(self, instance_id: str, limit_s: float | None) -> None:
        if self._options.root_silence_s is not None and limit_s is not None:
            self._silence.begin(instance_id, limit_s, time.monotonic())

    def _give_up_root(self) -> None:
        """Kills the root service that lives and is not heard any more; its end starts the next."""
        info = self._table.find(self._silence.instance_id)
        if info is not None:
            silent_s = self._silence.limit_s
            self._journal.write("silent_killed", level="error", target=info.service, pid=info.pid, silent_s=silent_s)
            self._table.kill(info)

    def _close_inherited(self) -> None:
        """Runs in the child: gives back every descriptor that is the keeper's."""
        self._listener.abandon()
        self._table.abandon()
        self._selector.close()
        self._wakeup_read.close()
        self._wakeup_write.close()
        self._journal.close()
        self._lock.close()

    def _on_exit(self, ended: Ended) -> None:
        info, now_ns = ended.info, self._clock.wall_ns()
        lived_s = max(0.0, (now_ns - info.started_ns) / 1e9)
        exited = ProcessExit(
            sequence=self._exits.next_sequence(),
            service=info.service,
            instance_id=info.instance_id,
            pid=info.pid,
            code=ended.code,
            signal=ended.signal,
            time_ns=now_ns,
            lived_s=round(lived_s, 3),
        )
        if info.root and self._root is not None:
            self._root.ended(lived_s, time.monotonic(), in_order=ended.code == 0)
            self._silence.end()
        self._exits.add(exited)
        try:
            self._save()
        except OSError as error:
            # A full disk must not end the keeper. A successor would find the process gone by itself.
            self._journal.write("not_recorded", level="error", error=str(error))
        self._journal.write(
            "exited",
            target=info.service,
            instance_id=info.instance_id,
            pid=info.pid,
            code=ended.code,
            signal=ended.signal,
        )

    def _save(self) -> None:
        record.save(self._paths.record, self._record, self._table.infos())

    # Requests.

    def _handle(self, connection: Connection, request: Mapping[str, Any]) -> None:
        operations: Mapping[Any, Callable[[Connection, Mapping[str, Any]], None]] = {
            "spawn": self._spawn,
            "signal": self._signal,
            "list": self._list,
            "follow": self._follow,
            "beat": self._beat,
            "shutdown": self._shutdown,
        }
        operation = request.get("op")
        try:
            if not isinstance(operation, str) or operation not in operations:
                raise requests.BadRequest(f"op: {operation!r}; known are {', '.join(operations)}")
            operations[operation](connection, request)
        except requests.BadRequest as error:
            connection.refuse("BAD_REQUEST", str(error))
        except fork.SpawnFailed as error:
            connection.refuse("SPAWN_FAILED", str(error))
        except OSError as error:
            self._journal.write("request_failed", level="error", op=operation, error=str(error))
            connection.refuse("FAILED", f"{operation}: {error}")

    def _spawn(self, connection: Connection, request: Mapping[str, Any]) -> None:
        spawn = requests.spawn(request)
        if self._ending is not None:
            connection.refuse("SHUTTING_DOWN", "the keeper is ending; nothing is started any more")
            return
        if spawn.argv is None and spawn.service not in self._options.services:
            known = ", ".join(self._options.services)
            connection.refuse("UNKNOWN_SERVICE", f"there is no service {spawn.service!r}; known: {known}")
            return
        if self._root is not None and spawn.service == self._root.service:
            connection.refuse("BAD_REQUEST", f"{spawn.service} is started by the keeper itself")
            return
        running = self._table.find(spawn.instance_id)
        info = self._start(spawn) if running is None else running
        connection.send({"ok": True, "process": info.to_json(), "started": running is None})

    def _signal(self, connection: Connection, request: Mapping[str, Any]) -> None:
        requests.only(request, "instance_id", "signal")
        instance_id = requests.instance(request.get("instance_id"))
        number = requests.signal_number(request.get("signal"))
        info = self._table.find(instance_id)
        if info is not None:
            self._journal.write(
                "signalling", target=info.service, instance_id=info.instance_id, pid=info.pid, signal=number
            )
        if info is None or not self._table.send(info, number):
            connection.refuse("NOT_FOUND", f"no process runs as {instance_id}")
            return
        connection.send({"ok": True})

    def _list(self, connection: Connection, request: Mapping[str, Any]) -> None:
        requests.only(request)
        root = self._root
        connection.send(
            {
                "ok": True,
                "pid": os.getpid(),
                "data_dir": str(self._options.data_dir),
                "processes": [info.to_json() for info in self._table.infos()],
                "root": None if root is None else self._root_state(root).to_json(),
            }
        )

    def _root_state(self, root: RootPolicy) -> RootState:
        retry_in = None if root.retry_at is None else max(0.0, root.retry_at - time.monotonic())
        return RootState(root.service, root.retry_at is None, root.failures, retry_in, self._exits.last(root.service))

    def _follow(self, connection: Connection, request: Mapping[str, Any]) -> None:
        requests.only(request, "name")
        name = requests.follower(request.get("name"))
        connection.send({"ok": True, "sequence": self._record.sequence})
        self._exits.follow(connection, name)

    def _beat(self, connection: Connection, request: Mapping[str, Any]) -> None:
        requests.only(request, "instance_id", "silence_s")
        instance_id = requests.instance(request.get("instance_id"))
        silence_s = requests.silence(request.get("silence_s"))
        if self._silence.heard(instance_id, silence_s, time.monotonic()):
            connection.send({"ok": True})
        else:
            connection.refuse("NOT_FOUND", f"{instance_id} is not what is watched")

    def _shutdown(self, connection: Connection, request: Mapping[str, Any]) -> None:
        requests.only(request, "deadline_s")
        deadline_s = requests.deadline(request.get("deadline_s"), DEFAULT_DEADLINE_S)
        connection.awaits_end = True
        self._begin_ending(deadline_s)

    # The end.

    def _begin_ending(self, deadline_s: float) -> None:
        now = time.monotonic()
        if self._ending is not None:
            self._ending.hurry(now)
            return
        self._journal.write("ending", deadline_s=deadline_s)
        self._ending = Ending(self._table, deadline_s, now, self._journal.write)

    def _finish(self, ending: Ending) -> int:
        stuck = [f"{info.service} (pid {info.pid})" for info in ending.stuck]
        for connection in self._listener.connections():
            if connection.awaits_end and stuck:
                connection.refuse("STUCK", f"killed and still there: {', '.join(stuck)}")
            elif connection.awaits_end:
                connection.send({"ok": True})
        signal.set_wakeup_fd(-1)
        self._journal.write("ended", stuck=stuck)
        if stuck:
            self._save()
        else:
            self._paths.record.unlink(missing_ok=True)
        self._listener.close()
        self._lock.close()
        return 1 if stuck else 0


def _note_signal(_number: int, _frame: object) -> None:
    """Takes the place of the default action; the loop reads the number from the wakeup socket."""


if __name__ == "__main__":
    from minhos_mesh.node.command import main

    raise SystemExit(main())
