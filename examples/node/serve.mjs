// Makes a process a service of the mesh: server, health, ServiceControlService, the lease at the registry, and the right order of its end.
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import grpc from "@grpc/grpc-js";
import { HealthImplementation } from "grpc-health-check";
import { descriptorSet } from "./descriptor_set.mjs";
import { Lease } from "./lease.mjs";
import { contracts, invalid, pairs, refused } from "./mesh.mjs";

const CONTROL = "minhos_api.mesh.v1.ServiceControlService";
const GRPC_VERSION = createRequire(import.meta.url)("@grpc/grpc-js/package.json").version;
const DRAIN_MS = 3_000;
const STREAM_GRACE_MS = 100;

export const timestamp = (ms) => ({ seconds: String(Math.floor(ms / 1000)), nanos: Math.round((ms % 1000) * 1e6) });
export const log = (event, more = {}) => console.log(JSON.stringify({ time: new Date().toISOString(), event, ...more }));

// Serves `implementation` of `contract` and attaches it. Every method of the contract must be there: `async (request) => answer`, or for a stream
// of answers `async function* (request, signal)`. `needs` are the contracts that it calls. Not ready until `ready()`; ends by SIGTERM, SIGINT,
// Drain or a command of the registry.
export async function serve({ registry, service, version, contract, implementation, needs }) {
  const [instanceId, served, conditions] = [`${service}-${process.pid}`, [contract, CONTROL], {}];
  const counters = { inFlight: 0, unary: 0, internalErrors: 0, idle: () => {} };
  const start = timestamp(Date.now());
  const versions = pairs({ node: process.versions.node, "grpc-js": GRPC_VERSION });
  const dependsOn = needs.map((need) => ({ contract: need, kind: "DEPENDENCY_KIND_REQUIRED" }));
  const health = new HealthImplementation(Object.fromEntries(["", ...served].map((name) => [name, "NOT_SERVING"])));
  let [serving, ending, drainMs] = [false, false, DRAIN_MS];

  const control = {
    Describe: async () => ({
      name: service, instance_id: instanceId, version, versions, contracts: served, depends_on: dependsOn, start_time: start,
      conditions: pairs(conditions),
    }),
    Drain: async ({ reason, deadline }) => {
      const ms = deadline ? Number(deadline.seconds) * 1000 + deadline.nanos / 1e6 : 10_000;
      if (!reason || reason.length > 200) throw invalid("reason", `${reason.length} characters`, "1 to 200 characters");
      if (ms <= 0 || ms > 300_000) throw invalid("deadline", `${ms / 1000} s`, "more than 0 s, at most 300 s");
      drainMs = ms;
      setImmediate(end, `drain: ${reason}`);
      return { calls_in_flight: counters.inFlight - 1 };
    },
  };
  const server = new grpc.Server();
  health.addToServer(server);
  server.addService(contracts[contract], handlers(contracts[contract], implementation, counters));
  server.addService(contracts[CONTROL], handlers(contracts[CONTROL], control, counters));
  const port = await new Promise((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound)));
  });
  const hello = {
    service, version, versions, contracts: served, instance_id: instanceId, address: `127.0.0.1:${port}`,
    descriptor_set: descriptorSet(served), depends_on: dependsOn, pid: process.pid,
  };
  const look = () => ({ serving, conditions: pairs(conditions), calls_in_flight: counters.inFlight, internal_errors: counters.internalErrors });
  const lease = new Lease(registry, hello, look, { log, command: end, refused: neverAdmitted });
  for (const name of ["SIGTERM", "SIGINT"]) process.on(name, () => end(name));
  log("service.bound", { service, instance_id: instanceId, address: hello.address });

  // Callers are sent elsewhere before anything stops, so that no call fails.
  async function end(reason) {
    if (ending) return;
    [ending, serving] = [true, false];
    log("service.ending", { reason });
    for (const name of ["", ...served]) health.setStatus(name, "NOT_SERVING");
    await lease.leave(reason);
    const idle = counters.unary === 0 || new Promise((resolve) => (counters.idle = resolve));
    await Promise.race([idle, sleep(drainMs)]);
    await Promise.race([new Promise((resolve) => server.tryShutdown(resolve)), sleep(STREAM_GRACE_MS)]);
    server.forceShutdown();
    log("service.ended", { reason });
    process.exit(0);
  }

  return {
    ready() {
      if (serving || ending) return;
      serving = true;
      for (const name of ["", ...served]) health.setStatus(name, "SERVING");
      lease.beat();
    },
    // A condition makes the service DEGRADED until it is cleared with an empty sentence.
    condition(code, sentence) {
      if ((conditions[code] ?? "") === sentence) return;
      if (sentence) conditions[code] = sentence;
      else delete conditions[code];
      lease.beat();
    },
  };
}

function neverAdmitted(why) {
  log("attach.refused", { why });
  process.exit(3);
}

// Every method of a contract, as grpc-js wants it.
function handlers(definition, methods, counters) {
  const made = {};
  for (const [name, { requestStream, responseStream }] of Object.entries(definition)) {
    if (requestStream || !methods[name]) throw new Error(`${name} is not served`);
    made[name] = responseStream ? streaming(methods[name], counters) : unary(methods[name], counters);
  }
  return made;
}

function unary(method, counters) {
  return async (call, answer) => {
    counters.inFlight++;
    counters.unary++;
    const outcome = await method(call.request).then((value) => [null, value], (error) => [told(error, counters)]);
    answer(...outcome);
    counters.inFlight--;
    if (--counters.unary === 0) counters.idle();
  };
}

function streaming(method, counters) {
  return async (call) => {
    counters.inFlight++;
    const gone = new AbortController();
    call.on("cancelled", () => gone.abort());
    try {
      for await (const answer of method(call.request, gone.signal)) {
        if (!call.write(answer)) await once(call, "drain", { signal: gone.signal });
      }
      call.end();
    } catch (error) {
      if (!gone.signal.aborted) call.emit("error", told(error, counters));
    }
    counters.inFlight--;
  };
}

// What a caller sees of an error; a defect is told by an id that the log knows.
function told(error, counters) {
  if (error.code !== undefined && error.metadata) return error;
  const id = randomUUID();
  counters.internalErrors++;
  log("call.failed", { error_id: id, error: error.stack });
  return refused("INTERNAL", "INTERNAL", `a defect of this service; its log holds it under ${id}`, { error_id: id });
}
