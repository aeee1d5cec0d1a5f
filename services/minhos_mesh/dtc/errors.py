"""Decides what can be wrong with DTC bytes and values, and which of it ends a connection.

DtcError
 +- FramingLost           the stream cannot be read on; the connection must be closed
 +- MessageMalformed      one message is unreadable; the next one may be fine
 +- MessageUnencodable    a value does not fit its member; nothing was written
 +- ValueUnreadable       a price, a quantity or a time of the wire is none
"""

from __future__ import annotations


class DtcError(Exception):
    """Something is wrong with what came from, or would go to, a DTC peer. The text names what was seen."""


class FramingLost(DtcError):
    """Expected: where the next message begins is no longer known; only a new connection helps."""


class MessageMalformed(DtcError):
    """Expected: one message cannot be read and is left out; the stream goes on behind it."""


class MessageUnencodable(DtcError):
    """A value does not fit the member that is to carry it; names the message, the member and what was seen."""


class ValueUnreadable(DtcError):
    """Expected: a number on the wire is no price, quantity or time; names the member and what was seen."""

    def __init__(self, member: str, seen: object, allowed: str) -> None:
        self.member = member
        self.seen = seen
        self.allowed = allowed
        super().__init__(f"{member} is {seen}: allowed is {allowed}")
