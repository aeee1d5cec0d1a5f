// The signals that a brain has published, by revision: how they are listed, watched and resumed after.
import { EventEmitter, once } from "node:events";
import { refused } from "./mesh.mjs";

const HELD = 1_000;
const HEARTBEAT_MS = 5_000;
const [PAGE, LARGEST_PAGE] = [100, 1_000];

export class Signals {
  #held = []; // the newest last
  #published = new EventEmitter().setMaxListeners(0);
  revision = Date.now() * 1000; // above all that an earlier life has told

  append(signal) {
    this.#held = [...this.#held, signal].slice(-HELD);
    this.revision++;
    this.#published.emit("signal");
  }

  newest(symbol) {
    return this.#held.findLast((signal) => signal.symbol === symbol);
  }

  // WatchSignals: the newest of each symbol unless a revision is resumed after, then each signal, and a heartbeat when there is none.
  async *watch(symbols, after, gone) {
    let at = after ?? this.revision;
    if (after === undefined) yield { snapshot: { signals: symbols.map((symbol) => this.newest(symbol)).filter(Boolean) }, revision: at };
    for (;;) {
      const oldest = this.revision - this.#held.length;
      if (at < oldest || at > this.revision) {
        const known = { asked: String(at), oldest: String(oldest), newest: String(this.revision) };
        throw refused("OUT_OF_RANGE", "POSITION_LOST", `revision ${at} is not held: ${oldest} to ${this.revision} are; take a snapshot`, known);
      }
      if (at < this.revision) {
        const signal = this.#held[at - oldest];
        at++;
        if (symbols.includes(signal.symbol)) yield { signal, revision: at };
      } else if (!(await this.#another(gone))) yield { heartbeat: {}, revision: at };
    }
  }

  // ListSignals: a page of those of `symbol`, or of all. A token belongs to one list.
  page(symbol, size, token) {
    const listed = this.#held.filter((signal) => symbol === undefined || signal.symbol === symbol).reverse();
    const tokenOf = (signal) => Buffer.from(JSON.stringify([symbol ?? "", signal.signal_id])).toString("base64url");
    const begin = token === "" ? 0 : listed.findIndex((signal) => tokenOf(signal) === token) + 1;
    if (token !== "" && begin === 0) {
      const why = "page_token was not made for this list, or its signal is no longer held: begin again without one";
      throw refused("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID", why, { field: "page_token", list: "ListSignals" });
    }
    const end = begin + Math.min(size || PAGE, LARGEST_PAGE);
    return { signals: listed.slice(begin, end), next_page_token: end < listed.length ? tokenOf(listed[end - 1]) : "", revision: this.revision };
  }

  async #another(gone) {
    try {
      await once(this.#published, "signal", { signal: AbortSignal.any([gone, AbortSignal.timeout(HEARTBEAT_MS)]) });
      return true;
    } catch {
      gone.throwIfAborted();
      return false;
    }
  }
}
