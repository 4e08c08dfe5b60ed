"""A small, real MCP server: everybody's account book, in memory.

Knows nothing of credentials. It keeps its callers apart by ``X-Account-Id``, as an upstream that nobody changed would:
whoever can reach it directly can claim to be anyone, so it listens on the loopback unless told otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import socket
import sys
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from starlette.applications import Starlette

ACCOUNT_HEADER: Final = "x-account-id"
PATH: Final = "/mcp"
READ: Final = ToolAnnotations(read_only_hint=True)
ADD: Final = ToolAnnotations(read_only_hint=False, destructive_hint=False)
DELETE: Final = ToolAnnotations(read_only_hint=False, destructive_hint=True)

CATEGORIES: Final = "income\nhousing\ngroceries\ntransport\nsavings\nother\n"
BookName = Literal["checking", "savings"]
Caller = Context[Any, Any]


@dataclass(frozen=True, slots=True)
class Transaction:
    """One line of a book; money leaves when the amount is negative."""

    id: str
    book: BookName
    date: str
    description: str
    amount_cents: int


@dataclass(slots=True)
class Ledger:
    """What one account owns: its transactions, oldest first."""

    transactions: dict[str, Transaction] = field(default_factory=dict)
    serial: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def add(self, book: BookName, date: str, description: str, amount_cents: int) -> Transaction:
        entry = Transaction(f"t{next(self.serial)}", book, date, description, amount_cents)
        self.transactions[entry.id] = entry
        return entry

    def of(self, book: BookName) -> list[Transaction]:
        return [entry for entry in self.transactions.values() if entry.book == book]

    def balance(self, book: BookName) -> dict[str, Any]:
        cents = sum(entry.amount_cents for entry in self.of(book))
        return {"account": book, "balance_cents": cents, "currency": "EUR"}


def newborn() -> Ledger:
    """Return what every account is born with."""
    ledger = Ledger()
    ledger.add("checking", "2026-10-30", "Salary October", 285_000)
    ledger.add("checking", "2026-11-02", "Rent November", -98_000)
    ledger.add("checking", "2026-11-05", "Groceries", -6_420)
    ledger.add("checking", "2026-11-09", "Train pass", -4_900)
    ledger.add("savings", "2026-11-03", "Monthly saving", 30_000)
    return ledger


class Finance:
    """The tools. The docstrings of its methods are what MCP clients read."""

    def __init__(self) -> None:
        self._ledgers: dict[str, Ledger] = {}

    def _ledger(self, ctx: Caller) -> Ledger:
        account = (ctx.headers or {}).get(ACCOUNT_HEADER)
        if not account:
            raise ToolError("This server needs an X-Account-Id header to know whose books to open")
        return self._ledgers.setdefault(account, newborn())

    async def list_accounts(self, ctx: Caller) -> dict[str, Any]:
        """List your accounts with their balances."""
        ledger = self._ledger(ctx)
        return {"accounts": [ledger.balance("checking"), ledger.balance("savings")]}

    async def get_balance(self, ctx: Caller, account: BookName = "checking") -> dict[str, Any]:
        """Tell the balance of one of your accounts, in cents."""
        return self._ledger(ctx).balance(account)

    async def list_transactions(self, ctx: Caller, account: BookName = "checking", limit: int = 20) -> dict[str, Any]:
        """List the latest transactions of one of your accounts, newest first."""
        if not 1 <= limit <= 100:
            raise ToolError("limit is a number from 1 to 100")
        entries = self._ledger(ctx).of(account)[-limit:]
        return {"transactions": [asdict(entry) for entry in reversed(entries)]}

    async def add_transaction(
        self, ctx: Caller, description: str, amount_cents: int, date: str = "2026-11-23", account: BookName = "checking"
    ) -> dict[str, Any]:
        """Write a transaction into one of your accounts."""
        return asdict(self._ledger(ctx).add(account, date, description, amount_cents))

    async def delete_transaction(self, ctx: Caller, id: str) -> dict[str, Any]:  # noqa: A002 - the argument's public name
        """Delete a transaction for good."""
        if self._ledger(ctx).transactions.pop(id, None) is None:
            raise ToolError(f"There is no transaction {id}")
        return {"deleted": id}

    async def slow_report(self, ctx: Caller, steps: int = 5, pause_ms: int = 50) -> dict[str, Any]:
        """Add up all your accounts, slowly, reporting progress after each step."""
        if not (1 <= steps <= 100 and 0 <= pause_ms <= 1000):
            raise ToolError("steps goes from 1 to 100, pause_ms from 0 to 1000")
        ledger = self._ledger(ctx)
        for step in range(1, steps + 1):
            await ctx.report_progress(step, steps, f"step {step} of {steps}")
            await asyncio.sleep(pause_ms / 1000)
        total_cents = sum(entry.amount_cents for entry in ledger.transactions.values())
        return {"total_cents": total_cents, "transactions": len(ledger.transactions)}


def server() -> MCPServer[Any]:
    """Build the MCP server with its tools, one resource and one prompt."""
    mcp: MCPServer[Any] = MCPServer("finance", version="1.0.0", instructions="Your accounts.", log_level="WARNING")
    finance = Finance()
    for read in (finance.list_accounts, finance.get_balance, finance.list_transactions, finance.slow_report):
        mcp.tool(annotations=READ)(read)
    mcp.tool(annotations=ADD)(finance.add_transaction)
    mcp.tool(annotations=DELETE)(finance.delete_transaction)

    @mcp.resource("finance://categories", mime_type="text/plain")
    def categories() -> str:
        """List the categories that a budget knows, one a line."""
        return CATEGORIES

    @mcp.prompt()
    def monthly_review(month: str) -> str:
        """Ask for a review of one month's spending."""
        return f"Go through my transactions of {month}, group them by category and name the three largest expenses."

    return mcp


def app(host: str = "127.0.0.1") -> Starlette:
    """Return the ASGI app: both eras of MCP at ``/mcp``.

    On a loopback host the SDK answers only to loopback names (DNS rebinding); on another it answers to any.
    """
    return server().streamable_http_app(streamable_http_path=PATH, host=host)


def main(argv: list[str] | None = None) -> int:
    """Serve until interrupted. The first line printed is the URL, once connections are accepted."""
    parser = argparse.ArgumentParser(prog="python -m sidecar.demo.finance", description="A demo MCP server.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=3000, help="port to listen on, 0 for any free one (%(default)s)")
    options = parser.parse_args(argv)
    config = uvicorn.Config(app(options.host), log_level="warning", timeout_graceful_shutdown=2)
    try:
        listener = socket.create_server((options.host, options.port))
    except OSError as error:
        print(f"cannot listen on {options.host}:{options.port}: {error.strerror}", file=sys.stderr)
        return 1
    with listener:
        print(f"http://{options.host}:{listener.getsockname()[1]}{PATH}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after its clean end
            uvicorn.Server(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
