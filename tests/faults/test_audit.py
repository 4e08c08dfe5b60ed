"""The audit of a real process: ended, killed, its file rotated, its disk full, its workers several."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sidecar.cli import main
from sidecar.edge.audit_file import lines_of
from tests.e2e.bed import JWT_ROUTE, tool_call
from tests.faults.conftest import Serve
from tests.service import Service, until

Record = dict[str, Any]
NO_CATALOGUE = {"trust_annotations": False}
"""Nothing is recorded but what the test asks for."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


def records(path: Path) -> list[Record]:
    return [json.loads(line) for line in lines_of(str(path))]


def kinds(path: Path) -> list[str]:
    return [record["kind"] for record in records(path)]


async def put(service: Service, **arguments: Any) -> httpx.Response:
    """Ask for a write, on a connection of its own, so that any of the workers may get it."""
    headers = service.credentials | {"Connection": "close"}
    return await service.client.post(JWT_ROUTE, json=tool_call("put", **arguments), headers=headers)


async def look(service: Service) -> httpx.Response:
    return await service.client.post(JWT_ROUTE, json=tool_call("look"), headers=service.credentials)


def is_recorded(path: Path, kind: str, times: int) -> bool:
    return path.exists() and kinds(path).count(kind) == times


def without_line(path: Path, number: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[: number - 1], *lines[number:]]))


async def until_recorded(path: Path, kind: str, times: int) -> None:
    async def are_there() -> bool:
        return is_recorded(path, kind, times)

    await until(are_there)


class Verified:
    """What `sidecar audit verify` says of files."""

    def __init__(self, capsys: pytest.CaptureFixture[str], directory: Path, *paths: Path) -> None:
        capsys.readouterr()
        arguments = ["audit", "verify", *map(str, paths), "--config", str(directory / "config.yaml"), "--json"]
        self.code = main(arguments)
        self.document: Record = json.loads(capsys.readouterr().out)

    @property
    def notes(self) -> list[str]:
        return [note["what"] for note in self.document["notes"]]

    @property
    def problems(self) -> list[str]:
        return [problem["what"] for problem in self.document["problems"]]


async def test_a_process_that_is_told_to_stop_records_all_and_proves_it(
    serve: Serve, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service = await serve(audit={"file": str(path)}, access=NO_CATALOGUE)
    for _ in range(20):
        assert (await put(service)).status_code == 200
    service.process.send_signal(signal.SIGTERM)
    assert await service.process.wait() == 0
    assert kinds(path) == ["start", *["write"] * 20, "end"]
    verified = Verified(capsys, tmp_path)
    assert (verified.code, verified.notes) == (0, [])


async def test_a_process_that_is_killed_loses_no_record_of_more_than_a_moment_and_the_next_goes_on_from_there(
    serve: Serve, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service = await serve(audit={"file": str(path)}, access=NO_CATALOGUE)
    for _ in range(20):
        await put(service)
    await until_recorded(path, "write", 20)
    service.process.kill()
    await service.process.wait()
    killed = Verified(capsys, tmp_path)
    assert (killed.code, killed.notes) == (0, ["unproven", "open"])
    assert killed.document["files"][0]["unproven"] == 20

    service = await serve(audit={"file": str(path)}, access=NO_CATALOGUE)
    await put(service)
    service.process.send_signal(signal.SIGTERM)
    await service.process.wait()
    both = Verified(capsys, tmp_path)
    assert (both.code, both.notes) == (0, ["open"])
    assert both.document["files"][0]["unproven"] == 0, "the next process has signed for what it found, too"
    assert [chain["status"] for chain in both.document["chains"]] == ["open", "ended"]
    without_line(path, 21)
    assert Verified(capsys, tmp_path).problems == ["broken_link"]


async def test_a_file_that_is_rotated_while_it_is_written_to_is_whole_on_both_sides(
    serve: Serve, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, service = path.with_suffix(".log.1"), await serve(audit={"file": str(path)}, access=NO_CATALOGUE)
    await put(service)
    await until_recorded(path, "write", 1)
    os.rename(path, old)
    await put(service)
    await until_recorded(path, "write", 1)
    service.process.send_signal(signal.SIGTERM)
    await service.process.wait()
    assert (kinds(old), kinds(path)) == (["start", "write", "end"], ["start", "write", "end"])
    both, alone = Verified(capsys, tmp_path, old, path), Verified(capsys, tmp_path)
    assert (both.code, both.notes) == (0, [])
    assert (alone.code, alone.notes) == (0, ["continues"])


async def test_a_rotated_file_that_is_left_out_and_one_that_was_emptied_are_missed(
    serve: Serve, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service, old = await serve(audit={"file": str(path)}), [path.with_suffix(f".{number}") for number in (1, 2, 3)]
    for moved in old:
        await put(service)
        await until_recorded(path, "write", 1)
        os.rename(path, moved)
    await put(service)
    await until_recorded(path, "write", 1)
    whole = Verified(capsys, tmp_path, *old, path)
    assert (whole.code, whole.problems, "continues" in whole.notes) == (0, [], False)
    without = Verified(capsys, tmp_path, old[0], old[2], path)
    assert (without.code, without.problems) == (1, ["records_missing"])

    os.truncate(path, 0)
    await put(service)
    await until_recorded(path, "write", 1)
    emptied = Verified(capsys, tmp_path, *old, path)
    assert (emptied.code, emptied.problems) == (1, ["records_missing"])
    assert Verified(capsys, tmp_path).notes == ["continues", "unproven", "open"]
    main(["audit", "verify", "--config", str(tmp_path / "config.yaml")])
    told = capsys.readouterr().out
    assert "Nothing is missing" not in told
    assert "goes on from records that are not" in told


@contextlib.asynccontextmanager
async def full_disk(service: Service, path: Path) -> AsyncIterator[None]:
    """Let no file of the process grow beyond what this one is now."""
    before = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (os.stat(path).st_size, before[1]))
    yield
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, before)


async def test_while_the_disk_is_full_records_wait_and_it_is_told_and_none_is_lost(
    serve: Serve, path: Path, tmp_path: Path, redis_settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    service = await serve(audit={"file": str(path)}, access=NO_CATALOGUE, **redis_settings)
    async with full_disk(service, path):
        for number in range(10):
            assert (await put(service, number=number)).status_code == 200
        told = await service.read("audit_failed")
        assert "File too large" in told["problem"]
        assert await service.readiness() == (200, "degraded")
        assert (await look(service)).status_code == 200
        assert await service.total("sidecar_audit_waiting") == 10
        assert await service.total("sidecar_audit_failures_total") >= 1
    await service.read("audit_recovered")
    assert await service.readiness() == (200, "ready")
    service.process.send_signal(signal.SIGTERM)
    await service.process.wait()
    assert kinds(path) == ["start", *["write"] * 10, "end"]
    assert Verified(capsys, tmp_path).code == 0


async def test_several_workers_share_one_file_each_with_a_chain_of_its_own(
    serve: Serve, path: Path, tmp_path: Path, redis_settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    service = await serve(workers=2, audit={"file": str(path)}, access=NO_CATALOGUE, **redis_settings)
    for _ in range(40):
        assert (await put(service)).status_code == 200
    await until_recorded(path, "write", 40)
    assert await service.total("sidecar_audit_records_total") == 40
    service.process.send_signal(signal.SIGTERM)
    assert await service.process.wait() == 0
    verified = Verified(capsys, tmp_path)
    assert (verified.code, verified.notes) == (0, [])
    assert {chain["worker"] for chain in verified.document["chains"]} == {1, 2}
    assert sum(chain["records"] for chain in verified.document["chains"]) == 44


async def test_a_storm_of_strangers_neither_fills_the_disk_nor_keeps_others_out(serve: Serve, path: Path) -> None:
    service = await serve(audit={"file": str(path)}, access=NO_CATALOGUE)

    async def guess(number: int) -> None:
        async with httpx.AsyncClient(base_url=service.client.base_url, trust_env=False) as stranger:
            for guessed in range(100):
                key = f"mcp_{number:023d}{guessed:023d}"
                refused = await stranger.post("/mcp/inspector", json=tool_call("put"), headers={"X-API-Key": key})
                assert refused.status_code in (401, 429)

    await asyncio.gather(*(guess(number) for number in range(20)))
    assert (await put(service)).status_code == 200
    service.process.send_signal(signal.SIGTERM)
    await service.process.wait()
    assert kinds(path).count("write") == 1
    dropped = sum(record["count"] for record in records(path) if record["kind"] == "dropped")
    assert dropped + kinds(path).count("refusal") == 2000
    assert dropped > 0


async def test_a_file_in_a_directory_that_is_not_there_prevents_the_start_with_a_clear_word(
    serve: Serve, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=r"audit\.file: .*No such file"):
        await serve(audit={"file": str(tmp_path / "nowhere" / "audit.log")})
