"""What tools does the upstream have, in its own words? Asked by the sidecar itself, in the era the upstream speaks."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

from sidecar.denials import BadGateway, Denial, UpstreamNotReady
from sidecar.model import Headers, ToolClass
from sidecar.pinning import Pinning
from sidecar.policy.events import EventSplitter, data_of
from sidecar.policy.pins import sightings
from sidecar.policy.tools import class_of_annotations, least_trusted
from sidecar.ports import Upstream, UpstreamAnswer

_MODERN_VERSION: Final = "2026-07-28"
_LEGACY_VERSION: Final = "2025-11-25"
_CLIENT: Final = {"name": "mcp-sidecar", "version": "1"}
_MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
_MAX_TOTAL_BYTES: Final = 32 * 1024 * 1024
_MAX_TOOLS: Final = 10_000
_SESSION_ID: Final = re.compile(rb"[!-~]{1,1024}")
_VERSION: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_IDLE_S: Final = 30.0
_FIRST_RETRY_S: Final = 1.0
_LONGEST_RETRY_S: Final = 10.0
"""While nothing is known, calls are refused: an upstream that is back must not wait long for this."""
_JSON: Final = ((b"Content-Type", b"application/json"), (b"Accept", b"application/json, text/event-stream"))

Classes = dict[str, ToolClass | None]
Tools = list[dict[str, Any]]
"""Entries of `tools/list`, each with a name."""
Sign = Callable[[str, Headers, bytes | None], tuple[str, Headers]]
"""Method, header lines and body in; target and signed header lines out."""
Report = Callable[[int | None, str, bool], None]
"""Told how many tools there are, or None and why that is not known; and whether they are others than before."""


class Catalogue:
    """Keeps the annotations of all tools; a failed refresh keeps the last ones, or those `known` from before."""

    def __init__(
        self,
        upstream: Upstream,
        sign: Sign,
        *,
        refresh_s: float,
        report: Report,
        known: Classes | None = None,
        pinning: Pinning | None = None,
        names_account: bool = False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._upstream = upstream
        self._sign = sign
        self._refresh_s = refresh_s
        self._report = report
        self.pinning = pinning
        """Is told of every list."""
        self._names_account = names_account
        """Whether requests say for which account they are made (`catalogue.account`)."""
        self._sleep = sleep
        self.known: Classes | None = known
        """The class by the name of each tool; None until there was one fetch."""
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._received_bytes = 0
        self.failing = False
        """Whether the last fetch failed."""

    def annotated(self, tool: str) -> ToolClass | None:
        """Return the class that the upstream's annotations give this tool (see `ports.ToolCatalogue`)."""
        if self.known is None:
            raise UpstreamNotReady("catalogue_missing")
        return self.known.get(tool)

    def start(self) -> None:
        """Begin to fetch, at once and then every `refresh_s`; sooner, and ever less often, after a failure."""
        self._task = asyncio.get_running_loop().create_task(self._keep_fresh())
        if self.pinning is not None:
            self.pinning.start()

    async def first_look(self) -> None:
        """Return when the first fetch is over, well or badly."""
        await self._tried.wait()

    async def aclose(self) -> None:
        """Stop fetching."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self.pinning is not None:
            await self.pinning.aclose()

    async def refresh(self) -> bool:
        """Fetch all pages now; tell whether the tools or their classes are others than before.

        Raises:
            Denial: the upstream could not be reached, or its answers make no list.
        """
        before, tools = self.known, await self._modern_tools()
        if tools is None:
            tools = await self._legacy_tools()
        try:
            seen = {} if self.pinning is None else await asyncio.to_thread(sightings, tools)
        except ValueError as error:
            raise BadGateway("catalogue_malformed", detail=str(error)) from error
        self.known = _classes(tools)
        if self.pinning is not None:
            self.pinning.note(seen)  # at once with the classes: what turned into a read must not pass as what it was
            await self.pinning.settle()
        return before is not None and self.known != before

    async def _keep_fresh(self) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                changed = await self.refresh()
            except Exception as fault:  # whatever the upstream did to us, it may do better next time
                self.failing = True
                why = f"{fault.reason}: {fault.detail or fault.message}" if isinstance(fault, Denial) else repr(fault)
                self._report(None, why, False)
                self._tried.set()
                await self._sleep(min(retry_s, _LONGEST_RETRY_S, self._refresh_s))
                retry_s *= 2
            else:
                self.failing = False
                self._report(len(self.known or ()), "", changed)
                retry_s = _FIRST_RETRY_S
                self._tried.set()
                await self._sleep(self._refresh_s)

    async def _modern_tools(self) -> Tools | None:
        """Return the tools of an upstream that speaks 2026-07-28, or None when it does not."""
        meta = {
            "io.modelcontextprotocol/protocolVersion": _MODERN_VERSION,
            "io.modelcontextprotocol/clientInfo": _CLIENT,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        lines = (*_JSON, (b"MCP-Protocol-Version", _MODERN_VERSION.encode()), (b"Mcp-Method", b"tools/list"))
        status, _, reply = await self._call("tools/list", {"_meta": meta}, lines)
        if _is_no_such_method(reply) and status == 404:
            # A modern server without tools and a legacy server that answers 404 look alike; only the latter can
            # be asked in the other way, which settles it.
            return None
        if status != 200 or not isinstance(_tools_in(reply), list):
            return None
        return await self._pages(reply, {"_meta": meta}, lines)

    async def _legacy_tools(self) -> Tools:
        hello = {"protocolVersion": _LEGACY_VERSION, "capabilities": {}, "clientInfo": _CLIENT}
        status, headers, reply = await self._call("initialize", hello, _JSON)
        result = reply.get("result")
        if status != 200 or not isinstance(result, dict):
            detail = f"initialize was answered with HTTP {status}{_hint(status, self._names_account)}"
            raise BadGateway("catalogue_refused", detail=detail)
        version = result.get("protocolVersion")
        session = next((value for name, value in headers if name.lower() == b"mcp-session-id"), None)
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            raise BadGateway("catalogue_malformed", detail="initialize was answered without a protocol version")
        if session is not None and not _SESSION_ID.fullmatch(session):
            raise BadGateway("catalogue_malformed", detail="initialize was answered with an impossible session id")
        lines: Headers = (*_JSON, (b"MCP-Protocol-Version", version.encode()))
        if session is not None:
            lines = (*lines, (b"Mcp-Session-Id", session))
        try:
            await self._notify("notifications/initialized", lines)
            status, _, reply = await self._call("tools/list", {}, lines)
            if _is_no_such_method(reply):
                return []
            return await self._pages(reply, {}, lines)
        finally:
            if session is not None:
                await self._end_session(lines)

    async def _pages(self, reply: dict[str, Any], params: dict[str, Any], lines: Headers) -> Tools:
        tools: Tools = []
        cursors: set[str] = set()
        self._received_bytes = 0
        while True:
            page = _tools_in(reply)
            if page is None or not all(isinstance(t, dict) and isinstance(t.get("name"), str) for t in page):
                raise BadGateway("catalogue_malformed", detail="tools/list was not answered with a list of tools")
            tools += page
            if len(tools) > _MAX_TOOLS or self._received_bytes > _MAX_TOTAL_BYTES:
                raise BadGateway("catalogue_too_large", detail=f"over {_MAX_TOOLS} tools or {_MAX_TOTAL_BYTES} bytes")
            cursor = reply["result"].get("nextCursor")
            if cursor is None:
                return tools
            if not isinstance(cursor, str) or cursor in cursors:
                raise BadGateway("catalogue_malformed", detail="tools/list does not come to an end")
            cursors.add(cursor)
            _, _, reply = await self._call("tools/list", {**params, "cursor": cursor}, lines)

    async def _call(self, method: str, params: dict[str, Any], lines: Headers) -> tuple[int, Headers, dict[str, Any]]:
        body = orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        answer = await self._send("POST", lines, body)
        try:
            content = await answer.read(_MAX_ANSWER_BYTES)
        finally:
            answer.close()
        self._received_bytes += len(content)
        return answer.status, answer.headers, await asyncio.to_thread(_reply_in, content)

    async def _notify(self, method: str, lines: Headers) -> None:
        answer = await self._send("POST", lines, orjson.dumps({"jsonrpc": "2.0", "method": method}))
        answer.close()

    async def _end_session(self, lines: Headers) -> None:
        with contextlib.suppress(Denial):
            answer = await self._send("DELETE", lines, None)
            answer.close()

    async def _send(self, method: str, lines: Headers, body: bytes | None) -> UpstreamAnswer:
        target, signed = self._sign(method, lines, body)
        return await self._upstream.send(method, target, signed, body, idle_timeout_s=_IDLE_S)


class NoCatalogue:
    """Stands in where the upstream's annotations are not trusted: they say nothing of any tool."""

    failing: Final = False
    known: Final = None
    pinning: Final = None

    def annotated(self, tool: str) -> ToolClass | None:
        return None

    def start(self) -> None:
        """There is nothing to fetch."""

    async def first_look(self) -> None:
        """There is nothing to wait for."""

    async def aclose(self) -> None:
        """There is nothing to stop."""


def _hint(status: int, names_account: bool) -> str:
    """Say what an operator most likely has to change when the upstream refuses us."""
    if status == 421:
        return (
            "; it does not serve the host of upstream.url, which is the Host that it gets: allow that name in the "
            "server's transport security settings, or use one that it accepts"
        )
    if status not in (401, 403):
        return ""
    if names_account:
        return "; catalogue.account is set, so it does not take that account or the sidecar's signature"
    return "; it may want catalogue.account to be set"


def _classes(tools: Tools) -> Classes:
    """Return what each is by its annotations; one that is listed twice is taken at its worst word."""
    classes: Classes = {}
    for tool in tools:
        name, annotated = tool["name"], class_of_annotations(tool.get("annotations"))
        classes[name] = least_trusted((classes[name], annotated)) if name in classes else annotated
    return classes


def _reply_in(content: bytes) -> dict[str, Any]:
    """Return the JSON-RPC answer in a JSON body or in the last such event of an SSE body; empty when there is none."""
    for candidate in (content, *reversed(_events(content))):
        try:
            reply = orjson.loads(candidate)
        except orjson.JSONDecodeError:
            continue
        if isinstance(reply, dict) and ("result" in reply or "error" in reply):
            return reply
    return {}


def _events(content: bytes) -> list[bytes]:
    """Return the data of each event, of the last one also when no blank line ends it."""
    splitter = EventSplitter(_MAX_ANSWER_BYTES)
    events = [*splitter.feed(content), splitter.rest()]
    return [data for event in events if (data := data_of(event)) is not None]


def _tools_in(reply: Mapping[str, Any]) -> list[Any] | None:
    result = reply.get("result")
    tools = result.get("tools") if isinstance(result, dict) else None
    return tools if isinstance(tools, list) else None


def _is_no_such_method(reply: Mapping[str, Any]) -> bool:
    error = reply.get("error")
    return isinstance(error, dict) and error.get("code") == -32601
