"""A program for an interpreter that has FastMCP: its proxy with `JWTVerifier`, without sessions of its own.

Run as ``python fastmcp_program.py PORT UPSTREAM PUBLIC_KEY_FILE ISSUER AUDIENCE``.
"""

import sys
from pathlib import Path

from fastmcp.server import create_proxy  # type: ignore[import-not-found]  # it has an environment of its own
from fastmcp.server.auth.providers.jwt import JWTVerifier  # type: ignore[import-not-found]


def main(port: str, upstream: str, public_key_file: str, issuer: str, audience: str) -> None:
    """Serve until told to stop."""
    public_key = Path(public_key_file).read_text()
    verifier = JWTVerifier(public_key=public_key, issuer=issuer, audience=audience, algorithm="RS256")
    create_proxy(upstream, name="bench", auth=verifier).run(
        transport="http",
        host="127.0.0.1",
        port=int(port),
        stateless_http=True,
        json_response=True,
        show_banner=False,
        log_level="error",
        uvicorn_config={"access_log": False},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
