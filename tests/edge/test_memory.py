"""The number of clients respects the memory that the system lets us have."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.edge.memory import max_connections

MIB = 1024 * 1024


def limited(directory: Path, own: str, limits: dict[str, str]) -> tuple[Path, Path]:
    """Lay out a tree of cgroups, and what the system says of ours."""
    groups = directory / "cgroup"
    for group, limit in limits.items():
        (groups / group).mkdir(parents=True, exist_ok=True)
        (groups / group / "memory.max").write_text(limit + "\n")
    (directory / "own").write_text(own)
    return groups, directory / "own"


@pytest.mark.parametrize(
    ("has_tls", "processes", "expected"), [(True, 1, 4096), (True, 4, 1024), (False, 1, 16_384), (False, 100_000, 1)]
)
def test_half_of_the_memory_is_for_clients(tmp_path: Path, has_tls: bool, processes: int, expected: int) -> None:
    groups, own = limited(tmp_path, "0::/\n", {".": str(512 * MIB)})
    assert max_connections(has_tls=has_tls, processes=processes, groups=groups, own=own) == expected


def test_the_least_of_all_groups_that_we_are_in_bounds_us(tmp_path: Path) -> None:
    limits = {"a": str(256 * MIB), "a/b": "max", "a/b/c": str(512 * MIB), "other": "1"}
    groups, own = limited(tmp_path, "1:name=systemd:/other\n0::/a/b/c\n", limits)
    assert max_connections(has_tls=True, processes=1, groups=groups, own=own) == 2048


@pytest.mark.parametrize(("own", "limits"), [("0::/\n", {".": "max"}), ("0::/\n", {}), ("4:memory:/x\n", {"x": "1"})])
def test_where_there_is_no_limit_memory_bounds_nothing(tmp_path: Path, own: str, limits: dict[str, str]) -> None:
    groups, said = limited(tmp_path, own, limits)
    assert max_connections(has_tls=True, processes=1, groups=groups, own=said) is None
    assert max_connections(has_tls=True, processes=1, groups=groups, own=tmp_path / "nowhere") is None
