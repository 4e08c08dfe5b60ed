"""What becomes of a request at the public port: where it goes, how it is refused, and the one line it leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Final

import orjson

from sidecar.denials import AccountUnusable, Denial, InternalError, InvalidApiKey, InvalidToken, RateLimited
from sidecar.edge.http import rendering
from sidecar.edge.http.asking import Confirming
from sidecar.edge.http.audited import Audited
from sidecar.edge.http.exchange import Exchange
from sidecar.edge.http.front import Front
from sidecar.edge.http.holding import LEAST_BYTES, HeldBytes
from sidecar.edge.http.lines import left, record
from sidecar.edge.http.relay import head, is_event_stream, relay, whole, without_digests
from sidecar.edge.http.request import Request
from sidecar.edge.http.response import JSON, Lines, Response, wire
from sidecar.edge.http.rewriting import MAX_EVENT_BYTES, rewritten
from sidecar.edge.http.streams import PAUSE_S, OpenStreams
from sidecar.edge.http.traced import Traced
from sidecar.faults import place_of
from sidecar.guard import Guard
from sidecar.handover import Handover
from sidecar.management import Act, RestAnswer, RestApi
from sidecar.model import Permit, Principal, ResponsePlan, Route
from sidecar.policy.addresses import Https, IpNetwork
from sidecar.policy.answers import content_length, may_hold_messages
from sidecar.policy.listing import body_form, is_readable
from sidecar.policy.quotas import StreamLimit
from sidecar.ports import Observer, Upstream, UpstreamAnswer

_ROUTE_METHODS: Final = ("GET", "POST", "DELETE")
_MANAGEMENT_BODY_BYTES: Final = 65_536
_AUTH_FAILURES: Final = (InvalidToken, InvalidApiKey, AccountUnusable)

FORWARDED: Final = "forwarded"
ANSWERED: Final = "answered"


class PublicServer:
    """Serves the routes, what `rest` has at each path and below, and the published documents."""

    def __init__(
        self,
        *,
        routes: tuple[Route, ...],
        gateway: Guard,
        rest: Mapping[str, RestApi],
        upstream: Upstream,
        handover: Handover,
        streams: OpenStreams,
        stream_limit: StreamLimit,
        front: Front,
        observer: Observer,
        audited: Audited,
        confirming: Confirming,
        traced: Traced | None,
        max_body_bytes: int,
        stream_idle_timeout_s: float,
        trusted_proxies: tuple[IpNetwork, ...],
        require_https: Https,
        body_timeout_s: float,
    ) -> None:
        self._routes = {route.path: route for route in routes}
        self._gateway = gateway
        self._rest = rest
        self._upstream = upstream
        self._handover = handover
        self._front = front
        self._observer = observer
        self._audited = audited
        self._confirming = confirming
        self._traced = traced
        self._max_body_bytes, self._room = max_body_bytes, HeldBytes(max(LEAST_BYTES, 2 * max_body_bytes))
        self._stream_idle_timeout_s = stream_idle_timeout_s
        self._trusted_proxies, self._require_https = trusted_proxies, require_https
        self._body_timeout_s = body_timeout_s
        self._streams, self._stream_limit = streams, stream_limit
        self._acts: set[asyncio.Future[RestAnswer]] = set()
        self._under_way = 0
        self._none_under_way = asyncio.Event()

    async def finish_acts(self) -> None:
        """Return when the management calls that have begun are done, also those whose clients have left."""
        await asyncio.gather(*self._acts, return_exceptions=True)

    async def finish(self) -> None:
        """Return when every request has been answered, for when no more are brought here."""
        while self._under_way:
            self._none_under_way.clear()
            await self._none_under_way.wait()
        await self.finish_acts()

    async def handle(self, request: Request) -> None:
        """Answer one request; whatever comes of it, the log gets its line."""
        exchange = Exchange(request, self._trusted_proxies, self._require_https, self._room)
        route = self._routes.get(exchange.facts.path)
        label = self._label(exchange.facts.path) if route is None else route.path
        forwards = route is not None and exchange.facts.method in _ROUTE_METHODS
        outcome, status = FORWARDED if forwards else ANSWERED, None
        self._under_way += 1
        try:
            await self._answer(exchange, label, route)
            status = request.status
        except (ConnectionError, asyncio.CancelledError):
            status = exchange.streamed_status if exchange.denial is None else request.status
            outcome = left(exchange, outcome)
            raise
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._none_under_way.set()
            if exchange.progress.holds_stream and exchange.progress.principal is not None:
                self._stream_limit.release(exchange.progress.principal)
            if self._traced is not None:
                self._traced.ended(exchange, label, outcome, status)
            record(self._observer, exchange, label, outcome, status)
            self._audited.refused(exchange, label, status)
            exchange.let_go()

    def _label(self, path: str) -> str:
        own = [label for label in self._rest if path == label or path.startswith(f"{label}/")]
        return own[0] if own else self._front.label(path)

    async def _answer(self, exchange: Exchange, label: str, route: Route | None) -> None:
        """Send an answer, unless it was streamed; a refusal is sent in its place."""
        response: Response | None
        try:
            if route is not None:
                response = await self._proxy(exchange, route)
            elif label in self._rest:
                response = await self._manage(exchange, label)
            else:
                response = await self._front.publish(exchange)
            if response is not None:
                await exchange.send(response)
        except Denial as denial:
            await self._refuse(exchange, label, route, denial)
        except ConnectionError:
            raise
        except Exception as fault:
            await self._refuse(exchange, label, route, InternalError("internal_error", detail=place_of(fault)))

    async def _proxy(self, exchange: Exchange, route: Route) -> Response | None:
        preflight = self._front.receive(exchange, _ROUTE_METHODS)
        if preflight is not None:
            return preflight
        facts = exchange.facts

        def read_body() -> Awaitable[bytes | None]:
            return exchange.json_body(self._max_body_bytes, self._body_timeout_s)

        permit = await self._gateway.check(route, facts, read_body, exchange.progress)
        try:
            with self._streams.begin(exchange):
                confirmed = await self._confirming.settle(exchange, route.path, permit)
                if isinstance(confirmed, Response):
                    return confirmed
                self._audited.writes(exchange, route.path)
                return await self._forward(exchange, route, confirmed)
        except Denial as denial:
            denial.headers += permit.answer_headers  # it was counted, whatever became of it
            raise

    async def _forward(self, exchange: Exchange, route: Route, permit: Permit) -> Response | None:
        ours = permit.headers if self._traced is None else self._traced.forwards(exchange, route.path, permit)
        sent = time.perf_counter()
        exchange.own_s = sent - exchange.started
        idle_s = self._stream_idle_timeout_s if permit.method == "POST" else None
        try:
            answer = await self._upstream.send(
                permit.method,
                permit.target,
                ours,
                permit.body,
                account=permit.plan.principal.account,
                idle_timeout_s=idle_s,
            )
        finally:
            exchange.upstream_s = time.perf_counter() - sent
        try:
            exchange.upstream_status = answer.status
            lines = head(answer, permit)
            await self._handover.note_head(permit.plan, answer.status, answer.headers)
            self._front.mark(exchange, lines)
            if permit.plan.reads_messages and (may_hold_messages(answer.status) or is_readable(answer.headers)):
                return await self._read_messages(exchange, route, permit.plan, answer, lines)
            body = answer.complete()
            if body is not None:
                return whole(answer.status, lines, body)
            pieces = answer.pieces(PAUSE_S) if is_event_stream(lines) else aiter(answer)
            length = None if is_event_stream(lines) else content_length(answer.headers)
            await self._stream(exchange, route, answer, lines, pieces, length=length)
            return None
        finally:
            answer.close()

    async def _read_messages(
        self, exchange: Exchange, route: Route, plan: ResponsePlan, answer: UpstreamAnswer, lines: Lines
    ) -> Response | None:
        """Pass on an answer whose messages concern us: a JSON body as a whole, a stream event by event."""
        lines = without_digests(lines)
        if body_form(answer.headers) == "json":
            message = await answer.read(MAX_EVENT_BYTES, exchange.hold)
            return whole(answer.status, lines, await self._handover.message(plan, message))

        async def rewrite(message: bytes) -> bytes:
            try:
                return await self._handover.message(plan, message)
            except Denial as denial:  # the answer has begun: the refusal takes the place of this one message
                exchange.denial = exchange.denial or denial
                return rendering.error_message(denial, plan.era, plan.message_id)

        events = rewritten(answer.pieces(PAUSE_S), rewrite, hold=exchange.hold)
        await self._stream(exchange, route, answer, lines, events)
        return None

    async def _stream(
        self,
        exchange: Exchange,
        route: Route,
        answer: UpstreamAnswer,
        lines: Lines,
        pieces: AsyncIterator[bytes],
        *,
        length: bytes | None = None,
    ) -> None:
        self._observer.stream_opened(route.path)
        if is_event_stream(lines):
            exchange.streamed_status = answer.status
        try:
            with self._streams.open(exchange, answer):
                await relay(
                    exchange.request, answer.status, lines, pieces, length=length, ended=lambda: bool(exchange.ended_by)
                )
        finally:
            self._observer.stream_closed(route.path)

    async def _manage(self, exchange: Exchange, label: str) -> Response:
        facts, api = exchange.facts, self._rest[label]
        preflight = self._front.receive(exchange, api.methods(facts.path))
        if preflight is not None:
            return preflight

        async def read_body() -> bytes | None:
            if not exchange.request.has_body:
                return None
            return await exchange.json_body(_MANAGEMENT_BODY_BYTES, self._body_timeout_s)

        def understand(principal: Principal, body: bytes) -> Act:
            return api.read(principal, facts, body)

        permit = await self._gateway.check_management(facts, read_body, understand, exchange.progress)
        try:
            # The client may leave, but what has begun is done whole: half a revocation would be told to nobody.
            act = asyncio.ensure_future(self._audited.act(exchange, label, permit))
            self._acts.add(act)
            act.add_done_callback(self._forget)
            answer = await asyncio.shield(act)
        except Denial as denial:
            denial.headers += permit.answer_headers
            raise
        response = Response(answer.status, wire(permit.answer_headers))
        if answer.document is not None:
            response.body = orjson.dumps(answer.document)
            response.lines += [(b"Content-Type", JSON.encode()), (b"Cache-Control", b"no-store")]
        self._front.mark(exchange, response.lines)
        return response

    async def _refuse(self, exchange: Exchange, label: str, route: Route | None, denial: Denial) -> None:
        exchange.denial = denial
        if exchange.request.status is not None:
            # The answer had begun: leaving it unfinished is the only way left to say that it is not whole.
            exchange.request.break_off()
            raise ConnectionResetError("the answer could not be finished") from denial
        if isinstance(denial, _AUTH_FAILURES):
            self._observer.auth_failure(denial.reason)
        elif isinstance(denial, RateLimited) and not exchange.progress.quotas:
            self._observer.limit_refusal(denial.detail or "")
        if label in self._rest:
            response = rendering.problem(denial, self._front.discovery)
        elif route is None and self._front.is_read_by_people(exchange):
            response = rendering.page(denial)
        else:
            message_id, kind = await exchange.identify_message()
            era, discovery = exchange.facts.era, self._front.discovery
            response = rendering.json_rpc(denial, discovery, route=route, era=era, message_id=message_id, kind=kind)
        self._front.mark(exchange, response.lines)
        await exchange.send(response)

    def _forget(self, act: asyncio.Future[RestAnswer]) -> None:
        """Let go of a management call that is done; nobody may be left to hear how it ended."""
        self._acts.discard(act)
        if not act.cancelled():
            act.exception()
