// Drives the TypeScript SDK 2.x: `typescript_v2.mjs legacy|modern URL [HEADER VALUE]`; prints one JSON object.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { HOW, answer, walk } from "./walk.mjs";

const [era, url, header, value] = process.argv.slice(2);
const requestInit = header ? { headers: { [header]: value } } : {};
const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit });
const mode = era === "modern" ? "auto" : "legacy";
const client = new Client(
  { name: "interop", version: "1.0.0" },
  { capabilities: HOW === "none" ? {} : { elicitation: { form: {} } }, versionNegotiation: { mode } },
);
if (HOW !== "none") client.setRequestHandler("elicitation/create", answer);

await walk({
  connect: async () => {
    await client.connect(transport);
    return client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion;
  },
  list: () => client.listTools(),
  call: (params, options) => client.callTool(params, options),
  close: () => client.close(),
});
