"""May this principal take this action, and which scopes are missing if not?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from sidecar.denials import DroppedNotification, InsufficientScope, UnknownMethod
from sidecar.model import SCOPES, Action, Principal, ToolClass

FULL: Final = "mcp:full"
READ: Final = "mcp:read"
CALL: Final = "mcp:tools:call"
LIST: Final = "mcp:tools:list"
RESOURCES: Final = "mcp:resources:read"

_IMPLIED: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        FULL: frozenset(SCOPES),
        READ: frozenset({READ, CALL, LIST, RESOURCES}),
        CALL: frozenset({CALL, LIST}),
        LIST: frozenset({LIST}),
        RESOURCES: frozenset({RESOURCES}),
    }
)

_NONE: Final[frozenset[str]] = frozenset()
_ONLY: Final[Mapping[str, frozenset[str]]] = MappingProxyType({scope: frozenset({scope}) for scope in SCOPES})
_NO_SCOPE: Final = frozenset({"initialize", "ping", "server/discover"})
_SCOPE_OF: Final[Mapping[str, str]] = MappingProxyType(
    {
        "tools/list": LIST,
        "resources/list": RESOURCES,
        "resources/templates/list": RESOURCES,
        "resources/read": RESOURCES,
        "resources/subscribe": RESOURCES,
        "resources/unsubscribe": RESOURCES,
        "resources/directory/read": RESOURCES,
        "skills/list": RESOURCES,
        "skills/get": RESOURCES,
        "prompts/list": READ,
        "prompts/get": READ,
        "logging/setLevel": READ,
        "tasks/get": CALL,
        "tasks/result": CALL,
        "tasks/list": CALL,
        "tasks/cancel": CALL,
        "tasks/update": CALL,
    }
)
_SCOPE_OF_NOTICE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "toolsListChanged": LIST,
        "promptsListChanged": READ,
        "resourcesListChanged": RESOURCES,
        "resourceSubscriptions": RESOURCES,
        "taskIds": CALL,
    }
)
_NOTIFICATIONS: Final = frozenset(
    {
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
        "notifications/roots/list_changed",
        "notifications/tasks/status",
    }
)
_WRITING_METHODS: Final = frozenset({"tasks/cancel", "tasks/update"})


def expand(scopes: Iterable[str]) -> frozenset[str]:
    """Return the scopes together with all that they imply; unknown names imply nothing, not even themselves."""
    held: frozenset[str] = frozenset()
    for scope in scopes:
        held |= _IMPLIED.get(scope, frozenset())
    return held


def known_method(method: str) -> bool:
    """Tell whether the scopes of this request method are known here."""
    return (
        method in _SCOPE_OF
        or method in _NO_SCOPE
        or method in ("tools/call", "completion/complete", "subscriptions/listen")
    )


def required(action: Action, tool_class: ToolClass | None) -> frozenset[str]:
    """Return the scopes that this action needs, all of them; empty when a valid credential is enough.

    A tool whose class is not *read* needs `mcp:full`, and so does whatever is not known here.
    """
    if action.kind == "notification":
        return _NONE if action.method in _NOTIFICATIONS else _ONLY[FULL]
    if action.kind != "request" or action.method in _NO_SCOPE:
        return _NONE
    if action.method == "tools/call":
        return _ONLY[CALL if tool_class == "read" else FULL]
    if action.method == "completion/complete":
        return _ONLY[RESOURCES if _member(action.params, "ref").get("type") == "ref/resource" else READ]
    if action.method == "subscriptions/listen":
        return frozenset(_SCOPE_OF_NOTICE.get(notice, FULL) for notice in _member(action.params, "notifications"))
    return _ONLY[_SCOPE_OF.get(action.method, FULL)]


def authorize(principal: Principal, action: Action, tool_class: ToolClass | None) -> None:
    """Return when the principal may take the action.

    Raises:
        InsufficientScope: naming every missing scope at once.
        UnknownMethod: for a request that only `mcp:full` could have forwarded: a refusal by scope would make
            clients start a login instead of falling back.
        DroppedNotification: for an unknown notification, which has no answer to carry a refusal.
    """
    missing = required(action, tool_class) - _held(principal.scopes)
    if not missing:
        return
    if action.kind == "notification":
        raise DroppedNotification("unknown_notification")
    if not known_method(action.method):
        raise UnknownMethod("unknown_method")
    presented = "API key" if principal.kind == "api_key" else "Token"
    raise InsufficientScope(
        f"{presented} does not have permission for this operation",
        required=" ".join(scope for scope in SCOPES if scope in missing),
        granted=principal.scopes,
    )


def is_write(action: Action, tool_class: ToolClass | None) -> bool:
    """Tell whether the action counts as a write: tools that are not read-only, methods nobody knows, keys changed."""
    if action.kind == "manage":
        return action.method != "GET"
    if action.kind != "request":
        return False
    if action.method == "tools/call":
        return tool_class != "read"
    return action.method in _WRITING_METHODS or not known_method(action.method)


@lru_cache(maxsize=1 << len(SCOPES))
def _held(scopes: tuple[str, ...]) -> frozenset[str]:
    """Return what `expand` does; remembered, for there are no more sets of scopes than this."""
    return expand(scopes)


def _member(params: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = params.get(name)
    return value if isinstance(value, dict) else {}
