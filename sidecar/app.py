"""Starts and stops all parts of a sidecar, in order. It knows them all, as does `wiring`, which builds them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, BinaryIO, Final, Literal

from sidecar import wiring
from sidecar.catalogue import Catalogue, NoCatalogue
from sidecar.config import Config
from sidecar.denials import StoreUnavailable
from sidecar.edge import descriptors
from sidecar.edge.admin import Readiness, Status, admin_port, http_url
from sidecar.edge.hashing import BcryptHasher
from sidecar.edge.http.listener import BACKLOG, Listener, request_parser
from sidecar.edge.http.server import PublicServer
from sidecar.edge.http.streams import OpenStreams
from sidecar.edge.jwks import KeySets
from sidecar.edge.telemetry import METRICS_TYPE, Telemetry
from sidecar.edge.upstream import UpstreamClient
from sidecar.keyring import Keyring
from sidecar.management import ManagementApi
from sidecar.policy.identity import Signer
from sidecar.policy.quotas import StreamLimit
from sidecar.sockets import probe_when_silent
from sidecar.stores import Store
from sidecar.wiring import open_store

__all__ = ["Sidecar", "keyring", "open_store"]

_BODY_TIMEOUT_S: Final = 30.0


@contextlib.asynccontextmanager
async def keyring(config: Config, store: Store) -> AsyncIterator[Keyring]:
    """Return the use cases of API keys over an open store, for a command that ends soon."""
    hasher = BcryptHasher(config.api_keys.bcrypt_cost)
    try:
        yield wiring.keyring(config, store, hasher)
    finally:
        await hasher.aclose()


class Sidecar:
    """Everything that runs in a process, from its parts' start to their end.

    `worker` is its number among several processes: they share the public port, and their supervisor has the admin port.
    """

    def __init__(
        self,
        config: Config,
        *,
        log: BinaryIO | None = None,
        body_timeout_s: float = _BODY_TIMEOUT_S,
        worker: int | None = None,
    ) -> None:
        self._config = config
        self._body_timeout_s = body_timeout_s
        self._worker = worker
        self.telemetry = Telemetry(
            log or sys.stdout.buffer, level=config.log.level, access=config.log.access, worker=worker
        )
        self._parts = contextlib.AsyncExitStack()
        self._phase: Literal["starting", "serving", "draining"] = "starting"
        self.public_url_bound = ""
        """Where the public port really is; with port 0 the system chose it."""
        self.admin_url = ""
        self.keyring: Keyring
        self._listener: Listener | None = None
        self._store: Store
        self._key_sets: KeySets
        self._upstream: UpstreamClient
        self._catalogue: Catalogue | NoCatalogue

    async def start(self) -> None:
        """Open the ports. What is fetched from others is fetched in the background.

        Raises:
            OSError: a port or a file can't be had.
            StoreUnavailable: the embedded store's file can't be used.
        """
        try:
            if self._worker is None:
                with _named("admin"):
                    await self._start_admin()
            server = await self._assemble()
            with _named("listen"):
                await self._start_public(server)
        except BaseException:
            await self._parts.aclose()
            raise
        self._phase = "serving"
        await self._look_at_store()
        admin = {"admin": self.admin_url} if self.admin_url else {}
        self.telemetry.event("started", public=self.public_url_bound, **admin, parser=request_parser())

    async def stop(self, *, delayed: bool = False) -> None:
        """Answer what was asked, take no new requests, and let go of everything.

        `delayed`: requests are taken for `drain.delay_s` more, for load balancers that have not heard of it yet.
        """
        self._phase = "draining"
        self.telemetry.state.draining()
        self.telemetry.event("stopping")
        if self._listener is not None and delayed:
            self._listener.is_draining = True
            await asyncio.sleep(self._config.drain.delay_s)
        try:
            await self._parts.aclose()
        except StoreUnavailable as problem:
            self.telemetry.event("usage_lost", level="error", problem=problem.detail)
        self.telemetry.event("stopped")

    async def readiness(self) -> Readiness:
        """Find out whether requests should be sent here. The upstream is reported and never gates."""
        if self._phase != "serving":
            return Readiness("draining" if self._phase == "draining" else "not_ready")
        store_up, reachable = await asyncio.gather(self._store_answers(), self._upstream.reachable())
        upstream_up = reachable and not self._catalogue.failing
        issuers = dict(self._key_sets.status())
        checks = {"store": _ok(store_up), "issuers": issuers, "upstream": _ok(upstream_up)}
        status: Status = "ready"
        if not store_up and self._config.limits.on_store_failure == "deny":
            status = "not_ready"
        elif not (store_up and upstream_up and all(state == "ok" for state in issuers.values())):
            status = "degraded"
        return Readiness(status, checks)

    async def _look_at_store(self) -> None:
        """Tell of a store that is away or set up dangerously now, not at the first request."""
        if not await self._store_answers():
            return
        try:
            warnings = await self._store.warnings()
        except StoreUnavailable as problem:  # it may be forbidden to ask, or the store has gone just now
            warnings = (f"it could not be found out how the store is set up: {problem.detail}",)
        for warning in warnings:
            self.telemetry.event("store_warning", level="warning", problem=warning)

    async def _store_answers(self) -> bool:
        try:
            await self._store.ping()
        except StoreUnavailable as problem:
            self.telemetry.store(problem)
            return False
        self.telemetry.store(None)
        return True

    async def _assemble(self) -> PublicServer:
        config, telemetry, parts = self._config, self.telemetry, self._parts
        self._store = await parts.enter_async_context(open_store(config, telemetry.store_trip))
        parts.enter_context(wiring.sole_server(config))
        hasher = BcryptHasher(config.api_keys.bcrypt_cost)
        parts.push_async_callback(hasher.aclose)
        self._upstream = wiring.upstream(config)
        parts.push_async_callback(self._upstream.aclose)
        self._key_sets = wiring.key_sets(config, telemetry)
        parts.push_async_callback(self._key_sets.aclose)
        await self._key_sets.start()
        identity_keys = wiring.identity_keys(config)
        telemetry.event("identity", key_id=identity_keys[0].id, algorithm=identity_keys[0].algorithm)
        signer = Signer(identity_keys, authority=self._upstream.authority, ttl_s=config.identity.ttl_s)
        self._catalogue = wiring.catalogue(config, self._upstream, signer, telemetry)
        parts.push_async_callback(self._catalogue.aclose)
        self._catalogue.start()
        self.keyring = wiring.keyring(config, self._store, hasher)
        return await self._public_server(signer, hasher)

    async def _public_server(self, signer: Signer, hasher: BcryptHasher) -> PublicServer:
        config, telemetry = self._config, self.telemetry
        tools = wiring.tool_classes(config, self._catalogue)
        stream_limit = StreamLimit(config.limits.streams.per_credential)
        gateway = wiring.gateway(
            config,
            store=self._store,
            hasher=hasher,
            key_sets=self._key_sets,
            signer=signer,
            tools=tools,
            stream_limit=stream_limit,
            telemetry=telemetry,
        )
        streams = OpenStreams(self._store, gateway.recheck, telemetry, offline_grace_s=config.api_keys.offline_grace_s)
        await self._parts.enter_async_context(_running(streams.watch()))
        rule = config.api_keys.management
        return PublicServer(
            routes=config.routes,
            gateway=gateway,
            streams=streams,
            stream_limit=stream_limit,
            management=ManagementApi(self.keyring, scope=rule.scope, client_ids=rule.client_ids),
            upstream=self._upstream,
            handover=wiring.handover(config, store=self._store, tools=tools, client=self._upstream, signer=signer),
            front=wiring.front(config, signer.jwks()),
            observer=telemetry,
            max_body_bytes=config.max_body_bytes,
            stream_idle_timeout_s=config.upstream.stream_idle_timeout_s,
            trusted_proxies=config.trusted_proxies,
            body_timeout_s=self._body_timeout_s,
        )

    async def _start_admin(self) -> None:
        admin = self._config.admin
        self.admin_url = await self._parts.enter_async_context(
            admin_port(
                admin.host,
                admin.port,
                readiness=self.readiness,
                metrics=self._metrics,
                metrics_type=METRICS_TYPE,
                report_fault=self.telemetry.fault,
            )
        )

    async def _metrics(self) -> bytes:
        return self.telemetry.exposition()

    async def _start_public(self, server: PublicServer) -> None:
        most = descriptors.max_connections()
        listener = Listener(server.handle, bad_head=self._note_bad_head, max_connections=most)
        self.telemetry.watched.connections_of(lambda: len(listener.connections), most)
        await self._parts.enter_async_context(_running(listener.watch()))
        listen, drain, loop = self._config.listen, self._config.drain, asyncio.get_running_loop()
        port = await loop.create_server(
            listener, listen.host, listen.port, backlog=BACKLOG, reuse_port=self._worker is not None
        )
        for bound in port.sockets:
            probe_when_silent(bound)

        async def close() -> None:
            farewell = loop.call_later(drain.streams_s, server.end_streams)
            await listener.close(port, drain.requests_s)
            farewell.cancel()
            await server.finish_acts()

        self._parts.push_async_callback(close)
        self._listener = listener
        self.public_url_bound = http_url(port.sockets[0].getsockname())

    def _note_bad_head(self, status: int) -> None:
        self.telemetry.request(
            {"outcome": "bad_head", "status": status},
            route="other",
            outcome="bad_head",
            era="legacy",
            seconds=0.0,
            upstream_seconds=None,
            quotas=(),
        )


@contextlib.asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have something run in the background until the end of the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.contextmanager
def _named(section: str) -> Iterator[None]:
    """Let a port that can't be had be found in the settings."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{section}: {error}") from error


def _ok(answers: bool) -> str:
    return "ok" if answers else "unavailable"
