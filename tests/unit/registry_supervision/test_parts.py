from __future__ import annotations

import json
from pathlib import Path

from minhos_mesh.registry.readiness import ReadinessBoard
from minhos_mesh.registry.stores.sqlite import MIGRATIONS, SqliteStore
from minhos_mesh.registry.supervision_watch import describe
from minhos_mesh.registry.wishes import StoredWishes
from minhos_mesh.runtime.keeper_protocol import KeeperPaths, ProcessExit
from minhos_mesh.runtime.log_tail import LogTails
from minhos_mesh.runtime.storage import Database


def logs(data_dir: Path) -> KeeperPaths:
    paths = KeeperPaths(data_dir)
    paths.log_dir.mkdir(parents=True)
    return paths


async def test_the_tail_shows_log_and_crash_output_since_the_mark(tmp_path: Path) -> None:
    paths, tails = logs(tmp_path), LogTails(tmp_path)
    paths.service_log("bus").write_text('{"event":"of an earlier process"}\n')
    tails.mark("bus")
    line = {"timestamp": "t", "level": "error", "event": "port taken", "service": "bus", "port": 8888}
    with paths.service_log("bus").open("a") as file:
        file.write(json.dumps(line) + "\n")
    paths.service_stderr_log("bus").write_text("Traceback\n\nValueError: x\n")
    assert await tails.tail("bus") == ("ERROR port taken port=8888", "Traceback", "ValueError: x")


async def test_the_tail_keeps_the_last_lines_only(tmp_path: Path) -> None:
    paths, tails = logs(tmp_path), LogTails(tmp_path, lines=2)
    paths.service_stderr_log("bus").write_text("".join(f"{number}\n" for number in range(100_000)))
    assert await tails.tail("bus") == ("99998", "99999")


async def test_a_traceback_in_a_line_is_told_by_its_last_line(tmp_path: Path) -> None:
    paths = logs(tmp_path)
    paths.service_log("bus").write_text(json.dumps({"event": "failed", "exception": "Traceback\n  at x\nOSError: y"}))
    assert await LogTails(tmp_path).tail("bus") == ("failed exception=OSError: y",)


async def test_a_service_without_logs_has_an_empty_tail(tmp_path: Path) -> None:
    assert await LogTails(tmp_path).tail("bus") == ()


async def test_a_log_that_was_cut_is_read_from_its_start(tmp_path: Path) -> None:
    paths, tails = logs(tmp_path), LogTails(tmp_path)
    paths.service_stderr_log("bus").write_text("a long line of before\n")
    tails.mark("bus")
    paths.service_stderr_log("bus").write_text("new\n")
    assert await tails.tail("bus") == ("new",)


async def test_wishes_are_found_again_by_the_next_registry(tmp_path: Path) -> None:
    for expected in ({}, {"bus": True, "market": False}):
        async with Database(tmp_path / "registry.db", migrations=MIGRATIONS) as database:
            wishes = StoredWishes(SqliteStore(database))
            assert await wishes.load() == expected
            await wishes.keep({"bus": False, "market": False})
            await wishes.keep({"bus": True})


def test_the_board_tells_of_changes_only() -> None:
    board, heard = ReadinessBoard(), []
    forget = board.subscribe(lambda: heard.append(board.is_serving("bus")))
    board.set_serving("bus", "bus-1", True)
    board.set_serving("bus", "bus-1", True)
    assert board.is_serving("bus", "bus-1")
    assert not board.is_serving("bus", "bus-2")
    board.set_serving("bus", "bus-1", False)
    forget()
    board.set_serving("bus", "bus-2", True)
    assert heard == [True, False]


def test_an_end_is_described_for_people() -> None:
    def ended(code: int | None, number: int | None) -> str:
        return describe(ProcessExit(1, "bus", "bus-1", 17, code, number, 0, 0.0))

    assert ended(1, None) == "ended with code 1"
    assert ended(None, 9) == "was ended by SIGKILL"
    assert ended(None, 40) == "was ended by signal 40"
    assert ended(None, None) == "ended while nobody watched"
