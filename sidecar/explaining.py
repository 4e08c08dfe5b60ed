"""What would become of a request, and why? The serving composition itself, over ports that only look."""

from __future__ import annotations

import contextlib
import io
import math
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from sidecar import confirming, lasting
from sidecar.catalogue import Catalogue
from sidecar.config import Config
from sidecar.denials import Denial, StoreUnavailable, UpstreamNotReady
from sidecar.edge import identity_file
from sidecar.edge.hashing import BcryptHasher
from sidecar.edge.http.audited import Audited
from sidecar.edge.http.rehearsal import Rehearsed, rehearse
from sidecar.edge.http.request import Request
from sidecar.edge.telemetry import Telemetry
from sidecar.gateway import Gateway
from sidecar.generation import Generation
from sidecar.guard import Guard
from sidecar.lasting import Lasting
from sidecar.looking import Allowed, LookedAt, StandIn, Witness
from sidecar.model import SCOPES, BearerToken, CredentialKind, IdentityKey, PresentedKey, Principal, Progress
from sidecar.policy.explanation import Walk
from sidecar.policy.quotas import is_endless
from sidecar.policy.tools import ToolFinding
from sidecar.stores import Store
from sidecar.wiring import Authenticators

PLACEHOLDER: Final = "stands-in"
"""What a request carries where a principal stands in for a credential."""
_BODY_TIMEOUT_S: Final = 0.25
_NOT_REFUSED: Final = ("forwarded", "answered")
_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class AsKey:
    """The request is asked about as if it came with this API key."""

    key_id: str


@dataclass(frozen=True, slots=True)
class AsPrincipal:
    """The request is asked about as if it came from this account with these scopes."""

    account: str
    scopes: tuple[str, ...]
    kind: CredentialKind
    subject: str = ""
    client_id: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A request as its client would send it, from an address, and whose it is unless it says that itself."""

    raw: bytes
    client: str
    who: AsKey | AsPrincipal | None = None


async def explain(config: Config, question: Question, *, ask_upstream: bool = True) -> Walk:
    """Tell what would become of the request. Nothing is sent on, spent, counted or kept.

    Raises:
        StoreUnavailable: the embedded store's file can't be used.
        TimeoutError: what was asked about is not a whole request.
        OSError, ValueError: the identity key can't be read.
    """
    config = _without_making_keys(config)
    async with contextlib.AsyncExitStack() as parts:
        store = LookedAt(await parts.enter_async_context(_store(config)))
        hasher = BcryptHasher(config.api_keys.bcrypt_cost)
        parts.push_async_callback(hasher.aclose)
        told = _Told()
        lasts = lasting.begin(config, store, hasher, told, _recheck, Audited())
        parts.push_async_callback(lasts.key_sets.aclose)
        known = await _stand_in(question.who, store, lasts)
        if known is None:
            await lasts.key_sets.start()
        rehearsal = _Rehearsal(config, lasts, told, known, question)
        parts.push_async_callback(rehearsal.generation.aclose)
        return await rehearsal.explain(ask_upstream=ask_upstream)


class _Told(Telemetry):
    """Keeps the line that a request would leave in the log."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), level="error", access=False)
        self.members: Mapping[str, Any] = {}
        self.store_is_away = False

    def store(self, problem: StoreUnavailable | None) -> None:
        self.store_is_away = problem is not None

    def request(self, members: Mapping[str, Any], **_: Any) -> None:
        self.members = members


class _Rehearsal:
    def __init__(
        self, config: Config, lasts: Lasting, told: _Told, known: Authenticators | None, question: Question
    ) -> None:
        self._config = config
        self._told = told
        self._question = question
        self._witness: Witness
        self._is_allowed = False
        self.generation = Generation(
            config, lasts, telemetry=told, body_timeout_s=_BODY_TIMEOUT_S, known=known, between=self._watch
        )

    async def explain(self, *, ask_upstream: bool) -> Walk:
        walk = await self._walk()
        tool = None if walk.progress.action is None else walk.progress.action.tool
        blocks = self._config.catalogue.on_change == "block"
        if tool is None or (self._find(tool) is not None and not blocks):
            return walk
        problem = await self._ask_upstream() if ask_upstream else "the upstream was not asked"
        if problem and walk.told.get("reason") == "catalogue_missing" and blocks:
            note = f"whether {tool} is what was approved is unknown until the catalogue is fetched ({problem})"
            return replace(walk, decision="unknown", notes=(*walk.notes, note))
        if self._find(tool) is not None:
            return await self._walk()
        return await self._assume(tool, problem)

    async def _walk(self) -> Walk:
        self._witness.progress, self._is_allowed = Progress(), False
        answer = await rehearse(
            self._question.raw,
            self._handle,
            self._question.client,
            is_encrypted=self._config.listen.tls.cert is not None,
        )
        progress = self._witness.progress
        told = _bad_head(answer) if answer.bad_head else self._told.members
        tool = None if progress.action is None else progress.action.tool
        has_none = isinstance(self._question.who, AsPrincipal)
        method, path, *_ = (*self._question.raw.split(b"\r\n", 1)[0].decode("latin-1").split(" "), "", "")
        return Walk(
            method=method,
            path=path.partition("?")[0],
            client=self._question.client,
            decision="allowed" if self._is_allowed or told["outcome"] in _NOT_REFUSED else "refused",
            told=told,
            answer=answer.body,
            progress=progress,
            finding=None if tool is None else self._find(tool),
            knows_spent=self._config.store.sqlite_path is None and not self._told.store_is_away,
            knows_credential=not has_none,
            confirmation=self._confirmation(progress),
            notes=tuple(self._notes(progress)),
        )

    def _confirmation(self, progress: Progress) -> Literal["needed", "shadow"] | None:
        route = self._told.members.get("route")
        if not self._is_allowed or not confirming.applies(self._config, progress, route, self._find):
            return None
        return "needed" if self._config.mode.confirmation == "enforce" else "shadow"

    def _watch(self, gateway: Gateway) -> Guard:
        self._witness = Witness(gateway)
        return self._witness

    async def _handle(self, request: Request) -> None:
        try:
            await self.generation.server.handle(request)
        except Allowed:
            self._is_allowed = True

    def _find(self, tool: str) -> ToolFinding | None:
        try:
            return self.generation.tools.why(tool)
        except UpstreamNotReady:
            return None

    async def _ask_upstream(self) -> str:
        """Fetch the catalogue, and return why that could not be done."""
        if isinstance(self.generation.catalogue, Catalogue):
            try:
                await self.generation.catalogue.refresh()
            except Denial as problem:
                return f"the upstream did not tell its tools: {problem.detail or problem.message}"
        return ""

    async def _assume(self, tool: str, problem: str) -> Walk:
        """Tell what hangs on the class of a tool that is not known."""
        catalogue, unknown = self.generation.catalogue, await self._walk()
        assert isinstance(catalogue, Catalogue)  # noqa: S101 - without one nothing is unknown
        catalogue.known = {tool: "read"}
        as_read = await self._walk()
        catalogue.known = {}
        as_write = await self._walk()
        catalogue.known = None
        note = f"what {tool} is is unknown until the catalogue is fetched ({problem})"
        if as_read.decision == as_write.decision and as_read.told["reason"] == as_write.told["reason"]:
            return replace(as_write, finding=None, notes=(*as_write.notes, f"{note}, and does not matter here"))
        either = f"a read would be {_words(as_read)}, anything else {_words(as_write)}"
        return replace(unknown, decision="unknown", notes=(*unknown.notes, f"{note}: {either}"))

    def _notes(self, progress: Progress) -> list[str]:
        notes = []
        if progress.quotas and self._config.store.sqlite_path is not None:
            notes.append("with the embedded store, how much of a limit is spent is known to the serving process alone")
        told = self._told.members
        if self._told.store_is_away:
            notes.append("the store does not answer: this is what is done meanwhile (limits.on_store_failure)")
        if told.get("outcome") == "issuer_unavailable":
            notes.append("the issuer's keys could not be had from here now; a sidecar that has them uses them on")
        if progress.action is not None and is_endless(progress.action):
            notes.append("how many streams are open (limits.streams) is known to the serving process alone")
        in_band = [route.path for route in self._config.routes if route.denials == "in_band"]
        if told.get("outcome") not in _NOT_REFUSED and told.get("route") in in_band:
            notes.append("this route refuses in band: what has an id gets a JSON-RPC error with HTTP 200, but for 401")
        return notes


def _words(walk: Walk) -> str:
    return walk.decision if walk.decision == "allowed" else f"refused ({walk.told['reason']})"


def _bad_head(answer: Rehearsed) -> Mapping[str, Any]:
    return {"outcome": "bad_head", "reason": "bad_head", "status": answer.status, "route": "other"}


@contextlib.asynccontextmanager
async def _store(config: Config) -> AsyncIterator[Store]:
    """Open the store; one that is not there is an empty one, and is not made."""
    if _is_there(config):
        async with lasting.open_store(config) as store:
            yield store
        return
    with tempfile.TemporaryDirectory() as directory:
        async with lasting.open_store(
            replace(config, store=replace(config.store, url=f"sqlite:///{directory}/empty.db"))
        ) as store:
            yield store


def _is_there(config: Config) -> bool:
    path = config.store.sqlite_path
    return path is None or Path(path).exists()


def _without_making_keys(config: Config) -> Config:
    """Return the settings with an identity key: the kept one, or one of the moment, for it is not ours to make."""
    path, identity = config.store.sqlite_path, config.identity
    if identity.keys or path is None:
        return config
    momentary = IdentityKey("explain", "hmac-sha256", secrets.token_bytes(_SECRET_BYTES))
    key = identity_file.kept(Path(path).parent, identity.algorithm) or momentary
    return replace(config, identity=replace(identity, keys=(key,)))


async def _stand_in(who: AsKey | AsPrincipal | None, store: Store, lasts: Lasting) -> Authenticators | None:
    """Return the authenticators that take any credential for this one's; None where the request has its own."""
    if who is None:
        return None
    principal: Callable[[], Principal]
    if isinstance(who, AsKey):
        account = await store.account_of(who.key_id)
        stored = None if account is None else await store.get(account, who.key_id)
        record = None if stored is None else stored.record

        def principal() -> Principal:
            return lasts.keys.judge(record)

    else:
        held = Principal(
            account=who.account,
            subject=who.subject or who.account,
            kind=who.kind,
            credential_id="any",
            scopes=tuple(scope for scope in SCOPES if scope in who.scopes),
            issued_at=time.time(),
            expires_at=math.inf,
            client_id=who.client_id,
        )

        def principal() -> Principal:
            return held

    anybody = StandIn(principal)
    return {BearerToken: anybody, PresentedKey: anybody}


async def _recheck(principal: Principal) -> Principal:
    return principal
