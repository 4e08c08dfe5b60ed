// What a key may do, in one sentence each, the least first.

/** @type {ReadonlyArray<readonly [string, string]>} */
export const SCOPES = [
  ["mcp:tools:list", "See which tools there are, and call none."],
  ["mcp:tools:call", "Call the tools that only read, and see which tools there are."],
  ["mcp:resources:read", "Read documents and other resources, and be told when they change."],
  ["mcp:read", "Read everything: call the tools that only read, read resources and prompts. Change nothing."],
  ["mcp:full", "Do everything that you can do, which includes changing and deleting data."],
];

export const FULL = "mcp:full";
