"""Decides which messages are known, by number and by name.

Members, order, lengths and defaults are those of protocol version 8 as of 2022; later versions append members, so a
message is always read by its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from minhos_mesh.dtc.layout import Layout
from minhos_mesh.dtc.tables import depth, history, market, reference, session, trading

ALL: Final = (*session.TABLE, *market.TABLE, *depth.TABLE, *trading.TABLE, *reference.TABLE, *history.TABLE)
BY_TYPE: Final[Mapping[int, Layout]] = MappingProxyType({layout.type: layout for layout in ALL})
BY_NAME: Final[Mapping[str, Layout]] = MappingProxyType({layout.name: layout for layout in ALL})
