from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from minhos_mesh.node import identity, record
from minhos_mesh.runtime.keeper_protocol import KeeperPaths, ProcessExit, ProcessInfo

INFO = ProcessInfo("bus", "bus-1", 17, 1234, 1_000, "/log", root=True)
EXIT = ProcessExit(3, "bus", "bus-0", 16, None, 9, 999, 1.5)


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    kept = record.KeeperRecord(sequence=3, socket="/run/x.sock", exits=[EXIT], heard={"supervisor": 2})
    record.save(tmp_path / "keeper.json", kept, [INFO])
    assert record.load(tmp_path / "keeper.json") == replace(kept, processes=[INFO])
    assert [item.name for item in tmp_path.iterdir()] == ["keeper.json"]


def test_without_a_record_there_is_nothing_to_adopt(tmp_path: Path) -> None:
    assert record.load(tmp_path / "keeper.json") == record.KeeperRecord()


def test_processes_of_another_boot_are_not_adopted(tmp_path: Path) -> None:
    path = tmp_path / "keeper.json"
    record.save(path, record.KeeperRecord(sequence=3, exits=[EXIT]), [INFO])
    path.write_text(path.read_text().replace(identity.boot_id(), "another"))
    assert record.load(path) == record.KeeperRecord(sequence=3)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 99}', '{"version": 1}'])
def test_a_record_that_cannot_be_read_is_refused_and_not_guessed(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keeper.json"
    path.write_text(content)
    with pytest.raises(record.RecordUnreadable, match="end the processes of this mesh by hand"):
        record.load(path)


def test_a_record_without_a_field_names_it(tmp_path: Path) -> None:
    path = tmp_path / "keeper.json"
    record.save(path, record.KeeperRecord(), [INFO])
    value = json.loads(path.read_text())
    del value["processes"][0]["pid"]
    path.write_text(json.dumps(value))
    with pytest.raises(record.RecordUnreadable, match="ProcessInfo: without pid"):
        record.load(path)


def test_the_lock_names_its_holder(tmp_path: Path) -> None:
    lock = record.KeeperLock(tmp_path / "lock", tmp_path)
    with pytest.raises(record.KeeperAlreadyRunning, match=f"process {os.getpid()}"):
        record.KeeperLock(tmp_path / "lock", tmp_path)
    lock.close()
    record.KeeperLock(tmp_path / "lock", tmp_path).close()


def test_a_process_is_itself_only_with_its_start_time() -> None:
    ticks = identity.start_ticks(os.getpid())
    assert ticks is not None
    handle = identity.ProcessHandle.take(os.getpid(), ticks)
    assert handle is not None
    assert handle.send(0)
    handle.close()
    assert identity.ProcessHandle.take(os.getpid(), ticks + 1) is None


def test_a_pid_of_nobody_has_no_start_time() -> None:
    nobody = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    assert identity.start_ticks(nobody) is None


def test_a_process_that_has_ended_and_is_not_reaped_counts_as_ended() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert identity.start_ticks(pid) is None
    os.waitpid(pid, 0)


def test_a_socket_path_that_linux_takes_is_used_as_it_is() -> None:
    assert KeeperPaths(Path("/data")).current_socket() == Path("/data/run/keeper.sock")


def test_a_long_socket_path_is_looked_up_in_the_record(tmp_path: Path) -> None:
    paths = KeeperPaths(tmp_path / ("x" * 100))
    assert paths.current_socket() is None
    paths.run_dir.mkdir(parents=True)
    record.save(paths.record, record.KeeperRecord(socket="/tmp/minhos-1/keeper.sock"), [])
    assert paths.current_socket() == Path("/tmp/minhos-1/keeper.sock")
    paths.record.write_text("[]")
    assert paths.current_socket() is None
