"""Decides how decisions and views are said in the contracts."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.brain.v1 import ai_brain_service_pb2 as pb
from minhos_api.brain.v1 import signal_pb2
from minhos_api.market.v1 import provenance_pb2, quote_pb2
from minhos_mesh.ai_brain.domain.decide import WEIGHTS, Told, band
from minhos_mesh.ai_brain.domain.findings import Action, Analysis, Finding
from minhos_mesh.ai_brain.service import AnalysisRecord, Counters, PastSignal, SignalRecord

_ACTIONS: Mapping[Action, signal_pb2.SignalAction.ValueType] = {
    Action.BUY: signal_pb2.SIGNAL_ACTION_BUY,
    Action.SELL: signal_pb2.SIGNAL_ACTION_SELL,
    Action.HOLD: signal_pb2.SIGNAL_ACTION_HOLD,
}
_ANALYSES: Mapping[Analysis, signal_pb2.AnalysisKind.ValueType] = {
    Analysis.TREND: signal_pb2.ANALYSIS_KIND_TREND,
    Analysis.MOMENTUM: signal_pb2.ANALYSIS_KIND_MOMENTUM,
    Analysis.VOLATILITY: signal_pb2.ANALYSIS_KIND_VOLATILITY,
    Analysis.VOLUME: signal_pb2.ANALYSIS_KIND_VOLUME,
    Analysis.PATTERN: signal_pb2.ANALYSIS_KIND_PATTERN,
}
_QUOTED = (
    ("price_e9", "last_price_e9"),
    ("size", "last_size"),
    ("bid_e9", "bid_e9"),
    ("ask_e9", "ask_e9"),
    ("bid_size", "bid_size"),
    ("ask_size", "ask_size"),
)


def stamp(time_ns: int) -> Timestamp:
    """An instant."""
    made = Timestamp()
    made.FromNanoseconds(time_ns)
    return made


def signal_to_proto(record: SignalRecord) -> signal_pb2.Signal:
    """A decision as it is told."""
    timed, decision = record.timed, record.timed.decision
    return signal_pb2.Signal(
        signal_id=record.signal_id,
        symbol=record.symbol,
        action=_ACTIONS[decision.action],
        confidence=decision.confidence,
        target_price_e9=decision.target_e9,
        stop_price_e9=decision.stop_e9,
        reasons=[finding_to_proto(finding) for finding in decision.view.findings],
        quote=_quote(record.symbol, record.epoch, record.provenance, timed.sequence, timed.event_time_ns, timed.quote),
        decision_time=stamp(timed.event_time_ns),
        through_sequence=timed.sequence,
        bars_used=decision.view.bars_used,
    )


def past_from_proto(signal: signal_pb2.Signal, thresholds: tuple[float, ...]) -> PastSignal[signal_pb2.Signal]:
    """A signal that was told before."""
    action = next(action for action, value in _ACTIONS.items() if value == signal.action)
    return PastSignal(signal, signal.quote.epoch, Told(action, band(signal.confidence, thresholds)))


def analysis_to_proto(record: AnalysisRecord) -> signal_pb2.MarketAnalysis:
    """What is seen in a market."""
    view = record.view
    return signal_pb2.MarketAnalysis(
        symbol=record.symbol,
        findings=[finding_to_proto(finding) for finding in view.findings],
        score=view.score,
        bars_used=view.bars_used,
        support_e9=view.support_e9,
        resistance_e9=view.resistance_e9,
        quote=_quote(
            record.symbol, record.epoch, record.provenance, record.sequence, record.event_time_ns, record.quote
        ),
        analysis_time=stamp(record.event_time_ns),
    )


def finding_to_proto(finding: Finding) -> signal_pb2.SignalReason:
    """A finding with its share of the score."""
    return signal_pb2.SignalReason(
        analysis=_ANALYSES[finding.analysis],
        code=finding.code,
        message=finding.message,
        score=finding.score * WEIGHTS[finding.analysis],
        values=finding.values,
    )


def progress_to_proto(symbol: str, counters: Counters, bars: int, event_time_ns: int) -> pb.BrainProgress:
    """How far the brain has come with a symbol."""
    return pb.BrainProgress(
        symbol=symbol,
        epoch=counters.epoch,
        through_sequence=counters.through_sequence,
        ticks_delivered=counters.ticks,
        gaps=counters.gaps,
        bars=bars,
        signals=counters.signals,
        event_time=stamp(event_time_ns) if event_time_ns else None,
        told_sequence=counters.told_sequence,
    )


def _quote(
    symbol: str, epoch: int, provenance: int, sequence: int, time_ns: int, values: Mapping[str, int]
) -> quote_pb2.Quote:
    quote = quote_pb2.Quote(
        symbol=symbol,
        event_time=stamp(time_ns),
        sequence=sequence,
        epoch=epoch,
        provenance=provenance_pb2.Provenance.ValueType(provenance),
    )
    for name, field in _QUOTED:
        if name in values:
            setattr(quote, field, values[name])
    return quote
