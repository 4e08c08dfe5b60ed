"""The values that travel through the house. They hold facts and answers, and do nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from sidecar.denials import ShadowRefusal
from sidecar.records import Confirmed, KeyRecord

SCOPES: Final = ("mcp:full", "mcp:read", "mcp:tools:call", "mcp:tools:list", "mcp:resources:read")
"""Every scope there is, in the order in which they are written to headers and records."""

CredentialKind = Literal["jwt", "api_key"]
Era = Literal["legacy", "modern"]
"""*legacy*: MCP revisions up to 2025-11-25 (sessions). *modern*: 2026-07-28 and later (stateless)."""
ToolClass = Literal["read", "write", "destructive"]
MessageKind = Literal["request", "notification", "response"]
JsonRpcId = str | int

if TYPE_CHECKING:
    from dataclasses import dataclass as per_request
else:

    def per_request(*, frozen, slots):
        """Make a data class of which every request makes some. Nothing assigns to one: the type checker sees to that.

        When the program runs a frozen data class takes three to six times as long to make as one that is not, and one
        that is made by keywords three times as long as one that is made by position, as the hot path does.
        """
        return dataclass(slots=slots, unsafe_hash=frozen)


@dataclass(frozen=True, slots=True)
class Route:
    """A public path and who may come in by it."""

    path: str
    credentials: tuple[CredentialKind, ...]
    denials: Literal["http", "in_band"] = "http"
    confirmation: Literal["inherit", "declared", "writes", "never"] = "inherit"


@per_request(frozen=True, slots=True)
class RequestFacts:
    """What is known of a request before anything is decided."""

    method: str
    path: str
    """The raw target before ``?``: nothing decoded, nothing normalised."""
    query: str | None = field(repr=False)
    """The raw target after the first ``?``; None when there is no ``?``."""
    headers: Mapping[str, str] = field(repr=False)
    """By lower-case name, decoded as latin-1; lines of one name joined by ``", "`` (RFC 9110 section 5.3)."""
    repeated: frozenset[str]
    """Lower-case names that came on more than one line."""
    client: str
    """The address that failed authentication is counted under: an IPv4 address or an IPv6 /64."""
    request_id: str
    era: Era
    is_secure: bool = True
    """Whether it may carry a credential: it came by TLS, or so that nobody is thought to have read it on the way."""


@per_request(frozen=True, slots=True)
class BearerToken:
    """A JWT as presented, not yet verified."""

    token: str = field(repr=False)


@per_request(frozen=True, slots=True)
class PresentedKey:
    """An API key as presented, not yet parsed or verified."""

    text: str = field(repr=False)


Credential = BearerToken | PresentedKey


@per_request(frozen=True, slots=True)
class Principal:
    """Who proved itself on this request."""

    account: str
    subject: str
    """The token's ``sub``, or the key's id."""
    kind: CredentialKind
    credential_id: str
    """Survives a token refresh: a key's id, or a digest of issuer, ``sub`` and client."""
    scopes: tuple[str, ...]
    """As granted, in the order of `SCOPES`, hierarchy not expanded."""
    issued_at: float
    """Unix seconds; 0 when the token does not say, which is older than any revocation."""
    expires_at: float
    """From when on it proves nothing, the issuer's leeway included."""
    client_id: str | None = None
    """The token's ``client_id``, else ``azp``."""
    token_id: str | None = None
    """A digest of issuer and ``jti``; None when the token has no ``jti``, or for a key."""
    key: KeyRecord | None = None
    """The record that was judged, when the credential is a key."""
    foreign_scopes: frozenset[str] = frozenset()
    """What else the token's scope claim names. It opens nothing here but what the operator says it does."""
    issuer: str | None = None
    """Who signed the token; None for a key."""


@per_request(frozen=True, slots=True)
class Action:
    """What one message asks for. A body is always exactly one message."""

    kind: Literal["request", "notification", "response", "stream", "end_session", "manage"]
    """*stream* is GET, *end_session* is DELETE, *manage* is a REST call."""
    method: str = ""
    """The JSON-RPC method; empty where there is none."""
    id: JsonRpcId | None = None
    tool: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `requests` in any `window_s` seconds, counted per account, per credential or per client address."""

    name: str
    requests: int
    window_s: int
    per: Literal["account", "credential", "address"] = "account"
    effect: Literal["any", "write"] = "any"
    tools: tuple[str, ...] = ()
    """Globs; empty means that the tool does not matter."""
    routes: tuple[str, ...] = ()


@per_request(frozen=True, slots=True)
class Quota:
    """What one limit says about one request."""

    limit: Limit
    remaining: int
    """Units left after this request, or now when it was not admitted."""
    reset_s: float
    """Seconds until the next spent unit returns; 0 when none is spent."""
    retry_s: float
    """0 when this limit admits the request, else seconds until it would."""


@per_request(frozen=True, slots=True)
class Handle:
    """Something that works only for whom the upstream gave it to."""

    kind: Literal["session", "task"]
    id: str = field(repr=False)
    owner: str  # see `policy.sessions.owner`
    idle_s: float
    """It is forgotten so long after its last use."""
    elicits: bool = False  # of a session that begins: its client can ask a person


@per_request(frozen=True, slots=True)
class Admission:
    """Everything the store is asked about one request, in one trip."""

    account: str
    credential_id: str
    issued_at: float
    limits: tuple[Limit, ...]
    write: bool = False
    """For the key's usage count."""
    counts_as_use: bool = True
    """Off for a look at the standing alone."""
    how: Literal["spend", "shadow", "peek"] = "spend"
    """*shadow*: a limit that is used up keeps nothing else from being done. *peek*: answer, and change nothing."""
    key_id: str | None = None
    key_version: int = 0
    """The version of the record that was judged."""
    token_id: str | None = None
    handles: tuple[Handle, ...] = ()
    """What the request says it belongs to: a session, a task, or a task in a session."""


@per_request(frozen=True, slots=True)
class Verdict:
    """The store's whole answer. Anything but *good* with every quota admitting has spent nothing."""

    standing: Literal["good", "key_changed", "revoked", "handle_unknown"]
    """*revoked*: this token, or everything issued to the account before some later moment. *handle_unknown*: a handle
    that was never given out, is forgotten, or is somebody else's."""
    now: float
    """The store's clock, Unix seconds."""
    quotas: tuple[Quota, ...] = ()
    """One for each limit asked about, in that order; empty unless *good*."""
    key: KeyRecord | None = None
    """With *key_changed*: the record as it is now, or None when there is none."""
    unknown: Handle | None = None
    """With *handle_unknown*: which one."""

    @property
    def admitted(self) -> bool:
        return self.standing == "good" and not [quota for quota in self.quotas if quota.retry_s > 0]


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key that an issuer signs with, and the algorithms it may be used for."""

    kid: str | None
    algorithms: frozenset[str]
    key: Any = field(repr=False)
    """A public key object of *cryptography*, or the bytes of a shared secret."""


@dataclass(frozen=True, slots=True)
class KeySetState:
    """How one issuer's key set is doing. For those who watch; no decision reads it."""

    keys: int
    """How many are usable."""
    age_s: float | None
    """Since it was last fetched; None when it never was."""
    stale_s: float
    """For how long it has been in use beyond its lifetime."""
    fetches: int
    failed_fetches: int


@dataclass(frozen=True, slots=True)
class IdentityKey:
    """A key that signs the identity headers. The first one signs, all are published."""

    id: str
    algorithm: Literal["ed25519", "hmac-sha256"]
    secret: bytes = field(repr=False)
    """The raw 32-byte Ed25519 private key, or the HMAC secret of 32 bytes or more."""


Headers = tuple[tuple[bytes, bytes], ...]
"""Header lines as they stand on the wire, names in any case."""


@dataclass(slots=True)
class Progress:
    """How far a request got, filled in on the way. For its log line and for a refusal's id; no decision reads it."""

    principal: Principal | None = None
    action: Action | None = None
    message_id: JsonRpcId | None = None
    message_kind: MessageKind | None = None
    holds_stream: bool = False
    """A place of `limits.streams` is held, to be given back when the request is over."""
    quotas: tuple[Quota, ...] = ()
    is_write: bool = False
    """It counts as a write, and nothing was against it."""
    body_bytes: int = 0  # of the message, once it was judged
    shadows: tuple[ShadowRefusal, ...] = ()
    """In the order of the walk, at most one for each rule."""


@per_request(frozen=True, slots=True)
class ResponsePlan:
    """What becomes of the upstream's answer: what it gives out belongs to the one who asked, who may not see all."""

    principal: Principal
    era: Era
    session_idle_s: float
    message_id: JsonRpcId | None = None
    """The request that is answered; None where answers to earlier ones may come again (`Last-Event-ID`)."""
    session: Handle | None = None
    """The session that the request belongs to."""
    begins_session: bool = False
    ends_session: bool = False
    makes_task: bool = False
    shows: tuple[Literal["tools", "tasks"], ...] = ()  # lists of which only what the principal may see is shown
    lists: Literal["tools", "tasks"] | None = None  # what is asked for a list of: the answer is that, or an error
    elicits: bool = False  # the client that begins a session can ask a person
    confirmed: Confirmed | None = None  # for an answer that asks for more; see `policy.retries`

    @property
    def reads_messages(self) -> bool:
        """Whether the answer's messages have to be looked at, and not only passed on."""
        return self.makes_task or bool(self.shows) or self.confirmed is not None


@per_request(frozen=True, slots=True)
class Permit:
    """Yes, and how: exactly what goes upstream, and what is added to the answer."""

    method: str
    target: str = field(repr=False)
    """Path and query for the upstream, as signed."""
    headers: Headers = field(repr=False)
    """All of them but ``Host`` and framing, which the upstream client owns."""
    body: bytes | None = field(repr=False)
    """The very bytes that were judged."""
    answer_headers: tuple[tuple[str, str], ...]
    """The rate headers that the client gets with the answer."""
    plan: ResponsePlan
