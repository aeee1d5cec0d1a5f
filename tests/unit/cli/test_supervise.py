"""`minhos restart registry` in the moment in which the keeper has none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from minhos_mesh.cli import start, supervise
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.runtime.keeper_protocol import KeeperState, ProcessInfo
from minhos_mesh.runtime.paths import MeshPaths

REGISTRY = ProcessInfo("registry", "registry-1", 4_711, 1, 1, "registry.log", root=True)
NONE = KeeperState(pid=1, data_dir="mesh", processes=(), root=None)


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answers(paths: MeshPaths) -> str:
        return "127.0.0.1:1"

    monkeypatch.setattr(start, "registry_ready", answers)


async def test_a_registry_between_two_lives_is_waited_for(
    ready: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states: Iterator[KeeperState] = iter([NONE, NONE])
    running = KeeperState(pid=1, data_dir="mesh", processes=(REGISTRY,), root=None)
    monkeypatch.setattr(supervise, "keeper_state", lambda _folder: next(states, running))
    await supervise.restart_service(MeshPaths(tmp_path), "registry", as_json=False)
    said = capsys.readouterr().out
    assert "it has just ended, the keeper starts it again" in said
    assert "serves (process 4711)" in said.splitlines()[-1]


async def test_without_a_keeper_nothing_is_restarted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(supervise, "keeper_state", lambda _folder: None)
    with pytest.raises(CommandFailed, match="no keeper runs the registry"):
        await supervise.restart_service(MeshPaths(tmp_path), "registry", as_json=False)
