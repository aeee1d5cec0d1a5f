"""Decides how both ends of a DTC session open it, show that they live, and give each other up; pure, time comes in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from minhos_mesh.dtc.enums import Encoding
from minhos_mesh.dtc.message import Message, make
from minhos_mesh.dtc.tables.session import HEARTBEAT, LOGOFF

HANDSHAKE_TIMEOUT_S: Final = 20.0
"""How long an answer to the encoding request, and then to the logon, is waited for."""
DEAD_AFTER_INTERVALS: Final = 2
"""Intervals of silence after which the other side counts as dead."""


class Phase(Enum):
    """How far a session has come."""

    AWAITING_ENCODING = "AWAITING_ENCODING"
    AWAITING_LOGON = "AWAITING_LOGON"
    READY = "READY"
    CLOSED = "CLOSED"


class CloseReason(Enum):
    """Why a session ended."""

    NO_ENCODING_ANSWER = "NO_ENCODING_ANSWER"
    ENCODING_UNSUPPORTED = "ENCODING_UNSUPPORTED"
    NO_LOGON = "NO_LOGON"
    LOGON_REFUSED = "LOGON_REFUSED"
    ACCOUNT_UNKNOWN = "ACCOUNT_UNKNOWN"
    """The account that is to be traded is not at the server, or none was named and it has several."""
    REDIRECTED = "REDIRECTED"
    LOGGED_OFF = "LOGGED_OFF"
    OTHER_SIDE_SILENT = "OTHER_SIDE_SILENT"
    PROTOCOL_BROKEN = "PROTOCOL_BROKEN"


@dataclass(frozen=True, slots=True)
class Send:
    """Write a message."""

    message: Message
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class Switch:
    """Read what follows in this encoding."""

    encoding: Encoding


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection."""

    reason: CloseReason
    text: str
    """One sentence for people."""
    reconnect: bool = True
    """False when the other side asked not to be called again."""
    address: str = ""
    """Where to go instead (host:port); empty otherwise."""

    @property
    def not_let_in(self) -> bool:
        """Whether the other side does not let us in as we are set up."""
        return self.reason in {
            CloseReason.LOGON_REFUSED,
            CloseReason.ENCODING_UNSUPPORTED,
            CloseReason.ACCOUNT_UNKNOWN,
        }


@dataclass(frozen=True, slots=True)
class LoggedOn:
    """The session is open; `answer` is what the server said, or what the client asked on the server's side."""

    answer: Message


Action = Send | Switch | Close | LoggedOn


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One side of a session; `now` of every function is seconds of a clock that never goes back."""

    phase: Phase
    encoding: Encoding
    heartbeat_s: float | None
    """Seconds between heartbeats, both ways; None on a connection that has none."""
    since: float
    """When the phase began."""
    heard: float
    """When bytes came last."""
    beaten: float
    """When a heartbeat was sent last."""


@dataclass(frozen=True, slots=True)
class Step:
    """The session afterwards, and what is to be done now, in this order."""

    session: Session
    actions: tuple[Action, ...] = ()


def heard(session: Session, now: float) -> Session:
    """Notes that bytes came; any bytes are a sign of life."""
    return replace(session, heard=now)


def next_deadline(session: Session) -> float | None:
    """When `tick` has something to do at the latest; None when nothing is waited for."""
    if session.phase is Phase.CLOSED:
        return None
    if session.phase is not Phase.READY:
        return session.since + HANDSHAKE_TIMEOUT_S
    if session.heartbeat_s is None:
        return None
    dead = session.heard + DEAD_AFTER_INTERVALS * session.heartbeat_s
    return min(dead, session.beaten + session.heartbeat_s)


def tick(session: Session, now: float, wall_s: int, dropped: int = 0) -> Step:
    """Does what the time asks for: a heartbeat, or giving the other side up.

    `wall_s` is the time of day for the heartbeat, in seconds since 1970; `dropped` counts messages that were not sent.
    """
    deadline = next_deadline(session)
    if deadline is None or now < deadline:
        return Step(session)
    if session.phase is Phase.AWAITING_ENCODING:
        return closed(session, CloseReason.NO_ENCODING_ANSWER, "the encoding was not agreed on in time")
    if session.phase is Phase.AWAITING_LOGON:
        return closed(session, CloseReason.NO_LOGON, "the logon was not answered in time")
    interval = session.heartbeat_s or 0.0
    if now >= session.heard + DEAD_AFTER_INTERVALS * interval:
        seen = f"nothing was heard for {now - session.heard:.1f} s, with a heartbeat due every {interval:g} s"
        return closed(session, CloseReason.OTHER_SIDE_SILENT, seen)
    beat = make(HEARTBEAT, NumDroppedMessages=dropped, CurrentDateTime=wall_s)
    return Step(replace(session, beaten=now), (Send(beat, session.encoding),))


def closed(session: Session, reason: CloseReason, text: str, *, reconnect: bool = True, address: str = "") -> Step:
    """Ends a session without a word to the other side."""
    return Step(replace(session, phase=Phase.CLOSED), (Close(reason, text, reconnect, address),))


def log_off(session: Session, text: str, *, do_not_reconnect: bool = False) -> Step:
    """Ends a session with a word to the other side."""
    if session.phase is Phase.CLOSED:
        return Step(session)
    goodbye = make(LOGOFF, Reason=text, DoNotReconnect=int(do_not_reconnect))
    step = closed(session, CloseReason.LOGGED_OFF, text)
    return Step(step.session, (Send(goodbye, session.encoding), *step.actions))


def logged_off(session: Session, message: Message) -> Step:
    """Ends a session because the other side said so."""
    text = message.text("Reason") or "the other side logged off without a reason"
    return closed(session, CloseReason.LOGGED_OFF, text, reconnect=not message.flag("DoNotReconnect"))


def ready(session: Session, now: float, heartbeat_s: float | None) -> Session:
    """The session once both sides agree."""
    return replace(session, phase=Phase.READY, since=now, heard=now, beaten=now, heartbeat_s=heartbeat_s)
