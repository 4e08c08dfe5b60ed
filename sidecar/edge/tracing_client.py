"""Takes encoded spans to a collector (OTLP 1.x, "OTLP/HTTP"). It blocks, and is for a thread of its own."""

from __future__ import annotations

import contextlib
import gzip
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import unquote, urlsplit

_TIMEOUT_S: Final = 10.0
"""For one batch, with all tries; the default of the OTLP exporter's specification."""
_PAUSES_S: Final = (1.0, 2.0, 4.0)
_AGAIN: Final = frozenset({429, 502, 503, 504})
"""After which the same may be sent again (OTLP, "Retryable Response Codes")."""
_LONGEST_PROBLEM: Final = 200
_PROTOBUF: Final = "application/x-protobuf"
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class OtlpClient:
    """Where spans are sent: each batch on a connection of its own, without redirects and proxies.

    Of the environment `OTEL_EXPORTER_OTLP_HEADERS`, `_COMPRESSION`, `_CERTIFICATE`, `_CLIENT_CERTIFICATE` and
    `_CLIENT_KEY` count, and before them the same with `OTEL_EXPORTER_OTLP_TRACES_`.

    Raises:
        ValueError: one of them means nothing; the message holds no value of a header.
    """

    def __init__(self, endpoint: str, environment: Mapping[str, str], *, agent: str) -> None:
        url, said = urlsplit(endpoint), _Said(environment)
        self._host, self._port, self._path = url.hostname or "", url.port, url.path
        self._tls = _tls(said) if url.scheme == "https" else None
        self._headers = {**_headers(said("HEADERS")), "Content-Type": _PROTOBUF, "User-Agent": agent}
        self._is_compressed = said("COMPRESSION").lower() == "gzip"
        if self._is_compressed:
            self._headers["Content-Encoding"] = "gzip"
        self._has_ended = threading.Event()
        self._connection: HTTPConnection | None = None

    def send(self, body: bytes) -> str | None:
        """Return None when the batch was taken, and else why not.

        What may go well later is tried again, until 10 s are over.
        """
        body = gzip.compress(body, 6) if self._is_compressed else body
        ends_at = time.monotonic() + _TIMEOUT_S
        for pause_s in _PAUSES_S:
            problem, may_pass = self._try(body, ends_at - time.monotonic())
            if not may_pass or time.monotonic() + pause_s >= ends_at or self._has_ended.wait(pause_s):
                return problem
        return self._try(body, ends_at - time.monotonic())[0]

    def give_up(self) -> None:
        """Have what is being sent fail now, and all that would be sent later. For another thread; it waits for none."""
        self._has_ended.set()
        connection = self._connection
        under_way = None if connection is None else connection.sock
        if under_way is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(under_way, socket.SHUT_RDWR)  # TLS's own would pull the rug from under a reader

    def _try(self, body: bytes, timeout_s: float) -> tuple[str | None, bool]:
        """Return what went wrong, and whether it may go well another time."""
        if self._has_ended.is_set():
            return "the process ends", False
        connection = self._connect(timeout_s)
        self._connection = connection
        try:
            connection.request("POST", self._path, body, self._headers)
            answer = connection.getresponse()  # of which the status is enough
        except (OSError, HTTPException) as error:
            return f"{type(error).__name__}: {error}"[:_LONGEST_PROBLEM], True
        finally:
            self._connection = None
            connection.close()
        if 200 <= answer.status < 300:
            return None, False
        return f"the collector answered {answer.status}", answer.status in _AGAIN

    def _connect(self, timeout_s: float) -> HTTPConnection:
        if self._tls is None:
            return HTTPConnection(self._host, self._port, timeout=timeout_s)
        return HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._tls)


class _Said:
    """What the environment says of how collectors are spoken to; empty where it is silent."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def __call__(self, name: str) -> str:
        of_traces = self._environment.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}", "")
        return (of_traces or self._environment.get(f"OTEL_EXPORTER_OTLP_{name}", "")).strip()


def _headers(said: str) -> dict[str, str]:
    """Return the header lines that are sent with each batch (OTLP exporter, "Specifying headers")."""
    headers = {}
    for item in filter(None, map(str.strip, said.split(","))):
        name, mark, value = item.partition("=")
        name, value = name.strip(), unquote(value.strip())
        if not mark or not _NAME.fullmatch(name) or not (value.isascii() and value.isprintable()):
            raise ValueError(
                "OTEL_EXPORTER_OTLP_HEADERS must be name=value, and commas between; values percent-encoded"
            )
        headers[name] = value
    return headers


def _tls(said: _Said) -> ssl.SSLContext:
    """Return whom to believe (the system's authorities, where nothing is said), and who we are, if asked."""
    try:
        context = ssl.create_default_context(cafile=said("CERTIFICATE") or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if said("CLIENT_CERTIFICATE"):
            # A passphrase that is none: without one OpenSSL would ask for it at the terminal.
            context.load_cert_chain(said("CLIENT_CERTIFICATE"), said("CLIENT_KEY") or None, password="")
    except OSError as error:
        named = "OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE or _CLIENT_KEY"
        raise ValueError(f"{named} can't be used: {error}") from error
    return context
