"""What makes a service less than healthy by its own word."""

from __future__ import annotations

from minhos_mesh.runtime.conditions import Conditions


def watched() -> tuple[Conditions, list[dict[str, str]]]:
    conditions, told = Conditions(), list[dict[str, str]]()
    conditions.listen(lambda: told.append(dict(conditions.held())))
    return conditions, told


def test_condition_is_held_until_it_is_cleared() -> None:
    conditions, told = watched()
    conditions.set("NO_TICKS", "no tick for 300 s")
    conditions.clear("NO_TICKS")
    assert told == [{"NO_TICKS": "no tick for 300 s"}, {}]


def test_only_changes_are_told() -> None:
    conditions, told = watched()
    conditions.clear("NO_TICKS")
    conditions.set("NO_TICKS", "a")
    conditions.set("NO_TICKS", "a")
    conditions.set("NO_TICKS", "b")
    assert told == [{"NO_TICKS": "a"}, {"NO_TICKS": "b"}]


def test_what_was_handed_out_does_not_change() -> None:
    conditions, _ = watched()
    conditions.set("A", "a")
    held = conditions.held()
    conditions.set("B", "b")
    assert held == {"A": "a"}
