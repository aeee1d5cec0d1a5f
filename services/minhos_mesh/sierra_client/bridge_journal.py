"""Decides how ticks of the bridge are kept, so that they reach market data once each whatever dies: as a .scid file of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from minhos_mesh.runtime.money import E9
from minhos_mesh.sierra_client.bridge_quotes import BridgeQuote
from minhos_mesh.sierra_files.header import ScidError
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, SUFFIX, empty_records
from minhos_mesh.sierra_files.reader import ScidFile
from minhos_mesh.sierra_files.writer import ScidWriter

LONGEST_FILE: Final = 2_000_000
"""Records; a longer file is begun anew at the next start, as another generation."""


class BridgeJournal:
    """The file of one symbol; its times are those at which quotes were received, strictly rising."""

    def __init__(self, folder: Path, symbol: str) -> None:
        self.path = folder / f"{symbol}{SUFFIX}"
        self._writer: ScidWriter | None = None
        self._last_us = 0

    def open(self) -> None:
        """Goes on with the file, or makes it. Raises ScidError."""
        if self._writer is not None:
            return
        if self.path.exists():
            with ScidFile(self.path) as file:
                count = file.count()
                last = file.read(max(0, count - 1), 1)
            if count <= LONGEST_FILE:
                self._writer = ScidWriter.resume(self.path)
                self._last_us = int(last["time_us"][0]) if len(last) else 0
                return
        self._writer = ScidWriter.create(self.path)

    def write(self, quote: BridgeQuote, receive_ns: int) -> None:
        """Appends a trade without a size, which the bridge does not know. Raises ScidError; nothing is written then."""
        self.open()
        if self._writer is None:
            raise ScidError(f"{self.path} is not open")
        record = empty_records(1)
        self._last_us = max(receive_ns // 1000 + EPOCH_SHIFT_US, self._last_us + 1)
        record["time_us"] = self._last_us
        record["close"] = quote.price_e9 / E9
        record["low"] = 0 if quote.bid_e9 is None else quote.bid_e9 / E9
        record["high"] = 0 if quote.ask_e9 is None else quote.ask_e9 / E9
        record["num_trades"] = 1
        self._writer.append(record)

    def close(self) -> None:
        """Gives the file back; a second call does nothing."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
