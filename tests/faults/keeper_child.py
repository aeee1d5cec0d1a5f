"""A keeper whose services are tiny: started by the tests of the keeper with a data folder and, optionally, a root service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from minhos_mesh.node.command import run
from minhos_mesh.node.keeper import Entry, KeeperOptions
from minhos_mesh.node.preload import PreloadFailed

LIFE_S = 120.0


def service(name: str, instance_id: str, data_dir: str, config_path: str | None) -> int:
    """What a forked test service does; its behaviour is its name."""
    facts = {
        "pid": os.getpid(),
        "session": os.getsid(0),
        "descriptors": sorted(int(item.name) for item in Path("/proc/self/fd").iterdir() if item.exists()),
        "environment": dict(os.environ),
        "config": config_path,
        "blocked": sorted(int(item) for item in signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "comm": Path("/proc/self/comm").read_text().strip(),
    }
    path = Path(data_dir) / f"{instance_id}.json"
    path.with_suffix(".new").write_text(json.dumps(facts))
    path.with_suffix(".new").replace(path)
    if name == "crash":
        raise RuntimeError("boom")
    if name == "quit":
        return 7
    if name == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if name == "parent":
        child = subprocess.Popen(["sleep", str(LIFE_S)])
        path.with_suffix(".child").write_text(str(child.pid))
    time.sleep(LIFE_S)
    return 0


def load() -> Entry:
    """What the test keeper preloads: nothing."""
    return service


def load_nothing() -> Entry:
    """A preload that fails."""
    raise PreloadFailed("cannot load minhos_mesh.gone: ModuleNotFoundError: No module named 'minhos_mesh.gone'")


def main() -> int:
    data_dir, root = Path(sys.argv[1]), sys.argv[2] or None
    names = dict.fromkeys(("idle", "crash", "quit", "stubborn", "parent"))
    names["gone"] = "minhos_mesh.gone"
    failing = root == "broken"
    return run(KeeperOptions(data_dir, None, names, None if failing else root, load_nothing if failing else load))


if __name__ == "__main__":
    raise SystemExit(main())
