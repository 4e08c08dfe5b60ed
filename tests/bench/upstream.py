"""The MCP server behind every contender: nginx with answers from a file, or a small program that streams."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench import calls
from tests.bench.errors import WrongAnswer
from tests.bench.gigabyte_file import write_gigabyte
from tests.bench.processes import Process, free_port, listens, running

PATH: Final = "/mcp"
CHECKING: Final = "check-"
"""What the `X-Request-Id` of a request begins with whose headers the upstream writes down."""
_SEEN_S: Final = 2.0
LOGGED: Final = (
    *("host", "x-account-id", "x-account-scopes", "x-auth-method", "x-auth-subject", "x-request-id"),
    *("content-digest", "mcp-session-id", "signature-input", "signature", "authorization", "x-api-key"),
)
"""Headers that are written down."""


@dataclass(frozen=True)
class Seen:
    """A checking request as the upstream received it."""

    method: str
    target: str
    headers: dict[str, str]
    """Those of `LOGGED` that were there."""


@dataclass
class Upstream:
    """A running upstream."""

    kind: calls.UpstreamKind
    port: int
    process: Process
    _seen_file: Path
    _status_port: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{PATH}"

    def seen(self, request_id: str) -> Seen:
        """Return what was received under this id; it is written down when the answer has been sent.

        Raises:
            WrongAnswer: no such request came.
        """
        deadline = time.monotonic() + _SEEN_S
        while time.monotonic() < deadline:
            for line in reversed(self._seen_file.read_text().splitlines()):
                document: dict[str, Any] = json.loads(line)
                headers = {name: value for name, value in document["headers"].items() if value}
                if headers.get("x-request-id") == request_id:
                    method, target, _ = document["request"].split(" ")
                    return Seen(method, target, headers)
            time.sleep(0.005)
        raise WrongAnswer("a request that was answered never reached the upstream")

    def requests(self) -> int | None:
        """Return how many requests have come so far, where the upstream counts them."""
        if self._status_port is None:
            return None
        with urllib.request.urlopen(f"http://127.0.0.1:{self._status_port}/") as answer:
            return int(answer.read().split()[9])


@contextlib.contextmanager
def static_upstream(
    nginx: str, directory: Path, *, tools: int = 1, gigabyte_bytes: int | None = None
) -> Iterator[Upstream]:
    """Run nginx: it answers any POST from memory or a file, and lists so many tools, all of them read-only."""
    home = directory / f"upstream-{time.monotonic_ns()}"
    (home / "documents").mkdir(parents=True)
    (home / "documents" / "large").write_bytes(calls.LARGE_ANSWER)
    (home / "documents" / "tools").write_bytes(_tool_list(tools))
    if gigabyte_bytes is not None:
        write_gigabyte(home / "documents" / "gigabyte", gigabyte_bytes)
    port, status_port = free_port(), free_port()
    seen_file = home / "seen.log"
    seen_file.touch()
    settings = home / "nginx.conf"
    settings.write_text(_nginx_settings(home, port, status_port, seen_file))
    command = [nginx, "-p", str(home), "-c", str(settings), "-e", str(home / "error.log")]
    with running("upstream", command, directory, lambda: listens(port)) as process:
        yield Upstream("static", port, process, seen_file, status_port)


@contextlib.contextmanager
def streaming_upstream(directory: Path) -> Iterator[Upstream]:
    """Run `streaming_upstream`, for what a static server can't do."""
    port = free_port()
    seen_file = directory / f"seen-{port}.log"
    seen_file.touch()
    command = [sys.executable, "-m", "tests.bench.streaming_upstream", str(port), str(seen_file)]
    with running("streaming upstream", command, directory, lambda: listens(port)) as process:
        yield Upstream("streaming", port, process, seen_file)


def _tool_list(count: int) -> bytes:
    names = [calls.TOOL, *(f"{calls.TOOL}_{number}" for number in range(1, count))]
    tools = [{"name": name, "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}} for name in names]
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}).encode()


def _nginx_settings(home: Path, port: int, status_port: int, seen_file: Path) -> str:
    headers = ", ".join(f'"{name}":"$http_{name.replace("-", "_")}"' for name in LOGGED)
    small = calls.SMALL_ANSWER.decode().replace("'", "")
    return f"""
daemon off; master_process off; pid {home}/nginx.pid;
events {{ worker_connections 16384; multi_accept on; }}
http {{
  sendfile on; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 1h;
  client_body_temp_path {home}/body; client_max_body_size 8m; client_body_buffer_size 128k;
  proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  map $http_x_request_id $is_checked {{ default 0; "~^{CHECKING}" 1; }}
  map "$http_mcp_method:$arg_answer" $document {{
    default ""; "tools/list:" /documents/tools; ":large" /documents/large; ":gigabyte" /documents/gigabyte;
  }}
  log_format seen escape=json '{{"request":"$request", "headers":{{{headers}}}}}';
  access_log {seen_file} seen if=$is_checked;
  default_type application/json;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = {PATH} {{
      if ($document) {{ rewrite ^ $document last; }}
      return 200 '{small}';
    }}
    # A file answers a GET; a POST for one is an error that has the file as its page.
    location /documents/ {{ internal; root {home}; error_page 405 =200 $uri; }}
  }}
  server {{ listen 127.0.0.1:{status_port}; access_log off; location / {{ stub_status; }} }}
}}
"""
