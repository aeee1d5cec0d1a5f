"""What every service has in common and is loaded once, before any fork, so that all share its memory and its import time."""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

PREFORK_ENVIRONMENT: Final = {
    "GRPC_ENABLE_FORK_SUPPORT": "0",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
"""Set before the first import. gRPC's fork handlers expect a running gRPC and there is none; numpy's BLAS would start
a thread per core while it is imported, and a process with threads must not fork."""

_LIBRARIES: Final = (
    "asyncio",
    "sqlite3",
    "grpc",
    "grpc.aio",
    "grpc_channelz.v1.channelz",
    "grpc_health.v1.health",
    "grpc_reflection.v1alpha.reflection",
    "grpc_status.rpc_status",
    "numpy",
    "protovalidate",
    "structlog",
    "uvloop",
)
_CONTRACTS: Final = "minhos_api"
_RUNTIME: Final = "minhos_mesh.runtime"


class PreloadFailed(Exception):
    """Unexpected: a common part cannot be loaded, so no service could run either."""


def preload(bootstraps: Iterable[str]) -> int:
    """Imports everything that services share and readies the process for forking. Returns the number of modules.

    Raises PreloadFailed naming the module and the reason.
    """
    os.environ.update(PREFORK_ENVIRONMENT)
    gc.disable()
    names = [*_LIBRARIES, *_modules_of(_CONTRACTS), *_modules_of(_RUNTIME), *bootstraps]
    for name in names:
        _load(name)
    _warm_validation()
    ready_for_fork()
    return len(names)


def ready_for_fork() -> None:
    """Keeps the loaded objects out of the garbage collector's way and makes sure that no thread is there to be lost.

    Raises PreloadFailed when a loaded module has started a thread.
    """
    gc.freeze()
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise PreloadFailed(f"the preload left {threads - 1} threads behind; a process with threads must not fork")


def _load(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception as error:
        raise PreloadFailed(f"cannot load {name}: {type(error).__name__}: {error}") from error


def _modules_of(package: str) -> Iterator[str]:
    """The package and all modules below it, in the order of their names."""
    _load(package)
    module = importlib.import_module(package)
    yield package
    for found in sorted(pkgutil.walk_packages(module.__path__, f"{package}."), key=lambda item: item.name):
        yield found.name


def _warm_validation() -> None:
    """Compiles the rules of all messages once; the first call of a process takes 11 to 18 ms otherwise."""
    contracts = importlib.import_module(f"{_RUNTIME}.contracts")
    validation = importlib.import_module(f"{_RUNTIME}.validation")
    factory = importlib.import_module("google.protobuf.message_factory")
    kinds = [kind for file in contracts.load_all() for kind in file.message_types_by_name.values()]
    validation.warm([factory.GetMessageClass(kind)() for kind in kinds])
