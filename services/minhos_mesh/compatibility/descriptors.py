"""Decides what a descriptor set from outside is worth: resolved as a whole or refused with one clear sentence."""

from __future__ import annotations

import graphlib
import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Final
from weakref import WeakValueDictionary

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError

from buf.validate import validate_pb2
from minhos_api.mesh.v1 import contract_options_pb2
from minhos_mesh.compatibility import limits
from minhos_mesh.compatibility.symbols import Symbols
from minhos_mesh.compatibility.violation import shown

OPTIONS: Final = (validate_pb2.DESCRIPTOR, contract_options_pb2.DESCRIPTOR)
"""Files whose options are read; they must be known to this process before a set is parsed."""


class DescriptorsInvalid(ValueError):
    """Expected: bytes that should be a descriptor set are none, or one that nothing can be built from."""

    def __init__(self, problem: str, *, seen: str = "", allowed: str = "") -> None:
        super().__init__(problem)
        self.field = "descriptor_set"
        self.seen = seen or problem
        self.allowed = allowed or "a serialized google.protobuf.FileDescriptorSet with everything that it imports"


class DescriptorsTooLarge(DescriptorsInvalid):
    """Expected: a descriptor set is larger than any that can be needed."""

    def __init__(self, what: str, seen: int, allowed: int, *, more: bool = False) -> None:
        many = f"more than {allowed}" if more else str(seen)
        super().__init__(
            f"the descriptor set has {many} {what}: allowed are {allowed}", seen=many, allowed=str(allowed)
        )
        self.limit = f"{what} of a descriptor set"


class ContractSet:
    """A descriptor set in which every name is resolved."""

    def __init__(self, digest: str, size: int, files: Mapping[str, descriptor_pb2.FileDescriptorProto]) -> None:
        """`files` by path, imports before those that import them, all of `size` bytes; see `resolve`."""
        self.digest = digest
        self.size = size
        self.files = files

    @cached_property
    def symbols(self) -> Symbols:
        """Everything that has a name."""
        return Symbols.of(self.files.values())

    @cached_property
    def encoded(self) -> Mapping[str, bytes]:
        """Each file as bytes; equal bytes are equal contracts."""
        return {name: file.SerializeToString(deterministic=True) for name, file in self.files.items()}

    def build_of(self, contract: str) -> str:
        """Short name of how one contract is built with all that it reaches; equal for equal descriptors."""
        if contract not in self.symbols.services:
            return ""
        names = self.closure([self.symbols.services[contract].file.name])
        joined = b"".join(self.encoded[name] for name in sorted(names))
        return hashlib.sha256(joined).hexdigest()[:12]

    def closure(self, names: Iterable[str]) -> tuple[str, ...]:
        """These files with all that they import, imports first."""
        waiting, seen = list(names), set[str]()
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting.extend(self.files[name].dependency)
        return tuple(name for name in self.files if name in seen)

    def part(self, names: Iterable[str]) -> bytes:
        """These files with all that they import as a serialized FileDescriptorSet."""
        files = [self.files[name] for name in self.closure(names)]
        return descriptor_pb2.FileDescriptorSet(file=files).SerializeToString(deterministic=True)

    @property
    def services(self) -> tuple[str, ...]:
        """Full names of all contracts of the set."""
        return tuple(sorted(self.symbols.services))


_KNOWN: WeakValueDictionary[str, ContractSet] = WeakValueDictionary()
"""Sets that somebody holds: a thousand instances of one build share one."""


def resolve(data: bytes) -> ContractSet:
    """The set that these bytes are. Raises DescriptorsInvalid or DescriptorsTooLarge; equal bytes give the same object."""
    if len(data) > limits.MAX_BYTES:
        raise DescriptorsTooLarge("bytes", len(data), limits.MAX_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    known = _KNOWN.get(digest)
    if known is None:
        known = _KNOWN[digest] = ContractSet(digest, len(data), MappingProxyType(_resolved(_parsed(data))))
    return known


def _parsed(data: bytes) -> descriptor_pb2.FileDescriptorSet:
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(data)
    except DecodeError:
        raise DescriptorsInvalid(
            f"{len(data)} bytes that are no google.protobuf.FileDescriptorSet", seen=f"{len(data)} bytes that are none"
        ) from None
    if not files.file:
        raise DescriptorsInvalid(f"{len(data)} bytes that hold no file", seen=f"{len(data)} bytes without a file")
    if len(files.file) > limits.MAX_FILES:
        raise DescriptorsTooLarge("files", len(files.file), limits.MAX_FILES)
    if (seen := limits.elements(files)) > limits.MAX_ELEMENTS:
        raise DescriptorsTooLarge("elements", seen, limits.MAX_ELEMENTS, more=True)
    return files


def _resolved(files: descriptor_pb2.FileDescriptorSet) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    by_name: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for file in files.file:
        if file.name in by_name:
            raise DescriptorsInvalid(f"the file {shown(file.name)} is in it twice")
        file.ClearField("source_code_info")
        by_name[file.name] = file
    for file in files.file:
        for imported in file.dependency:
            if imported not in by_name:
                raise DescriptorsInvalid(f"{shown(file.name)} imports {shown(imported)}, which is not in it")
    try:
        order = tuple(graphlib.TopologicalSorter({f.name: f.dependency for f in files.file}).static_order())
    except graphlib.CycleError as error:
        path = " -> ".join(shown(name) for name in error.args[1][:8])
        raise DescriptorsInvalid(f"its files import each other in a circle: {path}") from None
    _link(by_name, order)
    return {name: by_name[name] for name in order}


def _link(files: Mapping[str, descriptor_pb2.FileDescriptorProto], order: tuple[str, ...]) -> None:
    """Has protobuf itself build every file: names that are used twice or are nowhere are found here."""
    pool = descriptor_pool.DescriptorPool()
    for name in order:
        try:
            pool.AddSerializedFile(files[name].SerializeToString())
        except (TypeError, ValueError, KeyError) as error:
            why = str(error).removeprefix("Couldn't build proto file into descriptor pool: ")
            raise DescriptorsInvalid(f"{shown(name)} cannot be built: {shown(why)}") from None
