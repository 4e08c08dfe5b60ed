"""The sidecar as an operator runs it: its command, its own settings, everything on."""

from __future__ import annotations

import contextlib
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import redis

from sidecar.edge.redis import names
from sidecar.edge.redis.admission import NOW
from sidecar.verify import InvalidSignature, verify
from tests.bench import credentials
from tests.bench.calls import TOOL, Call
from tests.bench.contenders.contender import Contender
from tests.bench.credentials import Credentials, IssuedKey
from tests.bench.errors import WrongAnswer
from tests.bench.processes import Process, free_port
from tests.bench.upstream import Seen, Upstream
from tests.bench.wrk import Headers
from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, config_text, merged
from tests.redis_server import RedisServer

Signature = Literal["hmac-sha256", "ed25519"]

_REQUESTS: Final = 1_000_000
_KEY_ID: Final = "bench"


@dataclass
class SidecarContender(Contender):
    """The sidecar as seen by a caller with one kind of credential."""

    issuer: Credentials = field(kw_only=True)
    store_url: str = field(kw_only=True)
    accounts: tuple[str, ...] = field(default=(credentials.ACCOUNT,), kw_only=True)
    """Whose limits are looked at."""

    def identity_problem(self, seen: Seen, call: Call) -> str:
        public = self.issuer.identity_jwk()
        keys: Mapping[str, Any] = {_KEY_ID: self.issuer.identity_secret}
        if 'alg="ed25519"' in seen.headers.get("signature-input", ""):
            keys = {"keys": [{**public, "kid": _KEY_ID}]}
        try:
            verify(seen.method, seen.target, list(seen.headers.items()), call.body, keys, time.time(), {})
        except InvalidSignature as problem:
            return f"the upstream can't verify the signature: {problem}"
        return super().identity_problem(seen, call)

    def counted(self) -> int | None:
        """Read what was spent of the accounts' limits where the sidecar keeps it, in Redis."""
        with redis.Redis.from_url(self.store_url) as store:
            stored = [log for log in store.mget(self._limit_logs()) if log is not None]
        return sum(int(NOW.unpack_from(log, NOW.size)[0]) for log in stored)

    def forget_counts(self) -> None:
        with redis.Redis.from_url(self.store_url) as store:
            store.delete(*self._limit_logs())

    def require_falling(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        left = [int(headers.get("x-ratelimit-remaining", "0")) for headers in (before, after)]
        if not left[0] > left[1] > 0:
            raise WrongAnswer(f"X-RateLimit-Remaining was {left[0]} before the run and {left[1]} after it")

    def _limit_logs(self) -> list[str]:
        return [names.limit_log(account, "account", "account") for account in self.accounts]


@dataclass
class RunningSidecar:
    """A sidecar and where it is."""

    port: int
    admin_port: int
    process: Process
    upstream: Upstream
    store: RedisServer
    issuer: Credentials
    name: str

    def for_tokens(self) -> SidecarContender:
        """Return it as callers with a token see it."""
        return self._contender(self.name, JWT_ROUTE, (("Authorization", f"Bearer {self.issuer.token()}"),))

    def for_key(self, key: IssuedKey, suffix: str = ", API key") -> SidecarContender:
        """Return it as callers with this API key see it; the store has to know the key."""
        contender = self._contender(self.name + suffix, KEY_ROUTE, (("X-API-Key", key.text),))
        contender.account = key.record.account
        contender.accounts = (key.record.account,)
        return contender

    def _contender(self, name: str, path: str, credential: Headers) -> SidecarContender:
        with redis.Redis.from_url(self.store.url) as client:
            store_pid = int(client.info("server")["process_id"])
        return SidecarContender(
            name,
            self.port,
            self.process,
            self.upstream,
            credential,
            path,
            credentials.ACCOUNT,
            store_pid,
            issuer=self.issuer,
            store_url=self.store.url,
        )


def start_sidecar(
    directory: Path,
    upstream: Upstream,
    issuer: Credentials,
    store: RedisServer,
    *,
    name: str = "sidecar",
    signature: Signature = "hmac-sha256",
    settings: Mapping[str, Any] | None = None,
    ports: tuple[int, int] | None = None,
) -> RunningSidecar:
    """Start it; whether it is ready, `is_ready` tells. `settings` are laid over those below."""
    port, admin_port = ports or (free_port(), free_port())
    file = directory / f"config-{time.monotonic_ns()}.yaml"
    base = _settings(port, admin_port, upstream, issuer, store.url, signature)
    file.write_text(config_text(merged(base, settings or {})))
    command = [str(Path(sys.executable).parent / "sidecar"), "serve", "--config", str(file)]
    return RunningSidecar(port, admin_port, Process(name, command, directory), upstream, store, issuer, name)


def is_ready(sidecar: RunningSidecar) -> bool:
    """Ask it as an orchestrator would."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{sidecar.admin_port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextlib.contextmanager
def sidecar(
    directory: Path, upstream: Upstream, issuer: Credentials, store: RedisServer, **how: Any
) -> Iterator[RunningSidecar]:
    """Run it, from when it is ready to the end of the block; see `start_sidecar`."""
    started = start_sidecar(directory, upstream, issuer, store, **how)
    try:
        started.process.wait_until(lambda: is_ready(started))
        yield started
    finally:
        started.process.stop()


def _settings(
    port: int, admin_port: int, upstream: Upstream, issuer: Credentials, store_url: str, signature: Signature
) -> dict[str, Any]:
    """Return settings with nothing switched off; limits that are looked at and not reached."""
    identity_key = {"id": _KEY_ID, "secret_file": str(issuer.identity_secret_file)}
    if signature == "ed25519":
        identity_key = {"id": _KEY_ID, "private_key_file": str(issuer.identity_pem_file)}
    return {
        "public_url": f"http://127.0.0.1:{port}",
        "listen": {"host": "127.0.0.1", "port": port},
        "admin": {"host": "127.0.0.1", "port": admin_port},
        "upstream": {"url": upstream.url},
        "jwt": {
            "issuers": [
                {
                    "issuer": credentials.ISSUER,
                    "audiences": [credentials.AUDIENCE],
                    "jwks_file": str(issuer.jwks_file),
                    "algorithms": ["RS256"],
                }
            ]
        },
        "access": {"tools": {"read": [TOOL]}},
        "api_keys": {"bcrypt_cost": credentials.BCRYPT_COST},
        "limits": {
            "policies": [
                {"name": "account", "per": "account", "requests": _REQUESTS, "window_s": 60},
                {"name": "burst", "per": "credential", "requests": _REQUESTS, "window_s": 1},
                {"name": "writes", "per": "account", "requests": 60, "window_s": 60, "effect": "write"},
            ],
            "failed_auth": {"requests": 30, "window_s": 60},
            "streams": {"per_credential": _REQUESTS},
        },
        "identity": {"algorithm": signature, "keys": [identity_key]},
        "store": {"url": store_url},
        "log": {"access": True},
    }
