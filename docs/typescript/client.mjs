// Asks any service of a mesh who it is: node client.mjs HOST:PORT (scripts and `minhos ports` show the addresses).
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ServiceControlService } from "./gen/minhos_api/mesh/v1/service_control_service_pb.js";

if (process.argv.length !== 3) {
  console.error("usage: node client.mjs HOST:PORT");
  process.exit(2);
}
const transport = createGrpcTransport({ baseUrl: `http://${process.argv[2]}` });
const control = createClient(ServiceControlService, transport);
const answer = await control.describe({}, { timeoutMs: 5000 });
console.log(`${answer.name} ${answer.version}`);
