from __future__ import annotations

import asyncio
import itertools
from typing import Any

import grpc
import pytest
from tests.contract.market_data.market_mesh import (
    ES,
    NQ,
    PROVIDER,
    REPLAY,
    SIMULATED,
    Mesh,
    sequences,
    serving,
    soon,
    take,
    ticks_of,
    ticks_up_to,
    until,
)

from minhos_api.market.v1 import market_data_provider_service_pb2 as pb2
from minhos_mesh.market_data.service import REPLAY_WAITS
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.market import (
    FROM_START,
    BarClosed,
    EpochChanged,
    Gap,
    Heartbeat,
    MarketClient,
    MarketKind,
    MarketQuote,
    MarketUpdate,
    Position,
    SlowReader,
    Snapshot,
    SubscriptionRefused,
    TickBatchView,
)


async def test_snapshot_then_updates_without_a_hole(mesh: Mesh) -> None:
    async with mesh.source() as source, mesh.market.subscribe([NQ], bars_back=2) as reading:
        await source.feed(10, apart_ns=30_000_000_000)
        updates = asyncio.create_task(take(reading, ticks_up_to(30)))
        await until(lambda: mesh.service.subscribers(NQ) == 1 and bool(reading.positions))
        for place in range(10, 30):
            await source.feed(1, place, 30_000_000_000)
        got = await updates
        snapshot = got[0]
        assert isinstance(snapshot, Snapshot)
        assert snapshot.position == Position(7, 10)
        assert [bar.last_sequence for bar in snapshot.bars] == [6, 8]
        assert snapshot.open_bar is not None
        assert sequences(got) == list(range(11, 31))
        (first, *_) = [update for update in got if isinstance(update, TickBatchView)]
        assert first.objects()[0].price_e9 == 11 * 250_000_000
        assert (first.symbol, first.provenance, first.epoch) == (NQ, SIMULATED, 7)


async def test_a_source_that_sends_again_what_was_taken_is_answered_too(mesh: Mesh) -> None:
    async with mesh.source() as source:
        await source.feed(30)
        for _ in range(2):
            await source.send(ticks_of(20), 1)
            answer = await soon(source.call.read())
            assert (answer.ack.through_position, answer.ack.through_sequence) == (30, 30)


async def test_a_batch_is_encoded_by_its_source_and_all_readers_get_the_same_bytes(mesh: Mesh) -> None:
    call: Any = mesh.clients.channel(PROVIDER).stream_stream(
        f"/{PROVIDER}/SubscribeMarketData",
        request_serializer=pb2.SubscribeMarketDataRequest.SerializeToString,
        response_deserializer=None,
    )
    calls = [call() for _ in range(4)]
    for reader in calls:
        await reader.write(pb2.SubscribeMarketDataRequest(subscribe=pb2.MarketSubscription(symbols=[NQ])))
        for _ in range(2):  # the answer and the snapshot
            await soon(reader.read())
    async with mesh.source() as source:
        for place in (0, 50, 51):
            await source.feed(50 if place == 0 else 1 if place == 50 else 700, place)
            seen = {await soon(reader.read()) for reader in calls}
            assert len(seen) == 1
            batch = pb2.SubscribeMarketDataResponse.FromString(seen.pop()).ticks
            assert batch.first_sequence == place + 1
            assert batch.tick_count == len(batch.ticks)
    assert mesh.encoder.batches_encoded == 0  # the bytes in which it came are those in which it goes
    for reader in calls:
        reader.cancel()


async def test_a_reader_that_does_not_read_delays_nobody_and_is_told_what_it_missed() -> None:
    async with serving(ring_ticks=32_768) as mesh, mesh.source() as source:
        slow: Any = mesh.clients.channel(PROVIDER).stream_stream(
            f"/{PROVIDER}/SubscribeMarketData",
            request_serializer=pb2.SubscribeMarketDataRequest.SerializeToString,
            response_deserializer=pb2.SubscribeMarketDataResponse.FromString,
        )()
        await slow.write(pb2.SubscribeMarketDataRequest(subscribe=pb2.MarketSubscription(symbols=[NQ])))
        fast = mesh.market.subscribe([NQ], resume={NQ: FROM_START})
        total = 30 * 16_384
        updates = asyncio.create_task(take(fast, ticks_up_to(total)))
        await until(lambda: mesh.service.subscribers(NQ) == 2)
        for place in range(0, total, 16_384):
            await source.feed(16_384, place)
            await until(lambda place=place: fast.positions[NQ].sequence == place + 16_384)  # type: ignore[misc]  # mypy cannot type a default
        assert sequences(await updates) == list(range(1, total + 1))
        seen, missed = 0, 0
        while seen + missed < total:
            message = await soon(slow.read())
            if message.HasField("ticks"):
                assert message.ticks.first_sequence == seen + missed + 1
                seen += len(message.ticks.ticks)
            elif message.HasField("gap"):
                assert message.gap.first_sequence == seen + missed + 1
                missed += message.gap.last_sequence - message.gap.first_sequence + 1
        assert missed > 0
        assert seen + missed == total
        slow.cancel()


async def test_a_replay_waits_for_its_lossless_readers_and_loses_nothing() -> None:
    async with serving(ring_ticks=1_024, replay_readers=2) as mesh, mesh.source(provenance=REPLAY) as source:
        feeding = asyncio.create_task(source.feed(10_000))
        feed = mesh.service.find(NQ).feed
        await until(lambda: feed.sequence == 1_024)
        mesh.service.look_for_readers()
        says = f"the replay waits: {NQ} at sequence 1024 for 2 more lossless readers"
        assert mesh.conditions.held() == {REPLAY_WAITS: says}
        one = asyncio.create_task(
            take(mesh.market.subscribe(policy=SlowReader.LOSSLESS, resume={NQ: FROM_START}), ticks_up_to(10_000))
        )
        await until(lambda: mesh.service.subscribers(NQ) == 1)
        assert feed.sequence == 1_024
        held = mesh.market.subscribe([NQ], policy=SlowReader.LOSSLESS, resume={NQ: FROM_START})
        first = await take(held, ticks_up_to(1_024))
        held.close()
        assert sequences(first) == list(range(1, 1_025))
        two = asyncio.create_task(
            take(mesh.market.subscribe([NQ], policy=SlowReader.LOSSLESS, resume=held.positions), ticks_up_to(10_000))
        )
        assert (await soon(feeding)).through_sequence == 10_000
        assert sequences(await one) == list(range(1, 10_001))
        mesh.service.look_for_readers()
        assert not mesh.conditions.held()
        assert sequences(await two) == list(range(1_025, 10_001))


async def test_a_lossless_reader_that_says_how_far_it_is_done_is_waited_for() -> None:
    async with serving(ring_ticks=1_024) as mesh, mesh.source(provenance=REPLAY) as source:
        live = mesh.service.find(NQ)
        reading = mesh.market.subscribe([NQ], policy=SlowReader.LOSSLESS, resume={NQ: FROM_START})
        updates = asyncio.create_task(take(reading, ticks_up_to(3_000)))
        await source.feed(100)
        await until(lambda: reading.positions[NQ].sequence == 100)
        await reading.progress(NQ, 10)
        await until(lambda: live.room() == 1_024 - 90)
        feeding = asyncio.create_task(source.feed(2_900, 100))
        await until(lambda: reading.positions[NQ].sequence == 1_034)
        assert live.room() == 0
        await reading.progress(NQ, 1_034)
        await until(lambda: reading.positions[NQ].sequence == 2_058)
        assert live.room() == 0
        await reading.progress(NQ, 2_058)
        assert (await soon(feeding)).through_sequence == 3_000
        assert sequences(await updates) == list(range(1, 3_001))


async def test_lossless_is_refused_for_what_is_no_replay(mesh: Mesh) -> None:
    async with mesh.source() as source:
        await source.feed(1)
        with pytest.raises(
            SubscriptionRefused, match="LOSSLESS is refused for NQZ26-CME, whose data is SIMULATED"
        ) as caught:
            await take(mesh.market.subscribe([NQ], policy=SlowReader.LOSSLESS), lambda _: False)
        assert caught.value.reason == "ERROR_REASON_PROVENANCE_REFUSED"


async def test_an_unknown_symbol_is_refused_in_its_answer_and_the_others_are_read(mesh: Mesh) -> None:
    request = pb2.StreamMarketDataRequest(subscription=pb2.MarketSubscription(symbols=["CLZ26-NYM", NQ]))
    call = mesh.provider.StreamMarketData(request)
    one, two = await soon(call.read()), await soon(call.read())
    assert one.subscribed.refused_reason == "ERROR_REASON_SYMBOL_UNKNOWN"
    assert "known are" in one.subscribed.refused_message
    assert (two.subscribed.symbol, two.subscribed.refused_reason) == (NQ, "")
    assert (await soon(call.read())).snapshot.symbol == NQ
    call.cancel()


async def test_resume_that_is_no_longer_held_is_answered_with_the_oldest_and_told_as_a_gap() -> None:
    async with serving(ring_ticks=1_024) as mesh, mesh.source() as source:
        await source.feed(5_000)
        resume = [pb2.MarketPosition(symbol=NQ, epoch=7, sequence=100)]
        call = mesh.provider.StreamMarketData(
            pb2.StreamMarketDataRequest(subscription=pb2.MarketSubscription(symbols=[NQ], resume_after=resume))
        )
        answer = (await soon(call.read())).subscribed
        assert answer.refused_reason == "ERROR_REASON_POSITION_LOST"
        assert answer.oldest.sequence == 5_000 - 1_023
        call.cancel()
        updates = await take(mesh.market.subscribe([NQ], resume={NQ: Position(7, 100)}), ticks_up_to(5_000))
        assert updates[0] == Gap(NQ, 7, 101, 5_000 - 1_024)
        assert sequences(updates) == list(range(5_000 - 1_023, 5_001))


async def test_resume_ahead_of_what_is_held_or_in_another_epoch_is_lost(mesh: Mesh) -> None:
    async with mesh.source() as source:
        await source.feed(9)
        for epoch, sequence in ((7, 49_999_999), (7, 10), (1, 0), (1, 5), (0, 10)):
            resume = [pb2.MarketPosition(symbol=NQ, epoch=epoch, sequence=sequence)]
            subscription = pb2.MarketSubscription(symbols=[NQ], resume_after=resume)
            call = mesh.provider.StreamMarketData(pb2.StreamMarketDataRequest(subscription=subscription))
            answer = (await soon(call.read())).subscribed
            call.cancel()
            assert answer.refused_reason == "ERROR_REASON_POSITION_LOST"
            assert (answer.oldest.epoch, answer.oldest.sequence, answer.newest.sequence) == (7, 1, 9)
            assert (answer.provenance, answer.HasField("position")) == (SIMULATED, False)


async def test_a_reader_of_a_former_epoch_is_told_of_the_current_one_and_reads_it_whole(mesh: Mesh) -> None:
    async with mesh.source() as source:
        await source.feed(9)
        updates = await take(mesh.market.subscribe([NQ], resume={NQ: Position(1, 5_000)}), ticks_up_to(9))
    assert updates[0] == EpochChanged(NQ, 7, int(SIMULATED))
    assert sequences(updates) == list(range(1, 10))


async def test_a_reader_ahead_of_a_source_that_catches_up_repeats_nothing_and_misses_nothing(mesh: Mesh) -> None:
    async with mesh.source() as source:
        await source.feed(50, apart_ns=10_000_000_000)
        kinds = {MarketKind.TICKS, MarketKind.BARS}
        reading = mesh.market.subscribe([NQ], kinds, resume={NQ: Position(7, 100)})
        updates = asyncio.create_task(take(reading, ticks_up_to(140)))
        await until(lambda: mesh.service.subscribers(NQ) == 1)
        for place in range(50, 140, 10):
            await source.feed(10, place, 10_000_000_000)
        got = await updates
    assert sequences(got) == list(range(101, 141))
    assert not [update for update in got if isinstance(update, Gap | EpochChanged)]
    bars = [update for update in got if isinstance(update, BarClosed)]
    assert all(bar.closing_sequence > 100 for bar in bars)
    assert all(one.bar.last_sequence + 1 == two.bar.first_sequence for one, two in itertools.pairwise(bars))


@pytest.mark.parametrize(
    ("symbols", "resume", "seen"), [([NQ], [ES], ES), ([], [NQ, "CLZ26-NYM"], "CLZ26-NYM"), ([NQ], [NQ, NQ], NQ)]
)
async def test_resume_of_a_symbol_that_is_not_subscribed_to_is_refused(
    mesh: Mesh, symbols: list[str], resume: list[str], seen: str
) -> None:
    places = [pb2.MarketPosition(symbol=symbol) for symbol in resume]
    subscription = pb2.MarketSubscription(symbols=symbols, resume_after=places)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await soon(mesh.provider.StreamMarketData(pb2.StreamMarketDataRequest(subscription=subscription)).read())
    told = errors.read(caught.value)
    assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ERROR_REASON_INVALID_FIELD")
    assert (told.metadata["field"], told.metadata["seen"]) == (
        f"subscription.resume_after[{len(resume) - 1}].symbol",
        seen,
    )
    assert told.violations[0].field == told.metadata["field"]


async def test_a_subscription_changes_on_the_way(mesh: Mesh) -> None:
    async with mesh.source() as nq, mesh.source(symbol=ES) as es, mesh.market.subscribe([NQ]) as reading:
        seen: list[MarketUpdate] = []

        async def read() -> None:
            async for update in reading:
                seen.append(update)  # noqa: PERF401 - each is looked at as it comes

        task = asyncio.create_task(read())
        await until(lambda: len(seen) == 1)
        await nq.feed(3)
        await until(lambda: sequences(seen) == [1, 2, 3])
        await reading.add([ES])
        await until(lambda: isinstance(seen[-1], Snapshot) and seen[-1].symbol == ES)
        await reading.remove([NQ])
        await until(lambda: mesh.service.subscribers(NQ) == 0)
        await nq.feed(3, 3)
        await es.feed(2)
        await until(lambda: isinstance(seen[-1], TickBatchView) and seen[-1].symbol == ES)
        assert [batch.symbol for batch in seen if isinstance(batch, TickBatchView)] == [NQ, ES]
        reading.close()
        await soon(task)


async def test_quotes_alone_are_the_newest_ones(mesh: Mesh) -> None:
    async with mesh.source() as source:
        reading = mesh.market.subscribe([NQ], {MarketKind.QUOTES})
        updates = asyncio.create_task(
            take(reading, lambda got: isinstance(got[-1], MarketQuote) and got[-1].sequence == 900)
        )
        await until(lambda: mesh.service.subscribers(NQ) == 1)
        await source.send(ticks_of(400), 1)
        await source.send(ticks_of(500, 400), 401)
        quotes = [update for update in await updates if isinstance(update, MarketQuote)]
        assert len(quotes) <= 2
        assert quotes[-1].last_price_e9 == 900 * 250_000_000


async def test_bars_alone_come_when_they_close(mesh: Mesh) -> None:
    async with mesh.source() as source:
        reading = mesh.market.subscribe([NQ], {MarketKind.BARS}, resume={NQ: FROM_START})
        updates = asyncio.create_task(take(reading, lambda got: len(got) == 4))
        await source.feed(9, apart_ns=30_000_000_000)
        bars = [update for update in await updates if isinstance(update, BarClosed)]
        assert [bar.closing_sequence for bar in bars] == [3, 5, 7, 9]
        assert [bar.bar.trades for bar in bars] == [2, 2, 2, 2]
        again = await take(
            mesh.market.subscribe([NQ], {MarketKind.BARS}, resume={NQ: Position(7, 5)}), lambda got: len(got) == 2
        )
        assert [bar.closing_sequence for bar in again if isinstance(bar, BarClosed)] == [7, 9]


async def test_a_new_epoch_is_told_before_its_ticks(mesh: Mesh) -> None:
    reading = mesh.market.subscribe([NQ])
    updates = asyncio.create_task(take(reading, lambda got: sequences(got) == [1, 2, 3, 1, 2]))
    await until(lambda: mesh.service.subscribers(NQ) == 1)
    async with mesh.source() as source:
        await source.feed(3)
        await until(lambda: reading.positions.get(NQ) == Position(7, 3))
    async with mesh.source(epoch=8) as source:
        assert source.opened_at == 0
        await source.feed(2)
    kinds = [type(update) for update in await updates]
    assert kinds == [Snapshot, TickBatchView, EpochChanged, TickBatchView]


async def test_a_silent_stream_gives_signs_of_life_with_counters(mesh: Mesh) -> None:
    async with mesh.source() as source, mesh.market.subscribe([NQ]) as reading:
        updates = asyncio.create_task(take(reading, lambda got: isinstance(got[-1], Heartbeat)))
        await until(lambda: bool(reading.positions))
        await source.feed(5)
        await until(lambda: reading.positions[NQ].sequence == 5)
        beats = 0
        while not updates.done():
            mesh.clock.advance(1.0)
            beats += 1
            await asyncio.sleep(0.01)
        assert beats <= 10
        heartbeat = (await updates)[-1]
        assert isinstance(heartbeat, Heartbeat)
        assert (heartbeat.ticks_sent, heartbeat.ticks_missed, dict(heartbeat.newest)) == (5, 0, {NQ: Position(7, 5)})
        assert (await soon(source.call.read())).HasField("heartbeat")


async def test_first_message_of_a_reader_must_subscribe(mesh: Mesh) -> None:
    call = mesh.provider.SubscribeMarketData()
    gone = pb2.MarketUnsubscription(symbols=[NQ])
    await call.write(pb2.SubscribeMarketDataRequest(unsubscribe=gone))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await soon(call.read())
    told = errors.read(caught.value)
    assert "allowed is `subscribe` as the first message of SubscribeMarketData" in told.message
    assert (told.metadata["field"], told.metadata["seen"]) == ("message", "`unsubscribe`")


async def test_readers_that_leave_are_forgotten(mesh: Mesh) -> None:
    for _ in range(3):
        async with mesh.market.subscribe([NQ]) as reading:
            await take(reading, lambda got: isinstance(got[0], Snapshot))
    await until(lambda: mesh.service.subscribers(NQ) == 0)


async def test_a_subscription_outlives_its_server_without_a_double_or_a_hole() -> None:
    async with serving() as first:
        port = first.server.port
        clients = Clients({PROVIDER: f"127.0.0.1:{port}"})
        reading = MarketClient(clients).subscribe([NQ], {MarketKind.TICKS, MarketKind.BARS})
        updates = asyncio.create_task(take(reading, ticks_up_to(500)))
        async with first.source() as source:
            await until(lambda: bool(reading.positions))
            for place in range(0, 200, 40):
                await source.feed(40, place, 10_000_000_000)
            await until(lambda: reading.positions[NQ].sequence == 200)
    async with serving(port=port) as second, second.source() as source:
        assert source.opened_at == 0
        await until(lambda: second.service.subscribers(NQ) == 1)
        for place in range(0, 500, 50):
            await source.feed(50, place, 10_000_000_000)
        got = await updates
    await clients.close()
    assert reading.reconnects >= 1
    assert sequences(got) == list(range(1, 501))
    bars = [update.bar for update in got if isinstance(update, BarClosed)]
    assert all(one.last_sequence + 1 == two.first_sequence for one, two in itertools.pairwise(bars))
    assert bars[0].first_sequence == 1
    assert not [update for update in got if isinstance(update, Gap | EpochChanged)]
