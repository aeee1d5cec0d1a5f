"""What is loaded before a fork, so that services share its memory and its import time.

All of it before the first fork: whatever the keeper loads after a fork is written into pages that the services forked
until then share, and each of them is left with copies of its own (15 MB of the mesh; the start is not faster for it).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from minhos_mesh.runtime.memory import share_heaps, trimmer

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
_LARGEST_HOLE: Final = 65_536
"""Larger holes have been given back to the system as whole pages."""
_MADV_DONTNEED: Final = 4
_ARENAS: Final = 2
"""Heaps that a service's threads share in the GNU C library. One for each of gRPC's threads, as it would have them, each keep
something of the largest message that went through: 5 MB of the mesh, and nothing is faster for it."""


class PreloadFailed(Exception):
    """Unexpected: a part cannot be loaded, so what needs it could not run either."""


def preload_common(first: str, others: Iterable[str] = ()) -> None:
    """Loads what every service needs, the module of the first one and as many others as load; readies for forking.

    Raises PreloadFailed naming the module and the reason; not for `others`: `preload` tells who asks for one of them.
    """
    os.environ.update(PREFORK_ENVIRONMENT)
    share_heaps(_ARENAS)
    gc.disable()
    sys.modules[_UNUSED] = None  # type: ignore[assignment] # Python's own way to say that a module is not there
    try:
        for name in (*_LIBRARIES, *_modules_of(_CONTRACTS), f"{_RUNTIME}.host", first):
            _load(name)
        for name in others:
            with contextlib.suppress(PreloadFailed):
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
    """Sees to it that a child writes to few of the pages it shares, and that no thread is there to be lost.

    Raises PreloadFailed when a loaded module has started a thread.
    """
    sys._clear_type_cache()  # each entry that a child replaces writes the reference count of some name
    _fill_holes()
    gc.freeze()
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise PreloadFailed(f"the preload left {threads - 1} threads behind; a process with threads must not fork")
    _unmap_libraries()


def _fill_holes() -> None:
    """Allocates what is free between the loaded objects, for good, so that a child's own memory lies together.

    Otherwise each few bytes that a child puts into a hole cost it a copy of a page: 3 MB in every service. Does nothing
    where the C library is not the GNU one.
    """
    if (trim := trimmer()) is None:
        return
    libc = ctypes.CDLL(None)
    malloc, break_of = libc.malloc, libc.sbrk
    malloc.argtypes, malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
    break_of.argtypes, break_of.restype = (ctypes.c_ssize_t,), ctypes.c_void_p
    trim()
    end: int = break_of(0)
    for size in (*range(_LARGEST_HOLE, 1024, -1024), *range(1024, 16, -16)):
        while (malloc(size) or end) < end:
            pass


def _unmap_libraries() -> None:
    """Forgets the pages of libraries that only loading needed (17 MB); what is used again comes from the file.

    Not those that loading has changed: what it wrote there is in no file.
    """
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    begin = end = 0
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        first, _, rest = line.partition(" ")
        if not first.endswith(":"):
            access, *_, name = rest.split(maxsplit=4)
            area = first if access in {"r-xp", "r--p"} and name.startswith("/") else "0-0"
            begin, end = (int(address, 16) for address in area.split("-"))
        elif first == "Anonymous:" and end and rest.split() == ["0", "kB"]:
            libc.madvise(begin, end - begin, _MADV_DONTNEED)


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
