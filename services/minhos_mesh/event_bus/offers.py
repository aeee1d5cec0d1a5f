"""How the registry is asked which event types attached instances brought, each set of descriptors once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import grpc

from minhos_api.registry.v1 import contract_service_pb2 as pb
from minhos_mesh.compatibility.payloads import EventDefinition
from minhos_mesh.event_bus.domain.errors import TypesUnreachable

_DEADLINE_S: Final = 1.5
_MOST_KNOWN: Final = 4_096


@dataclass(frozen=True, slots=True)
class Offer:
    """The event types of one build of one service."""

    build: str
    service: str
    events: tuple[EventDefinition, ...]
    files: bytes


class Offers:
    """Asks ContractService; remembers the descriptors of builds that are attached."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub
        self._files: dict[str, bytes] = {}

    async def ask(self) -> list[Offer]:
        """What is offered now, one for each service and build. Raises TypesUnreachable."""
        while True:
            answer = await self._answer()
            self._files = {offer.build: offer.descriptor_set or self._files.get(offer.build, b"") for offer in answer}
            came = any(offer.descriptor_set for offer in answer)
            if not came or all(self._files.values()):
                break
        return [
            Offer(offer.build, service, _events(offer), self._files[offer.build])
            for offer in answer
            if self._files[offer.build]
            for service in sorted({instance.partition("/")[0] for instance in offer.instances})
        ]

    async def _answer(self) -> list[pb.OfferedEvents]:
        known = [build for build, files in self._files.items() if files][:_MOST_KNOWN]
        try:
            answer = await self._stub.ListOfferedEvents(
                pb.ListOfferedEventsRequest(known_builds=known), timeout=_DEADLINE_S
            )
        except grpc.RpcError as error:
            code = error.code().name if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__
            raise TypesUnreachable(code) from None
        return list(answer.offers)


def _events(offer: pb.OfferedEvents) -> tuple[EventDefinition, ...]:
    return tuple(EventDefinition(each.type, each.version, each.payload) for each in offer.events)
