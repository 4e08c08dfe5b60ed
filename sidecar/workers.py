"""Supervises several processes that serve one public port, and speaks for them on the one admin port.

Each is a whole sidecar. What they must agree on is in the shared store, so that they need not know each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from dataclasses import replace
from typing import BinaryIO, Final, Literal

from sidecar.config import Config
from sidecar.edge import telemetry_sum
from sidecar.edge.admin import Readiness, admin_port, http_url
from sidecar.edge.telemetry import METRICS_TYPE, Family, Telemetry
from sidecar.edge.worker_link import WorkerProcess
from sidecar.public_port import reserved

_MODULE: Final = "sidecar.worker"
_ANSWERS_WITHIN_S: Final = 1.0
"""Who is silent for longer should be sent no requests. Common probes wait no longer than this."""
_SILENCE_S: Final = 30.0
_ASKS_PER_SILENCE: Final = 6
_STARTS_WITHIN_S: Final = 120.0
"""Long, because many workers that start at once on few cores wait for each other."""
_RELOADS_WITHIN_S: Final = 12.0
"""It may have to wait for the keys of a new issuer and the tools of a new upstream."""
_LETS_GO_WITHIN_S: Final = 6.0
"""A worker that has drained has to let go of its parts."""
_STEADY_S: Final = 60.0
_MAX_PAUSE_S: Final = 30.0
_MAX_DOUBLINGS: Final = 5


class Supervisor:
    """`Config.workers` processes, from their start to their end.

    A worker that ends is replaced; one that does not answer for `silence_s` is ended.
    """

    def __init__(
        self, config: Config, *, log: BinaryIO | None = None, silence_s: float = _SILENCE_S, module: str = _MODULE
    ) -> None:
        self._config = config
        self.telemetry = Telemetry(log or sys.stdout.buffer, level=config.log.level, access=config.log.access)
        self._silence_s = silence_s
        self._module = module
        self._parts = contextlib.AsyncExitStack()
        self._phase: Literal["starting", "serving", "draining"] = "starting"
        self._stop_signal = signal.SIGINT
        self._port: int
        self._workers: dict[int, WorkerProcess] = {}
        self._counts: dict[int, list[Family]] = {}
        """What each worker counted when it was last asked."""
        self._ended_counts: list[Family] = []
        self._keepers: list[asyncio.Task[None]] = []
        self.public_url_bound = ""
        self.admin_url = ""

    async def start(self) -> None:
        """Open the ports and start every worker.

        Raises:
            OSError: a port can't be had, or a worker does not start.
        """
        try:
            await self._start_admin()
            address = await self._parts.enter_async_context(reserved(self._config.listen))
            self.public_url_bound = http_url(address, tls=self._config.listen.tls.cert is not None)
            self._port = address[1]
            self._parts.push_async_callback(self._stop_workers)
            await self._start_workers()
        except BaseException:
            await self._parts.aclose()
            raise
        self._phase = "serving"
        self.telemetry.event(
            "started", public=self.public_url_bound, admin=self.admin_url, workers=self._config.workers
        )

    async def stop(self, *, delayed: bool = False) -> None:
        """Let every worker finish what it does, and let go of everything. `delayed`: as with `Sidecar.stop`."""
        self._phase = "draining"
        self._stop_signal = signal.SIGTERM if delayed else signal.SIGINT
        self.telemetry.state.draining()
        self.telemetry.event("stopping")
        await self._parts.aclose()
        self.telemetry.event("stopped")

    @property
    def config(self) -> Config:
        """The settings that hold now."""
        return self._config

    async def reload(self, config: Config) -> None:
        """Have every worker go by other settings from the next request on, and whoever takes its place.

        Raises:
            OSError: a worker can't; it keeps the old ones, and the others go back to them.
        """
        before, self._config = self._config, config
        try:
            await self._hand_over_to_all(config)
        except ChildProcessError:
            self._config = before
            with contextlib.suppress(ChildProcessError):
                await self._hand_over_to_all(before)
            raise
        self.telemetry.use(level=config.log.level, access=config.log.access)

    async def readiness(self) -> Readiness:
        """Find out whether requests should be sent here: the system picks the worker, so it takes all of them."""
        if self._phase != "serving":
            return Readiness("draining" if self._phase == "draining" else "not_ready")
        return Readiness.of_all(await asyncio.gather(*map(self._readiness_of, self._workers)))

    async def metrics(self) -> bytes:
        """Return the metrics of all processes together. Who does not answer counts as it last did."""
        await asyncio.gather(*map(self._count_if_it_answers, self._workers))
        return telemetry_sum.exposition([self.telemetry.families(), self._ended_counts, *self._counts.values()])

    async def _hand_over_to_all(self, config: Config) -> None:
        problems = await asyncio.gather(*[self._hand_over(number, config) for number in tuple(self._workers)])
        for number, problem in zip(tuple(self._workers), problems, strict=True):
            if problem is not None:
                raise ChildProcessError(f"worker {number}: {problem}")

    async def _hand_over(self, number: int, config: Config) -> str | None:
        """Return why a worker can't go by these settings. One that does not answer is ended.

        Whoever takes its place begins with them.
        """
        worker = self._workers[number]
        try:
            async with asyncio.timeout(_RELOADS_WITHIN_S):
                problem: str | None = await worker.ask("reload", self._for_workers(config))
                return problem
        except ConnectionError:
            return None
        except TimeoutError:
            worker.send_signal(signal.SIGKILL)
            self.telemetry.event("worker_silent", level="error", worker=number, pid=worker.pid)
            return None

    def _for_workers(self, config: Config) -> Config:
        """Name the port that the system chose: every worker has to find the same one."""
        return replace(config, listen=replace(config.listen, port=self._port))

    async def _readiness_of(self, number: int) -> Readiness:
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN_S):
                await self._count(number)
            # What it finds out may take as long as the upstream's connect time-out.
            status, checks = await self._workers[number].ask("readiness")
        except OSError:
            return Readiness("not_ready")
        return Readiness(status, checks)

    async def _count(self, number: int) -> None:
        worker = self._workers[number]
        counts = await worker.ask("metrics")
        if worker is self._workers[number]:
            self._counts[number] = counts

    async def _count_if_it_answers(self, number: int) -> None:
        with contextlib.suppress(OSError):
            async with asyncio.timeout(_ANSWERS_WITHIN_S):
                await self._count(number)

    async def _start_admin(self) -> None:
        admin = self._config.admin
        self.admin_url = await self._parts.enter_async_context(
            admin_port(
                admin.host,
                admin.port,
                readiness=self.readiness,
                metrics=self.metrics,
                metrics_type=METRICS_TYPE,
                report_fault=self.telemetry.fault,
            )
        )

    async def _start_workers(self) -> None:
        numbers = range(1, self._config.workers + 1)
        begun = await asyncio.gather(*map(self._begin, numbers), return_exceptions=True)
        for number, problem in zip(numbers, begun, strict=True):
            if problem is not None:
                raise ChildProcessError(f"worker {number} did not start: {problem}") from problem
        self._keepers = [asyncio.create_task(self._keep(number)) for number in numbers]

    async def _begin(self, number: int) -> None:
        config = self._config
        worker = self._workers[number] = await WorkerProcess.begin(self._module, (number, self._for_workers(config)))
        try:
            async with asyncio.timeout(_STARTS_WITHIN_S):
                await self._count(number)
        except TimeoutError as silence:
            worker.send_signal(signal.SIGKILL)
            raise ChildProcessError(f"no answer within {_STARTS_WITHIN_S:.0f} s") from silence
        if config is not self._config:
            await self._hand_over(number, self._config)  # they have changed while it started
        self.telemetry.event("worker_started", worker=number, pid=worker.pid)

    async def _keep(self, number: int) -> None:
        """Replace the worker of this number whenever it ends, for ever."""
        loop, deaths = asyncio.get_running_loop(), 0
        while True:
            began = loop.time()
            code = await self._end_of(number)
            deaths = 1 if loop.time() - began >= _STEADY_S else deaths + 1
            pause_s = pause_before_restart_s(deaths)
            self.telemetry.state.worker_ended()
            self.telemetry.event("worker_ended", level="error", worker=number, exit_code=code, restart_in_s=pause_s)
            await asyncio.sleep(pause_s)
            try:
                await self._begin(number)
            except OSError as problem:
                self.telemetry.event("worker_not_started", level="error", worker=number, problem=str(problem))

    async def _end_of(self, number: int) -> int:
        """Wait until it ends, and keep what it has counted."""
        minding = asyncio.create_task(self._mind(number))
        try:
            code = await self._workers[number].wait()
        finally:
            minding.cancel()
        self._ended_counts = telemetry_sum.lasting([self._ended_counts, self._counts.pop(number, [])])
        return code

    async def _mind(self, number: int) -> None:
        """End the worker when it has been silent for too long."""
        worker = self._workers[number]
        try:
            while True:
                await asyncio.sleep(self._silence_s / _ASKS_PER_SILENCE)
                async with asyncio.timeout(self._silence_s):
                    await self._count(number)
        except TimeoutError:
            worker.send_signal(signal.SIGKILL)
            self.telemetry.event("worker_silent", level="error", worker=number, pid=worker.pid)
        except ConnectionError:
            worker.send_signal(signal.SIGKILL)  # it has ended, or it will not get far without us

    async def _stop_workers(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        drain = self._config.drain
        patience_s = drain.delay_s + drain.requests_s + _LETS_GO_WITHIN_S
        await asyncio.gather(*[_stop(worker, self._stop_signal, patience_s) for worker in self._workers.values()])


def pause_before_restart_s(deaths: int) -> float:
    """Return how long to wait after so many ends in a row, none of them after a steady life. The first is free."""
    return 0.0 if deaths <= 1 else min(2.0 ** min(deaths - 2, _MAX_DOUBLINGS), _MAX_PAUSE_S)


async def _stop(worker: WorkerProcess, by: signal.Signals, patience_s: float) -> None:
    worker.send_signal(by)
    try:
        async with asyncio.timeout(patience_s):
            await worker.wait()
    except TimeoutError:
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
