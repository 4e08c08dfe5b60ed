"""When are changed settings read, and what becomes of those that can't take effect?"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli.settings import SettingsFiles
from sidecar.config import Config, ConfigError, Problem, defaults
from sidecar.edge.telemetry import Telemetry
from sidecar.reloading import Contents, Reloading

PATIENCE_S = 10.0


class Service:
    """Goes by settings, and notes which."""

    def __init__(self, config: Config) -> None:
        self.log = io.BytesIO()
        self.telemetry = Telemetry(self.log, level="info", access=True)
        self.config = config
        self.fault: Exception | None = None

    async def reload(self, config: Config) -> None:
        if self.fault is not None:
            raise self.fault
        self.config = config

    def events(self, name: str) -> list[dict[str, Any]]:
        return [record for record in map(json.loads, self.log.getvalue().splitlines()) if record["event"] == name]


class Script:
    """Settings whose files hold, at each look, what the test says; when it has no more to say, it is over."""

    def __init__(self, *looks: bytes) -> None:
        self.contents: Contents = {"config.yaml": b"first"}
        self.loads = 0
        self.over = asyncio.Event()
        self._looks = list(looks)
        self._loop = asyncio.get_running_loop()

    def look(self) -> Contents:
        if not self._looks:
            self._loop.call_soon_threadsafe(self.over.set)
            return self.contents
        self._last = {"config.yaml": self._looks.pop(0)}
        return self._last

    def load(self) -> tuple[Config, tuple[str, ...]]:
        self.loads += 1
        self.contents = self._last
        return defaults(), ()


@contextlib.asynccontextmanager
async def watching(reloading: Reloading) -> AsyncIterator[None]:
    task = asyncio.create_task(reloading.watch())
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def loads(*looks: bytes) -> int:
    script = Script(*looks)
    async with watching(Reloading(script, Service(defaults()), look_s=0.0)):
        await script.over.wait()
    return script.loads


async def test_what_has_not_changed_is_not_read_again() -> None:
    assert await loads(b"first", b"first", b"first") == 0


async def test_a_file_that_somebody_is_still_writing_is_left_alone() -> None:
    assert await loads(b"half", b"more", b"whole") == 0
    assert await loads(b"half", b"whole", b"whole", b"whole") == 1


async def test_each_change_is_read_once() -> None:
    assert await loads(b"second", b"second", b"second", b"first", b"first", b"first") == 2


class Bed:
    """A real file with real settings, and what goes by them."""

    def __init__(self, path: Path, look_s: float) -> None:
        self.path = path
        self.files = SettingsFiles(argparse.Namespace(config=str(path)))
        config, _ = self.files.load()
        self.service = Service(config)
        self.reloading = Reloading(self.files, self.service, look_s=look_s)

    async def until(self, holds: Callable[[], object]) -> None:
        while not holds():  # noqa: ASYNC110 - the log can only be asked
            await asyncio.sleep(0.005)

    def reloads(self, outcome: str) -> float:
        return (
            self.service.telemetry.registry.get_sample_value("sidecar_config_reloads_total", {"outcome": outcome})
            or 0.0
        )


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    path = tmp_path / "config.yaml"
    path.write_text("max_body_bytes: 1\n")
    return Bed(path, look_s=0.01)


async def test_a_change_takes_effect_and_is_told_of_with_what_has_to_wait(bed: Bed) -> None:
    async with watching(bed.reloading):
        bed.path.write_text("max_body_bytes: 2\nlisten: {port: 7}\n")
        await bed.until(lambda: bed.service.events("reloaded"))
    [told] = bed.service.events("reloaded")
    assert (told["level"], told["changed"], told["needs_restart"]) == ("warning", ["max_body_bytes"], ["listen.port"])
    assert (bed.service.config.max_body_bytes, bed.service.config.listen.port) == (2, 8080)
    assert bed.reloads("success") == 1


async def test_what_can_not_be_is_refused_with_key_and_line_once_and_the_old_goes_on(bed: Bed) -> None:
    async with watching(bed.reloading):
        bed.path.write_text("max_body_bytes: 3\nlimits: {local_share: 9}\nunheard_of: 1\n")
        await bed.until(lambda: len(bed.service.events("reload_refused")) == 2)
        assert bed.service.config.max_body_bytes == 1
        bed.path.write_text("max_body_bytes: 4\n")
        await bed.until(lambda: bed.service.events("reloaded"))
    told = bed.service.events("reload_refused")
    assert [(one["level"], one["key"], one["line"]) for one in told] == [
        ("error", "limits.local_share", 2),
        ("error", "unheard_of", 3),
    ]
    assert bed.service.config.max_body_bytes == 4
    assert (bed.reloads("failure"), bed.reloads("success")) == (1, 1)


@pytest.mark.parametrize("emptied", ["", "\n\n", "# all of it is a remark\n"])
async def test_a_file_that_holds_nothing_any_more_is_no_wish_for_the_built_in_settings(bed: Bed, emptied: str) -> None:
    async with watching(bed.reloading):
        bed.path.write_text(emptied)
        await bed.until(lambda: bed.service.events("reload_refused"))
        assert bed.service.config.max_body_bytes == 1
        bed.path.write_text("max_body_bytes: 5\n")
        await bed.until(lambda: bed.service.config.max_body_bytes == 5)


def test_the_file_of_the_working_directory_is_missed_when_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = SettingsFiles(argparse.Namespace(config=None))
    assert files.load()[1], "there is none yet, so the built-in settings hold"
    Path("config.yaml").write_text("max_body_bytes: 2\n")
    assert files.load()[0].max_body_bytes == 2
    Path("config.yaml").unlink()
    with pytest.raises(ConfigError, match="there is no such file"):
        files.load()


async def test_neither_a_pipe_nor_an_endless_file_in_its_place_is_waited_for(bed: Bed) -> None:
    async with watching(bed.reloading):
        bed.path.unlink()
        os.mkfifo(bed.path)
        bed.reloading.ask()
        await bed.until(lambda: bed.service.events("reload_refused"))
        bed.path.unlink()
        with bed.path.open("wb") as sparse:
            sparse.truncate(1 << 40)
        bed.reloading.ask()
        await bed.until(lambda: len(bed.service.events("reload_refused")) >= 2)
        assert bed.service.config.max_body_bytes == 1
        bed.path.write_text("max_body_bytes: 5\n")
        await bed.until(lambda: bed.service.config.max_body_bytes == 5)


async def test_a_file_that_is_gone_for_a_while_changes_nothing(bed: Bed) -> None:
    async with watching(bed.reloading):
        bed.path.unlink()
        await bed.until(lambda: bed.service.events("reload_refused"))
        assert bed.service.config.max_body_bytes == 1
        bed.path.write_text("max_body_bytes: 5\n")
        await bed.until(lambda: bed.service.config.max_body_bytes == 5)


async def test_a_swapped_volume_is_noticed_though_no_file_was_written(tmp_path: Path) -> None:
    """A ConfigMap volume: the file is a link into `..data`, which is a link to a directory that is replaced."""
    for number in (1, 2):
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "config.yaml").write_text(f"max_body_bytes: {number}\n")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "config.yaml").symlink_to("..data/config.yaml")
    bed = Bed(tmp_path / "config.yaml", look_s=0.01)
    async with watching(bed.reloading):
        (tmp_path / "..data_tmp").symlink_to("..2")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        await bed.until(lambda: bed.service.config.max_body_bytes == 2)


async def test_files_that_settings_name_are_looked_after_too(tmp_path: Path) -> None:
    secret = tmp_path / "issuer.secret"
    secret.write_bytes(b"1" * 32)
    issuer = {"issuer": "https://idp.example", "audiences": ["a"], "secret_file": str(secret), "algorithms": ["HS256"]}
    (tmp_path / "config.yaml").write_text(json.dumps({"jwt": {"issuers": [issuer]}}))
    bed = Bed(tmp_path / "config.yaml", look_s=0.01)
    async with watching(bed.reloading):
        secret.write_bytes(b"2" * 32)
        await bed.until(lambda: bed.service.config.jwt.issuers[0].secret == b"2" * 32)
    assert bed.service.events("reloaded")[0]["changed"] == ["jwt.issuers"]


async def test_who_asks_has_the_settings_read_without_a_change(bed: Bed) -> None:
    reloading = Reloading(bed.files, bed.service, look_s=PATIENCE_S)
    async with watching(reloading):
        bed.service.config = replace(bed.service.config, max_body_bytes=9)
        reloading.ask()
        await bed.until(lambda: bed.service.events("reloaded"))
    assert bed.service.config.max_body_bytes == 1


async def test_a_fault_is_told_by_its_place_and_does_not_end_the_watch(bed: Bed) -> None:
    bed.service.fault = KeyError("a secret")
    async with watching(bed.reloading):
        bed.path.write_text("max_body_bytes: 6\n")
        await bed.until(lambda: bed.service.events("reload_refused"))
        bed.service.fault = OSError("the key can't be read")
        bed.reloading.ask()
        await bed.until(lambda: len(bed.service.events("reload_refused")) == 2)
        bed.service.fault = None
        bed.reloading.ask()
        await bed.until(lambda: bed.service.config.max_body_bytes == 6)
    first, second = (one["problem"] for one in bed.service.events("reload_refused"))
    assert first.startswith("KeyError at reload:")
    assert second == "the key can't be read"


async def test_every_problem_is_an_event_of_its_own() -> None:
    class Bad(Script):
        def load(self) -> tuple[Config, tuple[str, ...]]:
            self.contents = self._last
            raise ConfigError((Problem("a", 1, "is bad"), Problem("", None, "is worse")))

    service, script = Service(defaults()), Bad(b"second", b"second")
    async with watching(Reloading(script, service, look_s=0.0)):
        await script.over.wait()
    told = [(one["key"], one["line"], one["problem"]) for one in service.events("reload_refused")]
    assert told == [("a", 1, "is bad"), ("", None, "is worse")]


def test_a_pipe_is_read_once_and_not_looked_at(tmp_path: Path) -> None:
    config, pipe = tmp_path / "config.yaml", tmp_path / "pipe"
    os.mkfifo(pipe)
    config.write_text("max_body_bytes: 1\n")
    files = SettingsFiles(argparse.Namespace(config=str(config)))
    files.load()
    files.contents = {**files.contents, str(pipe): b"once"}
    assert files.look() == files.contents
