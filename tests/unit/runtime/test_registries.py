from __future__ import annotations

from minhos_mesh.runtime.registries import HOME_S, Registries


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_home_that_is_back_in_time_is_not_left() -> None:
    clock = Time()
    registries = Registries("home", lambda: ["a"], monotonic=clock)
    for _step in range(4):
        registries.failed()
        clock.now += HOME_S / 5
        assert registries.address == "home"
    registries.answered()
    clock.now += HOME_S
    registries.failed()
    assert registries.address == "home"


def test_all_others_are_tried_in_turn_and_then_home_again() -> None:
    clock = Time()
    registries = Registries("home", lambda: ["a", "home", "b"], monotonic=clock)
    registries.failed()
    clock.now += HOME_S
    tried = []
    for _step in range(5):
        registries.failed()
        tried.append(registries.address)
    assert tried == ["a", "b", "home", "a", "b"]


def test_the_one_that_answers_is_kept_and_when_it_is_gone_home_comes_next() -> None:
    clock, others = Time(), ["a", "b"]
    registries = Registries("home", lambda: others, monotonic=clock)
    registries.failed()
    clock.now += HOME_S
    registries.failed()
    assert registries.address == "a"
    registries.answered()
    others.clear()
    clock.now += 100
    registries.failed()
    assert registries.address == "home"


def test_alone_it_stays_at_home() -> None:
    clock = Time()
    registries = Registries("home", monotonic=clock)
    for _step in range(5):
        registries.failed()
        clock.now += HOME_S
        assert registries.address == "home"
