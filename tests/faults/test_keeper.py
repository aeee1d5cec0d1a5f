from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import alive, until

from minhos_mesh.runtime.keeper_client import AsyncKeeperClient, KeeperClient, KeeperRefused, KeeperUnavailable
from minhos_mesh.runtime.keeper_protocol import KeeperPaths, KeeperState, ProcessExit, ProcessInfo, SpawnRequest

CHILD = Path(__file__).with_name("keeper_child.py")
DEADLINE_S = 10.0


class Mesh:
    """One data folder and the keepers that are started for it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.client = KeeperClient(data_dir)
        self.keepers: list[subprocess.Popen[str]] = []
        self.pids: set[int] = set()

    def start(self, root: str = "", *, wait: bool = True, **options: Any) -> subprocess.Popen[str]:
        keeper = subprocess.Popen(
            [sys.executable, str(CHILD), str(self.data_dir), root],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **{"start_new_session": True, **options},
        )
        self.keepers.append(keeper)
        if wait:
            until(lambda: self._answers(keeper), "the keeper answers")
        return keeper

    def _answers(self, keeper: subprocess.Popen[str]) -> bool:
        assert keeper.poll() is None, keeper.stdout and keeper.stdout.read()
        with contextlib.suppress(KeeperUnavailable):
            return self.state().pid == keeper.pid
        return False

    def state(self) -> KeeperState:
        state = self.client.list()
        self.pids |= {info.pid for info in state.processes} | {state.pid}
        return state

    def spawn(self, service: str, instance_id: str = "", **fields: Any) -> ProcessInfo:
        info = self.client.spawn(SpawnRequest(service, instance_id or f"{service}-1", **fields))
        self.pids.add(info.pid)
        return info

    def facts(self, instance_id: str) -> dict[str, Any]:
        path = self.data_dir / f"{instance_id}.json"
        until(path.exists, f"{instance_id} says who it is")
        value: dict[str, Any] = json.loads(path.read_text())
        return value

    def exits(self, count: int, name: str = "test") -> list[ProcessExit]:
        found: list[ProcessExit] = []
        for exited in self.client.follow(name, timeout=DEADLINE_S):
            found.append(exited)
            if len(found) == count:
                return found
        raise AssertionError(f"{count} exits expected, seen: {found}")

    def end(self) -> None:
        for keeper in self.keepers:
            if keeper.poll() is None:
                keeper.kill()
            keeper.wait(DEADLINE_S)
            if keeper.stdout is not None:
                keeper.stdout.close()
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    made = Mesh(tmp_path / "data")
    yield made
    made.end()


def test_a_child_has_its_own_session_no_descriptors_and_a_fresh_environment(mesh: Mesh) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    mesh.start(pass_fds=[writing])
    os.close(writing)
    os.close(reading)
    mesh.spawn("idle", environment={"COLOUR": "blue"})
    facts = mesh.facts("idle-1")
    assert facts["session"] == facts["pid"]
    assert facts["descriptors"] == [0, 1, 2]
    assert facts["environment"] == {"COLOUR": "blue", "GRPC_ENABLE_FORK_SUPPORT": "0"}
    assert facts["blocked"] == []
    assert facts["comm"] == "idle"


def test_the_exit_of_a_killed_child_is_reported_with_its_signal(mesh: Mesh) -> None:
    mesh.start()
    info = mesh.spawn("idle")
    mesh.client.signal("idle-1", signal.SIGKILL)
    (exited,) = mesh.exits(1)
    assert (exited.instance_id, exited.pid, exited.code, exited.signal) == ("idle-1", info.pid, None, signal.SIGKILL)
    until(
        lambda: [line["event"] for line in _journal(mesh)][-2:] == ["signalling", "exited"], "both are in the journal"
    )
    assert mesh.state().processes == ()
    assert not Path(f"/proc/{info.pid}").exists()


def test_an_exit_code_is_reported(mesh: Mesh) -> None:
    mesh.start()
    mesh.spawn("quit")
    (exited,) = mesh.exits(1)
    assert (exited.code, exited.signal) == (7, None)


def test_a_crash_leaves_its_traceback_in_the_log(mesh: Mesh) -> None:
    mesh.start()
    mesh.spawn("crash")
    (exited,) = mesh.exits(1)
    assert exited.code == 1
    text = KeeperPaths(mesh.data_dir).service_stderr_log("crash").read_text()
    assert "RuntimeError: boom" in text


def test_exits_that_nobody_heard_are_told_to_the_next_follower_once(mesh: Mesh) -> None:
    mesh.start()
    for number in (1, 2):
        mesh.spawn("quit", f"quit-{number}")
    until(lambda: not mesh.state().processes, "both ended")
    assert {exited.instance_id for exited in mesh.exits(2)} == {"quit-1", "quit-2"}
    assert list(mesh.client.follow("test", timeout=0.05)) == []
    assert len(mesh.exits(2, "another")) == 2


def test_exits_survive_the_keeper_for_those_who_missed_them(mesh: Mesh) -> None:
    keeper = mesh.start()
    mesh.spawn("quit")
    until(lambda: not mesh.state().processes, "it ended")
    keeper.kill()
    keeper.wait(DEADLINE_S)
    mesh.start()
    assert [exited.code for exited in mesh.exits(1)] == [7]


def test_the_same_instance_is_not_started_twice(mesh: Mesh) -> None:
    mesh.start()
    first, second = mesh.spawn("idle"), mesh.spawn("idle")
    assert first == second
    assert len(mesh.state().processes) == 1


def test_children_outlive_a_killed_keeper_and_are_adopted_by_the_next(mesh: Mesh) -> None:
    keeper = mesh.start()
    first, second = mesh.spawn("idle", "idle-1"), mesh.spawn("idle", "idle-2")
    keeper.kill()
    keeper.wait(DEADLINE_S)
    assert alive(first.pid)
    os.kill(second.pid, signal.SIGKILL)
    until(lambda: not alive(second.pid), "it ended without a keeper")
    mesh.start()
    (adopted,) = mesh.state().processes
    assert (adopted.pid, adopted.start_ticks, adopted.adopted) == (first.pid, first.start_ticks, True)
    assert mesh.spawn("idle", "idle-1").pid == first.pid
    (missed,) = mesh.exits(1)
    assert (missed.instance_id, missed.code, missed.signal) == ("idle-2", None, None)
    mesh.client.signal("idle-1", signal.SIGTERM)
    (seen,) = mesh.exits(1)
    assert (seen.instance_id, seen.code, seen.signal) == ("idle-1", None, None)


def test_another_process_with_a_recorded_pid_is_not_adopted(mesh: Mesh) -> None:
    keeper = mesh.start()
    mesh.spawn("idle")
    keeper.kill()
    keeper.wait(DEADLINE_S)
    record = KeeperPaths(mesh.data_dir).record
    value = json.loads(record.read_text())
    value["processes"][0]["start_ticks"] -= 1
    record.write_text(json.dumps(value))
    mesh.start()
    assert mesh.state().processes == ()
    (exited,) = mesh.exits(1)
    assert exited.instance_id == "idle-1"


def test_a_second_keeper_is_refused_and_told_who_holds_the_folder(mesh: Mesh) -> None:
    first = mesh.start()
    second = mesh.start(wait=False)
    assert second.wait(DEADLINE_S) == 4
    assert second.stdout is not None
    assert f"a keeper already runs for {mesh.data_dir}: process {first.pid}" in second.stdout.read()
    assert mesh.state().pid == first.pid


def test_a_failed_preload_is_a_clear_error(mesh: Mesh) -> None:
    keeper = mesh.start("broken", wait=False)
    assert keeper.wait(DEADLINE_S) == 3
    assert keeper.stdout is not None
    assert keeper.stdout.read().startswith("keeper: cannot load minhos_mesh.gone: ModuleNotFoundError")


def test_a_service_whose_module_cannot_be_loaded_is_refused_and_the_others_run(mesh: Mesh) -> None:
    mesh.start()
    with pytest.raises(KeeperRefused, match="cannot load minhos_mesh.gone: ModuleNotFoundError") as caught:
        mesh.spawn("gone")
    assert caught.value.code == "SPAWN_FAILED"
    mesh.spawn("idle")


def test_a_damaged_record_is_not_overwritten(mesh: Mesh) -> None:
    paths = KeeperPaths(mesh.data_dir)
    paths.run_dir.mkdir(parents=True)
    paths.record.write_text("{")
    keeper = mesh.start(wait=False)
    assert keeper.wait(DEADLINE_S) == 2
    assert keeper.stdout is not None
    assert "end the processes of this mesh by hand" in keeper.stdout.read()
    assert paths.record.read_text() == "{"


def test_the_registry_is_started_again_at_once_and_then_later_and_later(mesh: Mesh) -> None:
    mesh.start("idle")
    pids = []
    for _ in range(3):
        until(lambda: (root := mesh.state().root) is not None and root.running, "the root runs")
        (info,) = mesh.state().processes
        assert info.root
        pids.append(info.pid)
        os.kill(info.pid, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{pids[-1]}").exists(), "it is gone")
    assert len(set(pids)) == 3
    ends = [exited.time_ns for exited in mesh.exits(3)]
    until(lambda: mesh.state().processes, "the root runs")
    starts = [_started(line) for line in _journal(mesh) if line["event"] == "started"]
    pauses = [start - end / 1e9 for start, end in zip(starts[1:], ends, strict=True)]
    assert pauses[0] < 0.09
    assert pauses[1] >= 0.09
    assert pauses[2] >= 0.19


def test_a_crash_loop_of_the_registry_is_told(mesh: Mesh) -> None:
    mesh.start("quit")
    until(lambda: (root := mesh.state().root) is not None and root.failures >= 3, "three failures")
    root = mesh.state().root
    assert root is not None
    assert root.last_exit is not None
    assert root.last_exit.code == 7


def test_an_adopted_registry_is_not_doubled_and_still_restarted(mesh: Mesh) -> None:
    keeper = mesh.start("idle")
    until(lambda: mesh.state().processes, "the root runs")
    (before,) = mesh.state().processes
    keeper.kill()
    keeper.wait(DEADLINE_S)
    mesh.start("idle")
    (adopted,) = mesh.state().processes
    assert adopted.pid == before.pid
    os.kill(adopted.pid, signal.SIGKILL)
    until(lambda: [info.pid for info in mesh.state().processes] not in ([], [before.pid]), "a new root runs")


def test_an_interrupt_of_the_starters_group_reaches_no_child(mesh: Mesh) -> None:
    keeper = mesh.start()
    info = mesh.spawn("idle")
    mesh.facts("idle-1")
    assert os.getpgid(info.pid) == info.pid
    assert os.getpgid(keeper.pid) != os.getpgid(info.pid)
    os.killpg(os.getpgid(keeper.pid), signal.SIGINT)
    assert keeper.wait(DEADLINE_S) == 0
    events = [line for line in _journal(mesh) if line["event"] in ("terminating", "exited")]
    assert [(line["event"], line.get("signal")) for line in events] == [
        ("terminating", None),
        ("exited", signal.SIGTERM),
    ]


def test_shutdown_ends_everything_and_the_registry_last(mesh: Mesh) -> None:
    mesh.start("idle")
    for number in (1, 2, 3):
        mesh.spawn("parent", f"parent-{number}")
    mesh.spawn("stubborn")
    mesh.facts("stubborn-1")
    os.kill(mesh.spawn("frozen", argv=("sleep", "100")).pid, signal.SIGSTOP)
    until(lambda: all((mesh.data_dir / f"parent-{n}.child").exists() for n in (1, 2, 3)), "their children run")
    grandchildren = [int((mesh.data_dir / f"parent-{n}.child").read_text()) for n in (1, 2, 3)]
    pids = [info.pid for info in mesh.state().processes]
    assert len(pids) == 6
    began = time.monotonic()
    mesh.client.shutdown(deadline_s=0.5)
    assert 0.5 <= time.monotonic() - began < 20
    assert not [pid for pid in pids + grandchildren if alive(pid)]
    assert mesh.keepers[0].wait(DEADLINE_S) == 0
    exits = [line for line in _journal(mesh) if line["event"] == "exited"]
    assert exits[-1]["target"] == "idle"
    assert exits[-1]["instance_id"].startswith("idle-")
    assert {line["signal"] for line in exits if line["target"] == "stubborn"} == {signal.SIGKILL}
    paths = KeeperPaths(mesh.data_dir)
    assert not paths.socket.exists()
    assert not paths.record.exists()
    with pytest.raises(KeeperUnavailable, match="no keeper answers"):
        mesh.client.list()


def test_a_termination_ends_adopted_children_too(mesh: Mesh) -> None:
    keeper = mesh.start()
    info = mesh.spawn("idle")
    keeper.kill()
    keeper.wait(DEADLINE_S)
    again = mesh.start()
    again.terminate()
    assert again.wait(DEADLINE_S) == 0
    assert not alive(info.pid)


def test_what_cannot_be_recorded_is_not_started(mesh: Mesh) -> None:
    mesh.start()
    (KeeperPaths(mesh.data_dir).run_dir / "keeper.json.new").mkdir()
    with pytest.raises(KeeperRefused, match="cannot write .*keeper.json: Is a directory") as caught:
        mesh.spawn("idle")
    assert caught.value.code == "SPAWN_FAILED"
    until(lambda: not mesh.state().processes, "the child has ended")
    assert not (mesh.data_dir / "idle-1.json").exists()
    (exited,) = mesh.exits(1)
    assert exited.code == 70


def test_nothing_is_started_while_the_keeper_ends(mesh: Mesh) -> None:
    keeper = mesh.start()
    mesh.spawn("stubborn")
    mesh.facts("stubborn-1")
    keeper.terminate()
    until(lambda: any(line["event"] == "ending" for line in _journal(mesh)), "the end begins")
    with pytest.raises(KeeperRefused, match="nothing is started any more") as caught:
        mesh.spawn("idle")
    assert caught.value.code == "SHUTTING_DOWN"
    keeper.terminate()
    assert keeper.wait(DEADLINE_S) == 0


def test_any_executable_is_started_by_its_command_line(mesh: Mesh) -> None:
    mesh.start()
    log = mesh.data_dir / "own.log"
    command = ("sh", "-c", 'echo "$WORD"; exit 3')
    mesh.spawn("venue", argv=command, environment={"PATH": os.environ["PATH"], "WORD": "hello"}, log_path=str(log))
    (exited,) = mesh.exits(1)
    assert (exited.service, exited.code) == ("venue", 3)
    assert log.read_text() == "hello\n"


def test_a_program_that_does_not_exist_is_refused_with_its_name(mesh: Mesh) -> None:
    mesh.start()
    with pytest.raises(KeeperRefused, match="cannot execute /nowhere/venue: No such file") as caught:
        mesh.spawn("venue", argv=("/nowhere/venue",))
    assert caught.value.code == "SPAWN_FAILED"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"nonsense\n", "not a line of JSON"),
        (b"[]\n", "a request is an object"),
        (b'{"op":"fly"}\n', "op: 'fly'; known are spawn, signal, list, follow, beat, shutdown"),
        (b'{"op":"list","depth":1}\n', "list knows no field depth"),
        (b'{"op":"spawn","service":"../x","instance_id":"a"}\n', "service: '../x'"),
        (b'{"op":"spawn","service":"idle","instance_id":""}\n', "instance_id: ''"),
        (b'{"op":"spawn","service":"nope","instance_id":"a"}\n', "there is no service 'nope'; known: idle"),
        (b'{"op":"spawn","service":"idle","instance_id":"a","argv":"ls"}\n', "argv: 'ls'"),
        (b'{"op":"spawn","service":"idle","instance_id":"a","environment":{"A":1}}\n', "environment.A: 1"),
        (b'{"op":"spawn","service":"idle","instance_id":"a","log_path":"x.log"}\n', "log_path: 'x.log'"),
        (b'{"op":"signal","instance_id":"a","signal":99}\n', "signal: 99"),
        (b'{"op":"signal","instance_id":"a","signal":15}\n', "no process runs as a"),
        (b'{"op":"shutdown","deadline_s":-1}\n', "deadline_s: -1; seconds from 0 to 600"),
        (b'{"op":"follow","name":"X Y"}\n', "name: 'X Y'"),
    ],
)
def test_a_bad_request_is_named_and_the_keeper_works_on(mesh: Mesh, line: bytes, complaint: str) -> None:
    mesh.start()
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(DEADLINE_S)
        channel.connect(str(KeeperPaths(mesh.data_dir).socket))
        channel.sendall(line)
        answer = json.loads(channel.makefile("rb").readline())
    assert answer["ok"] is False
    assert complaint in answer["error"]
    assert mesh.state().processes == ()


def test_a_client_that_says_half_a_word_holds_nobody_up(mesh: Mesh) -> None:
    mesh.start()
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(str(KeeperPaths(mesh.data_dir).socket))
        channel.sendall(b'{"op":')
        mesh.spawn("idle")
        assert len(mesh.state().processes) == 1


def test_the_socket_belongs_to_its_user_alone(mesh: Mesh) -> None:
    mesh.start()
    paths = KeeperPaths(mesh.data_dir)
    assert stat.S_IMODE(paths.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(paths.run_dir.stat().st_mode) == 0o700


def test_a_data_folder_with_a_long_path_works_and_leaves_nothing_elsewhere(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path / ("long" * 30) / "data")
    try:
        mesh.start()
        place = KeeperPaths(mesh.data_dir).current_socket()
        assert place is not None
        assert len(str(place)) <= 100
        mesh.keepers[0].kill()
        mesh.keepers[0].wait(DEADLINE_S)
        mesh.start()
        assert not place.parent.exists()
        place = KeeperPaths(mesh.data_dir).current_socket()
        mesh.client.shutdown()
        assert place is not None
        assert not place.parent.exists()
        with pytest.raises(KeeperUnavailable, match="no keeper runs"):
            mesh.client.list()
    finally:
        mesh.end()


def test_two_meshes_run_side_by_side(tmp_path: Path) -> None:
    meshes = [Mesh(tmp_path / name) for name in ("one", "two")]
    try:
        for one in meshes:
            one.start("idle")
            one.spawn("parent")
        meshes[0].client.shutdown(deadline_s=1)
        assert len(meshes[1].state().processes) == 2
    finally:
        for one in meshes:
            one.end()


async def test_the_client_on_the_event_loop_does_the_same(mesh: Mesh) -> None:
    mesh.start()
    client = AsyncKeeperClient(mesh.data_dir)
    info = await client.spawn(SpawnRequest("idle", "idle-1"))
    mesh.pids.add(info.pid)
    assert (await client.list()).processes == (info,)
    exits = client.follow("loop")
    await client.signal("idle-1", signal.SIGTERM)
    assert (await anext(exits)).signal == signal.SIGTERM
    with pytest.raises(KeeperRefused, match="no process runs as idle-1"):
        await client.signal("idle-1", signal.SIGTERM)
    mesh.keepers[0].kill()
    with pytest.raises(KeeperUnavailable):
        await anext(exits)
    with pytest.raises(KeeperUnavailable, match="no keeper answers"):
        await client.list()


def _journal(mesh: Mesh) -> list[dict[str, Any]]:
    return [json.loads(line) for line in KeeperPaths(mesh.data_dir).log.read_text().splitlines()]


def _started(line: dict[str, Any]) -> float:
    return dt.datetime.fromisoformat(line["timestamp"]).timestamp()
