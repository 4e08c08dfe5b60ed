"""What a tracer hears of a request: that it is forwarded, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Mapping

from sidecar.edge.http.exchange import Exchange
from sidecar.model import Headers, Permit
from sidecar.policy import tracing
from sidecar.ports import Span, Tracer


class Traced:
    """Tells a tracer of requests. `here` says where clients connect to, `there` where we do.

    A request's span begins only when all is known that names it and says whose trace it is in, and with the time at
    which the request came.
    """

    def __init__(
        self,
        tracer: Tracer,
        *,
        here: Mapping[str, str | int],
        there: Mapping[str, str | int],
    ) -> None:
        self._tracer = tracer
        self._here = here
        self._there = there

    def forwards(self, exchange: Exchange, label: str, permit: Permit) -> Headers:
        """Begin the upstream's leg, and return the header lines that make it part of the trace."""
        facts, action, session = exchange.facts, exchange.progress.action, permit.plan.session
        said = tracing.of_message(facts, action, None if session is None else session.id)
        name = tracing.span_name(facts, label, action)
        request = self._begin(exchange, label, said)
        leg = self._tracer.call(name, {**said, "http.request.method": facts.method, **self._there}, within=request)
        exchange.spans = (request, leg)
        return tracing.retraced(permit.headers, leg.carrier())

    def ended(self, exchange: Exchange, label: str, outcome: str, status: int | None) -> None:
        """End the spans of a request, whatever became of it. The other arguments are those of its line in the log."""
        facts, denial = exchange.facts, exchange.denial
        if not exchange.spans:
            said = tracing.of_message(facts, exchange.progress.action, None)
            exchange.spans = (self._begin(exchange, label, said),)
        for leg in exchange.spans[1:]:
            leg.end(*tracing.of_answer(exchange.upstream_status, denial))
        outcome, reason = (outcome, exchange.ended_by) if denial is None else (denial.error_type.lower(), denial.reason)
        exchange.spans[0].end(*tracing.of_end(facts, outcome, reason, status, denial))

    def _begin(self, exchange: Exchange, label: str, said: Mapping[str, str | int]) -> Span:
        facts, action = exchange.facts, exchange.progress.action
        major, minor = exchange.request.version
        parent, linked = tracing.callers(facts, action)
        return self._tracer.request(
            tracing.span_name(facts, label, action),
            {
                **self._here,
                **said,
                **tracing.of_request(facts, label),
                "network.protocol.version": f"{major}.{minor}",
            },
            parent=parent,
            linked=linked,
            age_s=time.perf_counter() - exchange.started,
        )
