"""A service whose call ends when a file appears, run by the real host in a process of its own.

Usage: runtime_child.py DATA_DIR [KIND]; what happens in it is appended to `journal` in the data folder.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from minhos_api.state.v1 import state_manager_service_pb2 as pb
from minhos_api.state.v1.state_manager_service_pb2_grpc import StateManagerServiceServicer
from minhos_mesh.runtime import host
from minhos_mesh.runtime.context import ServiceContext, ServiceParts
from minhos_mesh.runtime.contracts import contract

CONTRACT = "minhos_api.state.v1.StateManagerService"


async def get_state(self: Any, _request: Any, _context: Any) -> pb.GetStateResponse:
    self.note("call began")
    while not (self.folder / "release").exists():
        await asyncio.sleep(0.005)
    self.note("call ended")
    return pb.GetStateResponse(state=pb.State(version=7))


async def watch_state(self: Any, _request: Any, _context: Any) -> AsyncIterator[pb.WatchStateResponse]:
    try:
        yield pb.WatchStateResponse(revision=1)
        await asyncio.Event().wait()
    finally:
        self.note("stream closed")


async def other(_self: Any, _request: Any, _context: Any) -> Any:
    raise AssertionError("not called")


@asynccontextmanager
async def build(context: ServiceContext) -> AsyncIterator[ServiceParts]:
    folder, kind = context.paths.data_dir, sys.argv[2] if len(sys.argv) > 2 else ""

    def note(text: str) -> None:
        with (folder / "journal").open("a", encoding="utf-8") as journal:
            journal.write(text + "\n")

    served: dict[str, Any] = dict.fromkeys(contract(CONTRACT).methods, other)
    served |= {"GetState": get_state, "WatchState": watch_state}
    if kind == "half":
        del served["GetPortfolio"]
    servicer = type("ChildServicer", (StateManagerServiceServicer,), served)()
    vars(servicer).update(folder=folder, note=note)

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            note("task ended")

    async def fail() -> None:
        raise LookupError("the task broke")

    async def start() -> None:
        note("start")
        context.tasks.start(background(), "background")
        if kind == "stuck":
            await asyncio.Event().wait()
        if kind == "broken":
            raise LookupError("the start broke")
        if kind == "task":
            context.tasks.start(fail(), "fragile")

    async def drain() -> None:
        note(f"drain, stopping {context.stopping.is_set()}")

    def bound(address: str) -> None:
        (folder / "address.new").write_text(address, encoding="utf-8")
        (folder / "address.new").replace(folder / "address")

    note("built")
    try:
        yield ServiceParts(servicers=[servicer], start=start, drain=drain, bound=bound)
    finally:
        note("closed")


def main() -> int:
    vars(host)["bootstrap_module"] = lambda _: "runtime_child"
    folder = Path(sys.argv[1])
    return host.run_service("state_manager", "state_manager-1", str(folder))


if __name__ == "__main__":
    sys.exit(main())
