"""Runs what serves until the process is told to stop."""

from __future__ import annotations

import asyncio
import gc
import signal
from typing import Any, Final, Protocol

import uvloop

from sidecar.app import Sidecar
from sidecar.config import Config
from sidecar.denials import StoreUnavailable
from sidecar.edge.http.listener import request_parser
from sidecar.edge.telemetry import Telemetry
from sidecar.reloading import Reloading, Settings
from sidecar.workers import Supervisor

_NEW_OBJECTS: Final = 20_000
"""So many more than were freed make the garbage collector look."""


def serve(config: Config, settings: Settings, *, config_warnings: tuple[str, ...] = ()) -> int:
    """Run until SIGTERM or SIGINT; return the exit code. `settings` is where `config` comes from, and its changes."""
    return uvloop.run(_serve(config, settings, config_warnings))


class Service(Protocol):
    """What runs until it is told to stop: one process, or the supervisor of several."""

    telemetry: Telemetry

    async def start(self) -> None: ...

    async def stop(self, *, delayed: bool) -> None: ...


async def run(service: Service, stop: asyncio.Event, reloading: Reloading | None = None) -> int:
    """Run until the event, SIGTERM or SIGINT; return the exit code.

    SIGTERM comes from an orchestrator, which has to tell others that nothing more is to be sent here; SIGINT from
    somebody who waits at a terminal. SIGHUP has the settings read again; without `reloading` it does nothing.
    """
    try:
        return await _run(service, stop, reloading)
    finally:
        service.telemetry.finish()


async def _run(service: Service, stop: asyncio.Event, reloading: Reloading | None) -> int:
    received = _listen_to_signals(stop, reloading)
    _tell_of_faults(service)
    try:
        parser = request_parser()
        if parser != "llhttp":
            service.telemetry.event("slow_parser", level="warning", problem=f"requests are parsed by {parser}")
        await service.start()
    except (OSError, ValueError, StoreUnavailable) as problem:
        detail = problem.detail if isinstance(problem, StoreUnavailable) else str(problem)
        service.telemetry.event("start_failed", level="error", problem=detail)
        return 1
    _look_for_garbage_seldom()
    watching = None if reloading is None else asyncio.create_task(reloading.watch())
    await stop.wait()
    if watching is not None:
        watching.cancel()
        await asyncio.wait((watching,))
    await service.stop(delayed=received[:1] == [signal.SIGTERM])
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the event loop's end would have it end us
    return 0


def _listen_to_signals(stop: asyncio.Event, reloading: Reloading | None) -> list[signal.Signals]:
    """Have signals do what they are for; return where those that end us are noted, in their order."""
    loop, received = asyncio.get_running_loop(), list[signal.Signals]()

    def end(by: signal.Signals) -> None:
        received.append(by)
        stop.set()

    def reload() -> None:
        if reloading is not None:
            reloading.ask()

    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, end, signal_number)
    loop.add_signal_handler(signal.SIGHUP, reload)
    return received


def _tell_of_faults(service: Service) -> None:
    """Tell of what nobody awaited in our log, without its text; the event loop itself would print all of it."""

    def note(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        fault = context.get("exception")
        if fault is None:
            service.telemetry.event("fault", level="error", problem=context["message"])
        else:
            service.telemetry.fault(fault)

    asyncio.get_running_loop().set_exception_handler(note)


async def _serve(config: Config, settings: Settings, config_warnings: tuple[str, ...]) -> int:
    service = Sidecar(config) if config.workers == 1 else Supervisor(config)
    for warning in config_warnings:
        service.telemetry.event("config_warning", level="warning", problem=warning)
    return await run(service, asyncio.Event(), Reloading(settings, service))


def _look_for_garbage_seldom() -> None:
    """Have the collector leave alone what lives as long as the process, and look less often at the rest.

    Requests leave few cycles behind: reference counts free nearly all. Looking after each 700 new objects, as Python
    does by itself, costs 5 % of a request's time; after 20 000 they take a few megabytes at most.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)
