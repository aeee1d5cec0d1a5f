"""Readers that write down what comes to them: members of durable consumers that fail, vanish and leave, and readers that only listen."""

from __future__ import annotations

import asyncio
import itertools
import random
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from tests.faults.bus.history import Ack, Delivery, History, Kept, Left, Nack, Opened, Told
from tests.faults.bus.publishing import AGAIN_S, LOST, content_of

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2

_sessions = itertools.count(1)
SILENCE_S: Final = 12.0
CREDIT: Final = 64


def kept_of(event: event_pb2.Event) -> Kept:
    """An event as a reader sees it."""
    return Kept(event.sequence, content_of(event), event.store_time.seconds * 10**9 + event.store_time.nanos)


async def answer(call: Any) -> Any:
    """The next message, heartbeats too. Raises what ended the call; TimeoutError after a long silence."""
    async with asyncio.timeout(SILENCE_S):
        response = await call.read()
    if response is grpc.aio.EOF:
        raise grpc.aio.AioRpcError(await call.code(), await call.initial_metadata(), await call.trailing_metadata())
    return response


@dataclass(frozen=True, slots=True)
class Ways:
    """How a member behaves: how often it fails at an event, vanishes with what it holds, and leaves in order."""

    fails: float = 0.0
    poison: int = 0
    """One event of so many fails at every attempt; 0 for none."""
    vanishes: float = 0.0
    leaves: float = 0.0
    works_s: float = 0.0


class Member:
    """One member of a durable consumer, again and again connected."""

    def __init__(self, stub: Any, history: History, consumer: str, name: str, ways: Ways, seed: int) -> None:
        self.consumer, self.name, self.ways = consumer, name, ways
        self.calm = False
        """Whether it only acknowledges, so that everything settles; what is poison stays it."""
        self._stub = stub
        self._history = history
        self._random = random.Random(f"{seed}-{consumer}-{name}")
        self._leaving_at = 0.0

    async def run(self) -> None:
        """Reads until cancelled."""
        while True:
            call = self._stub.Subscribe()
            session, clean = next(_sessions), False
            try:
                clean = await self._read(call, session)
            except LOST:
                clean = False
            finally:
                call.cancel()
                at = self._leaving_at or self._history.now()
                self._history.left.append(Left(at, self.consumer, session, clean))
                self._leaving_at = 0.0
            await asyncio.sleep(AGAIN_S)

    async def _read(self, call: Any, session: int) -> bool:
        rules = self._history.consumers[self.consumer]
        durable = pb.DurableReader(name=self.consumer, member=self.name, max_attempts=rules.max_attempts)
        start = pb.SubscribeStart(beginning=True)
        opening = pb.SubscribeOpen(types=rules.types, credit=CREDIT, start=start, durable=durable)
        await call.write(pb.SubscribeRequest(open=opening))
        while True:
            response = await answer(call)
            kind = response.WhichOneof("message")
            if kind == "gap":
                self._note_gap(response.gap, session)
            elif kind == "delivery":
                items = list(response.delivery.events)
                self._note(items, session)
                if self.ways.works_s:
                    await asyncio.sleep(self._random.random() * self.ways.works_s)
                if not self.calm and self._random.random() < self.ways.vanishes:
                    return False
                await self._settle(call, items, session)
                if not self.calm and self._random.random() < self.ways.leaves:
                    self._leaving_at = self._history.now()
                    await call.done_writing()
                    return await self._farewell(call, session)
                await call.write(pb.SubscribeRequest(credit=pb.SubscribeCredit(count=len(items))))

    async def _farewell(self, call: Any, session: int) -> bool:
        """Settles nothing more; true when the bus has said goodbye too."""
        while True:
            async with asyncio.timeout(SILENCE_S):
                response = await call.read()
            if response is grpc.aio.EOF:
                return bool(await call.code() is grpc.StatusCode.OK)
            if response.WhichOneof("message") == "delivery":
                self._note(response.delivery.events, session)

    async def _settle(self, call: Any, items: list[Any], session: int) -> None:
        """Acknowledges, and fails at some: then it leaves alone what came behind it of the same subject, which comes again."""
        now = self._history.now
        failed: set[str] = set()
        good: list[int] = []
        for item in items:
            subject, sequence = item.event.subject, item.event.sequence
            if subject in failed:
                continue
            if self._fails(item.event.event_id):
                failed.add(subject)
                error = f"{self.name} fails in session {session} at attempt {item.attempt}"
                self._history.nacks.append(Nack(now(), self.consumer, session, sequence, subject, error))
                await call.write(pb.SubscribeRequest(nack=pb.SubscribeNack(sequence=sequence, error=error)))
            else:
                good.append(sequence)
        if good:
            self._history.acks += [Ack(now(), self.consumer, session, sequence) for sequence in good]
            await call.write(pb.SubscribeRequest(ack=pb.SubscribeAck(sequences=good)))

    def _fails(self, event_id: str) -> bool:
        ways = self.ways
        if ways.poison and zlib.crc32(f"{self.consumer}{event_id}".encode()) % ways.poison == 0:
            return True
        return not self.calm and self._random.random() < ways.fails

    def _note(self, items: Iterable[Any], session: int) -> None:
        now = self._history.now
        self._history.deliveries += [
            Delivery(now(), self.consumer, self.name, session, kept_of(item.event), item.attempt, item.requeued)
            for item in items
        ]

    def _note_gap(self, gap: pb.SubscribeGap, session: int) -> None:
        told = Told(self._history.now(), self.consumer, session, gap.first_sequence, gap.last_sequence, gap.skipped)
        self._history.told.append(told)


@dataclass(slots=True)
class Listener:
    """A reader that is not remembered; it goes on behind what it had, or with `latest` from now on."""

    stub: Any
    history: History
    name: str
    latest: bool = False
    types: tuple[str, ...] = ()
    credit: int = CREDIT
    works_s: float = 0.0
    position: int = 0
    quiet_at: int = field(default=-1)
    """The newest sequence that a heartbeat named when there was nothing more to come."""

    async def run(self) -> None:
        """Listens until cancelled."""
        while True:
            call = self.stub.Subscribe()
            session = next(_sessions)
            try:
                await self._listen(call, session)
            except LOST as error:
                if isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.OUT_OF_RANGE:
                    self.position = -1  # what was removed meanwhile is told thereby: begin anew
            finally:
                call.cancel()
                self.history.left.append(Left(self.history.now(), self.name, session, clean=False))
            await asyncio.sleep(AGAIN_S)

    async def _listen(self, call: Any, session: int) -> None:
        policy = pb.SLOW_READER_POLICY_LATEST_PER_SUBJECT if self.latest else pb.SLOW_READER_POLICY_KEEP_ALL_WITH_GAP
        start = None if self.latest else pb.SubscribeStart(beginning=True)
        if self.position >= 0 and not self.latest:
            start = pb.SubscribeStart(after_sequence=self.position)
        reader = pb.EphemeralReader(slow_reader_policy=policy)
        opening = pb.SubscribeOpen(types=self.types, credit=self.credit, start=start, ephemeral=reader)
        await call.write(pb.SubscribeRequest(open=opening))
        opened = (await answer(call)).opened
        now = self.history.now
        self.history.opened.append(
            Opened(now(), self.name, session, opened.after_sequence, self.types, latest=self.latest)
        )
        while True:
            response = await answer(call)
            kind = response.WhichOneof("message")
            if kind == "gap":
                gap = response.gap
                told = Told(now(), self.name, session, gap.first_sequence, gap.last_sequence, gap.skipped)
                self.history.told.append(told)
            elif kind == "heartbeat":
                self.quiet_at = response.heartbeat.newest_sequence
            elif kind == "delivery":
                items = response.delivery.events
                kept = [kept_of(item.event) for item in items]
                self.history.deliveries += [Delivery(now(), self.name, self.name, session, each) for each in kept]
                self.position = kept[-1].sequence
                await asyncio.sleep(self.works_s)
                await call.write(pb.SubscribeRequest(credit=pb.SubscribeCredit(count=len(items))))


async def replay(stub: Any, *, through: int | None = None) -> list[Kept]:
    """Everything from the beginning up to what is newest when it begins, or up to `through`."""
    call = stub.Subscribe()
    start = pb.SubscribeStart(beginning=True)
    opening = pb.SubscribeOpen(credit=1_000, start=start, ephemeral=pb.EphemeralReader())
    found: list[Kept] = []
    try:
        await call.write(pb.SubscribeRequest(open=opening))
        opened = (await answer(call)).opened
        end = opened.newest_sequence if through is None else through
        while (found[-1].sequence if found else opened.after_sequence) < end:
            response = await answer(call)
            if response.WhichOneof("message") == "delivery":
                found += [kept_of(item.event) for item in response.delivery.events]
                count = len(response.delivery.events)
                await call.write(pb.SubscribeRequest(credit=pb.SubscribeCredit(count=count)))
    finally:
        call.cancel()
    return [kept for kept in found if kept.sequence <= end]
