"""FastMCP's proxy with its token verifier: the ready-made one in Python."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.bench import credentials
from tests.bench.contenders.contender import Contender
from tests.bench.credentials import Credentials
from tests.bench.processes import free_port, listens, running
from tests.bench.upstream import Upstream

_PROGRAM: Final = Path(__file__).with_name("fastmcp_program.py")


@contextlib.contextmanager
def fastmcp(python: str, directory: Path, upstream: Upstream, issuer: Credentials) -> Iterator[Contender]:
    """Run `fastmcp_program` with the interpreter that has FastMCP; the upstream must speak MCP, sessions and all."""
    port = free_port()
    command = [python, "-P", str(_PROGRAM), str(port), upstream.url, str(issuer.public_key_file)]
    command += [credentials.ISSUER, credentials.AUDIENCE]
    with running("fastmcp", command, directory, lambda: listens(port)) as process:
        credential = (("Authorization", f"Bearer {issuer.token()}"),)
        yield Contender("fastmcp", port, process, upstream, credential, rewrites=True)
