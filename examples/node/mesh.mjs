// What every program of a mesh needs: the contracts from the committed image, channels by contract name, exact decimals, reasons of errors.
import { readFileSync } from "node:fs";
import grpc from "@grpc/grpc-js";
import * as xds from "@grpc/grpc-js-xds";
import loader from "@grpc/proto-loader";

export const IMAGE = readFileSync(new URL("../../proto/contracts.binpb", import.meta.url));

// All contracts by full name. 64-bit integers are strings of digits (BigInt(text) is exact, a JavaScript number is not), enums are names,
// the oneof of a message names the field that is set, also for an optional field (`_symbol: "symbol"`), and a map is a list of { key, value }.
export const contracts = loader.loadFileDescriptorSetFromBuffer(IMAGE, { longs: String, enums: String, defaults: true, oneofs: true });

// An object as the list that a map is here.
export const pairs = (object) => Object.entries(object).map(([key, value]) => ({ key, value }));

// Says where the control plane is. Once in a process, before the first channel. grpc-js-xds insists on a locality, and grpc-js
// would ask a proxy of the environment for the loopback.
export function joinMesh(registry, nodeId) {
  process.env.no_grpc_proxy ??= "127.0.0.1,::1";
  process.env.GRPC_XDS_BOOTSTRAP_CONFIG = JSON.stringify({
    xds_servers: [{ server_uri: registry, channel_creds: [{ type: "insecure" }], server_features: ["xds_v3"] }],
    node: { id: nodeId, cluster: "minhos", locality: { zone: "local" } },
  });
  xds.register();
}

// A client of a contract: found, balanced and retried through xDS, unless an address is given.
export function clientOf(contract, target = `xds:///${contract}`) {
  const Client = grpc.makeGenericClientConstructor(contracts[contract], contract);
  return new Client(target, grpc.credentials.createInsecure(), { "grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 1000 });
}

export const waiting = () => new grpc.Metadata({ waitForReady: true });

// One call with a deadline. It waits for a service that restarts; an error is thrown as grpc-js gives it.
export function ask(client, method, request = {}, seconds = 5) {
  return new Promise((resolve, reject) => {
    const options = { deadline: Date.now() + seconds * 1000 };
    client[method](request, waiting(), options, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

// Who serves a contract, as the registry says; an error says where it was looked for and what to do.
export async function instancesOf(contract, registry, seconds = 3) {
  const lists = clientOf("minhos_api.registry.v1.RegistryService", registry);
  const { instances } = await ask(lists, "Resolve", { name: contract }, seconds).catch((error) => {
    const tried = `no registry answers at ${registry} (asked for ${seconds} s: ${grpc.status[error.code] ?? error.code}, ${error.details ?? error.message})`;
    throw new Error(`${tried}; \`minhos ports registry\` prints the address of yours, \`minhos up\` starts one`);
  });
  return instances;
}

// "23767250000000" in 1e-9 units is "23767.25".
export function decimal(e9) {
  const digits = BigInt(e9).toString().replace("-", "").padStart(10, "0");
  const fraction = digits.slice(-9).replace(/0+$/, "");
  return `${BigInt(e9) < 0n ? "-" : ""}${digits.slice(0, -9)}${fraction && "."}${fraction}`;
}

// google.rpc.Status with google.rpc.ErrorInfo, which every error of a mesh carries; decide by the reason, never by the text.
const text = (id) => ({ type: "string", id });
const rpc = loader.fromJSON({
  nested: {
    Any: { fields: { type_url: text(1), value: { type: "bytes", id: 2 } } },
    Status: { fields: { code: { type: "int32", id: 1 }, message: text(2), details: { rule: "repeated", type: "Any", id: 3 } } },
    ErrorInfo: { fields: { reason: text(1), domain: text(2), metadata: { keyType: "string", type: "string", id: 3 } } },
  },
});
const INFO = "type.googleapis.com/google.rpc.ErrorInfo";
const DETAILS = "grpc-status-details-bin";

// `ERROR_REASON_...` of an error; empty when it has none.
export function reasonOf(error) {
  const [status] = error.metadata?.get(DETAILS) ?? [];
  const found = status && rpc.Status.deserialize(status).details?.find((detail) => detail.type_url === INFO);
  return found ? rpc.ErrorInfo.deserialize(found.value).reason : "";
}

// An error as a service of a mesh answers it, for example refused("NOT_FOUND", "SYMBOL_UNKNOWN", "there is no ...", { symbol: "NOPE" }).
export function refused(code, reason, message, metadata = {}) {
  const info = rpc.ErrorInfo.serialize({ reason: `ERROR_REASON_${reason}`, domain: "minhos", metadata });
  const status = rpc.Status.serialize({ code: grpc.status[code], message, details: [{ type_url: INFO, value: info }] });
  const error = Object.assign(new Error(message), { code: grpc.status[code], details: message, metadata: new grpc.Metadata() });
  error.metadata.set(DETAILS, status);
  return error;
}

// A field of a request that breaks a rule of its contract.
export function invalid(field, seen, allowed) {
  return refused("INVALID_ARGUMENT", "INVALID_FIELD", `${field} is ${seen}: allowed is ${allowed}`, { field, seen, allowed });
}
