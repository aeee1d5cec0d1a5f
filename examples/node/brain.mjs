// A brain in Node: serves AIBrainService whole, from market data of the mesh to signals on its event bus: node brain.mjs $(minhos ports registry)
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { ask, clientOf, instancesOf, invalid, joinMesh, reasonOf, refused, waiting } from "./mesh.mjs";
import { log, serve } from "./serve.mjs";
import { Signals } from "./signals.mjs";
import { analyze, decide, SLOW } from "./strategy.mjs";

const SERVICE = "node_brain";
const BRAIN = "minhos_api.brain.v1.AIBrainService";
const MARKET = "minhos_api.market.v1.MarketDataProviderService";
const BUS = "minhos_api.events.v1.EventBusService";
const REPLAY = "PROVENANCE_REPLAY";
const NOT_IN_REPLAY = "it decides nothing in a replay, which would wait for ai.analysis_progressed";
const SYMBOL = /^[A-Za-z0-9_.-]{1,32}$/;
const BARS = 200;
const MAX_AGE_S = 60;
const [SILENCE_MS, RETRY_MS] = [6_000, 500];
const RETRIED = ["", "ERROR_REASON_NOT_SERVING", "ERROR_REASON_DEPENDENCY_UNAVAILABLE"];

const [registry] = process.argv.slice(2);
if (!/:\d+$/.test(registry)) {
  console.error(`usage: node brain.mjs REGISTRY_HOST:PORT; seen: ${process.argv.slice(2).join(" ") || "nothing"}`);
  process.exit(2);
}
joinMesh(registry, `${SERVICE}/${process.pid}`);

// Two brains would answer by turns, and both would trade.
const instances = await instancesOf(BRAIN, registry).catch((error) => error);
const other = instances instanceof Error ? undefined : instances.find((instance) => instance.in_rotation);
if (instances instanceof Error || other) {
  const already = `${BRAIN} is served by ${other?.service} at ${other?.address}: stop it first`;
  console.error(instances instanceof Error ? instances.message : already);
  process.exit(3);
}

const markets = new Map(); // by symbol: { epoch, bars, quote, counts }
const signals = new Signals();
const [market, bus] = [clientOf(MARKET), clientOf(BUS)];
let primary = "";

const service = await serve({
  registry, service: SERVICE, version: "0.1.0", contract: BRAIN, needs: [MARKET, BUS],
  implementation: {
    AnalyzeMarket: async ({ symbol }) => ({ analysis: view(known(symbol)) }),
    GenerateSignal: async ({ symbol }) => ({ signal: decide(view(known(symbol)), markets.get(known(symbol)).bars) }),
    GetCurrentSignal: async ({ symbol }) => ({ signal: signals.newest(known(symbol)), revision: signals.revision }),
    WatchSignals: ({ symbols, after_revision, _after_revision: resumed }, gone) =>
      signals.watch(symbols.length ? symbols.map(known) : [...markets.keys()].sort(), resumed && Number(after_revision), gone),
    ListSignals: async ({ symbol, page_size, page_token }) => {
      if (page_size < 0) throw invalid("page_size", String(page_size), "0 or more");
      return { ...signals.page(symbol && known(symbol), page_size, page_token), progress: [...markets.keys()].sort().map(progress) };
    },
  },
});

for (;;) {
  const why = await follow().catch((error) => error.details ?? error.stack);
  log("market.broken", { why });
  service.condition("MARKET_DATA_AWAY", `market data does not come: ${why}`);
  await sleep(RETRY_MS);
}

// Reads market data until the stream breaks; says why it did.
async function follow() {
  for (const { symbol } of (await ask(market, "GetAllMarketData")).symbols) marketOf({ symbol });
  primary = (await ask(market, "GetMarketData")).symbol;
  const kinds = ["MARKET_DATA_KIND_BARS", "MARKET_DATA_KIND_QUOTES"];
  const stream = market.StreamMarketData({ subscription: { kinds, bars_back: BARS } }, waiting());
  const listen = () => setTimeout(() => stream.cancel(), SILENCE_MS);
  let silence = listen();
  for await (const update of stream) {
    clearTimeout(silence);
    service.condition("MARKET_DATA_AWAY", "");
    await take(update.message, update[update.message]);
    service.ready();
    silence = listen();
  }
  return "the stream ended";
}

async function take(kind, update) {
  if ((update.provenance ?? update.quote?.provenance) === REPLAY) service.condition("REPLAY", NOT_IN_REPLAY);
  if (kind === "subscribed" && update.refused_reason) throw new Error(update.refused_message);
  if (kind === "epoch") marketOf(update);
  if (kind === "gap") marketOf(update).counts.gaps++;
  if (kind === "quote") marketOf(update).quote = update;
  if (kind === "snapshot" && update.quote) {
    marketOf(update.quote).quote = update.quote;
    if (update.bars.filter(add).length) await tell(update.symbol);
  }
  if (kind === "bar" && update.closed && add(update)) await tell(update.symbol);
}

// What is known of a symbol; nothing of another epoch counts.
function marketOf({ symbol, epoch }) {
  const before = markets.get(symbol);
  if (before && (epoch === undefined || before.epoch === epoch)) return before;
  const counts = { ticks: 0, bars: 0, gaps: 0, signals: 0, through: "0", told: "0" };
  markets.set(symbol, { epoch: epoch ?? "0", bars: [], quote: undefined, counts });
  return markets.get(symbol);
}

// Takes a closed bar in, once.
function add(bar) {
  const { bars, counts } = marketOf(bar);
  if (BigInt(bar.last_sequence) <= BigInt(counts.through)) return false;
  bars.push(bar);
  if (bars.length > BARS) bars.shift();
  counts.ticks += Number(BigInt(bar.last_sequence) - BigInt(bar.first_sequence)) + 1;
  counts.bars++;
  counts.through = bar.last_sequence;
  return true;
}

// What is seen in a market now.
function view(symbol) {
  const { bars, quote } = markets.get(symbol);
  const insufficient = (why, metadata) => refused("FAILED_PRECONDITION", "DATA_INSUFFICIENT", `${symbol} ${why}`, { symbol, ...metadata });
  if (bars.length < SLOW || quote?.last_price_e9 === undefined) {
    throw insufficient(`has ${bars.length} bars: ${SLOW} are needed`, { bars: String(bars.length), needed: String(SLOW) });
  }
  const age = Date.now() / 1000 - Number(quote.event_time.seconds) - quote.event_time.nanos / 1e9;
  if (age > MAX_AGE_S && quote.provenance !== REPLAY) {
    throw insufficient(`has a price of ${age.toFixed(0)} s ago: allowed are ${MAX_AGE_S} s`, { age_s: age.toFixed(3), allowed_s: String(MAX_AGE_S) });
  }
  return analyze(bars, quote);
}

// Decides when a bar has closed, and publishes that.
async function tell(symbol) {
  if (markets.get(symbol).quote?.provenance === REPLAY) return;
  let analysis;
  try {
    analysis = view(symbol);
  } catch (error) {
    if (reasonOf(error)) return;
    throw error;
  }
  const signal = decide(analysis, markets.get(symbol).bars);
  if (!(await publish(symbol, analysis, signal))) return;
  const { counts } = markets.get(symbol);
  counts.signals++;
  counts.told = signal.through_sequence;
  signals.append(signal);
  log("signal.published", { signal_id: signal.signal_id, action: signal.action, confidence: signal.confidence });
}

// A bus that is away holds the brain back; what has become too old by then is not told. The same event id is stored once.
async function publish(symbol, analysis, signal) {
  const cause = signal.signal_id.slice(0, 64);
  const about = { source: SERVICE, subject: symbol, version: 1, event_time: signal.decision_time, correlation_id: cause };
  const event = (type, name, content) => {
    const payload = { "@type": `type.googleapis.com/minhos_api.brain.v1.${name}`, ...content };
    return { ...about, type, event_id: randomUUID(), payload };
  };
  const events = [
    event("market.analysis_completed", "MarketAnalysisCompleted", { analysis }),
    event("ai.signal_generated", "SignalGenerated", { signal }),
  ];
  for (const until = Date.now() + MAX_AGE_S * 1000; ; await sleep(RETRY_MS)) {
    try {
      await ask(bus, "Publish", { events });
      service.condition("EVENT_BUS_AWAY", "");
      return true;
    } catch (error) {
      log("signal.not_stored", { signal_id: signal.signal_id, why: error.details });
      service.condition("EVENT_BUS_AWAY", `the event bus does not take signals: ${error.details}`);
      if (Date.now() > until || !RETRIED.includes(reasonOf(error))) return false;
    }
  }
}

function progress(symbol) {
  const { epoch, quote, counts: { ticks, through, told, ...counts } } = markets.get(symbol);
  const reached = { ticks_delivered: ticks, through_sequence: through, told_sequence: told, event_time: quote?.event_time };
  return { symbol, epoch, ...counts, ...reached };
}

// The symbol that is meant, when the mesh has it.
function known(symbol = primary) {
  if (!SYMBOL.test(symbol)) throw invalid("symbol", symbol, `what matches ${SYMBOL.source}`);
  if (markets.has(symbol)) return symbol;
  const all = [...markets.keys()].sort().join(", ");
  throw refused("NOT_FOUND", "SYMBOL_UNKNOWN", `symbol ${symbol} is not configured: known are ${all}`, { symbol, known: all });
}
