"""Shows what each service does and uses, renewed every second: `top`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import grpc
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from minhos_mesh.cli import seen, show
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.mesh import Link, connected
from minhos_mesh.cli.seen import SeenInstance, SeenService
from minhos_mesh.runtime.paths import MeshPaths

REFRESH_S: Final = 1.0
_ENDS: Final = (b"q", b"Q", b"\x03", b"\x04", b"")
"""What is typed to end it: q, Ctrl-C and Ctrl-D where the terminal hands them on, and the end of the input."""
_ESCAPE: Final = b"\x1b"
"""Ends it too when it comes alone; arrows and their like begin with it."""
_NUMBERS: Final = ("CALLS", "CPU", "PSS", "FILES", "THREADS", "ERRORS", "RESTARTS", "UPTIME")
_ORDERS: Final[Mapping[str, Callable[[SeenService], tuple[float, str]]]] = {
    "name": lambda service: (0.0, service.name),
    "cpu": lambda service: (-(service.cpu_percent or 0.0), service.name),
    "memory": lambda service: (-(service.memory_bytes or 0), service.name),
    "calls": lambda service: (-_calls(service.instances), service.name),
}


async def top(paths: MeshPaths, *, once: bool, sort: str) -> None:
    """One frame, or frames until a key ends it; a place that is no terminal is given one frame. Raises CommandFailed."""
    if sort not in _ORDERS:
        raise CommandFailed(f"--sort is {sort!r}: allowed are {', '.join(_ORDERS)}")
    if once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        async with connected(paths) as link:
            show.out.print(await _frame(link, sort), soft_wrap=False)
        return
    ended = asyncio.Event()
    async with connected(paths):
        pass  # a mesh that does not run is said before the screen is taken
    with _keys(ended.set):
        await _renew(paths, sort, ended)


async def _renew(paths: MeshPaths, sort: str, ended: asyncio.Event) -> None:
    console = Console(highlight=False)  # unlike the one for answers it wraps long lines
    with Live(Text(""), console=console, screen=True, auto_refresh=False) as live:
        while not ended.is_set():
            try:
                async with connected(paths) as link:
                    while not ended.is_set():
                        live.update(Group(Text("q ends", style="dim"), await _frame(link, sort)), refresh=True)
                        await _pause(ended)
            except (grpc.aio.AioRpcError, CommandFailed) as error:
                told = str(error)
                if isinstance(error, grpc.aio.AioRpcError):
                    told = f"the registry does not answer: {error.details()}"
                live.update(Text(f"{told}\nq ends", style="yellow"), refresh=True)
                await _pause(ended)


async def _pause(ended: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(REFRESH_S):
            await ended.wait()


async def _frame(link: Link, sort: str) -> RenderableType:
    listed, health = await asyncio.gather(link.services(), link.health())
    return frame(seen.join(listed, health), sort, datetime.now(UTC), show.out.width)


def frame(services: Sequence[SeenService], sort: str, now: datetime, width: int) -> RenderableType:
    """One picture of the mesh: how it is in all, each service, and what is wrong."""
    columns: Sequence[str] = ("SERVICE", "STATE", *_NUMBERS)
    rows = [row for service in sorted(services, key=_ORDERS[sort]) for row in _rows(service, now)]
    columns, rows = _fitting(columns, rows, width)
    parts: list[RenderableType] = [_heading(services, now), Text(""), show.table(columns, rows, right=_NUMBERS)]
    if (faults := seen.faults(services)) is not None:
        parts += [Text(""), faults]
    return Group(*parts)


def _heading(services: Sequence[SeenService], now: datetime) -> Text:
    states = Counter(service.state for service in services)
    cpu = seen.total(service.cpu_percent for service in services)
    memory = seen.total(service.memory_bytes for service in services)
    used = f"CPU {show.percent(cpu)}  PSS {show.size(None if memory is None else int(memory))}"
    told = [Text(f"{count} {state}", show.COLOURS.get(state, "")) for state, count in states.most_common()]
    return Text.assemble(f"{now:%H:%M:%S} UTC  {len(services)} services  {used}\n", Text(", ").join(told))


def _rows(service: SeenService, now: datetime) -> Iterator[tuple[str | Text, ...]]:
    """The service, and each of its instances where there are several."""
    uptime = service.uptime(now.timestamp())
    state = show.state_text(service.state)
    yield (service.name, state, *_values(service.instances), str(service.listed.restarts), uptime)
    if len(service.instances) > 1:
        for instance in service.instances:
            uptime = instance.uptime(now.timestamp())
            yield (instance.name, instance.state, *_values((instance,)), "", uptime)


def _values(instances: Sequence[SeenInstance]) -> tuple[str, ...]:
    if not instances:
        return ("-",) * 6
    return (
        str(_calls(instances)),
        show.percent(seen.total(instance.cpu_percent for instance in instances)),
        show.size(seen.memory_of(instances)),
        _count(seen.total(show.optional(instance.use, "open_files") for instance in instances)),
        _count(seen.total(show.optional(instance.use, "threads") for instance in instances)),
        str(sum(instance.health.internal_errors for instance in instances)),
    )


def _calls(instances: Sequence[SeenInstance]) -> int:
    return sum(instance.health.calls_in_flight for instance in instances)


def _count(value: float | None) -> str:
    return "-" if value is None else str(int(value))


def _fitting(
    columns: Sequence[str], rows: list[tuple[str | Text, ...]], width: int
) -> tuple[Sequence[str], list[tuple[str | Text, ...]]]:
    """Without the last columns, where the terminal is too narrow for them."""
    while len(columns) > 6:
        widths = [max(len(columns[place]), *(len(row[place]) for row in rows), 0) for place in range(len(columns))]
        if sum(widths) + 2 * (len(widths) - 1) <= width:
            break
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return columns, rows


@contextlib.contextmanager
def _keys(end: Callable[[], None]) -> Iterator[None]:
    """Reads single keys without showing them, and takes Ctrl-C for one; the terminal is as before afterwards."""
    descriptor, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(descriptor)

    def pressed() -> None:
        typed = os.read(descriptor, 16)
        if typed[:1] in _ENDS or typed == _ESCAPE:
            end()

    tty.setcbreak(descriptor, termios.TCSADRAIN)  # what was typed while it was loading still counts
    loop.add_reader(descriptor, pressed)
    # As a cancellation it would be lost where a call ends with it as an error of its own.
    loop.add_signal_handler(signal.SIGINT, end)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
