"""Connections to one Redis, opened by redis-py, with nothing of its own about time and retries."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from redis.asyncio import ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


class _TlsConnection(SSLConnection):
    """One by TLS as we set it up, and not as redis-py would from files."""

    def __init__(self, *, tls: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self._tls = tls

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "ssl": self._tls}


def pool_of(url: str, tls: ssl.SSLContext | None) -> ConnectionPool:
    """Return what opens connections. `tls` is what ``rediss://`` connects by, if not by the system's authorities.

    One deadline per trip is ours: a timer per reply, as ``socket_timeout`` sets it, costs more than the reply.

    Raises:
        ValueError: the URL is none.
    """
    pool = ConnectionPool.from_url(
        url,
        retry=Retry(NoBackoff(), 0),  # a call that was retried might count twice
        socket_timeout=None,
        socket_connect_timeout=None,
        health_check_interval=0,
        decode_responses=False,
        protocol=2,
    )
    if tls is not None and issubclass(pool.connection_class, SSLConnection):
        pool.connection_class = _TlsConnection
        pool.connection_kwargs["tls"] = tls
    return pool
