"""`sidecar demo`: a real MCP server, a dev issuer and the sidecar on one machine, and what to try with them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp

from sidecar import config
from sidecar.app import Sidecar
from sidecar.demo import guide
from sidecar.demo.issuer import DevIssuer

_HOST: Final = "127.0.0.1"
_ACCOUNT: Final = "alice"
_READY_WITHIN_S: Final = 20
_TOKEN_LIFETIME_S: Final = 8 * 3600


class DemoFailed(Exception):  # noqa: N818 - says what happened, and ends up on the screen
    """The demo could not be started; the message says why."""


def main() -> int:
    """Run the demo until Ctrl-C; return the exit code."""
    try:
        asyncio.run(_run())
    except (DemoFailed, OSError) as failure:
        print(f"The demo could not start: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # while it was starting; later Ctrl-C is an ordinary end
        return 0
    return 0


async def _run() -> None:
    stop = asyncio.Event()
    async with contextlib.AsyncExitStack() as parts:
        directory = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="mcp-sidecar-demo-")))
        demo = await _start(parts, directory)
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
        print(guide.text(demo), flush=True)
        await stop.wait()
        _say("\nStopping.")


async def _start(parts: contextlib.AsyncExitStack, directory: Path) -> guide.Demo:
    """Start everything in `parts`, from the back to the front, and wait until a call goes all the way."""
    _say("Starting the MCP server (this takes a few seconds) ...")
    finance_url = await parts.enter_async_context(_finance_server(directory / "finance.log"))
    _say("Starting the issuer and the sidecar ...")
    issuer = DevIssuer()
    await issuer.start(_HOST, 0)
    parts.push_async_callback(issuer.stop)
    text = _config_text(finance_url, issuer.url, directory)
    (directory / "config.yaml").write_text(text)
    settings = config.load(text, {}, lambda path: Path(path).read_bytes())
    log = parts.enter_context((directory / "sidecar.log").open("wb"))
    sidecar = Sidecar(settings, log=log)
    await sidecar.start()
    parts.push_async_callback(sidecar.stop)
    demo = guide.Demo(
        url=settings.public_url,
        admin_url=sidecar.admin_url,
        finance_url=finance_url,
        issuer_url=issuer.url,
        directory=directory,
        read_key=await _key(sidecar, "reader", "mcp:read"),
        full_key=await _key(sidecar, "writer", "mcp:full"),
        token=issuer.mint(
            sub=_ACCOUNT, aud=f"{settings.public_url}/mcp", scope="mcp:full", expires_in_s=_TOKEN_LIFETIME_S
        ),
    )
    await _first_call(demo)
    return demo


async def _key(sidecar: Sidecar, name: str, scope: str) -> str:
    _, key = await sidecar.keyring.create(
        _ACCOUNT, name, scopes=(scope,), created_by="demo", origin="cli", granted=None
    )
    return key.text


@contextlib.asynccontextmanager
async def _finance_server(log_file: Path) -> AsyncIterator[str]:
    """Run the MCP server in its own process and yield its URL once it accepts connections."""
    command = (sys.executable, "-m", "sidecar.demo.finance", "--host", _HOST, "--port", str(_port(3000)))
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=log)
    assert process.stdout is not None  # noqa: S101 - asked for above
    try:
        url = (await process.stdout.readline()).decode().strip()
        if not url:
            raise DemoFailed(f"the MCP server ended at once: {_last_words(log_file)}")
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _first_call(demo: guide.Demo) -> None:
    """Make the guide's first call until it works: only then does the sidecar know the server's tools."""
    headers, body = guide.call("get_balance", {})
    headers["X-API-Key"] = demo.read_key
    answer = ""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_READY_WITHIN_S), aiohttp.ClientSession() as session:
            while True:
                async with session.post(f"{demo.url}/mcp/inspector", data=body, headers=headers) as response:
                    answer = f"{response.status} {await response.text()}"
                    if response.status == 200:
                        return
                await asyncio.sleep(0.1)
    raise DemoFailed(f"a first call did not get through: {answer}")


def _config_text(finance_url: str, issuer_url: str, directory: Path) -> str:
    port = _port(8080)
    store = json.dumps(f"sqlite:///{directory}/sidecar.db").replace("${", "$${")
    return f"""# Made by `sidecar demo`. The reference of all settings is the config.yaml of the project.
public_url: http://{_HOST}:{port}
listen: {{host: {_HOST}, port: {port}}}
admin: {{host: {_HOST}, port: {_port(9090)}}}
upstream: {{url: "{finance_url}"}}
jwt:
  issuers:
    - {{issuer: "{issuer_url}"}}
store: {{url: {store}}}
"""


def _last_words(log_file: Path) -> str:
    return log_file.read_text(errors="replace").strip()[-500:]


def _port(preferred: int) -> int:
    """Return the port if it is free, else one that is."""
    for port in (preferred, 0):
        with contextlib.suppress(OSError), socket.create_server((_HOST, port)) as listener:
            return int(listener.getsockname()[1])
    raise DemoFailed(f"no port is free on {_HOST}")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
