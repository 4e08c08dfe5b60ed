"""The gateway and all behind it, as it is put together for serving; only time and bcrypt are made up."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from sidecar.authenticators import ApiKeyAuthenticator, FailedAttempts, JwtAuthenticator
from sidecar.edge.embedded import EmbeddedStore, MemoryLimits
from sidecar.edge.jwks import KeySets, KeySource
from sidecar.gateway import Gateway
from sidecar.handover import Handover
from sidecar.keyring import Keyring
from sidecar.model import BearerToken, IdentityKey, Limit, PresentedKey, Principal, ToolClass
from sidecar.offline import ResilientAdmissions
from sidecar.policy.claims import IssuerPolicy
from sidecar.policy.identity import Signer
from sidecar.policy.plans import Plans
from sidecar.policy.quotas import Limits, StreamLimit
from sidecar.policy.tools import ToolLists
from sidecar.tool_classes import ToolClasses
from tests.fakes import Clock

T = TypeVar("T")
START: Final = 1_800_000_000.0
ISSUER: Final = "https://idp.example"
SECRET: Final = b"a shared secret of thirty-two bytes or more"
LEEWAY_S: Final = 30
IDLE_S: Final = 3600


class PlainHasher:
    """Stands in for bcrypt, which would take all the time there is."""

    async def hash(self, secret: str) -> str:
        return hashlib.sha256(secret.encode()).hexdigest()

    async def verify(self, secret: str, secret_hash: str) -> bool:
        return await self.hash(secret) == secret_hash


class Annotations:
    """What the upstream says: one tool only reads."""

    def annotated(self, tool: str) -> ToolClass | None:
        return "read" if tool == "get" else None


async def _forgets(principal: Principal, session_id: str) -> None:
    """The upstream of these tests remembers no session anyway."""


class House:
    """Everything between the listener and the upstream, over one file that a second process changes too."""

    def __init__(self, path: str, limits: tuple[Limit, ...]) -> None:
        self.clock = Clock(START)
        self._limits = limits
        self._runner = asyncio.Runner()
        self.store = self.run(EmbeddedStore.open(path, clock=self.clock))
        self.office = self.run(EmbeddedStore.open(path, clock=self.clock))
        """The same file, as the command line opens it."""
        self.keyrings = (self._keyring(self.store), self._keyring(self.office))
        self.stream_limit = StreamLimit(2)
        tools = ToolClasses(ToolLists({"destructive": ["drop*"]}), Annotations())
        self.handover = Handover(self.store, tools, self.clock, _forgets)
        self.gateway = self._gateway(tools)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def close(self) -> None:
        for store in (self.office, self.store):
            self.run(store.aclose())
        self._runner.close()

    def _keyring(self, store: EmbeddedStore) -> Keyring:
        return Keyring(
            store,
            PlainHasher(),
            default_scopes=("mcp:read",),
            default_expiry_days=1,
            rotation_grace_s=60,
            max_per_account=50,
            clock=self.clock,
            entropy=os.urandom,
        )

    def _gateway(self, tools: ToolClasses) -> Gateway:
        failed = Limit("failed_auth", 10_000, 60, per="address")
        failures = FailedAttempts(self.store, failed, self.clock, report=lambda _: None)
        keys = ApiKeyAuthenticator(self.store, PlainHasher(), failures, clock=self.clock, process_secret=os.urandom(32))
        policy = IssuerPolicy(ISSUER, ("me",), ("HS256",), account_claim="org", leeway_s=LEEWAY_S)
        issuers = KeySets({ISSUER: KeySource(secret=SECRET)}, report=lambda *_: None)
        tokens = JwtAuthenticator({ISSUER: policy}, issuers, self.store, self.clock, require_store=True)
        nonces = itertools.count()
        return Gateway(
            authenticators={BearerToken: tokens, PresentedKey: keys},
            keys=keys,
            failures=failures,
            tools=tools,
            limits=Limits(self._limits),
            stream_limit=self.stream_limit,
            admissions=ResilientAdmissions(
                self.store,
                MemoryLimits(self.clock),
                on_failure="deny",
                local_share=1.0,
                offline_grace_s=0.0,
                clock=self.clock,
                monotonic=self.clock,
                admits_by_writing=False,
                report=lambda _: None,
            ),
            signer=Signer((IdentityKey("k", "hmac-sha256", SECRET),), authority="up.example", ttl_s=60),
            upstream_path="/up",
            upstream_query="",
            pass_headers=frozenset(),
            plans=Plans(filter_lists="keys", session_idle_s=IDLE_S),
            session_idle_s=IDLE_S,
            clock=self.clock,
            nonce=lambda: f"n{next(nonces)}",
        )
