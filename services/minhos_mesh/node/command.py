"""How a keeper is started from a command line, and what it says when it cannot start."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

from minhos_mesh.node.fork import name_process
from minhos_mesh.node.keeper import Entry, Keeper, KeeperOptions
from minhos_mesh.node.preload import PreloadFailed, preload_common
from minhos_mesh.node.record import KeeperAlreadyRunning, RecordUnreadable
from minhos_mesh.runtime import catalogue

EXIT_USAGE: Final = 2
EXIT_PRELOAD: Final = 3
EXIT_ALREADY_RUNNING: Final = 4

ROOT_SILENCE_S: Final = 10.0
"""How long a registry that was taken over may be silent at first; then its own `liveness_deadline_s` counts."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a keeper with all services of this program; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m minhos_mesh.node.keeper", description="Keeps the processes of one mesh."
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="folder that holds all data of the mesh")
    parser.add_argument("--config", type=Path, help="configuration file (minhos.toml)")
    parser.add_argument("--held", action="store_true", help="load, then begin when a line comes on standard input")
    given = parser.parse_args(arguments)
    preload = load_common
    if given.held:
        try:
            entry = load_common()
        except PreloadFailed as error:
            return _complain(str(error), EXIT_PRELOAD)
        if not _released():
            return 0
        preload = lambda: entry  # noqa: E731 - what was loaded already
    options = KeeperOptions(
        data_dir=given.data_dir.expanduser().absolute(),
        config_path=None if given.config is None else given.config.expanduser().absolute(),
        services={service: catalogue.bootstrap_module(service) for service in catalogue.service_names()},
        root=catalogue.REGISTRY,
        preload=preload,
        root_silence_s=ROOT_SILENCE_S,
    )
    return run(options)


def run(options: KeeperOptions) -> int:
    """Runs a keeper and turns what keeps it from starting into one line and an exit code."""
    close_inherited_descriptors()
    name_process("minhos-keeper")
    try:
        return Keeper(options).run()
    except KeeperAlreadyRunning as error:
        return _complain(str(error), EXIT_ALREADY_RUNNING)
    except PreloadFailed as error:
        return _complain(str(error), EXIT_PRELOAD)
    except (RecordUnreadable, OSError) as error:
        return _complain(str(error), EXIT_USAGE)


def load_common() -> Entry:
    """Loads what all services share and returns what runs one. Raises PreloadFailed."""
    modules = map(catalogue.bootstrap_module, catalogue.service_names())
    preload_common(catalogue.bootstrap_module(catalogue.REGISTRY), modules)
    host = importlib.import_module("minhos_mesh.runtime.host")
    return cast("Entry", host.run_service)


def _released() -> bool:
    """Waits for the word to begin. False when the starter went away or thought better of it: nothing was touched yet."""
    word = sys.stdin.readline()
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 0)
    return bool(word.strip())


def close_inherited_descriptors() -> None:
    """Gives back what the starter of the keeper left open, so that no service holds it for days."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))


def _complain(message: str, code: int) -> int:
    print(f"keeper: {message}", file=sys.stderr)
    return code
