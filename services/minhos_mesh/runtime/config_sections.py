"""Decides the tables of the configuration: their keys, what each may hold, and what it is when nobody says anything."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from minhos_mesh.runtime.money import MoneyError, parse_e9


def _decimal_e9(value: object) -> object:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            return parse_e9(str(value), field="amount")
        except MoneyError as error:
            raise ValueError(str(error)) from None
    raise ValueError(f"allowed is a decimal such as 2.50, seen {value!r}")


E9 = Annotated[int, BeforeValidator(_decimal_e9)]
"""Written as a decimal in the file, held in 1e-9 units."""


class Section(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class MeshSection(Section):
    """Where the mesh listens."""

    bind: str = "127.0.0.1"
    """Address that all services listen on; loopback only."""
    port: int = Field(0, ge=0, le=65535)
    """Port of the registry; 0 picks a free one at the first start and keeps it for the life of the data folder."""
    zone: str = Field("", pattern="^[A-Za-z0-9_.-]{0,64}$")
    """Where this machine stands; its clients call instances of the same zone while one of them serves. Empty is everywhere."""

    @field_validator("bind")
    @classmethod
    def _loopback(cls, value: str) -> str:
        try:
            loopback = ip_address(value).is_loopback
        except ValueError:
            raise ValueError(f"allowed is an address of the loopback such as 127.0.0.1, seen {value!r}") from None
        if not loopback:
            raise ValueError(f"only loopback is allowed while calls carry no identity, seen {value!r}")
        return value


def addresses(values: tuple[str, ...], example: str) -> tuple[str, ...]:
    """Checks addresses. Raises ValueError."""
    for value in values:
        host, _, port = value.rpartition(":")
        if not host or "/" in host or not port.isdigit() or not 0 < int(port) < 65_536:
            raise ValueError(f"allowed is host:port such as {example}, seen {value!r}")
    if len(set(values)) != len(values):
        raise ValueError(f"each address may stand once, seen {', '.join(values)}")
    return values


class MarketDataSection(Section):
    """What market data holds."""

    symbols: tuple[str, ...] = ()
    """Canonical symbols; the feed's own when empty."""
    primary: str | None = None
    """Symbol that is meant when a request names none; the first when unset."""
    ring_ticks: int = Field(262_144, ge=1_024, le=67_108_864)
    """Ticks held per symbol for readers that resume."""
    record: tuple[Literal["LIVE", "DELAYED", "REPLAY", "SIMULATED"], ...] = ("LIVE", "DELAYED", "REPLAY", "SIMULATED")
    """Ticks of these provenances are kept in the folder `history`."""
    keep_invented_days: int = Field(30, ge=0, le=36_500)
    """Simulated and replayed days are removed from the history so long after they were written; 0 keeps them."""
    max_tick_age_s: float = Field(300.0, gt=0)
    """Market data is DEGRADED when no tick came for this long in an open session."""


class SierraClientSection(Section):
    """What the Sierra client reads."""

    folder: Path | None = None
    """Folder of the `.scid` files; the simulator's own when unset."""
    provenance: Literal["LIVE", "DELAYED", "REPLAY", "SIMULATED"] = "SIMULATED"
    """What the files are declared to be; LIVE is refused beside a simulator's marker."""
    poll_s: float = Field(0.01, gt=0, le=60)
    """How often the size of a file is looked at where its mount tells no changes."""
    inotify: bool = True
    """Whether changes are listened for; false looks every `poll_s`, for a mount that tells only some of them."""
    depth: bool = True
    """Whether order books are read of `.depth` files, where there are any; never in a replay."""
    history_hours: float = Field(48.0, ge=0)
    """How far back a file is read when it is seen first; a replay is always read whole."""


class DtcSection(Section):
    """The DTC server of Sierra Chart: where it is and what is traded there."""

    host: str = "127.0.0.1"
    """Where Sierra Chart runs; its server takes other machines only when it is told to."""
    port: int | None = Field(None, ge=1, le=65_535)
    """Port of its DTC Protocol Server, mostly 11099; unset connects to none. The simulator's own where that is the venue."""
    encoding: Literal["json", "binary", "binary_variable"] = "json"
    """How messages are to be written; a server that answers with another of them is followed."""
    ask_encoding: bool = True
    """False for a server that is set to one encoding, which it then expects from the first byte."""
    username: str = ""
    """Name of the Sierra Chart account where the server asks for one."""
    password_file: Path | None = None
    """File whose first line is the password; read at each start and kept nowhere."""
    trade_account: str = ""
    """Account that is traded; may be left out where the server has only one."""
    formerly: str = ""
    """`HOST:PORT` at which this very Sierra Chart was before it had another address; needed for the accounts of its simulation alone."""
    account_is_ours: bool = False
    """True when nobody else trades on the account, so that fills of an order that was never answered can be told to be its own."""
    account_is_simulated: bool = False
    """Declares that no money is behind the account; believed only of one whose name begins with Sim, as those of Sierra Chart's simulation do."""
    heartbeat_s: int = Field(10, ge=5, le=60)
    """Seconds between heartbeats; a server that is silent for twice as long is given up."""
    symbol: str = "{contract}-{exchange}"
    """How the data service of Sierra Chart writes a symbol, for example `{contract}_FUT_{exchange}`."""
    market_data: tuple[str, ...] = ()
    """Canonical symbols whose ticks are asked for over DTC; their files are read where the server refuses."""
    commission: E9 = Field(0, ge=0)
    """Commission per contract, which a DTC server does not tell."""

    @field_validator("symbol")
    @classmethod
    def _pattern(cls, value: str) -> str:
        try:
            first, second = (value.format(contract=name, exchange="CME") for name in ("ONE", "OTHER"))
        except (LookupError, ValueError):
            first = second = ""
        if first == second or len(first) > 63:
            raise ValueError(f"allowed is a text with {{contract}} and {{exchange}} in it, seen {value!r}")
        return value

    @model_validator(mode="after")
    def _simulated_is_named(self) -> DtcSection:
        if self.account_is_simulated and not self.trade_account.startswith("Sim"):
            raise ValueError(
                f"account_is_simulated needs a trade_account whose name begins with Sim, seen {self.trade_account!r}"
            )
        return self


class PaperVenueSection(Section):
    """How the paper venue fills."""

    latency_ms: int = Field(50, ge=0, le=60_000)
    """Time between a decision and the order's being in the market, in a replay."""
    slippage_ticks: int = Field(0, ge=0, le=1_000)
    """Ticks that a market order pays beyond the quote."""
    commission: E9 = Field(2_040_000_000, ge=0)
    """Commission per contract."""
    initial_cash: E9 = Field(100_000_000_000_000, gt=0)
    """Cash of the account at the beginning."""
    max_quote_age_s: float = Field(10.0, gt=0)
    """An older quote fills nothing."""


class RiskSection(Section):
    """Limits that hold until a person changes them while the mesh runs."""

    max_order_quantity: int = Field(5, ge=1)
    """Contracts of one order."""
    max_position: int = Field(5, ge=1)
    """Contracts held of one symbol."""
    max_open_positions: int = Field(3, ge=1)
    """Symbols with an open position."""
    max_exposure: E9 = Field(5_000_000_000_000_000, gt=0)
    """Value of all positions, with multiplier."""
    max_daily_loss: E9 = Field(5_000_000_000_000, gt=0)
    """Loss of one day."""
    max_drawdown: E9 = Field(10_000_000_000_000, gt=0)
    """Fall from the highest equity."""
    price_collar_ticks: int = Field(400, ge=1)
    """How far a price may be from the last one."""
    max_price_age_s: float = Field(10.0, gt=0)
    """How old the newest price may be."""
    max_orders_per_minute: int = Field(60, ge=1)
    """Orders within any 60 seconds."""
    approval_s: float = Field(10.0, gt=0)
    """How long an approval holds its exposure without a word of its order."""


class BrainSection(Section):
    """How the brain decides."""

    fast_bars: int = Field(5, ge=2, le=500)
    """Bars of the fast moving average."""
    slow_bars: int = Field(20, ge=3, le=2_000)
    """Bars of the slow moving average."""
    rsi_bars: int = Field(14, ge=2, le=500)
    """Bars of the relative strength index."""
    volatility_bars: int = Field(20, ge=3, le=500)
    """Bars of the volatility."""
    volume_bars: int = Field(20, ge=3, le=500)
    """Bars of the average volume."""
    step_s: float = Field(5.0, ge=0.001, le=60)
    """How often a market is looked at between the closes of its bars, by event time."""
    min_confidence: float = Field(0.5, ge=0, le=1)
    """A signal below it is not published."""
    max_price_age_s: float = Field(10.0, gt=0)
    """No signal on older data; not applied in a replay, where a decision falls on its tick."""

    @model_validator(mode="after")
    def _fast_is_faster(self) -> BrainSection:
        if self.fast_bars >= self.slow_bars:
            raise ValueError(f"fast_bars is {self.fast_bars}: allowed is less than slow_bars ({self.slow_bars})")
        return self


class EngineSection(Section):
    """How the trading engine acts."""

    venue: Literal["paper_venue", "sierra_client"] = "paper_venue"
    """Who executes orders: the paper venue, or sierra_client at the DTC server of `[dtc]`. One of them runs as the venue."""
    mode: Literal["auto", "MANUAL", "SEMI_AUTO", "FULL_AUTO"] = "auto"
    """Mode at the first start; `auto` is FULL_AUTO on the paper venue with data that is not LIVE, else MANUAL."""
    auto_threshold: float = Field(0.75, ge=0.5, le=1)
    """Confidence from which a signal is acted on without a person, at the first start; then the state manager's."""
    order_quantity: int = Field(1, ge=1)
    """Contracts of an order that a signal leads to, at the first start; then the state manager's."""
    reverse: bool = True
    """Whether a signal against the position turns it over; otherwise it only closes it."""
    venue_timeout_s: float = Field(2.0, gt=0)
    """When the outcome of an order at the venue counts as not known."""


class EventBusSection(Section):
    """Where the event bus keeps its journal, and how long; limits of 0 are no limits. Units of 1,000,000 bytes."""

    engine: Literal["sqlite", "jetstream"] = "sqlite"
    """A file of this machine, or a stream of NATS JetStream that the disks of several servers keep."""
    servers: tuple[str, ...] = ()
    """Where NATS answers, `host:port`; all of one cluster. They must run with `sync_interval: always`."""
    stream: str = Field("MINHOS_EVENTS", pattern="^[A-Za-z0-9_-]{1,64}$")
    """Name of the stream; two meshes on one NATS have two."""
    replicas: Literal[1, 3, 5] = 3
    """How many of the servers keep the stream; an event is acknowledged when more than half of them have it on disk."""
    stream_timeout_s: float = Field(5.0, ge=0.5, le=60)
    """How long a publish waits for servers that do not answer, and how long the start looks for one."""
    max_age_h: float = Field(720.0, ge=0)
    """Events older than this are forgotten."""
    max_mb: int = Field(4_000, ge=0)
    """The oldest events are forgotten beyond this size of all encoded events together."""
    max_events_per_type: int = Field(0, ge=0)
    """The oldest events of a type are forgotten beyond this number."""
    max_events_of: dict[str, int] = {}
    """Table `[event_bus.max_events_of]`: as `max_events_per_type`, for the types that are named in it."""
    unacked_max_age_h: float = Field(2_160.0, ge=0)
    """Events that a durable consumer has not acknowledged are kept for it until they are older than this; then it is told what it lost."""
    unacked_max_mb: int = Field(12_000, ge=0)
    """As `unacked_max_age_h`, by size of all events."""
    keep_s: float = Field(120.0, ge=120, le=86_400)
    """No event is forgotten sooner than this, so that one that is published again meanwhile is always noticed."""

    @field_validator("servers")
    @classmethod
    def _servers(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return addresses(values, "127.0.0.1:4222")

    @model_validator(mode="after")
    def _jetstream_has_servers(self) -> EventBusSection:
        if self.engine == "jetstream" and not self.servers:
            raise ValueError(
                'servers is missing: engine = "jetstream" needs the addresses of NATS such as ["127.0.0.1:4222"]'
            )
        if self.engine == "sqlite" and self.servers:
            raise ValueError(f'servers is {list(self.servers)}: allowed only with engine = "jetstream"')
        return self

    @field_validator("max_events_of")
    @classmethod
    def _counts(cls, value: dict[str, int]) -> dict[str, int]:
        for name, count in value.items():
            if count < 1:
                raise ValueError(f"{name} is {count}: allowed is 1 or more")
        return value

    @model_validator(mode="before")
    @classmethod
    def _no_limit_is_none_for_all(cls, given: Any) -> Any:
        """Where there is no limit at all, what was not acknowledged has none either unless it is given one."""
        if not isinstance(given, dict):
            return given
        pairs = (("unacked_max_age_h", "max_age_h"), ("unacked_max_mb", "max_mb"))
        return {**{hard: 0 for hard, soft in pairs if given.get(soft) in (0, "0")}, **given}

    @model_validator(mode="after")
    def _unacked_is_more(self) -> EventBusSection:
        for hard, soft in (("unacked_max_age_h", "max_age_h"), ("unacked_max_mb", "max_mb")):
            bound, limit = getattr(self, hard), getattr(self, soft)
            if bound and (not limit or bound < limit):
                raise ValueError(f"{hard} is {bound:g}: allowed is {soft} ({limit:g}) or more, or 0")
        return self


class RegistrySection(Section):
    """How the registry watches over services."""

    ready_deadline_s: float = Field(15.0, gt=0)
    """How long a service may take until it serves."""
    stop_deadline_s: float = Field(10.0, gt=0)
    """How long a service may take to end before it is killed."""
    heartbeat_s: float = Field(0.5, gt=0.05, le=10)
    """How often an instance tells that it lives."""
    lease_s: float = Field(1.5, gt=0.1, le=60)
    """A lease ends when nothing was heard for this long."""
    liveness_deadline_s: float = Field(10.0, gt=1)
    """A process that lives and has been silent for this long is killed and started again."""
    check_s: float = Field(10.0, gt=0.1)
    """How often every instance is asked for its health."""
    max_instances_of_service: int = Field(1_024, ge=1, le=4_096)
    """Instances of one service that may be attached at once."""
    max_silent_streams: int = Field(2_048, ge=1, le=10_000)
    """Attach streams that may be open without having said who they are; beyond them the longest silent one is ended."""
    store: Literal["sqlite", "etcd"] = "sqlite"
    """Where it keeps what it knows: a file of this machine, or an etcd that the registries of several machines share."""
    endpoints: tuple[str, ...] = ()
    """Where etcd answers, `host:port`; all of one cluster."""
    prefix: str = Field("minhos/mesh", pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$", max_length=200)
    """First part of all keys in etcd; registries of one mesh have the same, two meshes on one etcd have two."""
    store_timeout_s: float = Field(2.0, ge=0.1, le=60)
    """How long etcd may take to answer."""
    peers: tuple[str, ...] = ()
    """Addresses of other registries of the mesh, where instances attach while this one does not answer; those that share an etcd find each other."""

    @field_validator("endpoints", "peers")
    @classmethod
    def _reachable(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return addresses(values, "127.0.0.1:2379")

    @model_validator(mode="after")
    def _etcd_has_endpoints(self) -> RegistrySection:
        if self.store == "etcd" and not self.endpoints:
            raise ValueError(
                'endpoints is missing: store = "etcd" needs the addresses of etcd such as ["127.0.0.1:2379"]'
            )
        if self.store == "sqlite" and self.endpoints:
            raise ValueError(f'endpoints is {list(self.endpoints)}: allowed only with store = "etcd"')
        return self


class RoutingSection(Section):
    """How the clients of every contract treat those who serve it; told to them by the registry, in every language."""

    retries: int = Field(4, ge=0, le=4)
    """How often a call that its contract lets be repeated is sent again when it ends with UNAVAILABLE; gRPC makes at most 5 attempts in all. 0 is off."""
    retry_base_ms: int = Field(25, ge=1, le=10_000)
    """Pause before the first repetition; it doubles with each, and is shortened by chance."""
    retry_max_ms: int = Field(250, ge=1, le=60_000)
    """Longest pause between two attempts."""
    max_requests: int = Field(1_024, ge=1, le=1_000_000)
    """Circuit breaker: calls and streams that one client process may have open to one contract at once; more fail with UNAVAILABLE at once."""
    ejection: Literal["failures", "success_rate", "off"] = "failures"
    """How a client tells that an instance is sick and stops calling it for a while: nearly all its calls fail, it fails clearly more often than
    the others, or never. Every status but OK counts, refusals too, so the bound of `failures` should stay high."""
    ejection_interval_s: float = Field(1.0, ge=0.1, le=3_600)
    """How often a client looks."""
    ejection_time_s: float = Field(5.0, ge=0.1, le=3_600)
    """How long an instance is left alone the first time; each further time is longer by as much."""
    ejection_max_time_s: float = Field(30.0, ge=0.1, le=3_600)
    """The longest time."""
    ejection_max_percent: int = Field(50, ge=0, le=100)
    """Part of the instances that may be left alone at once; one always may."""
    ejection_failure_percent: int = Field(90, ge=0, le=100)
    """Calls of an interval that must have failed, with `failures`."""
    ejection_min_requests: int = Field(20, ge=1, le=1_000_000)
    """Calls of an interval below which an instance is not judged."""
    ejection_min_endpoints: int = Field(2, ge=1, le=1_000)
    """Instances below which none is judged."""
    ejection_deviations: float = Field(1.9, ge=0, le=100)
    """How many standard deviations below the mean a rate of success must be, with `success_rate`."""


class LogSection(Section):
    """How much is logged."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """What is below is left out."""
