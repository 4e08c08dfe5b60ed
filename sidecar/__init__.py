"""An authentication sidecar for MCP servers.

The words of its design:

- *facts* (`model.RequestFacts`): what is known of a request before anything is decided.
- *principal*: who proved itself on this request; *account*: who owns the data and pays the quota.
- *policy*: pure decisions. Facts in; a value out, or a `Denial` raised. No await, no clock, no I/O, no log.
- *denial*: every way to say no, rendered, logged and counted in one place.
- *port* (`ports`): what the inside needs from the outside; *edge*: what does the I/O and decides nothing.
- *gateway*: the one async function that walks a request through policy and ports to a *permit*.
- *upstream*: the MCP server behind us, which nobody had to change.
"""
