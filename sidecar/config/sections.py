"""Every setting, with its default and the rule for its value. What a setting means stands in ``config.yaml``.

A new key is one field here and one line there.
"""
# ruff: noqa: RUF009 - `setting` and `nested` declare fields, they make no values

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from sidecar.config import files, urls
from sidecar.config import values as v
from sidecar.config.access import AccessConfig, ConfirmationConfig, ModeConfig
from sidecar.config.connections import AdminConfig, ListenConfig, StoreConfig, UpstreamConfig
from sidecar.config.document import Entry
from sidecar.config.journals import AuditConfig, LogConfig, TracingConfig
from sidecar.config.pages import KeyPageConfig
from sidecar.config.reader import UNREADABLE, Complaint, listed, nested, optional, readable, section, setting
from sidecar.model import CredentialKind, IdentityKey, Limit, Route

_DAY_S: Final = 86_400
_MOST: Final = 1_000_000
_DEFAULT_ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
_ROUTE_KINDS: Final[tuple[CredentialKind, ...]] = ("jwt", "api_key")

_ROUTE: Final = section(
    Route,
    {
        "path": v.route_path,
        "credentials": listed(v.one_of(_ROUTE_KINDS), at_least=1, of="kind of credential"),
        "denials": v.one_of(("http", "in_band")),
        "confirmation": v.one_of(("inherit", "declared", "writes", "never")),
    },
)
_LIMIT: Final = section(
    Limit,
    {
        "name": v.policy_name,
        "per": v.one_of(("account", "credential")),
        "requests": v.whole(1, _MOST),
        "window_s": v.whole(1, 30 * _DAY_S, of="seconds"),
        "effect": v.one_of(("any", "write")),
        "tools": listed(v.glob),
        "routes": listed(v.text(256, "a path")),
    },
)


def _audiences(entry: Entry) -> tuple[str, ...]:
    """Null is made good once the routes are known."""
    return () if entry.is_null else listed(v.token, at_least=1, of="audience")(entry)


def _prepare_issuer(issuer: dict[str, Any]) -> Iterator[Complaint]:
    by_secret = issuer.get("secret_file") is not None
    algorithms = issuer.setdefault("algorithms", ("HS256",) if by_secret else _DEFAULT_ALGORITHMS)
    key_sets = [key for key in ("jwks_url", "jwks_file") if issuer.get(key) is not None]
    if by_secret:
        for key in key_sets:
            yield key, "must not stand beside secret_file: an issuer has a shared secret or a key set"
        if any(readable(one) and one != "HS256" for one in algorithms):
            yield "algorithms", "must be [HS256] beside secret_file"
    else:
        if len(key_sets) > 1:
            yield "jwks_file", "must not stand beside jwks_url: a key set comes from one place"
        if "HS256" in algorithms:
            yield "algorithms", "must not name HS256 without a secret_file"


def _prepare_identity_key(key: dict[str, Any]) -> Iterator[Complaint]:
    private_key, secret = key.pop("private_key_file", None), key.pop("secret_file", None)
    key["algorithm"], key["secret"] = ("ed25519", private_key) if secret is None else ("hmac-sha256", secret)
    if (private_key is None) == (secret is None):
        key["algorithm"] = UNREADABLE
        yield "", "must have either private_key_file (Ed25519) or secret_file (HMAC)"


_IDENTITY_KEY: Final = section(
    IdentityKey,
    {
        "id": v.identity_key_id,
        "private_key_file": optional(files.ed25519_key_file),
        "secret_file": optional(files.base64_secret_file),
    },
    prepare=_prepare_identity_key,
)


@dataclass(frozen=True, slots=True)
class IssuerConfig:
    """Who signs tokens that count here, and how to read them."""

    issuer: str = setting(urls.plain_url)
    audiences: tuple[str, ...] = setting(_audiences, ())
    """Never empty once loaded: null in the file is `public_url` + each route that takes JWTs."""
    jwks_url: str | None = setting(optional(urls.plain_url), None, shown=urls.without_credentials)
    jwks_file: str | None = setting(optional(files.key_set_file), None)
    """The path; the file is read again when it changes."""
    secret: bytes | None = setting(optional(files.shared_secret_file), None, key="secret_file", secret=True)
    algorithms: tuple[str, ...] = setting(listed(v.one_of((*v.ASYMMETRIC, "HS256")), at_least=1), _DEFAULT_ALGORITHMS)
    account_claim: str = setting(v.text(255, "a claim's name"), "sub")
    account_prefix: str = setting(v.account_prefix, "")
    scope_claim: tuple[str, ...] = setting(v.words(v.text(255, "a claim's name")), ("scope", "scp"))
    default_scopes: tuple[str, ...] = setting(v.scopes(), ())
    leeway_s: int = setting(v.whole(0, 300, of="seconds"), 30)


@dataclass(frozen=True, slots=True)
class JwtConfig:
    """Tokens."""

    advertised_scopes: tuple[str, ...] = setting(v.scopes(), ())
    issuers: tuple[IssuerConfig, ...] = setting(
        listed(section(IssuerConfig, prepare=_prepare_issuer), unique="issuer"), ()
    )


@dataclass(frozen=True, slots=True)
class ManagementConfig:
    """Who may manage keys: tokens with this scope and of one of these clients, as far as each is set."""

    scope: str | None = setting(optional(v.token), None)
    client_ids: tuple[str, ...] = setting(listed(v.text(255)), ())


@dataclass(frozen=True, slots=True)
class UnusualConfig:
    """What of the use of keys counts as unusual."""

    unseen_days: int = setting(v.whole(1, 3650, of="days"), 60)
    rise: int = setting(v.whole(2, 1_000, of="times"), 10)
    min_requests: int = setting(v.whole(1, _MOST), 500)
    min_refused: int = setting(v.whole(1, _MOST), 50)


@dataclass(frozen=True, slots=True)
class ApiKeysConfig:
    """API keys."""

    bcrypt_cost: int = setting(v.whole(4, 16), 10)
    default_scopes: tuple[str, ...] = setting(v.scopes(at_least=1), ("mcp:read",))
    default_expiry_days: int = setting(v.whole(1, 3650, of="days"), 90)
    rotation_grace_s: int = setting(v.whole(0, 604_800, of="seconds"), 3600)
    max_per_account: int = setting(v.whole(1, _MOST), 50)
    offline_grace_s: int = setting(v.whole(0, _DAY_S, of="seconds"), 60)
    management: ManagementConfig = nested(ManagementConfig)
    unusual: UnusualConfig = nested(UnusualConfig)


@dataclass(frozen=True, slots=True)
class CatalogueConfig:
    """How the upstream's own list of tools is kept fresh."""

    refresh_s: int = setting(v.whole(1, _DAY_S, of="seconds"), 300)
    account: str | None = setting(optional(v.account), None)
    on_change: Literal["alert", "block"] = setting(v.one_of(("alert", "block")), "alert")


@dataclass(frozen=True, slots=True)
class FailedAuthConfig:
    """How many failed authentications one client address may have."""

    requests: int = setting(v.whole(1, _MOST), 30)
    window_s: int = setting(v.whole(1, 30 * _DAY_S, of="seconds"), 60)


@dataclass(frozen=True, slots=True)
class StreamsConfig:
    """How many answers may be open for ever at once."""

    per_credential: int = setting(v.whole(1, 1_000_000), 32)


@dataclass(frozen=True, slots=True)
class SessionsConfig:
    """Sessions of the legacy era."""

    idle_s: int = setting(v.whole(1, 30 * _DAY_S, of="seconds"), 3600)


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """Rate limits."""

    on_store_failure: Literal["local", "deny", "allow"] = setting(v.one_of(("local", "deny", "allow")), "local")
    local_share: float = setting(v.above_zero(1), 1.0)
    policies: tuple[Limit, ...] = setting(
        listed(_LIMIT, unique="name"),
        (
            Limit("account", 600, 60),
            Limit("burst", 60, 1, per="credential"),
            Limit("writes", 60, 60, effect="write"),
        ),
    )
    failed_auth: FailedAuthConfig = nested(FailedAuthConfig)
    streams: StreamsConfig = nested(StreamsConfig)


@dataclass(frozen=True, slots=True)
class IdentityConfig:
    """How the upstream can tell that a request comes from here."""

    algorithm: Literal["ed25519", "hmac-sha256"] = setting(v.one_of(("ed25519", "hmac-sha256")), "ed25519")
    ttl_s: int = setting(v.whole(1, 3600, of="seconds"), 60)
    keys: tuple[IdentityKey, ...] = setting(listed(_IDENTITY_KEY, unique="id"), ())
    """The first signs, all are published. Empty: one is made and kept beside the embedded store."""


@dataclass(frozen=True, slots=True)
class DrainConfig:
    """How long a process that was told to stop goes on."""

    delay_s: int = setting(v.whole(0, 3600, of="seconds"), 5)
    requests_s: int = setting(v.whole(0, _DAY_S, of="seconds"), 20)
    streams_s: int = setting(v.whole(0, _DAY_S, of="seconds"), 5)


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting, checked."""

    public_url: str = setting(urls.origin, "http://127.0.0.1:8080")
    listen: ListenConfig = nested(ListenConfig)
    admin: AdminConfig = nested(AdminConfig)
    workers: int = setting(v.whole(1, 256), 1)
    require_https: Literal["auto", "always", "never"] = setting(v.one_of(("auto", "always", "never")), "auto")
    trusted_proxies: tuple[urls.IpNetwork, ...] = setting(listed(urls.network), ())
    allowed_hosts: tuple[str, ...] = setting(listed(urls.allowed_host), ())
    """Beside that of `public_url`; in lower case."""
    allowed_origins: tuple[str, ...] = setting(listed(urls.allowed_origin), ())
    """Beside `public_url`; in lower case."""
    max_body_bytes: int = setting(v.whole(1, 1 << 30, of="bytes"), 4_194_304)
    mode: ModeConfig = nested(ModeConfig)
    upstream: UpstreamConfig = nested(UpstreamConfig)
    routes: tuple[Route, ...] = setting(
        listed(_ROUTE, at_least=1, unique="path", of="route"),
        (Route("/mcp", ("jwt",)), Route("/mcp/inspector", ("api_key",))),
    )
    jwt: JwtConfig = nested(JwtConfig)
    api_keys: ApiKeysConfig = nested(ApiKeysConfig)
    access: AccessConfig = nested(AccessConfig)
    catalogue: CatalogueConfig = nested(CatalogueConfig)
    confirmation: ConfirmationConfig = nested(ConfirmationConfig)
    sessions: SessionsConfig = nested(SessionsConfig)
    limits: LimitsConfig = nested(LimitsConfig)
    identity: IdentityConfig = nested(IdentityConfig)
    store: StoreConfig = nested(StoreConfig)
    drain: DrainConfig = nested(DrainConfig)
    log: LogConfig = nested(LogConfig)
    audit: AuditConfig = nested(AuditConfig)
    key_page: KeyPageConfig = nested(KeyPageConfig)
    tracing: TracingConfig = nested(TracingConfig)
