"""Decides how the last known address of each service is kept in the run folder and when it may still be trusted."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from minhos_mesh.runtime.paths import MeshPaths


@dataclass(frozen=True, slots=True)
class Listed:
    """One process that served when it was written down."""

    service: str
    instance_id: str
    address: str
    contracts: tuple[str, ...]
    """Full names."""
    pid: int
    start_ticks: int
    """Start of the process in clock ticks since boot; with the pid it names one process and no other."""

    def runs(self) -> bool:
        """Whether that very process still runs, and not another that was given its number or its port later."""
        return process_runs(self.pid, self.start_ticks)


class LastListing:
    """The file `run/services.json` of one mesh, always written in one step."""

    def __init__(self, paths: MeshPaths) -> None:
        self._file = paths.run_dir / "services.json"

    def put(self, listed: Listed) -> None:
        """Writes one service down in the place of what was known of it; loss of power makes it moot."""
        known = self._read() | {listed.service: listed}
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps({"services": [asdict(each) for each in known.values()]}) + "\n", encoding="utf-8")
        new.replace(self._file)

    def find(self, service: str) -> Listed | None:
        """Where a service listened last; None when its process has ended since, or nothing is known."""
        found = self._read().get(service)
        return found if found is not None and found.runs() else None

    def _read(self) -> dict[str, Listed]:
        try:
            told = json.loads(self._file.read_text(encoding="utf-8"))["services"]
            return {each.service: each for each in map(_listed, told)}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def process_runs(pid: object, start_ticks: object) -> bool:
    """Whether the process with this number and this start runs."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    state, *rest = stat[stat.rindex(")") + 2 :].split()
    return state not in "ZXx" and int(rest[18]) == start_ticks


def _listed(value: dict[str, object]) -> Listed:
    told = {field.name: value[field.name] for field in fields(Listed)}
    contracts = told["contracts"]
    if not isinstance(contracts, list):
        raise TypeError("contracts is no list")
    return Listed(**{**told, "contracts": tuple(map(str, contracts))})  # type: ignore[arg-type] # read back as written
