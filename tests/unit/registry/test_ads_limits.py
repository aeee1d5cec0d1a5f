"""Which discovery stream makes room for others."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

from minhos_mesh.registry.ads_limits import HasAnswered, least_promising


@dataclass(eq=False)
class Stream:
    connection: str
    opened_at: float
    asked: bool = False
    answered: bool = False
    ending: object | None = None
    stream: HasAnswered = field(init=False)

    def __post_init__(self) -> None:
        self.stream = SimpleNamespace(proven=self.answered)


def test_many_streams_of_one_client_do_not_cost_another_its_only_one() -> None:
    lonely = Stream("lonely", opened_at=1.0)
    many = [Stream("many", opened_at=2.0 + number) for number in range(3)]
    assert least_promising([lonely, *many]) is many[0]


def test_among_equals_the_oldest_that_did_not_ask_goes_first_and_then_the_oldest() -> None:
    asked, silent, later = Stream("a", 1.0, asked=True), Stream("b", 2.0), Stream("c", 3.0)
    assert least_promising([asked, later, silent]) is silent
    assert least_promising([asked, Stream("d", 4.0, asked=True)]) is asked


def test_a_stream_that_answered_or_ends_already_is_never_chosen() -> None:
    assert least_promising([Stream("a", 1.0, answered=True), Stream("b", 2.0, ending="for others")]) is None
    left = Stream("b", 5.0)
    assert least_promising([Stream("a", 1.0, answered=True), Stream("a", 2.0, ending="for others"), left]) is left
