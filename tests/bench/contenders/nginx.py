"""nginx: passes everything on, with kept connections on both sides, and decides nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.contenders.contender import Contender
from tests.bench.processes import free_port, listens, running
from tests.bench.upstream import Upstream


@contextlib.contextmanager
def nginx(executable: str, directory: Path, upstream: Upstream) -> Iterator[Contender]:
    """Run it: one worker, no log."""
    home = directory / f"nginx-{time.monotonic_ns()}"
    home.mkdir()
    port = free_port()
    settings = home / "nginx.conf"
    settings.write_text(_settings(home, port, upstream))
    command = [executable, "-p", str(home), "-c", str(settings), "-e", str(home / "error.log")]
    with running("nginx", command, directory, lambda: listens(port)) as process:
        yield Contender("nginx", port, process, upstream)


def _settings(home: Path, port: int, upstream: Upstream) -> str:
    return f"""
daemon off; master_process off; pid {home}/nginx.pid;
events {{ worker_connections 16384; multi_accept on; }}
http {{
  access_log off; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 1h;
  client_body_temp_path {home}/body; client_max_body_size 8m; client_body_buffer_size 128k;
  proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  upstream mcp {{
    server 127.0.0.1:{upstream.port}; keepalive 256; keepalive_requests 1000000000; keepalive_timeout 1h;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://mcp; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_read_timeout 1h; proxy_max_temp_file_size 0; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;
    }}
  }}
}}
"""
