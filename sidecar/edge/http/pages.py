"""The pages for people: what a browser gets before anybody has signed in. All of it is the same for everyone."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from typing import Any, Final

import orjson

from sidecar.denials import HttpsRequired
from sidecar.edge.http.exchange import Exchange
from sidecar.edge.http.response import JSON, Response, wire
from sidecar.model import Limit, Quota
from sidecar.policy import pages, quotas
from sidecar.policy.sign_in import Endpoints

LIMIT: Final = Limit("pages", 600, 60, per="address")
"""A page is some fifteen files, and many people may come from one address."""
METHODS: Final = ("GET",)

Find = Callable[[], Awaitable[Endpoints | None]]
Spend = Callable[[Iterable[tuple[Limit, Hashable]]], tuple[Quota, ...]]


class Pages:
    """Serves the pages' files, and what they need to know to have somebody sign in.

    `find` returns where people sign in, or None where nobody can; `settings` is what the pages are told beside that.
    """

    def __init__(self, contents: Mapping[str, bytes], settings: Mapping[str, Any], find: Find, spend: Spend) -> None:
        self._contents = contents
        self._settings = settings
        self._find = find
        self._spend = spend

    def label(self, path: str) -> str | None:
        """Return the name under which requests for this path are counted, or None where nothing of the pages is."""
        is_here = path == pages.SIGN_IN_PATH or pages.file_at(path) in self._contents
        return pages.label(path) if is_here else None

    async def answer(self, exchange: Exchange) -> Response:
        """Answer a GET for a path that has a label, not yet marked.

        Raises:
            Denial: 403 by plain HTTP where others could read what is then typed in, 429.
        """
        facts = exchange.facts
        if not facts.is_secure:
            raise HttpsRequired("plain_http")
        spent = self._spend([(LIMIT, facts.client)])
        if any(quota.retry_s > 0 for quota in spent):
            raise quotas.refusal(spent, time.time())
        exchange.require_no_body()
        if facts.path == pages.SIGN_IN_PATH:
            return await self._sign_in()
        name = pages.file_at(facts.path)
        body = self._contents[name]
        if not name.endswith(".html"):
            return _sent(exchange, name, body, pages.file_headers(body))
        found = await self._find()
        return _sent(exchange, name, body, pages.page_headers(body, () if found is None else found.asked_by_pages))

    async def _sign_in(self) -> Response:
        found = await self._find()
        endpoints = None
        if found is not None:
            endpoints = {
                "authorization": found.authorization,
                "token": found.token,
                "revocation": found.revocation,
                "endSession": found.end_session,
                "namesItself": found.names_itself,
            }
        response = Response(200, body=orjson.dumps({**self._settings, "endpoints": endpoints}), content_type=JSON)
        response.lines += [(b"Cache-Control", b"no-store"), (b"X-Content-Type-Options", b"nosniff")]
        return response


def _sent(exchange: Exchange, name: str, body: bytes, headers: pages.Headers) -> Response:
    lines = wire(headers)
    if pages.is_unchanged(dict(headers)["ETag"], exchange.facts.headers.get("if-none-match")):
        return Response(304, lines)
    return Response(200, lines, body, pages.content_type(name))
