"""Decides how the bus learns event types: from what instances offered to the registry, written down before it is used.

A type that is not known is asked for at once; besides the offers are looked at every few seconds. What was learned stays
known, over a restart and without the one who brought it. A definition gives way to one that breaks nothing of it, and to any
other one as soon as no event of its type is held and nobody attached offers it; until then the other one is refused.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Final

from minhos_mesh.compatibility.payloads import EventDefinition
from minhos_mesh.event_bus.domain.errors import TypesUnreachable
from minhos_mesh.event_bus.domain.records import Change, TypeDefinition, TypeFiles
from minhos_mesh.event_bus.engines.interface import Engine
from minhos_mesh.event_bus.offers import Offer, Offers
from minhos_mesh.event_bus.payloads import Definition, DefinitionUnusable, PayloadFiles, Payloads, unpacked
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.storage import StorageError

_LOG: Final = get_logger("event_bus.types")

ROUND_S: Final = 5.0
"""How often the offers are looked at unasked."""

PAUSE_S: Final = 0.05
"""Between two questions to the registry, however many types are unknown."""

UNREADABLE: Final = "EVENT_TYPES_UNREADABLE"
"""What was written down of an event type that was learned is damaged, or means nothing to this program any more."""

MOST_TYPES: Final = 2_000
"""Types that are learned."""

_TYPE: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_LONGEST: Final = 200


class EventTypes:
    """Learns event types into `payloads`. Call `load` once the engine is open, before anything is published."""

    def __init__(
        self,
        payloads: Payloads,
        engine: Engine,
        offers: Offers | None,
        clock: Clock,
        conditions: Conditions | None = None,
    ) -> None:
        """`offers` is None where there is no registry to ask."""
        self.payloads = payloads
        self._engine = engine
        self._offers = offers
        self._clock = clock
        self._conditions = conditions or Conditions()
        self._files: dict[str, PayloadFiles] = {}
        self._problems: set[str] = set()
        self._one_at_a_time = asyncio.Lock()
        self._asked = 0
        self._asked_at: float | None = None
        self._failure: TypesUnreachable | None = None

    async def load(self) -> None:
        """Takes up what was learned before. What cannot be read any more is said and not used, until it is offered again."""
        definitions, files = await self._engine.load_definitions()
        held: dict[str, TypeFiles] = {some.digest: some for some in files}
        for told in definitions:
            try:
                if told.digest not in self._files:
                    self._files[told.digest] = unpacked(held[told.digest])
                self.payloads.take(self._files[told.digest].definition(told))
            except (KeyError, DefinitionUnusable) as error:
                text = f"event type {told.type} version {told.version}, learned from {told.offered_by}, cannot be read: {error}"
                _LOG.error("types.unreadable", because=text)
                self._conditions.set(UNREADABLE, text)

    async def run(self) -> None:
        """Looks at the offers again and again until cancelled."""
        while self._offers is not None:
            try:
                await self.learn()
            except TypesUnreachable as error:
                self._say(str(error))
            except StorageError as error:
                _LOG.error("types.not_written", because=str(error))
            await self._clock.sleep_until(self._clock.monotonic() + ROUND_S)

    async def learn(self) -> None:
        """Returns once everything is known that was offered when this was called. Raises TypesUnreachable, StorageError."""
        if self._offers is None:
            return
        asked = self._asked
        async with self._one_at_a_time:
            if self._asked > asked:  # somebody else has asked after this was called
                if self._failure is not None:
                    raise self._failure
                return
            now = asyncio.get_running_loop().time()
            if self._asked_at is not None and now < self._asked_at + PAUSE_S:
                await asyncio.sleep(self._asked_at + PAUSE_S - now)
            self._asked += 1
            self._failure = TypesUnreachable("the question was given up")
            try:
                await self._take(await self._offers.ask())
                self._failure = None
            except TypesUnreachable as error:
                self._failure = error
                raise
            finally:
                self._asked_at = asyncio.get_running_loop().time()

    async def _take(self, offers: Sequence[Offer]) -> None:
        refused: dict[tuple[str, int], dict[str, str]] = {}
        usable: dict[tuple[str, int], list[Definition]] = {}
        for offer in offers:
            for event in offer.events:
                found = self._offered(offer, event)
                if found is not None:
                    usable.setdefault((event.type, event.version), []).append(found)
        for key, candidates in usable.items():
            for candidate in candidates:
                why = await self._settle(candidate, candidates)
                if why:
                    refused.setdefault(key, {})[candidate.offered_by] = why
        self._tell_refused(refused)
        self.payloads.refused = refused
        used = {id(each) for each in self.payloads.sets()} | {
            id(self._files[o.build].set) for o in offers if o.build in self._files
        }
        self._files = {name: files for name, files in self._files.items() if id(files.set) in used}

    def _offered(self, offer: Offer, event: EventDefinition) -> Definition | None:
        """One event type of an offer; None when it cannot be used."""
        try:
            if not _TYPE.fullmatch(event.type) or len(event.type) > _LONGEST or event.version < 1:
                raise DefinitionUnusable(
                    "a type is two or more parts of a-z, 0-9 and _ joined by dots, its version 1 or more"
                )
            files = self._files.get(offer.build)
            if files is None:
                files = self._files[offer.build] = PayloadFiles(offer.files)
            told = TypeDefinition(event.type, event.version, event.payload, files.digest, offer.service, 0)
            return files.definition(told)
        except DefinitionUnusable as error:
            self._say(f"{offer.service} offers {event.type} version {event.version}, which cannot be used: {error}")
            return None

    async def _settle(self, found: Definition, candidates: Sequence[Definition]) -> str:
        """Takes a definition, or says why it is refused."""
        name, version = found.type.type, found.type.version
        known = self.payloads.definition(name, version)
        if known is not None:
            if not known.breaks(found):
                return ""  # what is known holds all of it
            if found.breaks(known) and (not known.offered_by or await self._in_use(known, candidates)):
                return found.breaks(known)
        elif why := self._breaks_own(found):
            return why
        elif self.payloads.learned >= MOST_TYPES:
            return f"{MOST_TYPES} types were learned, and no more are"
        await self._write(found)
        self.payloads.take(found)
        _LOG.info("types.learned", type=name, version=version, payload=found.payload, offered_by=found.offered_by)
        return ""

    def _breaks_own(self, found: Definition) -> str:
        """What another version of a type of this program breaks of that: who reads the one must be able to read the other."""
        own = [each for each in self.payloads.definitions(found.type.type) if not each.offered_by]
        if not own:
            return ""
        older, newer = (own[-1], found) if found.type.version > own[-1].type.version else (found, own[-1])
        return newer.breaks(older)

    async def _in_use(self, known: Definition, candidates: Sequence[Definition]) -> bool:
        if any(not known.breaks(each) and not each.breaks(known) for each in candidates):
            return True
        return any(count.type == known.type.type and count.held for count in await self._engine.type_counts())

    async def _write(self, found: Definition) -> None:
        files = next(each for each in self._files.values() if each.set is found.set)
        told = TypeDefinition(
            found.type.type,
            found.type.version,
            found.payload,
            files.digest,
            found.offered_by,
            self._clock.wall_ns(),
        )
        packed = TypeFiles(files.digest, files.packed)
        await self._engine.save(Change(definitions=[told], files=[packed]))

    def _tell_refused(self, refused: dict[tuple[str, int], dict[str, str]]) -> None:
        for (name, version), services in refused.items():
            for service, why in services.items():
                if self.payloads.refused.get((name, version), {}).get(service) != why:
                    _LOG.warning("types.refused", type=name, version=version, offered_by=service, because=why)

    def _say(self, problem: str) -> None:
        """Logs a problem once."""
        if problem not in self._problems and len(self._problems) < 1_000:
            self._problems.add(problem)
            _LOG.warning("types.problem", because=problem)
