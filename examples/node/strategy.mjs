// Decides what a market says: two moving averages of closed bars, set against how far the price usually goes. Pure; prices are exact, 1e-9 units.
import { decimal, pairs } from "./mesh.mjs";

export const FAST = 5;
export const SLOW = 20;
const CLEAR = 0.25;

// What is seen in closed bars, the oldest first, at least SLOW of them.
export function analyze(bars, quote) {
  const used = bars.slice(-SLOW).map((bar) => ({ high: BigInt(bar.high_e9), low: BigInt(bar.low_e9), close: BigInt(bar.close_e9) }));
  const mean = (values) => values.reduce((sum, value) => sum + value, 0n) / BigInt(values.length);
  const [fast, slow] = [mean(used.slice(-FAST).map((bar) => bar.close)), mean(used.map((bar) => bar.close))];
  const range = mean(used.map((bar) => bar.high - bar.low));
  const score = Math.max(-1, Math.min(1, Number(fast - slow) / Number(2n * range || 1n)));
  const side = fast > slow ? "above" : "below";
  const price = BigInt(quote.last_price_e9);
  return {
    symbol: quote.symbol, quote, score, bars_used: used.length, analysis_time: quote.event_time,
    support_e9: extreme(used.map((bar) => bar.low).filter((low) => low < price), (a, b) => a > b),
    resistance_e9: extreme(used.map((bar) => bar.high).filter((high) => high > price), (a, b) => a < b),
    findings: [{
      analysis: "ANALYSIS_KIND_TREND", code: `FAST_${side.toUpperCase()}_SLOW`, score,
      message: `the average of ${FAST} bars at ${cents(fast)} is ${side} that of ${SLOW} at ${cents(slow)}; a bar spans ${cents(range)}`,
      values: pairs({ fast: Number(fast) / 1e9, slow: Number(slow) / 1e9, range: Number(range) / 1e9 }),
    }],
  };
}

// What to do about it. Target and stop stand on prices that were traded, and hence on ticks.
export function decide(analysis, bars) {
  const { symbol, quote, score, bars_used, analysis_time, findings } = analysis;
  const action = Math.abs(score) < CLEAR ? "HOLD" : score > 0 ? "BUY" : "SELL";
  const widest = bars.slice(-SLOW).map((bar) => BigInt(bar.high_e9) - BigInt(bar.low_e9)).reduce((a, b) => (a > b ? a : b));
  const at = (steps) => String(BigInt(quote.last_price_e9) + (action === "BUY" ? steps : -steps) * widest);
  return {
    signal_id: `node:${symbol}:${BigInt(quote.epoch).toString(16)}:${quote.sequence}`,
    symbol, quote, bars_used, action: `SIGNAL_ACTION_${action}`, confidence: Math.abs(score), reasons: findings,
    decision_time: analysis_time, through_sequence: quote.sequence,
    ...(action === "HOLD" ? {} : { target_price_e9: at(2n), stop_price_e9: at(-1n) }),
  };
}

const cents = (e9) => decimal(e9 - (e9 % 10_000_000n));
const extreme = (values, better) => values.reduce((best, value) => (best === undefined || better(value, best) ? value : best), undefined)?.toString();
