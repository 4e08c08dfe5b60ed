"""Real Redis clusters and sentinels, on ports of loopback."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS

from tests.redis_server import START_TIMEOUT_S, RedisServer, executable

BUS = 10_000
"""So far above a node's port is the one that nodes talk to each other on."""
NODE_TIMEOUT_MS = 1_000
DOWN_AFTER_MS = 1_000
MASTER = "mymaster"
SETTLING_S = 20.0


class Node(RedisServer):
    """A Redis that also listens on a port."""

    def __init__(self, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        super().__init__("--port", str(self.port), "--bind", "127.0.0.1", *options)

    def announce(self, port: int) -> None:
        """From its next start on, say to clients that it is there."""
        self._options += ("--cluster-announce-port", str(port), "--cluster-announce-bus-port", str(self.port + BUS))

    def __enter__(self) -> Node:
        self.start()
        return self

    def ask(self, *command: Any) -> Any:
        """Send a command past the store."""
        with redis.Redis.from_url(self.url, protocol=2) as client:
            return client.execute_command(*command)


class Cluster:
    """Three masters, and as many replicas of the first one."""

    def __init__(self, replicas: int = 0, *options: str, node_timeout_ms: int = NODE_TIMEOUT_MS) -> None:
        settings = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms), *options)
        self.masters = [Node(*settings) for _ in range(3)]
        self.replicas = [Node(*settings) for _ in range(replicas)]
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.masters)

    @property
    def nodes(self) -> list[Node]:
        return self.masters + self.replicas

    def __enter__(self) -> Cluster:
        with contextlib.ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node)
            self._join()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def named(self) -> int:
        """Return the port of the master of the first slots, as the second master sees it."""
        shares = self.masters[1].ask("CLUSTER", "SLOTS")
        [port] = [master[1] for first, _, master, *_ in shares if first == 0]
        return int(port)

    def _join(self) -> None:
        share = -(-REDIS_CLUSTER_HASH_SLOTS // len(self.masters))
        first, *others = self.nodes
        for number, node in enumerate(self.masters):
            slots = range(number * share, min((number + 1) * share, REDIS_CLUSTER_HASH_SLOTS))
            node.ask("CLUSTER", "ADDSLOTS", *slots)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in others:
            first.ask("CLUSTER", "MEET", "127.0.0.1", node.port)
        eventually(lambda: all(known_to(node) == len(self.nodes) for node in self.nodes))
        for node in self.replicas:
            node.ask("CLUSTER", "REPLICATE", first.ask("CLUSTER", "MYID"))
        eventually(lambda: all(b"cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in self.nodes))
        eventually(lambda: all(is_in_sync(node) for node in self.replicas))


class Sentinels:
    """A master, as many replicas, and as many sentinels, of whom more than half must agree."""

    def __init__(self, replicas: int = 1, sentinels: int = 1, *options: str) -> None:
        self.master = Node(*options)
        self.replicas = [Node(*options) for _ in range(replicas)]
        self.sentinels = [Sentinel(self.master.port, sentinels // 2 + 1) for _ in range(sentinels)]
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/{MASTER}"

    @property
    def nodes(self) -> list[Node]:
        return [self.master, *self.replicas]

    def __enter__(self) -> Sentinels:
        with contextlib.ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node)
            for replica in self.replicas:
                replica.ask("REPLICAOF", "127.0.0.1", self.master.port)
            eventually(lambda: all(is_in_sync(node) for node in self.replicas))
            for sentinel in self.sentinels:
                stack.enter_context(sentinel)
            peers = len(self.sentinels) - 1
            eventually(lambda: all(each.knows(len(self.replicas), peers) for each in self.sentinels))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def named(self) -> int:
        """Return the port of the master that the sentinels name now."""
        for sentinel in self.sentinels:
            with contextlib.suppress(redis.RedisError):
                return int(sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)[1])
        raise RuntimeError("no sentinel answers")


class Sentinel:
    """A sentinel in a directory of its own: it rewrites its configuration."""

    def __init__(self, master_port: int, quorum: int) -> None:
        self.port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="sentinel-"))
        self._settings = self._directory / "sentinel.conf"
        self._settings.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self._directory}\nlogfile log\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {master_port} {quorum}\n"
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {MASTER} 5000\n"
        )

    def __enter__(self) -> Sentinel:
        self._process = subprocess.Popen([executable(), str(self._settings), "--sentinel"])
        eventually(lambda: self.ask("PING"))
        return self

    def __exit__(self, *raised: object) -> None:
        for number in (signal.SIGCONT, signal.SIGKILL):
            self.signal(number)
        self._process.wait(timeout=START_TIMEOUT_S)
        shutil.rmtree(self._directory)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to it."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    def signal(self, number: signal.Signals) -> None:
        """Stop it, let it go on, or kill it."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def ask(self, *command: Any) -> Any:
        """Send a command."""
        with redis.Redis(port=self.port, socket_timeout=1, protocol=2) as client:
            return client.execute_command(*command)

    def knows(self, replicas: int, peers: int) -> bool:
        """Tell whether it has found all the others."""
        with redis.Redis(port=self.port, protocol=2) as client:
            told = client.sentinel_master(MASTER)
        return (int(told["num-slaves"]), int(told["num-other-sentinels"])) == (replicas, peers)


def known_to(node: Node) -> int:
    """Return how many nodes this one knows and has shaken hands with."""
    told: bytes = node.ask("CLUSTER", "NODES")
    return sum(b"handshake" not in line and b" connected" in line for line in told.splitlines())


def is_in_sync(replica: Node) -> bool:
    """Tell whether it has all that its master has."""
    return bool(replica.ask("INFO", "replication").get("master_link_status") == "up")


def eventually(holds: Callable[[], object]) -> None:
    """Wait until it holds; what cannot be asked yet does not."""
    deadline = time.monotonic() + SETTLING_S
    while True:
        with contextlib.suppress(redis.RedisError):
            if holds():
                return
        if time.monotonic() > deadline:
            raise TimeoutError("what was waited for has not come")
        time.sleep(0.02)


def free_port() -> int:
    """Return a port that is free together with that of its bus; below those that systems hand out by themselves."""
    for port in _candidates():
        with contextlib.suppress(OSError), socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + BUS))
            return port
    raise RuntimeError("no port is free")


def _candidates() -> Iterator[int]:
    for _ in range(1_000):
        yield random.randrange(12_000, 22_000)  # noqa: S311 - nothing secret about it


@functools.cache
def shared_cluster() -> Cluster:
    """Return the one cluster of this test run, for tests that do it no harm. It ends with the run."""
    cluster = Cluster(node_timeout_ms=60_000).__enter__()  # however busy the machine is
    atexit.register(cluster.__exit__)
    return cluster


@functools.cache
def shared_sentinels() -> Sentinels:
    """Return the one master with a sentinel of this test run, for tests that do it no harm. It ends with the run."""
    sentinels = Sentinels(replicas=0).__enter__()
    atexit.register(sentinels.__exit__)
    return sentinels


def emptied(nodes: Sequence[Node]) -> None:
    """Forget all keys of these masters."""
    for node in nodes:
        node.ask("FLUSHALL")
