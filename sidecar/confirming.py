"""Puts together what has people confirm calls, of one `Config`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable

from sidecar.approvals import Approvals
from sidecar.approvals_api import ApprovalsApi
from sidecar.config import Config
from sidecar.confirmer import Confirmer
from sidecar.edge.http.asking import Confirming
from sidecar.edge.http.front import Front
from sidecar.edge.telemetry import Telemetry
from sidecar.edge.webhook import Webhook
from sidecar.envelopes import Envelopes
from sidecar.lasting import Lasting
from sidecar.model import IdentityKey, Principal, Progress
from sidecar.policy.confirmation import Rules
from sidecar.policy.identity import Signer
from sidecar.policy.retries import StateSealer
from sidecar.policy.tools import ToolFinding
from sidecar.records import Confirmation
from sidecar.tool_classes import ToolClasses


def rules(config: Config) -> Rules:
    """Return which calls a person has to confirm."""
    managed = config.api_keys.management
    return Rules(
        tools=config.confirmation.tools,
        routes=config.routes,
        keys_are_managed=managed.scope is not None or bool(managed.client_ids),
    )


def applies(config: Config, progress: Progress, route: str | None, find: Callable[[str], ToolFinding | None]) -> bool:
    """Tell whether a person has to confirm a call that got so far; False where the class of its tool is not known."""
    action, principal = progress.action, progress.principal
    if action is None or action.tool is None or principal is None or route is None:
        return False
    finding = find(action.tool)
    return finding is not None and rules(config).needs(principal, route, finding.tool_class)


class ConfirmingParts:
    """What has people asked, and what keeps their word on the way of an answer that asks for more."""

    def __init__(self, config: Config, keys: tuple[IdentityKey, ...]) -> None:
        self._config = config
        self._webhook: Webhook | None = None
        self._sealer = StateSealer(keys, ttl_s=config.confirmation.ttl_s)
        self.envelope = Envelopes(self._sealer, time.time, secrets.token_bytes).put

    async def finish(self) -> None:
        """Return when all that was to be told has been, or was given up."""
        if self._webhook is not None:
            await self._webhook.finish()
            await self._webhook.aclose()

    async def aclose(self) -> None:
        """Let go of what is being told."""
        if self._webhook is not None:
            await self._webhook.aclose()

    def _announcer(self, telemetry: Telemetry) -> Callable[[Confirmation], None]:
        settings = self._config.confirmation.webhook
        if settings.url is None or settings.secret is None:
            return lambda _: None
        self._webhook = Webhook(
            settings.url,
            settings.secret,
            public_url=self._config.public_url,
            clock=time.time,
            report=telemetry.webhook,
        )
        return self._webhook.announce

    def approvals_api(self, lasting: Lasting) -> ApprovalsApi:
        """Return what the page asks."""
        page = self._config.key_page.client_id
        named = self._config.confirmation.approver_clients or (() if page is None else (page,))
        return ApprovalsApi(Approvals(lasting.store, time.time), frozenset(named))

    def confirming(
        self,
        lasting: Lasting,
        *,
        tools: ToolClasses,
        signer: Signer,
        front: Front,
        telemetry: Telemetry,
        recheck: Callable[[Principal], Awaitable[Principal]],
    ) -> Confirming:
        """Return what has people asked."""
        settings = self._config.confirmation
        confirmer = Confirmer(
            rules=rules(self._config),
            tools=tools,
            store=lasting.store,
            signer=signer,
            sealer=self._sealer,
            approver=settings.approver,
            hold_s=settings.hold_s,
            ttl_s=settings.ttl_s,
            public_url=self._config.public_url,
            shadowed=self._config.mode.confirmation == "shadow",
            stream_limit=lasting.stream_limit,
            limits_are_shadowed=self._config.mode.limits == "shadow",
            recheck=recheck,
            clock=time.time,
            nonce=lambda: secrets.token_urlsafe(16),
            entropy=secrets.token_bytes,
            report=telemetry.confirmation,
            announce=self._announcer(telemetry),
        )
        return Confirming(confirmer, lasting.audited, front)
