"""HAProxy: verifies RS256 on each request, looks into the JSON, limits by account in a stick table, and logs."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.bench import credentials
from tests.bench.contenders.contender import Contender
from tests.bench.credentials import Credentials
from tests.bench.processes import free_port, listens, max_connections, running
from tests.bench.upstream import Upstream

_REQUESTS: Final = 1_000_000
_WINDOW_S: Final = 60
_LOGGED: Final = (
    '"account":"%[var(txn.account)]","method":"%[var(txn.method)]","tool":"%[var(txn.tool)]",'
    '"path":"%HP","status":%ST,"duration_ms":%Ta,"upstream_ms":%Tr'
)


class _HAProxy(Contender):
    admin_socket: Path

    def counted(self) -> int | None:
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self.admin_socket))
            admin.sendall(b"show table accounts\n")
            text = b"".join(iter(lambda: admin.recv(65536), b"")).decode()
        return sum(int(line.partition("http_req_cnt=")[2].split()[0]) for line in text.splitlines() if "key=" in line)


@contextlib.contextmanager
def haproxy(executable: str, directory: Path, upstream: Upstream, issuer: Credentials) -> Iterator[Contender]:
    """Run it with one thread. Of a body it looks into what fits into its buffer, 16 KiB."""
    home = directory / f"haproxy-{time.monotonic_ns()}"
    home.mkdir()
    port, admin_socket = free_port(), home / "admin"
    settings = home / "haproxy.cfg"
    settings.write_text(_settings(port, admin_socket, upstream, issuer))
    command = [executable, "-db", "-f", str(settings)]
    with running("haproxy", command, directory, lambda: listens(port)) as process:
        credential = (("Authorization", f"Bearer {issuer.token()}"),)
        contender = _HAProxy("haproxy", port, process, upstream, credential, account=credentials.ACCOUNT)
        contender.admin_socket = admin_socket
        yield contender


def _settings(port: int, admin_socket: Path, upstream: Upstream, issuer: Credentials) -> str:
    return f"""
global
  nbthread 1
  maxconn {max_connections()}
  stats socket {admin_socket} mode 600 level admin
  log stdout len 4096 format raw local0
defaults
  mode http
  log global
  option http-keep-alive
  option httplog
  option http-no-delay
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-request 30s
backend accounts
  stick-table type string len 128 size 100k expire 10m store http_req_rate({_WINDOW_S}s),http_req_cnt
{_frontend(port, issuer)}backend mcp
backend mcp
  http-reuse always
  server mcp 127.0.0.1:{upstream.port} pool-max-conn -1
"""


def _frontend(port: int, issuer: Credentials) -> str:
    return f"""frontend public
  bind 127.0.0.1:{port} backlog 4096
  http-request set-var(txn.bearer) http_auth_bearer
  http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
  http-request set-var(txn.iss) var(txn.bearer),jwt_payload_query('$.iss')
  http-request set-var(txn.aud) var(txn.bearer),jwt_payload_query('$.aud')
  http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
  http-request set-var(txn.account) var(txn.bearer),jwt_payload_query('$.sub')
  http-request set-var(txn.now) date()
  http-request deny deny_status 401 unless {{ var(txn.alg) -m str RS256 }}
  http-request deny deny_status 401 unless {{ var(txn.iss) -m str {credentials.ISSUER} }}
  http-request deny deny_status 401 unless {{ var(txn.aud) -m str {credentials.AUDIENCE} }}
  http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,"{issuer.public_key_file}") -m int 1 }}
  http-request wait-for-body time 5s if METH_POST
  http-request set-var(txn.method) req.body,json_query('$.method') if METH_POST
  http-request set-var(txn.tool) req.body,json_query('$.params.name') if METH_POST
  http-request deny deny_status 400 if METH_POST !{{ var(txn.method) -m found }}
  http-request track-sc0 var(txn.account) table accounts
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {_REQUESTS} }}
  http-request del-header Authorization
  http-request set-header X-Account-Id %[var(txn.account)]
  log-format '{{{_LOGGED}}}'
  default_"""
