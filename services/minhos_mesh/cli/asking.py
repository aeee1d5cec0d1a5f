"""Decides what every request of a person carries: who asks, and an id of its own."""

from __future__ import annotations

import getpass
import uuid


def actor() -> str:
    """Who types: the name of the account on this machine."""
    return getpass.getuser()


def fresh_id() -> str:
    """The id of a request that is made once; the same one again would be the same request."""
    return f"cli-{uuid.uuid4()}"
