"""All that goes by one `Config`. Changed settings make a new one beside the old one, which then comes to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

from sidecar import wiring
from sidecar.approvals_api import COLLECTION as APPROVALS_PATH
from sidecar.catalogue import Classes
from sidecar.config import Config
from sidecar.confirming import ConfirmingParts
from sidecar.denials import InvalidToken
from sidecar.edge.http.server import PublicServer
from sidecar.edge.telemetry import Telemetry
from sidecar.gateway import Gateway
from sidecar.guard import MANAGEMENT_PATH, Guard
from sidecar.keyring import Keyring
from sidecar.lasting import Lasting
from sidecar.management import ManagementApi, RestApi
from sidecar.model import Principal
from sidecar.pinning import Known as KnownPins
from sidecar.policy.identity import Signer
from sidecar.tracing import traced
from sidecar.wiring import Authenticators

_CATALOGUE_S: Final = 5.0
"""How long a new upstream may take to name its tools before it is asked for the first call."""


class Generation:
    """What one `Config` makes of requests. Each is answered by the generation that it began in, to its end.

    Raises:
        OSError, ValueError: a key of it can't be used.
    """

    def __init__(
        self,
        config: Config,
        lasting: Lasting,
        *,
        telemetry: Telemetry,
        body_timeout_s: float,
        before: Generation | None = None,
        known: Authenticators | None = None,
        between: Callable[[Gateway], Guard] = lambda gateway: gateway,
    ) -> None:
        """Put it together. `known` and what stands `between` are for who wants to know what it would do."""
        self.config = config
        self._issuers = frozenset(issuer.issuer for issuer in config.jwt.issuers)
        self.upstream = wiring.upstream(config)
        keys = wiring.identity_keys(config)
        self.identity_key = keys[0]
        signer = Signer(keys, authority=self.upstream.authority, ttl_s=config.identity.ttl_s)
        self.catalogue = wiring.catalogue(
            config, lasting, self.upstream, signer, telemetry, known=_known(config, before)
        )
        self.keyring = wiring.keyring(config, lasting.store, lasting.hasher)
        self.tools = tools = wiring.tool_classes(config, self.catalogue)
        self.gateway = wiring.gateway(config, lasting, signer, tools, known)
        front = wiring.front(config, signer.jwks(), telemetry)
        self._confirming = confirming = ConfirmingParts(config, keys)
        store, client = lasting.store, self.upstream
        handover = wiring.handover(
            config, store=store, tools=tools, client=client, signer=signer, envelope=confirming.envelope
        )
        self.server = PublicServer(
            routes=config.routes,
            gateway=between(self.gateway),
            streams=lasting.streams,
            stream_limit=lasting.stream_limit,
            rest=_rest(config, lasting, self.keyring, confirming),
            upstream=self.upstream,
            handover=handover,
            front=front,
            observer=telemetry,
            audited=lasting.audited,
            confirming=confirming.confirming(
                lasting, tools=tools, signer=signer, front=front, telemetry=telemetry, recheck=self.recheck
            ),
            traced=traced(config, lasting.tracer),
            max_body_bytes=config.max_body_bytes,
            stream_idle_timeout_s=config.upstream.stream_idle_timeout_s,
            trusted_proxies=config.trusted_proxies,
            require_https=config.require_https,
            body_timeout_s=body_timeout_s,
        )

    async def recheck(self, principal: Principal) -> Principal:
        """Return the principal of a running stream as it is known now.

        Raises:
            InvalidToken, InvalidApiKey: it is good for nothing any more; so is one by an issuer that counts no more.
            StoreUnavailable: that could not be found out.
        """
        if principal.issuer is not None and principal.issuer not in self._issuers:
            raise InvalidToken("token_issuer", detail="no such issuer is configured any more")
        return await self.gateway.recheck(principal)

    async def prepare(self) -> None:
        """Begin to ask the upstream for its tools. Where none are known of it, wait for the answer for a moment."""
        self.catalogue.start()
        if self.catalogue.known is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CATALOGUE_S):
                    await self.catalogue.first_look()

    async def retire(self) -> None:
        """Let go of everything when the last request has been answered."""
        await self.catalogue.aclose()
        await self.server.finish()
        await self._confirming.finish()
        await self.upstream.aclose()

    async def aclose(self) -> None:
        """Let go of everything now."""
        await self.catalogue.aclose()
        await self._confirming.aclose()
        await self.upstream.aclose()


def _known(config: Config, before: Generation | None) -> tuple[Classes | None, KnownPins | None]:
    """Return what is known already of the tools of the upstream, if it is the same one."""
    if before is None:
        return None, None
    now, then = config.upstream, before.config.upstream
    if (now.url, now.socket) != (then.url, then.socket):
        return None, None
    pinning = before.catalogue.pinning
    return before.catalogue.known, None if pinning is None else pinning.known


def _rest(config: Config, lasting: Lasting, keyring: Keyring, confirming: ConfirmingParts) -> Mapping[str, RestApi]:
    rule = config.api_keys.management
    keys = ManagementApi(keyring, lasting.store, scope=rule.scope, client_ids=rule.client_ids)
    return {MANAGEMENT_PATH: keys, APPROVALS_PATH: confirming.approvals_api(lasting)}
