"""What a request meets before it matters what it asks for: names, foreign pages, and what is served to everyone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from sidecar.denials import MethodNotAllowed, NotFound
from sidecar.edge.http.exchange import Exchange
from sidecar.edge.http.pages import METHODS, Pages
from sidecar.edge.http.response import JSON, Lines, Response, wire
from sidecar.policy import pages
from sidecar.policy.browsers import ANY_ORIGIN, Browsers, is_preflight
from sidecar.policy.discovery import Discovery

IDENTITY_KEYS_PATH: Final = "/.well-known/sidecar-keys.json"
_SERVER: Final = (b"Server", b"sidecar")
_TO_ANY_ORIGIN: Final = wire(ANY_ORIGIN)

_DOCUMENT_METHODS: Final = ("GET", "OPTIONS")


class Front:
    """Turns away who came by the wrong name or from the wrong page, and answers browsers and readers of documents.

    The documents hold nothing secret and are the same for everyone, so any page gets them, and under any name: an
    upstream fetches keys by a name that clients never use.
    """

    def __init__(
        self, browsers: Browsers, discovery: Discovery, identity_keys: Mapping[str, Any], own_pages: Pages
    ) -> None:
        self._browsers = browsers
        self._pages = own_pages
        self.discovery = discovery
        documents = {**discovery.documents, IDENTITY_KEYS_PATH: identity_keys}
        self._to_no_page = wire(browsers.cors_headers(None))
        self._documents = {path: orjson.dumps(dict(document)) for path, document in documents.items()}

    def publishes(self, path: str) -> bool:
        """Tell whether there is a document here."""
        return path in self._documents

    def label(self, path: str) -> str:
        """Return the name under which requests for this path are counted."""
        return path if self.publishes(path) else self._pages.label(path) or "other"

    def is_read_by_people(self, exchange: Exchange) -> bool:
        """Tell whether a refusal is shown by a browser, where a page could be."""
        facts = exchange.facts
        return pages.is_read_by_people(facts.path, facts.headers.get("accept"))

    async def publish(self, exchange: Exchange) -> Response:
        """Answer with the document or the page at the request's path.

        Raises:
            Denial: there is none, it can only be read, or a body came.
        """
        facts = exchange.facts
        if not self.publishes(facts.path):
            return await self._page(exchange)
        if facts.method not in _DOCUMENT_METHODS:
            raise _method_not_allowed(_DOCUMENT_METHODS)
        exchange.require_plain_framing()
        exchange.require_no_body()
        if facts.method == "OPTIONS":
            return self._preflight(exchange, ("GET",))
        response = Response(200, body=self._documents[facts.path], content_type=JSON)
        response.lines.append((b"Cache-Control", b"public, max-age=300"))
        self.mark(exchange, response.lines)
        return response

    def receive(self, exchange: Exchange, methods: tuple[str, ...] | None) -> Response | None:
        """Return None when the request asks rightly for one of these methods, or the answer to a preflight for them.

        None for `methods` is nothing at all.

        Raises:
            Denial: whatever is against it.
        """
        facts = exchange.facts
        exchange.require_plain_framing()
        self._browsers.require_allowed(facts)
        if methods is None:
            raise NotFound("path_unknown")
        if facts.method == "OPTIONS" and is_preflight(facts):
            return self._preflight(exchange, methods)
        if facts.method not in methods:
            raise _method_not_allowed(methods)
        return None

    def mark(self, exchange: Exchange, lines: Lines) -> None:
        """Add what every answer carries."""
        facts = exchange.facts
        lines.append((b"X-Request-Id", facts.request_id.encode()))
        lines.append(_SERVER)
        if self.publishes(facts.path):
            lines += _TO_ANY_ORIGIN
        elif (origin := facts.headers.get("origin")) is None:
            lines += self._to_no_page
        else:
            lines += wire(self._browsers.cors_headers(origin))

    async def _page(self, exchange: Exchange) -> Response:
        is_page = self._pages.label(exchange.facts.path) is not None
        preflight = self.receive(exchange, METHODS if is_page else None)
        if preflight is not None:
            return preflight
        response = await self._pages.answer(exchange)
        self.mark(exchange, response.lines)
        return response

    def _preflight(self, exchange: Exchange, methods: tuple[str, ...]) -> Response:
        requested = exchange.facts.headers.get("access-control-request-headers")
        response = Response(204, wire(self._browsers.preflight(methods, requested)))
        self.mark(exchange, response.lines)
        return response


def _method_not_allowed(methods: tuple[str, ...]) -> MethodNotAllowed:
    return MethodNotAllowed("method_not_allowed", headers=(("Allow", ", ".join(methods)),))
