"""The public port, on aiohttp: requests become facts, denials become answers, answers are passed on."""
