"""Publishers that write down what they send and what they are answered; what is unanswered they send again under the same ids."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import grpc
from tests.faults.bus.history import Attempt, Content, History, Outcome

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
from minhos_api.registry.v1.registry_events_pb2 import ServiceStarted, ServiceStopped
from minhos_mesh.runtime.errors import read
from minhos_mesh.runtime.event_envelope import make_event, payload_of

LOST: Final = (grpc.RpcError, grpc.aio.BaseError, TimeoutError, asyncio.InvalidStateError)
ANSWER_S: Final = 3.0
AGAIN_S: Final = 0.1
COMMON: Final = ("common.0", "common.1")
NOTHING_STORED: Final = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS)


def content_of(event: event_pb2.Event) -> Content:
    """What an event tells."""
    note = getattr(payload_of(event), "service", "")
    return Content(event.event_id, event.type, event.subject, str(note))


@dataclass(slots=True)
class Batch:
    """Events that are sent together, with the places that their publisher gave them."""

    number: int
    events: list[event_pb2.Event]
    places: list[int]
    began: float = 0.0
    sent: bool = False


class Publisher(Protocol):
    """Publishes while it is let, until it is told to end and everything is answered."""

    name: str
    maker: Maker
    stub: Any

    async def run(self) -> None:
        """Publishes."""


@dataclass(slots=True)
class Maker:
    """Makes a publisher's batches, and writes down what came of them."""

    name: str
    seed: int
    history: History
    pause_s: float
    unanswered: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    ending: bool = False
    places: int = 0
    batches: int = 0
    padding: int = 0
    """Bytes of metadata that make the events larger."""
    acked: list[Batch] = field(default_factory=list)
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(f"{self.seed}-{self.name}")
        self.go_on.set()

    def make(self) -> Batch:
        """The next batch; now and then one that was acknowledged before."""
        self.batches += 1
        if self.acked and self.random.random() < 0.1:
            again = self.random.choice(self.acked)
            return Batch(self.batches, again.events, again.places)
        events, places = [], []
        for _ in range(self.random.randint(1, 6)):
            self.places += 1
            places.append(self.places)
            events.append(self._event(f"{self.name}-{self.places}"))
        return Batch(self.batches, events, places)

    def _event(self, note: str) -> event_pb2.Event:
        subject = self.random.choice((*COMMON, f"{self.name}.0", f"{self.name}.1"))
        kind = self.random.choice((ServiceStarted, ServiceStarted, ServiceStopped))
        payload = kind(service=note, instance_id="i")
        event = make_event(payload, subject=subject, source="tester", time_ns=1_790_000_000_000_000_000)
        if self.padding:
            event.metadata["padding"] = "x" * self.padding
        return event

    def note(self, batch: Batch, outcome: Outcome, sequences: Sequence[int] = (), code: str = "") -> None:
        """Writes down what came of a batch."""
        now = self.history.now()
        for index, (event, place) in enumerate(zip(batch.events, batch.places, strict=True)):
            sequence = sequences[index] if outcome is Outcome.ACKED else None
            self.history.attempts.append(
                Attempt(batch.began, now, self.name, place, content_of(event), outcome, sequence, code)
            )
        if outcome is Outcome.ACKED:
            self.acked = [*self.acked[-20:], batch]


class UnaryPublisher:
    """One call at a time; a call without an answer is made again until it has one."""

    def __init__(self, stub: Any, maker: Maker) -> None:
        self.name = maker.name
        self.maker = maker
        self.stub = stub

    async def run(self) -> None:
        """See Publisher."""
        maker = self.maker
        while not maker.ending:
            await maker.go_on.wait()
            batch = maker.make()
            maker.unanswered += 1
            while not await self._answered(batch):
                await asyncio.sleep(AGAIN_S)
            maker.unanswered -= 1
            if maker.random.random() < 0.05:
                await self._lie(batch)
            await asyncio.sleep(maker.pause_s)

    async def _answered(self, batch: Batch) -> bool:
        maker = self.maker
        batch.began = maker.history.now()
        try:
            response = await self.stub.Publish(pb.PublishRequest(events=batch.events), timeout=ANSWER_S)
        except grpc.aio.AioRpcError as error:
            refused = error.code() in NOTHING_STORED or read(error).reason == "ERROR_REASON_STORE_FULL"
            maker.note(batch, Outcome.REFUSED if refused else Outcome.UNKNOWN, code=error.code().name)
            return error.code() in NOTHING_STORED
        maker.note(batch, Outcome.ACKED, response.sequences)
        return True

    async def _lie(self, batch: Batch) -> None:
        """Tells something else under the id of an event that is stored; nothing of it may ever be seen."""
        other = ServiceStarted(service=f"lie about {self.name}", instance_id="i")
        lie = make_event(
            other,
            subject=batch.events[0].subject,
            source="tester",
            time_ns=1_790_000_000_000_000_000,
            event_id=batch.events[0].event_id,
        )
        await self._answered(Batch(0, [lie], [batch.places[0]]))


class StreamPublisher:
    """One stream with many batches under way; when it breaks, all that is unanswered goes again in order on the next one."""

    def __init__(self, stub: Any, maker: Maker, in_flight: int = 8) -> None:
        self.name = maker.name
        self.maker = maker
        self.stub = stub
        self._in_flight = in_flight
        self._open: dict[int, Batch] = {}

    async def run(self) -> None:
        """See Publisher."""
        while not self.maker.ending or self._open:
            call = self.stub.PublishStream()
            sender = asyncio.create_task(self._send(call))
            try:
                await self._receive(call)
            except LOST as error:
                code = error.code().name if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__
                self._note_lost(code)
            finally:
                sender.cancel()
                call.cancel()
                await asyncio.gather(sender, return_exceptions=True)
            await asyncio.sleep(AGAIN_S)

    async def _send(self, call: Any) -> None:
        maker = self.maker
        for batch in list(self._open.values()):
            await self._write(call, batch)
        while not maker.ending:
            await maker.go_on.wait()
            if len(self._open) < self._in_flight:
                batch = maker.make()
                self._open[batch.number] = batch
                maker.unanswered = len(self._open)
                await self._write(call, batch)
            await asyncio.sleep(maker.pause_s)
        await call.done_writing()

    async def _write(self, call: Any, batch: Batch) -> None:
        batch.began, batch.sent = self.maker.history.now(), True
        await call.write(pb.PublishStreamRequest(batch_id=batch.number, events=batch.events))

    async def _receive(self, call: Any) -> None:
        while True:
            async with asyncio.timeout(2 * ANSWER_S):
                response = await call.read()
            if response is grpc.aio.EOF:
                code = await call.code()
                if code is not grpc.StatusCode.OK:
                    self._note_lost(code.name)
                return
            batch = self._open.pop(response.batch_id, None)
            self.maker.unanswered = len(self._open)
            if batch is None:
                continue
            if response.refusals:
                self.maker.note(batch, Outcome.REFUSED, code=response.refusals[0].reason)
            else:
                self.maker.note(batch, Outcome.ACKED, response.sequences)

    def _note_lost(self, code: str) -> None:
        for batch in self._open.values():
            if batch.sent:
                self.maker.note(batch, Outcome.UNKNOWN, code=code)
            batch.sent = False
