"""What outlives a change of the settings: what was opened, and what was learnt since the start."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sidecar.activity import ActivityWatch
from sidecar.authenticators import ApiKeyAuthenticator, FailedAttempts
from sidecar.bounded import Lookups
from sidecar.config import Config
from sidecar.denials import Rule, StoreUnavailable
from sidecar.edge import embedded
from sidecar.edge.embedded import EmbeddedStore, MemoryLimits
from sidecar.edge.hashing import BcryptHasher
from sidecar.edge.http.audited import Audited
from sidecar.edge.http.streams import OpenStreams
from sidecar.edge.jwks import KeySets, KeySource
from sidecar.edge.redis import RedisStore
from sidecar.edge.telemetry import Telemetry
from sidecar.edge.telemetry_activity import Activity
from sidecar.model import Limit, Principal
from sidecar.offline import ResilientAdmissions
from sidecar.policy.activity import Thresholds
from sidecar.policy.quotas import StreamLimit
from sidecar.ports import Tracer
from sidecar.stores import Store
from sidecar.tls import client_context
from sidecar.unusual_reports import UnusualReports

_PROCESS_SECRET_BYTES: Final = 32


@contextlib.asynccontextmanager
async def open_store(
    config: Config,
    note_trip: Callable[[float], None] = lambda _: None,
    note_move: Callable[[Sequence[str]], None] = lambda _: None,
) -> AsyncIterator[Store]:
    """Open the configured store, and close it at the end.

    `note_trip` hears how many seconds each way to it took, `note_move` where its masters are when they are others.

    Raises:
        StoreUnavailable: the embedded store's file can't be used.
    """
    path, tls = config.store.sqlite_path, config.store.tls
    store: Store = (
        await EmbeddedStore.open(path, clock=time.time, note_change=note_trip)
        if path is not None
        else RedisStore.from_url(
            config.store.url,
            tls=client_context(tls.ca, tls.cert, tls.key),
            note_trip=note_trip,
            note_move=note_move,
        )
    )
    try:
        yield store
    finally:
        await store.aclose()


async def store_answers(store: Store, telemetry: Telemetry) -> bool:
    """Find out whether the store takes a write, and take note of it."""
    try:
        await store.ping()
    except StoreUnavailable as problem:
        telemetry.store(problem)
        return False
    telemetry.store(None)
    return True


async def look_at_store(store: Store, telemetry: Telemetry) -> None:
    """Tell of a store that is away or set up dangerously now, not at the first request."""
    if not await store_answers(store, telemetry):
        return
    try:
        warnings = await store.warnings()
    except StoreUnavailable as problem:  # it may be forbidden to ask, or the store has gone just now
        warnings = (f"it could not be found out how the store is set up: {problem.detail}",)
    for warning in warnings:
        telemetry.event("store_warning", level="warning", problem=warning)


@contextlib.contextmanager
def sole_server(config: Config) -> Iterator[None]:
    """Be the only process that serves with the embedded store; a shared store needs no such thing.

    Raises:
        StoreUnavailable: there is another.
    """
    path = config.store.sqlite_path
    with embedded.sole_server(path) if path is not None else contextlib.nullcontext():
        yield


@dataclass(frozen=True, slots=True)
class Lasting:
    """What outlives a change of the settings: what was opened, and what was learnt since the start."""

    store: Store
    hasher: BcryptHasher
    key_sets: KeySets
    failures: FailedAttempts
    keys: ApiKeyAuthenticator
    admissions: ResilientAdmissions
    stream_limit: StreamLimit
    streams: OpenStreams
    token_lookups: Lookups
    audited: Audited
    activity: ActivityWatch
    tracer: Tracer | None

    def go_by(self, config: Config) -> None:
        """Use other settings from now on, but for the key sets, which have to be fetched."""
        self.hasher.cost = config.api_keys.bcrypt_cost
        self.failures.limit = _failure_limit(config)
        self.admissions.on_failure = config.limits.on_store_failure
        self.admissions.local_share = config.limits.local_share
        self.admissions.offline_grace_s = config.api_keys.offline_grace_s
        self.activity.thresholds = thresholds(config)
        self.stream_limit.per_credential = config.limits.streams.per_credential
        self.streams.offline_grace_s = config.api_keys.offline_grace_s


def begin(
    config: Config,
    store: Store,
    hasher: BcryptHasher,
    telemetry: Telemetry,
    recheck: Callable[[Principal], Awaitable[Principal]],
    audited: Audited,
    tracer: Tracer | None = None,
) -> Lasting:
    """Return what a process keeps. Its key sets are not yet fetched.

    `recheck` judges the principal of a running stream, by whatever settings hold then.
    """
    sets, lookups = KeySets(key_sources(config), report=telemetry.key_set), telemetry.watched.lookups
    telemetry.watched.key_sets = sets.states
    telemetry.state.shadow.use(shadowed_rules(config))
    failures = FailedAttempts(store, _failure_limit(config), time.time, report=telemetry.store)
    reports = UnusualReports(Activity(telemetry.registry, telemetry.event), audited)
    activity = ActivityWatch(store, thresholds(config), reports, time.time, report_fault=telemetry.fault)
    return Lasting(
        store=store,
        hasher=hasher,
        key_sets=sets,
        failures=failures,
        keys=ApiKeyAuthenticator(
            store,
            hasher,
            failures,
            clock=time.time,
            process_secret=secrets.token_bytes(_PROCESS_SECRET_BYTES),
            lookups=lookups["key"],
            ended=activity.presented,
        ),
        admissions=_admissions(config, store, telemetry, activity),
        stream_limit=StreamLimit(config.limits.streams.per_credential),
        streams=OpenStreams(store, recheck, telemetry, offline_grace_s=config.api_keys.offline_grace_s),
        token_lookups=lookups["token"],
        audited=audited,
        activity=activity,
        tracer=tracer,
    )


def shadowed_rules(config: Config) -> frozenset[Rule]:
    """Return which rules only take note of what they would refuse."""
    modes: dict[Rule, str] = {
        "scopes": config.mode.scopes,
        "limits": config.mode.limits,
        "confirmation": config.mode.confirmation,
    }
    return frozenset([rule for rule, mode in modes.items() if mode == "shadow"])


def key_sources(config: Config) -> dict[str, KeySource]:
    """Return where each issuer's keys are."""
    return {
        issuer.issuer: KeySource(url=issuer.jwks_url, file=issuer.jwks_file, secret=issuer.secret)
        for issuer in config.jwt.issuers
    }


def thresholds(config: Config) -> Thresholds:
    """Return what of the use of keys counts as unusual."""
    unusual = config.api_keys.unusual
    return Thresholds(unusual.unseen_days, unusual.rise, unusual.min_requests, unusual.min_refused)


def _failure_limit(config: Config) -> Limit:
    """Return how often authentication may fail for one client address."""
    limit = config.limits.failed_auth
    return Limit("failed_auth", limit.requests, limit.window_s, per="address")


def _admissions(config: Config, store: Store, telemetry: Telemetry, activity: ActivityWatch) -> ResilientAdmissions:
    """Return the one trip to the store, and what is done when it fails."""
    return ResilientAdmissions(
        store,
        MemoryLimits(time.time),
        on_failure=config.limits.on_store_failure,
        local_share=config.limits.local_share,
        offline_grace_s=config.api_keys.offline_grace_s,
        clock=time.time,
        monotonic=time.monotonic,
        admits_by_writing=config.store.sqlite_path is None,
        report=telemetry.store,
        counted=activity.counted,
    )
