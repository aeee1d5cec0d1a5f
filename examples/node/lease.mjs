// Holds the lease of one instance at the registry: attaches, beats, obeys, and comes back for ever when the stream breaks.
import { setTimeout as sleep } from "node:timers/promises";
import { clientOf, reasonOf } from "./mesh.mjs";

const FIRST_RETRY_MS = 50;
const LAST_RETRY_MS = 1_000;
const HELLO_MS = 5_000;
const GOODBYE_MS = 2_000;
const BEATS_UNANSWERED = 3;
const [INVALID_ARGUMENT, FAILED_PRECONDITION] = [3, 9];

export class Lease {
  // `look()` is what the instance says of itself; `on.command(reason)` asks it to leave, `on.refused(why)` says that it will never be admitted.
  constructor(registry, hello, look, on) {
    Object.assign(this, { client: clientOf("minhos_api.registry.v1.RegistryService", registry), hello, look, on });
    this.retryMs = FIRST_RETRY_MS;
    this.left = new Promise((resolve) => (this.gone = resolve));
    this.#attach();
  }

  // Tells the registry now how the instance is.
  beat() {
    if (this.granted) this.call.write({ heartbeat: this.look() });
  }

  // Says goodbye; returns when the registry has sent callers elsewhere, or cannot be reached.
  async leave(reason) {
    this.leaving = true;
    if (!this.granted) return;
    this.beat();
    this.granted = false;
    this.call.end({ goodbye: { reason } });
    await Promise.race([this.left, sleep(GOODBYE_MS)]);
  }

  #attach() {
    const call = (this.call = this.client.Attach());
    call.on("data", (answer) => this.#heard(answer));
    call.on("error", (error) => this.#broken(call, error));
    call.on("end", () => this.#broken(call));
    this.timer = setTimeout(() => call.cancel(), HELLO_MS);
    call.write({ hello: { ...this.hello, fencing_token: this.token } });
  }

  #heard({ message, granted, command }) {
    this.silent = 0;
    if (message === "granted") {
      [this.granted, this.token, this.retryMs] = [true, granted.fencing_token, FIRST_RETRY_MS];
      this.on.log("attach.granted", { lease_id: granted.lease_id, fencing_token: granted.fencing_token });
      const { seconds, nanos } = granted.heartbeat_interval;
      clearTimeout(this.timer);
      this.timer = setInterval(() => this.#tick(), Number(seconds) * 1000 + nanos / 1e6);
      this.beat();
    }
    if (message === "command" && command.action === "ACTION_DRAIN") this.on.command(`registry: ${command.reason}`);
  }

  #tick() {
    if (++this.silent > BEATS_UNANSWERED) this.call.cancel();
    else if (!this.leaving) this.beat();
  }

  // The instance serves on. Its token shows the next registry that it is the same one.
  #broken(call, error) {
    if (call.over) return;
    call.over = true;
    clearTimeout(this.timer);
    this.granted = false;
    if (this.leaving) return this.gone();
    const reason = error ? reasonOf(error) : "";
    if (reason === "ERROR_REASON_LEASE_STALE") this.token = undefined;
    else if (error?.code === INVALID_ARGUMENT || error?.code === FAILED_PRECONDITION) return this.on.refused(error.details);
    this.on.log("attach.broken", { why: error?.message ?? "the registry ended the stream", retry_ms: this.retryMs });
    setTimeout(() => this.leaving || this.#attach(), this.retryMs);
    this.retryMs = Math.min(this.retryMs * 2, LAST_RETRY_MS);
  }
}
