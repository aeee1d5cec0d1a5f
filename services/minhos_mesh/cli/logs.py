"""Shows the log of a service, and what it logs while it is looked at."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from minhos_mesh.cli import show
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.runtime.catalogue import service_names
from minhos_mesh.runtime.config import ConfigError, load_saved
from minhos_mesh.runtime.paths import MeshPaths

_LOG_POLL_S: Final = 0.2
_SAID: Final = ".stderr"
"""Ends the name of the log that holds what a process printed; a program that has no log of its own has this one."""
_LEVEL_STYLES: Final = {"error": "bold red", "critical": "bold red", "warning": "yellow", "debug": "dim"}


async def logs(paths: MeshPaths, service: str, lines: int, *, follow: bool, as_json: bool) -> None:
    """The last lines of a service's log, and what follows."""
    known = _logging(paths)
    if service not in known:
        raise CommandFailed(f"there is no service {service!r}: known are {', '.join(known)}")
    path = paths.log_file(service)
    if not path.exists():
        path = paths.log_file(f"{service}{_SAID}")
    if not path.exists():
        raise CommandFailed(f"{service} has not logged anything in {paths.data_dir} yet")
    position = 0
    for line in _last(path, lines):
        _print_log(line, as_json=as_json)
    position = path.stat().st_size
    while follow:
        await asyncio.sleep(_LOG_POLL_S)
        new, position = _since(path, position)
        for line in new:
            _print_log(line, as_json=as_json)


def _logging(paths: MeshPaths) -> tuple[str, ...]:
    """Who may have a log: the keeper, the services, programs of one's own, and whoever has one."""
    own: list[str] = []
    if paths.config_file.exists():
        with contextlib.suppress(
            ConfigError
        ):  # the file of a mesh that could not start; its logs are shown all the more
            own = sorted(load_saved(paths.config_file).services)
    files = sorted(file.stem.removesuffix(_SAID) for file in paths.log_dir.glob("*.log"))
    return tuple(dict.fromkeys(("keeper", *service_names(), *own, *files)))


def _print_log(line: str, *, as_json: bool) -> None:
    if as_json:
        print(line, flush=True)
        return
    text = log_line(line)
    style = next((style for level, style in _LEVEL_STYLES.items() if f"  {level}" in text[:24]), "")
    show.out.print(text, style=style, markup=False)


def log_line(line: str) -> str:
    """One line of JSON for people; anything else as it is."""
    try:
        entry: dict[str, Any] = json.loads(line)
        at = datetime.fromisoformat(entry.pop("timestamp")).astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]
        level, event = entry.pop("level"), entry.pop("event")
    except (ValueError, KeyError, AttributeError, TypeError):
        return line
    rest = " ".join(f"{key}={value}" for key, value in entry.items() if key not in ("service", "instance", "exception"))
    trace = f"\n{entry['exception']}" if "exception" in entry else ""
    return f"{at}  {level:<8} {event:<24} {rest}{trace}"


def _last(path: Path, count: int) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:] if count else []


def _since(path: Path, position: int) -> tuple[list[str], int]:
    size = path.stat().st_size
    if size < position:
        position = 0
    with path.open("rb") as file:
        file.seek(position)
        raw = file.read()
    whole = raw[: raw.rfind(b"\n") + 1]
    return whole.decode("utf-8", errors="replace").splitlines(), position + len(whole)
