"""Which part is built from which settings? The composition root's hands; `app` is its head."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from sidecar import randomness
from sidecar.authenticators import JwtAuthenticator
from sidecar.catalogue import Catalogue, Classes, NoCatalogue
from sidecar.config import Config, IssuerConfig
from sidecar.confirming import rules
from sidecar.edge.hashing import BcryptHasher
from sidecar.edge.http.front import Front
from sidecar.edge.identity_file import load_or_make
from sidecar.edge.telemetry import Telemetry
from sidecar.edge.upstream import UpstreamClient
from sidecar.gateway import Gateway
from sidecar.handover import Envelope, Handover
from sidecar.keyring import Keyring
from sidecar.lasting import Lasting, shadowed_rules
from sidecar.model import BearerToken, Headers, IdentityKey, PresentedKey, Principal
from sidecar.pages import pages
from sidecar.pin_reports import PinReports
from sidecar.pinning import Known as KnownPins
from sidecar.pinning import NoPins, Pinning
from sidecar.policy import outbound
from sidecar.policy.browsers import Browsers
from sidecar.policy.discovery import Discovery
from sidecar.policy.identity import Signer, identity_headers
from sidecar.policy.listing import FilterPolicy
from sidecar.policy.pins import upstream_id
from sidecar.policy.plans import Plans
from sidecar.policy.quotas import Limits
from sidecar.policy.tokens import IssuerPolicy
from sidecar.policy.tools import ToolLists
from sidecar.ports import Authenticator
from sidecar.stores import Store
from sidecar.tls import client_context
from sidecar.tool_classes import ToolClasses

Authenticators = Mapping[type, Authenticator[Any]]

_NONCES: Final = randomness.numbers()
_OWN_SUBJECT: Final = "sidecar"
"""`X-Auth-Subject` of the requests that the sidecar makes for itself; no key and no user is called so."""


def keyring(config: Config, store: Store, hasher: BcryptHasher) -> Keyring:
    """Return the use cases of API keys."""
    settings = config.api_keys
    return Keyring(
        store,
        hasher,
        default_scopes=settings.default_scopes,
        default_expiry_days=settings.default_expiry_days,
        rotation_grace_s=settings.rotation_grace_s,
        max_per_account=settings.max_per_account,
        clock=time.time,
        entropy=secrets.token_bytes,
    )


def upstream(config: Config) -> UpstreamClient:
    """Return the client to the upstream."""
    settings = config.upstream
    return UpstreamClient(
        settings.url,
        socket_path=settings.socket,
        ssl_context=client_context(settings.tls.ca, settings.tls.cert, settings.tls.key),
        connect_timeout_s=settings.connect_timeout_s,
        response_timeout_s=settings.response_timeout_s,
        per_account=settings.sharing == "per_account",
    )


def identity_keys(config: Config) -> tuple[IdentityKey, ...]:
    """Return the keys of the identity signature: the configured ones, or the one kept beside the embedded store.

    Raises:
        OSError, ValueError: that one can't be read or made.
    """
    path = config.store.sqlite_path
    if config.identity.keys or path is None:
        return config.identity.keys
    return (load_or_make(Path(path).parent, config.identity.algorithm),)


def catalogue(
    config: Config,
    lasting: Lasting,
    client: UpstreamClient,
    signer: Signer,
    telemetry: Telemetry,
    *,
    known: tuple[Classes | None, KnownPins | None],
) -> Catalogue | NoCatalogue:
    """Return what will know the upstream's tools, or nothing where nobody goes by what it says of them.

    `known` is what was found out of the same upstream before.
    """
    blocks = config.catalogue.on_change == "block"
    if not config.access.trust_annotations and not blocks:
        return NoCatalogue()
    classes, pins = known
    pinning = Pinning(
        lasting.store,
        upstream_id(config.upstream.url, config.upstream.socket),
        blocks=blocks,
        report=PinReports(telemetry.pins, lasting.audited, blocks=blocks),
        clock=time.time,
        known=pins,
    )

    def sign(method: str, lines: Headers, body: bytes | None) -> tuple[str, Headers]:
        return _signed(config, signer, method, lines, body, _own_identity(config.catalogue.account))

    refresh_s = config.catalogue.refresh_s
    return Catalogue(
        client,
        sign,
        refresh_s=refresh_s,
        report=telemetry.catalogue,
        known=classes,
        pinning=pinning,
        names_account=config.catalogue.account is not None,
    )


def tool_classes(config: Config, catalogue: Catalogue | NoCatalogue) -> ToolClasses:
    """Return what knows the class of a tool."""
    lists = config.access.tools
    operators = ToolLists({"read": lists.read, "write": lists.write, "destructive": lists.destructive})
    annotations = catalogue if config.access.trust_annotations else NoCatalogue()
    confirms = config.mode.confirmation == "enforce" and rules(config).may_apply
    waits = config.mode.scopes == "enforce" or confirms
    return ToolClasses(operators, annotations, waits=waits, pins=catalogue.pinning or NoPins())


def handover(
    config: Config,
    *,
    store: Store,
    tools: ToolClasses,
    client: UpstreamClient,
    signer: Signer,
    envelope: Envelope,
) -> Handover:
    """Return what binds, forgets and filters what answers hand out."""

    async def end_session(principal: Principal, session_id: str) -> None:
        identity = identity_headers(
            account=principal.account,
            scopes=principal.scopes,
            kind=principal.kind,
            subject=principal.subject,
            request_id=_request_id(),
        )
        lines = ((b"Mcp-Session-Id", session_id.encode("latin-1")),)
        target, signed = _signed(config, signer, "DELETE", lines, None, identity)
        (await client.send("DELETE", target, signed, None, account=principal.account)).close()

    return Handover(store, tools, time.time, end_session, filter_lists=_filter_lists(config), envelope=envelope)


def front(config: Config, identity_keys: Mapping[str, Any], telemetry: Telemetry) -> Front:
    """Return what every request meets first, with all that is published."""
    discovery = Discovery(
        public_url=config.public_url,
        routes=config.routes,
        issuers=(issuer.issuer for issuer in config.jwt.issuers),
        advertised_scopes=config.jwt.advertised_scopes,
    )
    browsers = Browsers(
        public_url=config.public_url,
        allowed_hosts=config.allowed_hosts,
        allowed_origins=config.allowed_origins,
        pass_headers=config.upstream.pass_headers,
    )
    return Front(browsers, discovery, identity_keys, pages(config, telemetry))


def authenticators(config: Config, lasting: Lasting) -> Authenticators:
    """Return who knows which kind of credential."""
    policies = {issuer.issuer: _issuer_policy(issuer) for issuer in config.jwt.issuers}
    tokens = JwtAuthenticator(
        policies,
        lasting.key_sets,
        lasting.store,
        time.time,
        require_store=config.limits.on_store_failure == "deny",
        lookups=lasting.token_lookups,
    )
    return {BearerToken: tokens, PresentedKey: lasting.keys}


def gateway(
    config: Config, lasting: Lasting, signer: Signer, tools: ToolClasses, known: Authenticators | None = None
) -> Gateway:
    """Return the hot path; `known` are other authenticators than those of the settings."""
    path, query = _target(config)
    shadowed = shadowed_rules(config)
    return Gateway(
        authenticators=authenticators(config, lasting) if known is None else known,
        keys=lasting.keys,
        failures=lasting.failures,
        tools=tools,
        limits=Limits(config.limits.policies),
        stream_limit=lasting.stream_limit,
        admissions=lasting.admissions,
        signer=signer,
        upstream_path=path,
        upstream_query=query,
        pass_headers=frozenset(name.lower() for name in config.upstream.pass_headers),
        plans=Plans(
            filter_lists=_filter_lists(config),
            session_idle_s=config.sessions.idle_s,
            hides_tools=config.catalogue.on_change == "block",
        ),
        session_idle_s=config.sessions.idle_s,
        shadowed=shadowed,
        clock=time.time,
        nonce=_nonce,
    )


def _filter_lists(config: Config) -> FilterPolicy:
    return "none" if "scopes" in shadowed_rules(config) else config.access.filter_lists


def _signed(
    config: Config,
    signer: Signer,
    method: str,
    lines: Headers,
    body: bytes | None,
    identity: tuple[tuple[str, str], ...],
) -> tuple[str, Headers]:
    """Return target and header lines of a request that the sidecar makes by itself."""
    path, query = _target(config)
    signed = outbound.signed(
        signer,
        method=method,
        path=path,
        query=query or None,
        lines=lines,
        identity=identity,
        body=body,
        now=time.time(),
        nonce=_nonce(),
    )
    return outbound.target(path, query or None), signed


def _own_identity(account: str | None) -> tuple[tuple[str, str], ...]:
    request_id = _request_id()
    if account is None:
        return (("X-Request-Id", request_id),)
    return identity_headers(account=account, scopes=(), kind="api_key", subject=_OWN_SUBJECT, request_id=request_id)


def _issuer_policy(issuer: IssuerConfig) -> IssuerPolicy:
    return IssuerPolicy(
        issuer=issuer.issuer,
        audiences=issuer.audiences,
        algorithms=issuer.algorithms,
        account_claim=issuer.account_claim,
        account_prefix=issuer.account_prefix,
        scope_claims=issuer.scope_claim,
        default_scopes=issuer.default_scopes,
        leeway_s=issuer.leeway_s,
    )


def _target(config: Config) -> tuple[str, str]:
    parts = urlsplit(config.upstream.url)
    return parts.path or "/", parts.query


def _request_id() -> str:
    return secrets.token_hex(16)


def _nonce() -> str:
    return next(_NONCES)
