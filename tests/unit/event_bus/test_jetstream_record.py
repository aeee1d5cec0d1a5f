"""A record of the replicated log comes back as it went in, and what is none is never taken for one."""

from __future__ import annotations

import dataclasses
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.event_bus.domain.patterns import Selection
from minhos_mesh.event_bus.domain.records import (
    Answer,
    Change,
    ConsumerState,
    DeadLetter,
    Failure,
    LetterKey,
    Lost,
    NewEvent,
    Pause,
    RemovedEvent,
    StoredEvent,
)
from minhos_mesh.event_bus.engines.jetstream_record import (
    NO_CHAIN,
    Appended,
    Fact,
    Opened,
    Removed,
    Saved,
    chained,
    decode,
    encode,
    pack,
    unpack,
)
from minhos_mesh.runtime.storage import StorageCorrupt

text = st.text(max_size=8)
number = st.integers(0, 2**62)
events = st.builds(NewEvent, st.uuids().map(lambda value: value.bytes), text, text, text, text, st.binary(max_size=64))
failures = st.lists(st.builds(Failure, number, text, text), max_size=3).map(tuple)
states = st.builds(
    ConsumerState,
    text,
    st.builds(Selection, st.lists(text, max_size=3).map(tuple), st.none() | text),
    number,
    number,
    number,
    st.lists(st.tuples(number, failures), max_size=3).map(tuple),
    pause=st.none() | st.builds(Pause, text, number),
    lost=st.none() | st.builds(Lost, number, number, number),
)
stored = st.builds(StoredEvent, number, text, text, number, st.binary(max_size=16))
letters = st.builds(DeadLetter, text, stored, failures, number, st.booleans(), st.booleans())
changes = st.builds(
    Change,
    st.lists(states, max_size=2).map(tuple),
    st.lists(letters, max_size=2).map(tuple),
    st.lists(st.builds(LetterKey, text, number), max_size=2).map(tuple),
    st.lists(text, max_size=2).map(tuple),
    st.none() | st.builds(Answer, text, text, st.binary(max_size=16), number),
)
removed = st.builds(RemovedEvent, number, text, text)
facts = st.lists(
    st.one_of(
        st.builds(Opened, number, text),
        st.builds(Appended, number, number, st.lists(events, max_size=4).map(tuple)),
        st.builds(Saved, changes),
        st.builds(Removed, st.lists(removed, max_size=4).map(tuple), st.dictionaries(text, number, max_size=3)),
    ),
    max_size=4,
).map(tuple)


@given(facts)
def test_what_is_encoded_is_decoded(some: tuple[Fact, ...]) -> None:
    assert decode(encode(some)) == some


@given(facts.filter(bool), st.data())
def test_a_cut_record_is_refused_or_its_chain_differs(some: tuple[Fact, ...], data: st.DataObject) -> None:
    body = encode(some)
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    assert chained(NO_CHAIN, cut) != chained(NO_CHAIN, body)
    with pytest.raises(StorageCorrupt):
        decode(cut)


def test_the_chain_depends_on_all_that_came_before() -> None:
    one, other = chained(NO_CHAIN, b"one"), chained(NO_CHAIN, b"other")
    assert chained(one, b"next") != chained(other, b"next")


def test_a_fact_of_a_later_version_is_refused_and_a_field_of_one_is_passed_over() -> None:
    with pytest.raises(StorageCorrupt, match="'merged'"):
        decode(encode([Opened(1, "a")]).replace(b"opened", b"merged"))
    value = pack(Failure(1, "m", "e")) | {"colour": "red"}
    assert unpack(Failure, value) == Failure(1, "m", "e")
    letter = pack(DeadLetter("c", StoredEvent(1, "a.b", "s", 2, uuid.uuid4().bytes), (), 3))
    del letter["is_edited"]
    assert unpack(DeadLetter, letter).is_edited is False
    assert {field.name for field in dataclasses.fields(DeadLetter)} >= set(letter)
