from __future__ import annotations

from minhos_mesh.node.root import RootSilence


def watching(limit_s: float = 10.0) -> RootSilence:
    silence = RootSilence()
    silence.begin("registry-1", limit_s, 100.0)
    return silence


def test_a_registry_that_is_not_heard_for_its_deadline_is_given_up_once() -> None:
    silence = watching(3.0)
    assert [silence.too_long(100.0 + second) for second in range(1, 9)] == [False] * 3 + [True] + [False] * 3 + [True]


def test_each_word_begins_the_silence_anew_and_names_its_deadline() -> None:
    silence = watching(60.0)
    for second in range(1, 40):
        assert silence.heard("registry-1", 2.0, 99.1 + second)
        assert not silence.too_long(100.0 + second)
    assert [silence.too_long(time) for time in (139.2, 140.3)] == [False, True]


def test_a_keeper_that_did_not_run_itself_counts_no_silence() -> None:
    silence = watching(10.0)
    assert not silence.too_long(101.0)
    assert not silence.too_long(5_000.0)
    assert silence.silent_s < 3.0


def test_the_word_of_another_process_and_of_an_ended_one_is_not_taken() -> None:
    silence = watching()
    assert not silence.heard("registry-2", 10.0, 101.0)
    silence.end()
    assert not silence.heard("registry-1", 10.0, 101.0)
    assert not silence.too_long(1_000.0)
