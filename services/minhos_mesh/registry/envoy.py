"""Decides how Envoy's xDS messages are made: from one descriptor-set file in a private pool, with no generated modules.

The private pool keeps these descriptors apart from every other protobuf package in the process, and the field values
are given as plain nested dictionaries in the names of the Envoy API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

TYPE_PREFIX = "type.googleapis.com/"
DEFAULT_DESCRIPTOR_SET = Path(__file__).with_name("envoy.binpb")

ADS_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
ADS_METHOD = "StreamAggregatedResources"


class EnvoyDescriptorsUnreadable(Exception):
    """The descriptor-set file is missing or is no descriptor set; the registry cannot serve xDS without it."""


@dataclass(frozen=True, slots=True)
class PackedResource:
    """One xDS resource as it goes onto the wire: the parts of a `google.protobuf.Any`."""

    type_url: str
    value: bytes


class EnvoyMessages:
    """The message classes of the xDS API, looked up by full name."""

    def __init__(self, descriptor_set: bytes) -> None:
        try:
            files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
        except DecodeError as error:
            raise EnvoyDescriptorsUnreadable(f"not a descriptor set: {error}") from error
        self._pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            self._pool.Add(file)
        self._classes: dict[str, type[Message]] = {}

    @classmethod
    def from_file(cls, path: Path = DEFAULT_DESCRIPTOR_SET) -> EnvoyMessages:
        """Loads `path`; raises EnvoyDescriptorsUnreadable that names it when it cannot be read."""
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise EnvoyDescriptorsUnreadable(
                f"cannot read the Envoy descriptors {path}: {error.strerror}; run scripts/generate"
            ) from error

    def message_class(self, full_name: str) -> type[Message]:
        """The class of one message, for example `envoy.config.cluster.v3.Cluster`; KeyError when it is not there."""
        known = self._classes.get(full_name)
        if known is None:
            known = message_factory.GetMessageClass(self._pool.FindMessageTypeByName(full_name))
            self._classes[full_name] = known
        return known

    def pack(self, full_name: str, fields: Mapping[str, Any]) -> PackedResource:
        """Builds a message from nested dictionaries and serialises it deterministically, so equal means equal bytes."""
        message = self.message_class(full_name)(**fields)
        return PackedResource(TYPE_PREFIX + full_name, message.SerializeToString(deterministic=True))

    @cached_property
    def discovery_request(self) -> type[Message]:
        """The request of the aggregated discovery stream."""
        return self.message_class("envoy.service.discovery.v3.DiscoveryRequest")

    @cached_property
    def discovery_response(self) -> type[Message]:
        """The response of the aggregated discovery stream."""
        return self.message_class("envoy.service.discovery.v3.DiscoveryResponse")
