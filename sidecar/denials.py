"""Every way to say no: raised where the reason is known, rendered in one place, `edge.http.rendering`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

AnswerHeaders = tuple[tuple[str, str], ...]
Rule = Literal["scopes", "limits", "confirmation"]
"""What can be put in shadow mode: it then takes note of what it would refuse, and refuses nothing."""


class Denial(Exception):  # noqa: N818 - a decision, not an error of the program
    """A refusal: status, errorType and text for the client; `reason` and `detail` for the log only.

    `reason` is a short word from a closed set (it becomes a metric label), never derived from input.
    `detail` is free text; it holds no secret.
    """

    status: ClassVar[int]
    error_type: ClassVar[str]
    text: ClassVar[str] = ""
    rpc_code: ClassVar[int | None] = None
    """The code that the 2026-07-28 specification fixes for this case; legacy answers carry the HTTP status."""
    retry_s: ClassVar[int | None] = None
    """After how many seconds to try again, where the place that raises this knows no better."""

    def __init__(
        self,
        reason: str,
        message: str | None = None,
        *,
        detail: str | None = None,
        retry_after_s: int | None = None,
        headers: AnswerHeaders = (),
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.message = self.text if message is None else message
        self.detail = detail
        self.retry_after_s = self.retry_s if retry_after_s is None else retry_after_s
        """Whole seconds; also sent as ``Retry-After``."""
        self.headers = headers
        self.data = data or {}
        """Further members of a JSON-RPC error's `data`, where the specification names them."""


class InvalidRequest(Denial):
    """The request is malformed; the message says how and never echoes a secret."""

    status, error_type, rpc_code = 400, "INVALID_REQUEST", -32600


class InvalidJson(InvalidRequest):
    """The body is not one strict JSON document."""

    rpc_code = -32700


class InvalidParams(InvalidRequest):
    """The method's parameters are not what it needs."""

    rpc_code = -32602


class HeaderMismatch(InvalidRequest):
    """A routing header and the body disagree, or a routing header came twice (MCP 2026-07-28, streamable HTTP)."""

    rpc_code = -32020


class MissingCapability(InvalidRequest):
    """The request needs a capability that its client did not declare (MCP 2026-07-28)."""

    rpc_code = -32021


class InvalidToken(Denial):
    """No token, or one that does not verify, has expired or was revoked."""

    status, error_type, text = 401, "INVALID_TOKEN", "Invalid or expired authentication token"


class InvalidApiKey(Denial):
    """No key, or one that is unknown, malformed, wrong, revoked or expired: all alike."""

    status, error_type, text = 401, "INVALID_API_KEY", "API key not found or has been revoked"


class InsufficientScope(Denial):
    """The principal is known and may not do this. `required` names the missing scopes, space-separated."""

    status, error_type = 403, "INSUFFICIENT_SCOPE"

    def __init__(self, message: str, *, required: str, granted: tuple[str, ...]) -> None:
        super().__init__("insufficient_scope", message, detail=f"needs {required}, has {' '.join(granted) or 'none'}")
        self.required = required
        self.granted = granted


class ClientNotAllowed(Denial):
    """The token is good, and its OAuth client is not one that may manage keys. No further scope would help."""

    status, error_type = 403, "INSUFFICIENT_SCOPE"
    text = "Token does not have permission for this operation: its client may not manage API keys"


class NotConfirmed(Denial):
    """A call that nobody has confirmed. Its answer is a result, which models read: by itself one that says why."""

    status, error_type = 200, "CONFIRMATION_REQUIRED"

    def __init__(self, reason: str, message: str, *, result: Mapping[str, Any] | None = None) -> None:
        super().__init__(reason, message)
        self.result = result
        self.of_task = False
        """Its call asked for a task (MCP 2025-11-25), which no result can say: then it is an error."""


class AccountUnusable(Denial):
    """The token is good, and its account or subject can't be written into a header."""

    status, error_type = 403, "ACCOUNT_UNUSABLE"
    text = "The account named by this token cannot be used here; ask the operator to check the account claim"


class HttpsRequired(Denial):
    """A credential came by plain HTTP over a network, where others could read it."""

    status, error_type = 403, "HTTPS_REQUIRED"
    text = "Use https here, and a new credential: others may have read this one on its way"


class OriginNotAllowed(Denial):
    """A page of another origin asks (MCP 2025-11-25, transports, "Security Warning"). It must not even read why."""

    status, error_type = 403, "ORIGIN_NOT_ALLOWED"
    text = "Pages of this origin may not ask here; its operator can add it to allowed_origins"


class NotFound(Denial):
    """Nothing is here."""

    status, error_type, text = 404, "NOT_FOUND", "Nothing is served at this path"


class SessionNotFound(Denial):
    """No such session, or somebody else's: the client starts a new one (MCP 2025-11-25, "Session Management")."""

    status, error_type, text = 404, "SESSION_NOT_FOUND", "Session not found; initialize a new one"


class UnknownMethod(Denial):
    """A JSON-RPC method that this principal may not reach because nobody knows what it does.

    HTTP 404 in the modern era, 200 in the legacy era (JSON-RPC 2.0 section 5.1).
    """

    status, error_type, text, rpc_code = 404, "NOT_FOUND", "Method not found", -32601
    legacy_status: ClassVar[int] = 200


class DroppedNotification(Denial):
    """A notification that is not passed on. It has no answer that could say so: the client gets an empty 202."""

    status, error_type = 202, "NOTIFICATION_DROPPED"


class MethodNotAllowed(Denial):
    """The path exists, the HTTP method does not; carries ``Allow``."""

    status, error_type, text = 405, "METHOD_NOT_ALLOWED", "This method is not allowed here"


class RequestTimeout(Denial):
    """The body did not arrive in time."""

    status, error_type, text = 408, "REQUEST_TIMEOUT", "The request body did not arrive in time"


class Conflict(Denial):
    """The state of the resource forbids it (REST only)."""

    status, error_type = 409, "CONFLICT"


class PayloadTooLarge(Denial):
    """The body is larger than ``max_body_bytes``."""

    status, error_type, text = 413, "PAYLOAD_TOO_LARGE", "The request body is too large"


class UnsupportedMediaType(Denial):
    """The body is not plain ``application/json``."""

    status, error_type = 415, "UNSUPPORTED_MEDIA_TYPE"
    text = "Send Content-Type: application/json, in UTF-8 and without Content-Encoding"


class HostNotAllowed(Denial):
    """The `Host` is not a name of ours: a mistake, or DNS rebinding (RFC 9110 section 15.5.20)."""

    status, error_type = 421, "HOST_NOT_ALLOWED"
    text = "Nothing is served under this host name; the operator can set public_url or add it to allowed_hosts"


class HeadersTooLarge(Denial):
    """The request head is larger than the server reads."""

    status, error_type, text = 431, "HEADERS_TOO_LARGE", "The request headers are too large"


class RateLimited(Denial):
    """A limit is used up; nothing was spent."""

    status, error_type = 429, "RATE_LIMIT_EXCEEDED"


class InternalError(Denial):
    """A fault of ours that nobody foresaw."""

    status, error_type, text = (
        500,
        "INTERNAL_ERROR",
        "The proxy failed on this request; its operator can find it in the log",
    )


class BadGateway(Denial):
    """The upstream refused, broke off or answered something that must not reach the client."""

    status, error_type, text = (
        502,
        "UPSTREAM_UNAVAILABLE",
        "The MCP server behind this proxy did not give a usable answer",
    )


class GatewayTimeout(Denial):
    """The upstream did not answer in time."""

    status, error_type, text = 504, "UPSTREAM_TIMEOUT", "The MCP server behind this proxy did not answer in time"


class UpstreamNotReady(Denial):
    """Something that must be known about the upstream is not known yet."""

    status, error_type, text = 503, "UPSTREAM_UNAVAILABLE", "The MCP server behind this proxy is not ready"
    retry_s = 1


class ToolUnapproved(Denial):
    """The tool is new, or is not what was approved: it waits for the operator (`catalogue.on_change: block`).

    Not the caller's fault and not theirs to mend, so no 4xx: another scope or login would not help. Nor a tool's
    result, which would look to everybody but the model as if the call had been made.
    """

    status, error_type, text = (
        503,
        "UPSTREAM_UNAVAILABLE",
        "The definition of this tool is new or has changed, and waits for the operator's approval",
    )
    retry_s = 60


class StoreUnavailable(Denial):
    """The store did not answer, and what was asked of it can't be decided without."""

    status, error_type, text = 503, "STORE_UNAVAILABLE", "The proxy cannot reach its store; try again shortly"
    retry_s = 1


class IssuerUnavailable(Denial):
    """The issuer's keys were never loaded, so no token of it can be judged."""

    status, error_type, text = 503, "ISSUER_UNAVAILABLE", "The token issuer's keys are not available; try again shortly"
    retry_s = 1


class Overloaded(Denial):
    """A bounded queue is full."""

    status, error_type, text = 503, "OVERLOADED", "The proxy is overloaded; try again shortly"
    retry_s = 1


@dataclass(frozen=True, slots=True)
class ShadowRefusal:
    """What a rule in shadow mode would have refused, in the words of the log: its outcome, reason and detail."""

    rule: Rule
    outcome: str
    reason: str
    detail: str | None = None
