from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.registry.domain.leases import (
    LATE_SECONDS,
    LEASE_SECONDS,
    RETURN_SECONDS,
    InstanceHeld,
    InstanceKey,
    Lease,
    LeaseBook,
    StaleToken,
    Standing,
)

RISK = InstanceKey("risk_manager", "risk_manager-1")
OTHER = InstanceKey("risk_manager", "risk_manager-2")


def granted(now: float = 0.0, token: int = 1) -> LeaseBook:
    book = LeaseBook()
    book.grant(RISK, lease_id="l1", token=token, presented=None, now=now)
    return book


def taken_over(at: float = 5.0) -> tuple[LeaseBook, Lease]:
    book = granted()
    return book, book.grant(RISK, lease_id="l2", token=2, presented=None, now=at)


@pytest.mark.parametrize(
    ("silent", "standing"),
    [
        (0.0, Standing.LIVE),
        (LATE_SECONDS - 0.001, Standing.LIVE),
        (LATE_SECONDS, Standing.LATE),
        (LEASE_SECONDS - 0.001, Standing.LATE),
        (LEASE_SECONDS, Standing.EXPIRED),
    ],
)
def test_a_lease_stands_by_the_length_of_its_silence(silent: float, standing: Standing) -> None:
    assert Lease("l", RISK, 1, renewed=100.0).standing(100.0 + silent) is standing


def test_a_heartbeat_renews_the_lease() -> None:
    book = granted()
    book.renew(RISK, "l1", 1, 1.5)
    assert book.leases[RISK].standing(3.0) is Standing.LIVE


def test_a_second_process_cannot_take_an_instance_that_is_alive() -> None:
    with pytest.raises(InstanceHeld, match="risk_manager/risk_manager-1 is held under token 1"):
        granted().grant(RISK, lease_id="l2", token=2, presented=None, now=1.0)


def test_a_new_process_takes_over_when_the_lease_has_run_out() -> None:
    book, lease = taken_over(LEASE_SECONDS)
    assert lease.token == 2
    assert book.live(RISK, LEASE_SECONDS) == lease


def test_the_owner_takes_its_own_lease_again_with_its_token() -> None:
    lease = granted().grant(RISK, lease_id="l2", token=2, presented=1, now=0.5)
    assert lease.lease_id == "l2"


def test_an_owner_that_was_replaced_is_refused_when_it_comes_back() -> None:
    book, _ = taken_over()
    with pytest.raises(StaleToken, match="shows fencing token 1, the newest one is 2") as caught:
        book.check_claim(RISK, presented=1, now=5.1)
    assert (caught.value.fencing_token, caught.value.newest) == (1, 2)


def test_an_owner_that_was_replaced_is_refused_even_after_its_successor_is_gone() -> None:
    book, _ = taken_over()
    book.release(RISK, "l2")
    with pytest.raises(StaleToken):
        book.check_claim(RISK, presented=1, now=5.2)


def test_a_token_that_was_never_granted_is_refused() -> None:
    with pytest.raises(StaleToken, match="newest one is 0"):
        LeaseBook().check_claim(RISK, presented=7, now=0.0)


@pytest.mark.parametrize(("lease_id", "token"), [("l0", 1), ("l1", 2), ("l1", 0)])
def test_a_heartbeat_of_another_lease_is_refused(lease_id: str, token: int) -> None:
    with pytest.raises(StaleToken, match="does not hold the lease"):
        granted(token=1).renew(RISK, lease_id, token, 0.1)


def test_a_heartbeat_after_the_lease_has_run_out_is_refused() -> None:
    with pytest.raises(StaleToken, match=r"after 3\.5 s of silence"):
        granted().renew(RISK, "l1", 1, 3.5)


def test_a_release_by_a_replaced_owner_leaves_its_successor_alone() -> None:
    book, lease = taken_over()
    book.release(RISK, "l1")
    assert book.live(RISK, 5.0) == lease


def test_a_token_below_one_that_was_granted_is_never_granted() -> None:
    with pytest.raises(StaleToken, match="cannot be granted token 5"):
        granted(token=5).grant(RISK, lease_id="l2", token=5, presented=5, now=0.0)


def test_a_recovered_lease_keeps_its_token_and_runs_out_like_any_other() -> None:
    book = LeaseBook()
    book.recover(Lease("l1", RISK, 9, renewed=50.0))
    assert book.leases[RISK].standing(52.9) is Standing.LIVE
    assert book.next_change(50.0) == 53.0
    with pytest.raises(InstanceHeld):
        book.check_claim(RISK, presented=None, now=51.0)
    book.check_claim(RISK, presented=9, now=51.0)
    assert [lease.key for lease in book.expire(53.0)] == [RISK]
    assert book.leases == {}


def test_a_recovered_lease_lasts_until_its_owner_can_have_come_back_however_short_leases_are() -> None:
    book = LeaseBook(time_to_live=1.5)
    book.recover(Lease("l1", RISK, 9, renewed=50.0))
    book.grant(OTHER, lease_id="l2", token=10, presented=None, now=50.0)
    assert [lease.key for lease in book.expire(51.5)] == [OTHER]
    assert book.next_change(51.5) == 50.0 + RETURN_SECONDS
    assert [lease.key for lease in book.expire(50.0 + RETURN_SECONDS)] == [RISK]


def test_standing_still_of_the_registry_costs_nobody_the_lease() -> None:
    book = granted(now=10.0)
    book.forgive(70.0)
    assert book.expire(72.9) == ()


def test_a_short_lease_runs_out_before_it_is_late() -> None:
    book = LeaseBook(time_to_live=1.5)
    lease = book.grant(RISK, lease_id="l1", token=1, presented=None, now=0.0)
    assert lease.standing(1.49) is Standing.LIVE
    assert lease.standing(1.5) is Standing.EXPIRED
    assert book.next_change(0.0) == 1.5


def test_the_book_knows_when_the_next_lease_changes() -> None:
    book = granted(now=0.0)
    book.grant(OTHER, lease_id="l2", token=2, presented=None, now=1.0)
    assert book.next_change(1.0) == LATE_SECONDS
    assert book.next_change(2.5) == 1.0 + LATE_SECONDS
    assert LeaseBook().next_change(0.0) is None


@given(st.lists(st.tuples(st.sampled_from([RISK, OTHER]), st.floats(0.01, 5.0)), max_size=30))
def test_tokens_only_grow_and_one_process_holds_an_instance(steps: list[tuple[InstanceKey, float]]) -> None:
    book, now, token, granted_tokens = LeaseBook(), 0.0, 0, [0]
    for key, wait in steps:
        now += wait
        alive = book.live(key, now)
        try:
            lease = book.grant(key, lease_id=str(token + 1), token=token + 1, presented=None, now=now)
        except InstanceHeld:
            assert alive is not None
            continue
        assert alive is None
        token = lease.token
        granted_tokens.append(token)
    assert granted_tokens == sorted(set(granted_tokens))


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.0, 1.0), st.booleans()), max_size=60), st.floats(0.5, 4.0))
def test_the_order_of_heartbeats_finds_what_a_walk_over_all_leases_finds(
    steps: list[tuple[int, float, bool]], time_to_live: float
) -> None:
    book, now, token = LeaseBook(time_to_live), 0.0, 0
    for number, wait, recovers in steps:
        now += wait
        key = InstanceKey("s", str(number))
        expired = {k for k, lease in book.leases.items() if lease.standing(now) is Standing.EXPIRED}
        late = {k for k, lease in book.leases.items() if lease.standing(now) is Standing.LATE}
        assert {lease.key for lease in book.expire(now)} == expired
        assert {lease.key for lease in book.late(now)} == late
        assert book.next_change(now) == min((lease.next_change(now) for lease in book.leases.values()), default=None)
        if key in book.leases:
            lease = book.leases[key]
            book.renew(key, lease.lease_id, lease.token, now)
        else:
            token += 1
            if recovers:
                book.recover(Lease("l", key, token, now))
            else:
                book.grant(key, lease_id="l", token=token, presented=None, now=now)
