"""What is loaded before a fork, so that services share its memory and its import time.

First what all have in common, so that the registry can begin; then, while nothing else is to be done or at the latest
before the fork that needs it, the module of each service.
"""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterator
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
    "hashlib",
    "protovalidate",
    "structlog",
    "uvloop",
)
_UNUSED: Final = "rich"
"""structlog loads it for coloured tracebacks on a terminal, which no forked service has; without it 70 ms are saved."""
_CONTRACTS: Final = "minhos_api"
_RUNTIME: Final = "minhos_mesh.runtime"


class PreloadFailed(Exception):
    """Unexpected: a part cannot be loaded, so what needs it could not run either."""


def preload_common(first: str) -> None:
    """Loads what every service needs, and the module of the first one, and readies the process for forking.

    Raises PreloadFailed naming the module and the reason.
    """
    os.environ.update(PREFORK_ENVIRONMENT)
    gc.disable()
    sys.modules[_UNUSED] = None  # type: ignore[assignment] # Python's own way to say that a module is not there
    try:
        for name in (*_LIBRARIES, *_modules_of(_CONTRACTS), f"{_RUNTIME}.host", first):
            _load(name)
    finally:
        del sys.modules[_UNUSED]
    _warm_validation()
    _ready_for_fork()


def preload(module: str) -> None:
    """Loads one more module for the services forked from now on. Raises PreloadFailed naming it and the reason."""
    if module not in sys.modules:
        _load(module)
        _ready_for_fork()


def _ready_for_fork() -> None:
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
