"""Decides what a person should do about each fault, in one sentence: one table by the code of the reason.

The codes are the causes of `domain.health` and the conditions that the services of this mesh report of themselves. A
condition of somebody else's service has the sentence of its kind, CONDITION.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

ACTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        # Causes: what the registry itself sees.
        "NOT_WANTED": "Nothing to do, unless it should run: then `minhos start {service}`.",
        "NOT_ATTACHED": "Wait for it to start; if it does not within its deadline, read `minhos logs {service}`.",
        "NOT_READY": "Wait until {subject} is ready; if it stays so, `minhos logs {service}` says what it waits for.",
        "DEPENDENCY_AWAITED": "Start or repair {subject}; what waits for it then goes on by itself.",
        "DEPENDENCY_DOWN": "Look at {subject} first; what needs it recovers by itself when it is back.",
        "CONDITION": "Look into the condition {subject} that {service} reports, in `minhos logs {service}`.",
        "NOT_SERVING": "Read why in `minhos logs {service}`; `minhos restart {service}` if {subject} does not recover.",
        "CHECK_FAILED": "See in `minhos top` whether {subject} is overloaded; `minhos restart {service}` if it goes on.",
        "HEARTBEAT_LATE": "Wait a second; if {subject} stays silent it is frozen or overloaded, and is replaced.",
        "LEASE_EXPIRED": "Wait until its process is replaced; `minhos restart {service}` if {subject} stays frozen.",
        "CONNECTION_LOST": "Nothing to do if it comes back by itself; otherwise look for a crash in `minhos logs {service}`.",
        "PROCESS_EXITED": "Read the end of `minhos logs {service}` for the cause; it is restarted with growing pauses.",
        "CRASH_LOOP": "Repair what `minhos logs {service}` ends with; it is tried again, but less and less often.",
        "START_TIMEOUT": "See in `minhos logs {service}` what it waits for; it is left running and may still come.",
        "DRAINING": "Nothing to do, it ends when its last calls are done.",
        "INSTANCE_DOWN": "Look at instance {subject} in `minhos logs {service}`; the others carry its calls meanwhile.",
        "INSTANCES_MISSING": "Wait for the others to start; if they do not, read `minhos logs {service}`.",
        # Conditions: what services say of themselves.
        "BREAKER_TRIPPED": "Find the cause with `minhos risk`, then `minhos risk reset --reason WHY`; until then only reductions pass.",
        "BRIDGE_SILENT": "Check that Sierra Chart runs beside the bridge and shows the symbols of minhos.toml; it is asked on.",
        "BRIDGE_UNREACHABLE": "Start the bridge beside Sierra Chart, or repair `bridge.address` in minhos.toml; it is tried again for ever.",
        "CONSUMERS_AHEAD": "Compare the last orders and fills with the venue: the journal lost its end; then restart {service}.",
        "DISCOVERY_REFUSED": "Update the client that is named: it goes on with older routes until it takes the new ones.",
        "DTC_AWAY": "Start Sierra Chart and its DTC Protocol Server where that is named; orders are then compared by themselves.",
        "DTC_DATA_NOT_PERMITTED": "Nothing to do, the files are read; take the symbol out of dtc.market_data to hear no more of it.",
        "DTC_NOT_LET_IN": "Repair `[dtc]` in minhos.toml (encoding, username, password_file, trade_account), then `minhos down` and `up`.",
        "DTC_ORDERS_UNKNOWN": "Look at the orders in Sierra Chart's Trade Activity Log, then `minhos order settle ORDER`; the server is asked on.",
        "DTC_POSITION_DIFFERS": "Halt trading with `minhos halt` until you know who else has traded on the account.",
        "DTC_SERVER_CHANGED": "Put the former server and account back in `[dtc]`, or `minhos up --data-dir ANOTHER_FOLDER` for the new one.",
        "DTC_SETTLED_OTHERWISE": "Compare the fills in the Trade Activity Log with `minhos positions`; then `minhos order confirm ORDER --reason WHY`.",
        "DTC_SYMBOL_UNKNOWN": "Set `dtc.symbol` to how Sierra Chart writes it, or another contract in `market_data.symbols`; then `minhos down` and `up`.",
        "DTC_TRADING_REFUSED": "Tick `Allow Trading` in the server settings of Sierra Chart; orders go through at the next logon.",
        "EVENT_BUS_AWAY": "Look at event_bus first; what is to be told waits on disk and is sent when it is back.",
        "EVENTS_HELD_BACK": "See in `minhos events consumers` who is behind; start it, or let go with `minhos events consumers --reset`.",
        "EVENTS_TAKEN": "Start the consumer that is named: it is told what it lost; `minhos events consumers` shows how much.",
        "EVENT_DISK_FULL": "Free space on the disk of the journal; events are taken again by themselves once there is some.",
        "EVENT_JOURNAL_DAMAGED": "Put a copy of `minhos events backup` in the place of the journal while the mesh is down.",
        "EVENT_STREAM_BROKEN": "Compare the stream at NATS with what is told of it: nothing is taken in until a person has settled it.",
        "EVENT_STREAM_UNREACHABLE": "Look at NATS first; events are taken in again by themselves when it answers.",
        "EVENT_TYPES_UNREADABLE": "Start a program that brings the event type that is named: it is learned anew then.",
        "FEED_ERROR": "Check the recording that is named; {service} goes on by itself when it can be read again.",
        "FEED_QUIET": "Check that the feed delivers: sierra_client, Sierra Chart, `minhos simulator faults`; the next price ends it.",
        "FILE_MISSING": "Check the folder of the feed in minhos.toml, and that Sierra Chart writes the file that is named.",
        "FILE_NOT_WRITTEN": "Free disk space or repair the rights of the folder that is named; writing is tried again.",
        "FOREIGN_ORDER": "Look at the order at the venue and cancel it there: the engine does not touch what it did not place.",
        "HISTORY_NOT_PACKED": "Import the day that is named with `minhos data import`, or move its file away; the rest goes on.",
        "HISTORY_NOT_RECORDED": "Free disk space or repair the rights of the history folder; prices flow on, recording goes on by itself.",
        "LOSS_LIMIT_PASSED": "Look at `minhos risk`; it ends at 00:00 UTC or with `minhos risk limits --max-daily-loss AMOUNT --reason WHY`.",
        "MARKET_DATA_UNREACHABLE": "Look at market_data first; {service} sends on from where it stopped when it is back.",
        "NO_TICKS": "Check that the feed delivers: sierra_client, Sierra Chart's connection, and whether the session is open.",
        "ORDERS_UNKNOWN": "Wait until the venue knows, it is asked on; or look the order up there and tell it with `minhos order settle`.",
        "PORTFOLIO_DIFFERS": "Compare `minhos positions` with the state and halt trading until you know which one is right.",
        "PROVENANCE_REFUSED": "Repair `sierra_client.provenance` or `folder` in minhos.toml as it says, then `minhos down` and `up`.",
        "REPLAY_WAITS": "Look at the service that the replay waits for; it goes on when that service has caught up.",
        "RISK_STEPS_FAIL": "Halt trading with `minhos halt` and read `minhos logs risk_manager`: its books are behind.",
        "ROUTE_NOT_FOLLOWED": "Start what the strict route names, or take it back with `minhos route rollback`.",
        "SETTLED_OTHERWISE": "Compare the fills at the venue with `minhos positions`; what is booked stays; then `minhos order confirm ORDER --reason WHY`.",
        "SIGNALS_NOT_READ": "Look at event_bus first; {service} reads its earlier signals when it is back.",
        "STATE_AWAY": "Look at state_manager first; its last word holds meanwhile.",
        "STORE_UNREACHABLE": "Look at etcd first; what is attached goes on, and new instances wait until it answers.",
        "VENUE_CHANGED": "Put back the venue that is named in minhos.toml and end there what is open, or take another data folder.",
        "VENUE_AWAY": "Look at the venue first; orders whose outcome is not known are asked for when it is back.",
    }
)
"""Sentence by code; `{service}` is the service that is judged, `{subject}` what the reason is about."""

FALLBACK: Final = "CONDITION"
"""The code whose sentence stands for codes that are not in the table."""


def action_for(code: str, *, service: str, subject: str) -> str:
    """What a person should do. `subject` is an instance, a dependency or a condition; empty for the service itself."""
    return ACTIONS.get(code, ACTIONS[FALLBACK]).format(service=service, subject=subject or service)
