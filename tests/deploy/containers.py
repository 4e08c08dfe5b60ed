"""Containers without an engine: bubblewrap and an unprivileged user, in a network of their own."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.deploy.image import Image

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
STARTS_WITHIN_S = 30.0
LIBC = ctypes.CDLL(None, use_errno=True)


class Network:
    """A network with a loopback interface and nothing else, as the containers of a pod share one.

    What runs in its threads is in it: sockets that are opened there, and processes that are started there.
    """

    def __init__(self) -> None:
        with ThreadPoolExecutor(1) as thread:
            self._descriptor = thread.submit(_new_network).result()
        self._threads = ThreadPoolExecutor(8, initializer=_enter, initargs=(self._descriptor,))

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do this in there."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def request(self, method: str, url: str, **how: Any) -> httpx.Response:
        """Ask over a connection of its own."""

        def ask() -> httpx.Response:
            with httpx.Client(trust_env=False, timeout=10) as client:
                return client.request(method, url, **how)

        return await self.run(ask)

    async def answers(self, url: str) -> bool:
        try:
            return (await self.request("GET", url)).status_code == 200
        except httpx.TransportError:
            return False

    def close(self) -> None:
        self._threads.shutdown()
        os.close(self._descriptor)


@dataclass(frozen=True)
class Mount:
    """A directory or a file of this machine that is to be seen inside."""

    source: Path
    target: str
    writable: bool = False


@dataclass
class Container:
    """An image with what one start of it adds. Nothing of its file system can be written to but the writable mounts."""

    image: Image
    network: Network
    directory: Path
    """For its file system, what it says, and copies of mounted files: its user can't come by the originals."""
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[Mount] = ()
    tmpfs: Sequence[str] = ()
    user: str = ""

    def __post_init__(self) -> None:
        self.root = self.directory / "root"
        # Links: what is mounted in one container must leave no trace in the next.
        subprocess.run(["cp", "-al", self.image.root, self.root], check=True)

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text("utf-8")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Running]:
        """Start it with its command; whatever is left of it is killed at the end."""
        with (self.directory / "log").open("wb") as log:
            running = await self.network.run(self._start, log)
        try:
            yield running
        finally:
            running.process.kill()
            await asyncio.to_thread(running.process.wait)

    async def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program in a second container beside the first: same files, same network."""

        def run() -> subprocess.CompletedProcess[str]:
            return subprocess.run([*self._confined(), *command], capture_output=True, text=True, timeout=60)

        return await self.network.run(run)

    def _start(self, log: Any) -> Running:
        read_end, write_end = os.pipe()
        words = (*self.image.entrypoint, *(self.command or self.image.command))
        command = [*self._confined("--as-pid-1", "--info-fd", str(write_end)), *words]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, pass_fds=[write_end]
        )
        os.close(write_end)
        with os.fdopen(read_end, "rb") as information:
            told = information.read()
        assert told, self.log
        return Running(process, json.loads(told)["child-pid"])

    def _confined(self, *options: str) -> list[str]:
        user, _, group = (self.user or self.image.user).partition(":")
        command = ["setpriv", "--reuid", user, "--regid", group or user, "--clear-groups", "bwrap", *options]
        command += ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]
        command += ["--ro-bind", str(self.root), "/", "--dev", "/dev", "--proc", "/proc"]
        for target in self.tmpfs:
            command += ["--tmpfs", self._place(target, is_file=False)]
        for number, mount in enumerate(self.mounts):
            source = self._copied(mount.source, number) if mount.source.is_file() else mount.source
            target = self._place(mount.target, is_file=source.is_file())
            command += ["--bind" if mount.writable else "--ro-bind", str(source), target]
        command += ["--chdir", self.image.working_directory, "--clearenv"]
        for name, value in {**self.image.environment, **self.environment}.items():
            command += ["--setenv", name, value]
        return command

    def _place(self, target: str, *, is_file: bool) -> str:
        """Have something there to mount over, as an engine makes it."""
        place = self.root / target.lstrip("/")
        if not place.exists():
            (place.parent if is_file else place).mkdir(parents=True, exist_ok=True)
            if is_file:
                place.touch()
        return target

    def _copied(self, source: Path, number: int) -> Path:
        """Return a copy with the same owner and mode in a directory that anybody may enter."""
        copy = self.directory / f"mount-{number}"
        copy.write_bytes(source.read_bytes())
        found = source.stat()
        os.chown(copy, found.st_uid, found.st_gid)
        copy.chmod(found.st_mode & 0o777)
        return copy


@dataclass
class Running:
    """A container that was started: its first process has this id on this machine."""

    process: subprocess.Popen[bytes]
    first: int

    async def stop(self, within_s: float) -> int:
        """Send SIGTERM to its first process, as an engine does, and return how it ended."""
        os.kill(self.first, signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, within_s)

    def command_line(self) -> str:
        """Return what any user of this machine sees of its first process."""
        return Path(f"/proc/{self.first}/cmdline").read_text("utf-8")

    def status(self, name: str) -> str:
        """Return what the kernel says of its first process."""
        lines = Path(f"/proc/{self.first}/status").read_text("ascii").splitlines()
        (value,) = (line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))
        return value


async def until_it_answers(network: Network, url: str, running: Running, container: Container) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STARTS_WITHIN_S):
            while running.process.poll() is None:
                if await network.answers(url):
                    return
                await asyncio.sleep(0.05)
    raise AssertionError(f"it does not answer at {url}:\n{container.log}")


def _new_network() -> int:
    """Leave this thread's network for a new one; return its handle."""
    _check(LIBC.unshare(CLONE_NEWNET))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _enter(descriptor: int) -> None:
    _check(LIBC.setns(descriptor, CLONE_NEWNET))


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
