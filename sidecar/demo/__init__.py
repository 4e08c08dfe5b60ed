"""Everything on one machine, for a first look: a small finance MCP server and a dev issuer."""
