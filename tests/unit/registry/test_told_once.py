from __future__ import annotations

from typing import Any

import pytest

from minhos_api.registry.v1 import registry_service_pb2 as pb
from minhos_mesh.registry import told_once
from minhos_mesh.registry.told_once import AskedOften, ToldOnce


def test_a_change_is_encoded_for_the_first_reader_only() -> None:
    made: list[Any] = []

    def encode(view: Any) -> pb.Service:
        made.append(view)
        return pb.Service(name=view)

    told = ToldOnce(encode)
    view: Any = "a"
    first = told.of(7, view)
    assert told.of(7, view) is first
    assert pb.WatchServicesResponse.FromString(first) == pb.WatchServicesResponse(
        changed=pb.Service(name="a"), revision=7
    )
    assert made == ["a"]
    for revision in range(8, 8 + told_once.HELD):
        told.of(revision, view)
    told.of(7, view)
    assert len(made) == told_once.HELD + 2


def test_an_answer_holds_until_something_changes_or_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    asked, made = AskedOften(), [0]

    def make() -> pb.ResolveResponse:
        made[0] += 1
        return pb.ResolveResponse(revision=made[0])

    assert asked.of("a", 1, make) is asked.of("a", 1, make)
    asked.of("a", 2, make)
    now[0] = told_once.FRESH_S * 1.5
    asked.of("a", 2, make)
    assert made == [3]
    for number in range(2 * told_once.HELD):
        asked.of(str(number), 2, make)
    assert len(asked._answers) == told_once.HELD
