"""When do changed settings take effect? When a file of theirs has changed, or on SIGHUP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

from sidecar.config import Config, ConfigError, changed, settled, warnings
from sidecar.edge.telemetry import Telemetry
from sidecar.faults import place_of

LOOK_S: Final = 1.0
"""How often the files are looked at. They are read when two looks in a row find the same in them, so that none is
taken that somebody is still writing."""

Contents = Mapping[str, bytes | None]
"""A digest of each file by its path; None where there is nothing to be read."""


class Settings(Protocol):
    """Where settings come from."""

    @property
    def contents(self) -> Contents:
        """What was in each file that they came from, when they were last read."""
        ...

    def look(self) -> Contents:
        """Return what is in these files now."""
        ...

    def load(self) -> tuple[Config, tuple[str, ...]]:
        """Read them, and return them, with a warning when they are only the built-in ones.

        Raises:
            ConfigError: naming every problem.
        """
        ...


class Reloadable(Protocol):
    """What goes by settings, and can go by others."""

    telemetry: Telemetry

    @property
    def config(self) -> Config:
        """The settings that hold now."""
        ...

    async def reload(self, config: Config) -> None:
        """Go by these from now on, or raise OSError or ValueError and let the old ones hold."""
        ...


class Reloading:
    """Has changed settings take effect. Those that can't are told of, and the old ones go on."""

    def __init__(self, settings: Settings, service: Reloadable, *, look_s: float = LOOK_S) -> None:
        self._settings = settings
        self._service = service
        self._look_s = look_s
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Have the settings read now, whether or not a file has changed."""
        self._asked.set()

    async def watch(self) -> None:
        """Look after the files for as long as this runs."""
        seen = self._settings.contents
        while True:
            asked = await self._is_asked()
            before, seen = seen, await asyncio.to_thread(self._settings.look)
            if asked or (seen == before and seen != self._settings.contents):
                await self._reload()
                seen = self._settings.contents

    async def _is_asked(self) -> bool:
        """Wait until the next look; tell whether somebody asks for more than that."""
        try:
            async with asyncio.timeout(self._look_s):
                await self._asked.wait()
        except TimeoutError:
            return False
        self._asked.clear()
        return True

    async def _reload(self) -> None:
        telemetry, running = self._service.telemetry, self._service.config
        try:
            wanted, missing = await asyncio.to_thread(self._settings.load)
            possible, waiting = settled(running, wanted)
            await self._service.reload(possible)
        except Exception as fault:  # a watch that stops would never again take a change
            self._refuse(fault)
            return
        for warning in (*missing, *warnings(wanted)):
            telemetry.event("config_warning", level="warning", problem=warning)
        level = "warning" if waiting else "info"
        telemetry.event("reloaded", level=level, changed=[*changed(running, possible)], needs_restart=[*waiting])
        telemetry.reloaded(True)

    def _refuse(self, fault: Exception) -> None:
        telemetry = self._service.telemetry
        telemetry.reloaded(False)
        if isinstance(fault, ConfigError):
            for problem in fault.problems:
                where = {"key": problem.key, "line": problem.line}
                telemetry.event("reload_refused", level="error", **where, problem=problem.message)
        else:
            told = str(fault) if isinstance(fault, OSError | ValueError) else place_of(fault)
            telemetry.event("reload_refused", level="error", problem=told)
