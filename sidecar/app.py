"""Starts and stops all parts of a sidecar, in order. It knows them all, as does `wiring`, which builds them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, BinaryIO, Final, Literal

from sidecar import auditing, lasting, tracing, wiring
from sidecar.config import Config
from sidecar.denials import StoreUnavailable
from sidecar.edge.admin import Readiness, Status, admin_port
from sidecar.edge.audit_trail import AuditTrail
from sidecar.edge.hashing import BcryptHasher
from sidecar.edge.http.audited import Audited
from sidecar.edge.http.listener import request_parser
from sidecar.edge.telemetry import METRICS_TYPE, Telemetry
from sidecar.generation import Generation
from sidecar.keyring import Keyring
from sidecar.lasting import Lasting, key_sources, look_at_store, open_store, sole_server, store_answers
from sidecar.model import Principal
from sidecar.public_port import PublicPort
from sidecar.stores import Store

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
        self.admin_url = ""
        self._port: PublicPort
        self._lasting: Lasting
        self._serving: Generation
        self._audit: AuditTrail | None
        self._generations: set[Generation] = set()
        """The one that serves, and those whose last requests are not answered yet."""
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def config(self) -> Config:
        """The settings that hold now."""
        return self._config

    @property
    def public_url_bound(self) -> str:
        """Where the public port really is; with port 0 the system chose it."""
        return self._port.url

    @property
    def keyring(self) -> Keyring:
        """The use cases of API keys."""
        return self._serving.keyring

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
            await self._begin()
            with _named("listen"):
                await self._start_public()
        except BaseException:
            await self._parts.aclose()
            raise
        self._phase = "serving"
        await look_at_store(self._lasting.store, self.telemetry)
        admin = {"admin": self.admin_url} if self.admin_url else {}
        self.telemetry.event("started", public=self.public_url_bound, **admin, parser=request_parser())

    async def reload(self, config: Config) -> None:
        """Go by other settings from the next request on; what is under way ends as it began.

        What `config.settled` says to need a restart must be as it was.

        Raises:
            OSError, ValueError: they can't take effect; the old ones still hold.
        """
        before, after = self._serving, self._generation(config, self._serving)
        try:
            show_certificate = self._port.showing(config.listen.tls)
            await self._lasting.key_sets.use(key_sources(config))
            await after.prepare()
        except BaseException:
            self._generations.discard(after)
            await after.aclose()
            raise
        show_certificate()
        self._lasting.go_by(config)
        self.telemetry.use(level=config.log.level, access=config.log.access, shadowed=lasting.shadowed_rules(config))
        self._config, self._serving = config, after
        self._port.handler = after.server.handle
        if after.identity_key != before.identity_key:
            self._tell_identity()
            if self._audit is not None:
                self._audit.sign_with(after.identity_key)
        retiring = asyncio.create_task(self._retire(before))
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)

    async def stop(self, *, delayed: bool = False) -> None:
        """Answer what was asked, take no new requests, and let go of everything.

        `delayed`: requests are taken for `drain.delay_s` more, for load balancers that have not heard of it yet.
        """
        self._phase = "draining"
        self.telemetry.state.draining()
        self.telemetry.event("stopping")
        if delayed:
            self._port.drain()
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
        store, upstream = self._lasting.store, self._serving.upstream
        store_up, reachable = await asyncio.gather(store_answers(store, self.telemetry), upstream.reachable())
        upstream_up = reachable and not self._serving.catalogue.failing
        issuers = dict(self._lasting.key_sets.status())
        checks = {"store": _ok(store_up), "upstream": _ok(upstream_up)}
        if self._audit is not None:
            checks["audit"] = _ok(not self._audit.is_failing)
        status: Status = "ready"
        if not store_up and self._config.limits.on_store_failure == "deny":
            status = "not_ready"
        elif any(state != "ok" for state in (*checks.values(), *issuers.values())):
            status = "degraded"
        return Readiness(status, {**checks, "issuers": issuers})

    async def look_again(self) -> None:
        """Ask a store that was away whether it is back; where no requests come, nobody else does."""
        if self._phase == "serving" and not self.telemetry.store_is_up:
            await store_answers(self._lasting.store, self.telemetry)

    async def _begin(self) -> None:
        config, parts = self._config, self._parts
        store = await parts.enter_async_context(
            open_store(config, self.telemetry.store_trip, self.telemetry.store_moved)
        )
        parts.enter_context(sole_server(config))
        hasher = BcryptHasher(config.api_keys.bcrypt_cost)
        parts.push_async_callback(hasher.aclose)
        self._audit = await parts.enter_async_context(auditing.trail(config, self.telemetry, self._worker))
        tracer = await parts.enter_async_context(tracing.tracer(config, self.telemetry))
        audited = Audited(self._audit)
        self._lasting = lasting.begin(config, store, hasher, self.telemetry, self._recheck, audited, tracer)
        parts.push_async_callback(self._lasting.key_sets.aclose)
        await self._lasting.key_sets.start()
        parts.push_async_callback(self._end_generations)
        self._serving = self._generation(config)
        self._tell_identity()
        self._serving.catalogue.start()
        await parts.enter_async_context(_running(self._lasting.streams.watch()))
        await parts.enter_async_context(_running(self._lasting.activity.watch()))

    def _generation(self, config: Config, before: Generation | None = None) -> Generation:
        generation = Generation(
            config, self._lasting, telemetry=self.telemetry, body_timeout_s=self._body_timeout_s, before=before
        )
        self._generations.add(generation)
        return generation

    async def _retire(self, generation: Generation) -> None:
        await generation.retire()
        self._generations.discard(generation)

    async def _end_generations(self) -> None:
        for retiring in self._retiring:
            retiring.cancel()
        for generation in tuple(self._generations):
            await generation.aclose()

    async def _recheck(self, principal: Principal) -> Principal:
        return await self._serving.recheck(principal)

    def _tell_identity(self) -> None:
        key = self._serving.identity_key
        self.telemetry.event("identity", key_id=key.id, algorithm=key.algorithm)

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
        await self.look_again()
        return self.telemetry.exposition()

    async def _start_public(self) -> None:
        config, handler = self._config, self._serving.server.handle
        self._port = PublicPort(
            handler,
            self.telemetry,
            bad_head=self._note_bad_head,
            tls=config.listen.tls,
            processes=config.workers,
        )
        await self._parts.enter_async_context(_running(self._port.watch()))
        await self._parts.enter_async_context(_running(self.telemetry.loop_lag.watch()))
        await self._port.open(config.listen, is_shared=self._worker is not None)
        self._parts.push_async_callback(self._close_public)

    async def _close_public(self) -> None:
        await self._port.close(self._config.drain, end_streams=self._lasting.streams.end_endless)
        for generation in tuple(self._generations):
            await generation.server.finish_acts()

    def _note_bad_head(self, status: int) -> None:
        self._lasting.audited.bad_head(status)
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
