"""Who is told of which exit: everyone who follows, and a named follower also of those that it missed."""

from __future__ import annotations

from typing import Final

from minhos_mesh.node.connections import Connection
from minhos_mesh.node.record import KeeperRecord
from minhos_mesh.runtime.keeper_protocol import ProcessExit

_KEPT: Final = 256
"""How many exits are kept for followers that are away."""


class ExitLog:
    """The latest exits and the followers."""

    def __init__(self, record: KeeperRecord) -> None:
        self._record = record
        self._followers: list[Connection] = []

    def next_sequence(self) -> int:
        """The number of the next exit."""
        self._record.sequence += 1
        return self._record.sequence

    def last(self, service: str) -> ProcessExit | None:
        """The latest kept exit of a service."""
        return next((item for item in reversed(self._record.exits) if item.service == service), None)

    def add(self, exited: ProcessExit) -> None:
        """Keeps an exit and tells all followers."""
        self._record.exits.append(exited)
        del self._record.exits[:-_KEPT]
        self._followers = [follower for follower in self._followers if not follower.closed]
        for follower in self._followers:
            self._tell(follower, exited)

    def follow(self, connection: Connection, name: str) -> None:
        """Adds a follower and tells it what it has not heard; a nameless one begins with the next exit."""
        connection.follows = name
        self._followers.append(connection)
        if name:
            heard = self._record.heard.get(name, 0)
            for exited in self._record.exits:
                if exited.sequence > heard:
                    self._tell(connection, exited)

    def _tell(self, follower: Connection, exited: ProcessExit) -> None:
        if follower.send({"event": "exit", "exit": exited.to_json()}) and follower.follows:
            self._record.heard[follower.follows] = exited.sequence
