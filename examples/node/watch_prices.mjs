// Where the prices are, the last one, and the next ticks: node watch_prices.mjs $(minhos ports registry) [TICKS]
import { setTimeout as sleep } from "node:timers/promises";
import grpc from "@grpc/grpc-js";
import { ask, clientOf, contracts, decimal, instancesOf, joinMesh, waiting } from "./mesh.mjs";

const MARKET = "minhos_api.market.v1.MarketDataProviderService";
const SILENCE_MS = 6_000; // three heartbeats that did not come
const RETRY_MS = 100;
const FLAGS = contracts["minhos_api.market.v1.TickFlag"].type.value;
const FLAG = Object.fromEntries(FLAGS.map(({ name, number }) => [name.replace("TICK_FLAG_", ""), number]));

const [registry, count = "5"] = process.argv.slice(2);
if (!/:\d+$/.test(registry) || !/^[1-9]\d*$/.test(count)) {
  const seen = process.argv.slice(2).join(" ") || "nothing";
  console.error(`usage: node watch_prices.mjs REGISTRY_HOST:PORT [TICKS], where TICKS is 1 or more; seen: ${seen}`);
  process.exit(2);
}
process.on("uncaughtException", (error) => {
  console.error(error.details ?? error.message);
  process.exit(1);
});
joinMesh(registry, `watch_prices/${process.pid}`);

// The registry says it to whoever asks; calls need it not, they find their way through xDS.
for (const { service, address, in_rotation } of await instancesOf(MARKET, registry)) console.log(`${service} at ${address}${in_rotation ? "" : ", not in rotation"}`);

const market = clientOf(MARKET);
const { symbol, quote } = await ask(market, "GetMarketData");
const last = quote?.last_price_e9 && `${decimal(quote.last_price_e9)} ${quote.provenance} ${quote.epoch}:${quote.sequence}`;
console.log(`${symbol} ${last || "has no price yet"}`);

// A stream that breaks, or says nothing for too long, is opened again behind the last tick: none is lost unseen and none comes twice.
let left = Number(count);
let read; // the last tick that was printed
let after; // where the next stream begins
while (left > 0) {
  const subscription = { symbols: [symbol], kinds: ["MARKET_DATA_KIND_TICKS"], resume_after: after ? [after] : [] };
  const stream = market.StreamMarketData({ subscription }, waiting());
  const silence = setTimeout(() => stream.cancel(), SILENCE_MS);
  after = read;
  try {
    for await (const { message, ticks, subscribed } of stream) {
      silence.refresh();
      if (message === "subscribed" && subscribed.refused_reason) {
        after = elsewhere(subscribed);
        break;
      }
      if (message === "ticks") ticks.ticks.forEach((tick, index) => print(ticks, tick, BigInt(ticks.first_sequence) + BigInt(index)));
      if (left <= 0) break;
    }
  } catch (error) {
    if (![grpc.status.UNAVAILABLE, grpc.status.CANCELLED].includes(error.code)) throw error;
    await sleep(RETRY_MS);
  }
  clearTimeout(silence);
}
process.exit(0);

// The position is not held: read what is. A market that restarts has the newest ticks only after a moment; those that come again are left out.
function elsewhere({ refused_reason, refused_message, oldest, newest }) {
  if (refused_reason !== "ERROR_REASON_POSITION_LOST" || !newest) throw new Error(refused_message);
  const behind = newest.epoch === read?.epoch && BigInt(newest.sequence) < BigInt(read.sequence);
  return behind ? newest : { ...oldest, sequence: String(BigInt(oldest.sequence) - 1n) };
}

function print({ epoch }, tick, sequence) {
  const next = read?.epoch === epoch ? BigInt(read.sequence) + 1n : sequence;
  if (sequence < next || left-- <= 0) return;
  if (sequence > next) console.log(`missed ${next} to ${sequence - 1n}`);
  after = read = { symbol, epoch, sequence: String(sequence) };
  console.log(`${epoch}:${sequence} ${words(tick)}`);
}

// A value counts only when its flag is on: 0 may be a price.
function words(tick) {
  const has = (name) => (tick.flags & FLAG[name]) !== 0;
  const time = new Date(Number(BigInt(tick.event_time_ns) / 1_000_000n)).toISOString();
  const price = has("HAS_PRICE") ? ` ${decimal(tick.price_e9)}` : "";
  const size = has("HAS_SIZE") ? ` x ${tick.size}` : "";
  const bid = has("HAS_BID") ? ` bid ${decimal(tick.bid_e9)}` : "";
  const ask = has("HAS_ASK") ? ` ask ${decimal(tick.ask_e9)}` : "";
  return `${time}${price}${size}${bid}${ask}`;
}
