// Drives the TypeScript SDK 1.x: `typescript_v1.mjs URL [HEADER VALUE]`; prints what happened as one JSON object.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { HOW, answer, walk } from "./walk.mjs";

const [url, header, value] = process.argv.slice(2);
const requestInit = header ? { headers: { [header]: value } } : {};
const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit });
const client = new Client({ name: "interop", version: "1.0.0" }, { capabilities: HOW === "none" ? {} : { elicitation: {} } });
if (HOW !== "none") client.setRequestHandler(ElicitRequestSchema, answer);

await walk({
  connect: async () => {
    await client.connect(transport);
    return transport.protocolVersion;
  },
  list: () => client.listTools(),
  call: (params, options) => client.callTool(params, undefined, options),
  close: () => client.close(),
});
