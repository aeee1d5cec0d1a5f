"""Decides what the run folder tells of where services listen, for who must reach one while the registry does not answer."""

from __future__ import annotations

from collections.abc import Collection

from minhos_mesh.registry.domain.directory import Present
from minhos_mesh.runtime.last_listing import LastListing, Listed
from minhos_mesh.runtime.paths import MeshPaths


class LastAddresses:
    """Writes down the newest instance of each planned service; it stays there until another one comes.

    Nobody calls by it while the registry answers, and whoever does looks first whether that very process still runs.
    """

    def __init__(self, paths: MeshPaths, planned: Collection[str]) -> None:
        """Strangers are not written down: there may be any number of them."""
        self._listing, self._planned = LastListing(paths), frozenset(planned)

    def note(self, present: Present, here: bool) -> None:
        """An instance has come (`here`) or gone."""
        known = present.pid is not None and present.process_started is not None and present.port
        if here and known and present.key.service in self._planned:
            self._listing.put(
                Listed(
                    service=present.key.service,
                    instance_id=present.key.instance_id,
                    address=present.address,
                    contracts=present.contracts,
                    pid=present.pid or 0,
                    start_ticks=present.process_started or 0,
                )
            )
