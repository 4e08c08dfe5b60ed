// How is a key used? Ready to paste, for the programs that people have.

/**
 * @param {string} url where keys are taken
 * @param {string} key
 * @returns {Array<{title: string, about: string, text: string}>}
 */
export function snippetsFor(url, key) {
  const hello = JSON.stringify({
    jsonrpc: "2.0",
    id: 1,
    method: "initialize",
    params: { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "curl", version: "1" } },
  });
  const remote = {
    mcpServers: {
      [new URL(url).hostname]: {
        command: "npx",
        args: ["-y", "mcp-remote", url, "--transport", "http-only", "--header", "X-API-Key:${MCP_KEY}"],
        env: { MCP_KEY: key },
      },
    },
  };
  return [
    {
      title: "curl",
      about: "Says hello; the server answers with its name.",
      text: `curl -sS '${url}' \\\n  -H 'X-API-Key: ${key}' \\\n  -H 'Content-Type: application/json' \\\n  -H 'Accept: application/json, text/event-stream' \\\n  -d '${hello}'`,
    },
    {
      title: "MCP Inspector",
      about: "On the command line. In its window: transport Streamable HTTP, this URL, and the header X-API-Key.",
      text: `npx @modelcontextprotocol/inspector --cli '${url}' --transport http \\\n  --header 'X-API-Key: ${key}' --method tools/list`,
    },
    {
      title: "mcp-remote",
      about: "For the configuration of programs that start their servers themselves.",
      text: JSON.stringify(remote, null, 2),
    },
    {
      title: "Python",
      about: "With the official SDK: pip install 'mcp>=2'.",
      text: [
        "import asyncio",
        "import httpx2",
        "from mcp import Client",
        "from mcp.client.streamable_http import streamable_http_client",
        "",
        "",
        "async def main():",
        `    headers = {"X-API-Key": "${key}"}`,
        "    async with httpx2.AsyncClient(headers=headers) as http:",
        `        async with Client(streamable_http_client("${url}", http_client=http)) as client:`,
        "            for tool in (await client.list_tools()).tools:",
        "                print(tool.name)",
        "",
        "",
        "asyncio.run(main())",
      ].join("\n"),
    },
  ];
}
