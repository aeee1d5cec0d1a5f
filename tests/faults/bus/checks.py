"""What a history of the bus must hold, one check for each guarantee: each gives the sentences that say what broke it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from tests.faults.bus.history import Ack, Content, Delivery, Fault, History, Kept, Outcome, by_reader

Check = Callable[[History], Iterator[str]]

ACK_WINDOW_S: Final = 2.0
"""So long before a kill an acknowledgement may have been sent and yet be forgotten by it: it is written down soon, not at once."""


def no_acknowledged_event_lost(history: History) -> Iterator[str]:
    """What was acknowledged is in the journal where it was said to be, or was removed by retention behind its last reader."""
    held = {kept.sequence: kept.content for kept in history.journal}
    for attempt in history.attempts:
        if attempt.outcome is not Outcome.ACKED or attempt.sequence is None:
            continue
        found = held.get(attempt.sequence)
        if found is None and attempt.sequence > history.removed_through:
            yield f"event {attempt.sequence} of {attempt.publisher} was acknowledged and is not in the journal"
        elif found is not None and found != attempt.content:
            yield f"event {attempt.sequence} was acknowledged as {attempt.content}, the journal has {found} there"


def every_event_settled(history: History) -> Iterator[str]:
    """Each durable consumer has acknowledged each event that it wants, or gave it up, or was told that it is gone."""
    known = history.known()
    for name, rules in history.consumers.items():
        settled = {ack.sequence for ack in history.acks if ack.consumer == name}
        settled |= {letter.kept.sequence for letter in history.letters if letter.consumer == name}
        lost = [(told.first, told.last) for told in history.told if told.reader == name]
        for sequence, content in sorted(known.items()):
            if sequence <= rules.after or not rules.wants(content.type) or sequence in settled:
                continue
            if not any(first <= sequence <= last for first, last in lost):
                yield f"consumer {name} neither acknowledged event {sequence} nor gave it up"


def order_per_subject(history: History) -> Iterator[str]:
    """The journal has each publisher's events of a subject in the order they were made, readers get them in its order."""
    yield from _publishers_order(history)
    for name, deliveries in by_reader(history.deliveries).items():
        seen: set[int] = set()
        last: dict[str, int] = {}
        for delivery in deliveries:
            sequence, subject = delivery.kept.sequence, delivery.kept.content.subject
            if sequence in seen:
                continue
            seen.add(sequence)
            if sequence < last.get(subject, 0):
                yield f"reader {name} got event {sequence} of {subject} for the first time behind {last[subject]}"
            last[subject] = max(sequence, last.get(subject, 0))


def _publishers_order(history: History) -> Iterator[str]:
    sequences = {content.event_id: sequence for sequence, content in history.known().items()}
    places = {(a.publisher, a.place): a.content for a in history.attempts if a.outcome is not Outcome.REFUSED}
    last: dict[tuple[str, str], int] = {}
    for (publisher, place), content in sorted(places.items()):
        sequence = sequences.get(content.event_id)
        if sequence is None:
            continue
        before = last.get((publisher, content.subject), 0)
        if sequence < before:
            yield f"{publisher} made its event {place} of {content.subject} behind {before}, the journal has it at {sequence}"
        last[publisher, content.subject] = max(sequence, before)


def replay_equals_live(history: History) -> Iterator[str]:
    """What readers got while it happened, what a reader from the beginning gets, and the journal are the same events."""
    held = {kept.sequence: kept for kept in history.journal}
    for delivery in history.deliveries:
        kept = held.get(delivery.kept.sequence, delivery.kept)
        if kept != delivery.kept and not delivery.requeued:
            yield f"reader {delivery.reader} got {delivery.kept}, the journal has {kept}"
    for number, replay in enumerate(history.replays):
        previous = 0
        for kept in replay:
            if held.get(kept.sequence, kept) != kept:
                yield f"replay {number} got {kept}, the journal has {held[kept.sequence]}"
            if kept.sequence <= previous:
                yield f"replay {number} got event {kept.sequence} behind {previous}"
            previous = kept.sequence
        got = {kept.sequence for kept in replay}
        missing = [sequence for sequence in held if sequence <= previous and sequence not in got]
        if missing:
            yield f"replay {number} lacks events {missing[:5]}"


def dedup_holds(history: History) -> Iterator[str]:
    """The same id gives one event and always its first answer; sequences have no hole, store times never go back."""
    answers: dict[str, int] = {}
    for attempt in history.attempts:
        if attempt.outcome is not Outcome.ACKED or attempt.sequence is None:
            continue
        first = answers.setdefault(attempt.content.event_id, attempt.sequence)
        if first != attempt.sequence:
            yield f"event id {attempt.content.event_id} was answered {first} and {attempt.sequence}"
    places: dict[str, int] = {}
    for sequence, content in history.known().items():
        first = places.setdefault(content.event_id, sequence)
        if first != sequence:
            yield f"event id {content.event_id} is stored as {first} and {sequence}"
    previous: Kept | None = None
    for kept in history.journal:
        if (
            previous is not None
            and kept.sequence != previous.sequence + 1
            and kept.sequence - 1 > history.removed_through
        ):
            yield f"in the journal event {kept.sequence} follows {previous.sequence}"
        if previous is not None and kept.store_ns < previous.store_ns:
            yield f"event {kept.sequence} was stored before event {previous.sequence}"
        previous = kept


def attempts_bounded(history: History) -> Iterator[str]:
    """No event comes in more attempts than its consumer has, but for one that each death of the bus may forget, and all that
    it could not write down on a full disk or without its server; and what failed is acknowledged in the end or given up.
    """
    dead = {(letter.consumer, letter.kept.sequence) for letter in history.letters}
    for delivery in history.deliveries:
        rules = history.consumers.get(delivery.reader)
        if rules is not None and not 1 <= delivery.attempt <= rules.max_attempts:
            yield f"event {delivery.kept.sequence} came to {delivery.reader} in attempt {delivery.attempt}"
    failed = Counter((nack.consumer, nack.sequence) for nack in history.nacks)
    deaths = sum(fault.kind.startswith("kill") and fault.stops for fault in history.faults)
    unwritten = any(fault.kind.startswith("disk") or fault.kind.endswith("server") for fault in history.faults)
    for (consumer, sequence), count in failed.items():
        most = history.consumers[consumer].max_attempts
        if count > most + deaths * (most if unwritten else 1):
            yield f"consumer {consumer} failed at event {sequence} {count} times"
        acked = any(ack.consumer == consumer and ack.sequence == sequence for ack in history.acks)
        if not acked and (consumer, sequence) not in dead:
            yield f"consumer {consumer} failed at event {sequence} and it is neither acknowledged nor a dead letter"


def redelivered_for_a_cause(history: History) -> Iterator[str]:
    """An event comes again only because an attempt failed, its member left, or the bus went down before it knew the answer."""
    stops = [fault for fault in history.faults if fault.stops]
    acks: dict[tuple[int, int], list[Ack]] = {}
    for ack in history.acks:
        acks.setdefault((ack.session, ack.sequence), []).append(ack)
    left = {gone.session: gone.at for gone in history.left}
    nacks: dict[int, list[tuple[float, str, int]]] = {}
    for nack in history.nacks:
        nacks.setdefault(nack.session, []).append((nack.at, nack.subject, nack.sequence))
    for name, deliveries in by_reader(history.deliveries).items():
        if name not in history.consumers:
            continue
        last: dict[int, Delivery] = {}
        for delivery in deliveries:
            sequence = delivery.kept.sequence
            if left.get(delivery.session, delivery.at) < delivery.at:
                continue  # sent before its member's goodbye was heard, and seen after others got it
            before = last.get(sequence)
            last[sequence] = delivery
            if before is None or delivery.requeued:
                continue
            between = (a for a in acks.get((before.session, sequence), ()) if before.at < a.at < delivery.at)
            settled = next(between, None)
            failed = settled is None and any(
                subject == delivery.kept.content.subject and number <= sequence and before.at <= at <= delivery.at
                for at, subject, number in nacks.get(before.session, ())
            )
            if not failed and not _cut_off(before, settled, delivery.at, left, stops):
                what = "acknowledged" if settled else "out at a member"
                yield f"event {sequence} came to {name} again though it was {what} and nothing had happened"


def _cut_off(before: Delivery, ack: Ack | None, at: float, left: dict[int, float], stops: list[Fault]) -> bool:
    """Whether the bus may not have known that an event was acknowledged, or its member gone, when it sent it again."""
    gone = left.get(before.session)
    if ack is None:
        return (gone is not None and gone <= at) or any(before.at <= fault.at <= at for fault in stops)
    ends = [fault.at for fault in stops] if gone is None else [gone, *(fault.at for fault in stops)]
    return any(ack.at <= end <= min(at, ack.at + ACK_WINDOW_S) for end in ends)


def dead_letters_complete(history: History) -> Iterator[str]:
    """A dead letter has its event as it was published, and each of its attempts with the error that was said."""
    said = {(nack.consumer, nack.sequence, nack.error) for nack in history.nacks}
    contents = _published(history)
    for letter in history.letters:
        name, sequence = letter.consumer, letter.kept.sequence
        if letter.kept.content not in contents:
            yield f"the dead letter of {name} and event {sequence} is not what was published: {letter.kept.content}"
        if len(letter.errors) != history.consumers[name].max_attempts:
            yield f"the dead letter of {name} and event {sequence} has {len(letter.errors)} attempts"
        for error in letter.errors:
            if error != "the reader vanished" and (name, sequence, error) not in said:
                yield f"the dead letter of {name} and event {sequence} has an error that nobody said: {error!r}"
    given = Counter((letter.consumer, letter.kept.sequence) for letter in history.letters)
    for (name, sequence), count in given.items():
        if count > 1:
            yield f"consumer {name} has {count} dead letters of event {sequence}"


def nothing_unpublished(history: History) -> Iterator[str]:
    """Nothing is stored or delivered but what somebody published and was not refused."""
    contents = _published(history)
    for kept in history.journal:
        if kept.content not in contents:
            yield f"the journal has event {kept.sequence} that nobody published: {kept.content}"
    for delivery in history.deliveries:
        if delivery.kept.content not in contents and not delivery.requeued:
            yield f"reader {delivery.reader} got event {delivery.kept.sequence} that nobody published"


def _published(history: History) -> set[Content]:
    return {attempt.content for attempt in history.attempts if attempt.outcome is not Outcome.REFUSED}


def skips_told(history: History) -> Iterator[str]:
    """A reader that is not remembered gets every event behind its beginning, or is told how many it does not get."""
    known = sorted(history.known().items())
    for opening in history.opened:
        if opening.reader in history.consumers:
            continue
        got = [d.kept.sequence for d in history.deliveries if d.session == opening.session]
        told = [item for item in history.told if item.session == opening.session]
        if any(not item.skipped for item in told):
            continue
        if not opening.latest and got != sorted(set(got)):
            yield f"session {opening.session} of {opening.reader} got events out of order or twice"
        through = max([opening.after, *got, *(item.last for item in told)])
        wanted = [
            sequence
            for sequence, content in known
            if opening.after < sequence <= through and (not opening.types or content.type in opening.types)
        ]
        missing, skipped = len(set(wanted) - set(got)), sum(item.skipped for item in told)
        if missing != skipped and not (opening.latest and _waits(opening.session, history, missing, skipped)):
            what = f"missed {missing} events and was told of {skipped}"
            yield f"session {opening.session} of {opening.reader} behind {opening.after} {what}"


def _waits(session: int, history: History, missing: int, skipped: int) -> bool:
    """Whether events may still have waited at the bus, among those it sends only the newest of, when the session was cut."""
    cut = any(gone.session == session and not gone.clean for gone in history.left)
    return cut and skipped <= missing


CHECKS: Final[dict[str, Check]] = {
    check.__name__: check
    for check in (
        no_acknowledged_event_lost,
        every_event_settled,
        order_per_subject,
        replay_equals_live,
        dedup_holds,
        attempts_bounded,
        redelivered_for_a_cause,
        dead_letters_complete,
        nothing_unpublished,
        skips_told,
    )
}
"""Every check by its name."""


def violations(history: History) -> dict[str, list[str]]:
    """What each check has to say; only those that have."""
    found = {name: list(check(history)) for name, check in CHECKS.items()}
    return {name: said for name, said in found.items() if said}


def figures(history: History) -> dict[str, int]:
    """What happened, in numbers; `lost` and `duplicated` are to be 0."""
    acked = {a.content.event_id for a in history.attempts if a.outcome is Outcome.ACKED}
    return {
        "published": len({attempt.content.event_id for attempt in history.attempts}),
        "acknowledged": len(acked),
        "sent_again": len(history.attempts) - len({a.content.event_id for a in history.attempts}),
        "delivered": len(history.deliveries),
        "redelivered": sum(delivery.attempt > 1 for delivery in history.deliveries),
        "dead_letters": len(history.letters),
        "replays": len(history.replays),
        "skips_told": sum(told.skipped for told in history.told),
        "lost": len(list(no_acknowledged_event_lost(history))) + len(list(every_event_settled(history))),
        "duplicated": len(list(redelivered_for_a_cause(history))) + len(list(dedup_holds(history))),
    }
