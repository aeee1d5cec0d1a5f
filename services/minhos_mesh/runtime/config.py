"""Decides what can be configured at start, what it means, and how a mistake in it is told."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import Field, ValidationError, field_validator, model_validator

from minhos_mesh.runtime.catalogue import service_names
from minhos_mesh.runtime.config_sections import (
    BrainSection,
    DtcSection,
    EngineSection,
    EventBusSection,
    LogSection,
    MarketDataSection,
    MeshSection,
    PaperVenueSection,
    RegistrySection,
    RiskSection,
    RoutingSection,
    Section,
    SierraClientSection,
)
from minhos_mesh.runtime.feed_sections import BridgeSection, FeedSection
from minhos_mesh.runtime.instruments import (
    DEFAULT_INSTRUMENTS,
    InstrumentError,
    InstrumentSpec,
    spec_for,
    with_configured,
)
from minhos_mesh.runtime.service_settings import ServiceSection, check_services
from minhos_mesh.runtime.symbols import Symbol, SymbolError, current_contract, parse_symbol, symbol_of_file

_LISTS: Final = ("symbols", "endpoints", "peers", "servers", "record", "market_data", "roots")
"""Keys that hold several values, separated by commas in the environment."""
ENVIRONMENT_PREFIX: Final = "MINHOS_"
"""`MINHOS_RISK__MAX_POSITION=3` is the key `max_position` of the table `[risk]`."""


class ConfigError(Exception):
    """Expected: the configuration is wrong; the text names file, key, what was seen and what is allowed."""


class MeshConfig(Section):
    """The whole file."""

    mesh: MeshSection = MeshSection()
    """Table `[mesh]`."""
    feed: FeedSection = FeedSection()
    """Table `[feed]`."""
    market_data: MarketDataSection = MarketDataSection()
    """Table `[market_data]`."""
    sierra_client: SierraClientSection = SierraClientSection()
    """Table `[sierra_client]`."""
    dtc: DtcSection = DtcSection()
    """Table `[dtc]`."""
    bridge: BridgeSection = BridgeSection()
    """Table `[bridge]`."""
    paper_venue: PaperVenueSection = PaperVenueSection()
    """Table `[paper_venue]`."""
    risk: RiskSection = RiskSection()
    """Table `[risk]`."""
    brain: BrainSection = BrainSection()
    """Table `[brain]`."""
    engine: EngineSection = EngineSection()
    """Table `[engine]`."""
    event_bus: EventBusSection = EventBusSection()
    """Table `[event_bus]`."""
    registry: RegistrySection = RegistrySection()
    """Table `[registry]`."""
    routing: RoutingSection = RoutingSection()
    """Table `[routing]`."""
    log: LogSection = LogSection()
    """Table `[log]`."""
    instruments: dict[str, dict[str, str | int | float | bool]] = Field(default_factory=dict)
    """Tables `[instruments.ROOT]`: tick, multiplier, currency, exchange, description, tradeable."""
    services: dict[str, ServiceSection] = Field(default_factory=dict)
    """Tables `[services.NAME]`: how a service is kept alive, and programs of your own beside those of the mesh."""

    @model_validator(mode="after")
    def _services_fit(self) -> MeshConfig:
        check_services(self.services, service_names())
        return self

    @field_validator("instruments")
    @classmethod
    def _known_keys(cls, value: dict[str, dict[str, str | int | float | bool]]) -> dict[str, Any]:
        try:
            with_configured(value)
        except InstrumentError as error:
            raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _symbols_parse(self) -> MeshConfig:
        for text in self.market_data.symbols:
            _symbol(text, self.specs())
        return self

    @model_validator(mode="after")
    def _venue_can_be_reached(self) -> MeshConfig:
        if self.engine.venue == "sierra_client":
            if self.feed.kind == "replay" or self.replay():
                raise ValueError('engine.venue is "sierra_client": a replay is traded at "paper_venue" only')
            if self.dtc.port is None and not self.feed.dtc_port:
                raise ValueError(
                    'dtc.port is missing: engine.venue = "sierra_client" needs the port of a DTC server, mostly 11099'
                )
        return self

    @model_validator(mode="after")
    def _chosen_symbols_are_there(self) -> MeshConfig:
        stranger = self._stranger(self.market_data.symbols) if self.market_data.symbols else ""
        if stranger:
            raise ValueError(stranger)
        return self

    def _stranger(self, symbols: tuple[str, ...]) -> str:
        """What is wrong with the keys that name some symbols of the mesh, when it has these; empty when nothing is."""
        listed, primary = f"market_data.symbols ({', '.join(symbols)})", self.market_data.primary
        if primary is not None and primary not in symbols:
            return f"market_data.primary is {primary!r}: allowed is one of {listed}"
        bridged = self.bridge.symbols if self.bridge.address is not None else ()
        for key, names in (("dtc.market_data", self.dtc.market_data), ("bridge.symbols", bridged)):
            unknown = [text for text in names if text not in symbols]
            if unknown:
                return f"{key} names {unknown[0]!r}: allowed are those of {listed}"
        return ""

    @model_validator(mode="after")
    def _bridge_is_one_source(self) -> MeshConfig:
        bridge = self.bridge
        if bridge.address is None or bridge.symbols or self.feed.kind == "none":
            return self
        raise ValueError(
            f'feed.kind is "{self.feed.kind}" and bridge.symbols is empty: name the symbols that come from the bridge,'
            ' or set feed.kind = "none"'
        )

    def specs(self) -> Mapping[str, InstrumentSpec]:
        """Known instruments with the configured ones laid over them, by root."""
        return with_configured(self.instruments) if self.instruments else DEFAULT_INSTRUMENTS

    def symbols(self) -> tuple[str, ...]:
        """Canonical symbols of this mesh; set by `resolved`."""
        return self.market_data.symbols

    def bridge_symbols(self) -> tuple[str, ...]:
        """Canonical symbols whose prices come from the legacy bridge."""
        return () if self.bridge.address is None else self.bridge.symbols or self.symbols()

    def primary(self) -> str:
        """Symbol that is meant when a request names none."""
        return self.market_data.primary or self.market_data.symbols[0]

    def spec(self, symbol: str) -> InstrumentSpec:
        """Instrument of a symbol. Raises SymbolError or InstrumentError."""
        return spec_for(parse_symbol(symbol), self.specs())

    def replay(self) -> bool:
        """Whether market data is a recording, so that all clocks are event time."""
        return self.sierra_client.provenance == "REPLAY"

    def resolved(self, today: datetime) -> MeshConfig:
        """The same with everything fixed that depends on the day of the start: symbols and provenance. Raises ConfigError."""
        market, sierra = self.market_data, self.sierra_client
        symbols = market.symbols or self._feed_symbols(today)
        if stranger := self._stranger(symbols):
            raise ConfigError(stranger)
        if self.feed.kind == "replay":
            sierra = sierra.model_copy(update={"provenance": "REPLAY"})
        dtc = self.dtc
        if dtc.port is None and self.engine.venue == "sierra_client":  # the simulator's account is this mesh's alone
            dtc = dtc.model_copy(update={"port": self.feed.dtc_port, "account_is_ours": True})
        return self.model_copy(
            update={"market_data": market.model_copy(update={"symbols": symbols}), "sierra_client": sierra, "dtc": dtc}
        )

    def _feed_symbols(self, today: datetime) -> tuple[str, ...]:
        try:
            if self.feed.kind == "replay" and self.feed.file is not None:
                return (str(symbol_of_file(self.feed.file.name)),)
            return tuple(self._walk_symbol(root, today) for root in self.feed.products())
        except (SymbolError, ValueError) as error:
            raise ConfigError(f"no symbol can be told from the feed: {error}") from None

    def _walk_symbol(self, root: str, today: datetime) -> str:
        spec = self.specs().get(root)
        if spec is None:
            key = "feed.roots names" if self.feed.roots else "feed.root is"
            raise ConfigError(
                f"{key} {root!r}: allowed are {', '.join(sorted(self.specs()))} and what [instruments] adds"
            )
        if not spec.tradeable:
            return str(Symbol(spec.root, spec.exchange))
        return str(current_contract(root, spec.exchange, today.astimezone(UTC).date()))


def _symbol(text: str, specs: Mapping[str, InstrumentSpec]) -> Symbol:
    try:
        symbol = parse_symbol(text)
        spec_for(symbol, specs)
    except (SymbolError, InstrumentError) as error:
        raise ValueError(str(error)) from None
    return symbol


def load(
    path: Path | None, *, environment: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None
) -> MeshConfig:
    """Reads the file, lays the environment and then `overrides` over it. Raises ConfigError.

    `overrides` is nested like the file. Without a path only environment and overrides count.
    """
    values: dict[str, Any] = {}
    origin = "the configuration"
    if path is not None:
        origin = str(path)
        values = _read_toml(path)
    _merge(values, _from_environment(os.environ if environment is None else environment))
    _merge(values, dict(overrides or {}))
    return _validated(values, origin)


def save(config: MeshConfig, path: Path) -> None:
    """Writes the whole configuration as JSON, atomically."""
    new = path.with_suffix(".new")
    new.write_text(config.model_dump_json(indent=1), encoding="utf-8")
    new.replace(path)


def load_saved(path: Path) -> MeshConfig:
    """Reads what `save` wrote. Raises ConfigError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as the configuration of a mesh: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: cannot be read as the configuration of a mesh: it is no JSON object")
    for section, key in (*_MONEY, *_RISK_MONEY):
        table = values.get(section)
        if isinstance(table, dict) and isinstance(table.get(key), int):
            table[key] = _as_decimal(table[key])
    return _validated(values, str(path))


_MONEY: Final = (("paper_venue", "commission"), ("paper_venue", "initial_cash"), ("dtc", "commission"))
_RISK_MONEY: Final = (("risk", "max_exposure"), ("risk", "max_daily_loss"), ("risk", "max_drawdown"))


def _as_decimal(value_e9: int) -> str:
    return f"{value_e9 // 10**9}.{value_e9 % 10**9:09d}"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    sections = MeshConfig.model_fields
    for name, text in sorted(environment.items()):
        section, separator, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        if not name.startswith(ENVIRONMENT_PREFIX) or not separator:
            continue
        if section not in sections:
            raise ConfigError(
                f"environment {name}: {section!r} is no table of the configuration{_near(section, sections)}"
            )
        values.setdefault(section, {})[key] = text.split(",") if key in _LISTS else text
    return values


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _validated(values: dict[str, Any], origin: str) -> MeshConfig:
    try:
        return MeshConfig.model_validate(values)
    except ValidationError as error:
        lines = [_line(item["loc"], item["type"], item["msg"], item["input"]) for item in error.errors()]
        raise ConfigError("\n".join(f"{origin}: {line}" for line in lines)) from None


def _line(location: tuple[int | str, ...], kind: str, message: str, seen: object) -> str:
    path = ".".join(str(part) for part in location)
    if kind == "extra_forbidden":
        return f"{path} is no key of the configuration{_near(str(location[-1]), _siblings(location))}"
    if kind == "value_error":
        return f"{path}: {message.removeprefix('Value error, ')}" if path else message.removeprefix("Value error, ")
    wanted = _wanted(kind, seen) or f"{message[:1].lower()}{message[1:]}"
    return f"{path} is {_as_written(seen)}: {wanted}"


def _wanted(kind: str, seen: object) -> str:
    """What a key must be, in the words of the file; empty where the message that there is says it well."""
    if kind in ("tuple_type", "list_type"):
        example = _as_written(seen) if isinstance(seen, str) else '"..."'
        return f"a list in square brackets is needed, for example [{example}]"
    return next((wanted for begin, wanted in _WANTED if kind.startswith(begin)), "")


_WANTED: Final = (
    ("dict_", "a table is needed"),
    ("model_", "a table is needed"),
    ("string_type", "a text in quotes is needed"),
    ("int_", "a whole number is needed"),
    ("float_", "a number is needed"),
    ("bool_", "true or false is needed"),
)


def _as_written(value: object) -> str:
    """A value as a TOML file has it."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    if len(location) == 1:
        return list(MeshConfig.model_fields)
    if location[0] == "services":
        return list(ServiceSection.model_fields)
    section = MeshConfig.model_fields.get(str(location[0]))
    fields = getattr(section.annotation, "model_fields", {}) if section else {}
    return list(fields)


def _near(word: str, known: Mapping[str, Any] | list[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; was {near[0]} meant?" if near else f"; allowed are {', '.join(sorted(known))}"
