"""Decides where a process can be told to die or to freeze, so that tests meet the moments that chance seldom meets.

Off unless the environment names a point when the process starts: `MINHOS_FAULT_POINT=publish.after_commit:3` kills it when it
comes there for the third time, `MINHOS_FAULT_POINT=publish.after_commit:3:stop` freezes it there. Never set it in a mesh that trades.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Final

ENVIRONMENT: Final = "MINHOS_FAULT_POINT"

POINTS: Final = {
    "publish.before_commit": "a batch is written and not committed",
    "publish.after_commit": "a batch is committed, nobody was told",
    "publish.before_answer": "a batch is known to be stored, its answer is not sent",
    "consumer.before_commit": "what consumers remember, acknowledgements above all, is written and not committed",
    "consumer.after_commit": "what consumers remember is committed",
    "dead_letter.before_commit": "dead letters are written and not committed",
    "dead_letter.after_commit": "dead letters are committed",
    "redelivery.before_send": "an event is about to go out once more",
    "retention.before_commit": "old events are removed and that is not committed",
    "retention.after_commit": "the removal of old events is committed, nobody was told",
    "stream.before_write": "a record is decided and not sent to the servers (jetstream)",
    "stream.after_write": "the servers have acknowledged a record that this machine's copy has not (jetstream)",
    "stream.before_cut": "a whole copy is stored, and what it covers is about to leave the log (jetstream)",
}
"""Every point by name, with what holds there."""

_ACTIONS: Final = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@dataclass(slots=True)
class _Armed:
    name: str
    left: int
    signal: signal.Signals

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.signal)


def reached(name: str) -> None:
    """The process is at this point of POINTS: nothing happens, unless it is the one to be killed or frozen here."""
    if _armed is not None and _armed.name == name:
        _armed.count()


def armed(text: str | None) -> _Armed | None:
    """What a value of the environment asks for. Raises ValueError when it names no point."""
    if not text:
        return None
    name, _, rest = text.partition(":")
    nth, _, action = rest.partition(":")
    if name not in POINTS or not (nth or "1").isdecimal() or (action or "kill") not in _ACTIONS:
        known = ", ".join(POINTS)
        raise ValueError(f"{ENVIRONMENT} is {text!r}: allowed is NAME[:NTH[:kill|stop]] with a NAME of {known}")
    return _Armed(name, int(nth or 1), _ACTIONS[action or "kill"])


_armed: Final = armed(os.environ.get(ENVIRONMENT))
