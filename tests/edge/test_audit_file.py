"""The file of the audit: shared, rotated, emptied, torn and full, and provable all the same."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import resource
import secrets
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.edge import audit_file
from sidecar.edge.audit_file import AuditFile, lines_of
from sidecar.model import IdentityKey
from sidecar.policy.audit import Scribe
from sidecar.policy.audit_keys import proving
from sidecar.policy.audit_proof import Proof

KEY = IdentityKey("k1", "ed25519", bytes(range(32)))


def opened(path: Path) -> AuditFile:
    file = AuditFile(
        str(path), Scribe(KEY), about={"process": "test"}, chain_id=lambda: secrets.token_hex(16), clock=lambda: 1.8e9
    )
    file.open()
    return file


def record(**members: Any) -> dict[str, Any]:
    return {"time": "2027-01-15T08:00:00Z", "kind": "write", **members}


def proof_of(*paths: Path) -> Proof:
    proof = Proof(proving([KEY]))
    for path in paths:
        proof.read(path.name, lines_of(str(path)))
    proof.finish()
    return proof


def kinds(path: Path) -> list[str]:
    return [json.loads(line)["kind"] for line in lines_of(str(path))]


def test_a_chain_begins_is_signed_and_ends_in_a_file_that_others_may_not_read(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    file = opened(path)
    file.append([record()])
    file.append([record()], checkpoint=True)
    file.sync()
    file.close([record()])
    assert kinds(path) == ["start", "write", "write", "checkpoint", "write", "end"]
    first = json.loads(path.read_bytes().splitlines()[0])
    assert (first["pid"], first["process"]) == (os.getpid(), "test")
    assert path.stat().st_mode & 0o777 == 0o600
    proof = proof_of(path)
    assert (proof.problems, proof.notes) == ([], [])


def test_what_is_there_stays_and_the_next_chain_is_bound_to_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    for _ in range(3):
        opened(path).close([record(text="x" * 70_000)])
    assert kinds(path) == ["start", "write", "end"] * 3
    assert proof_of(path).problems == []
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3] + lines[6:]))
    assert [found.what for found in proof_of(path).problems] == ["broken_link"]


def test_several_that_write_at_once_make_one_chain_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    def write(number: int) -> None:
        file = opened(path)
        for position in range(50):
            file.append([record(by=number, position=position)] * 2)
        file.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    proof = proof_of(path)
    assert (proof.problems, proof.notes) == ([], [])
    assert [chain.records for chain in proof.chains.values()] == [102] * 4


def test_a_file_that_is_moved_away_gets_its_end_and_another_one_goes_on(tmp_path: Path) -> None:
    path, old = tmp_path / "audit.log", tmp_path / "audit.log.1"
    file = opened(path)
    file.append([record()])
    path.rename(old)
    file.append([record()])
    file.close()
    assert kinds(old) == ["start", "write", "end"]
    assert kinds(path) == ["start", "write", "end"]
    proof = proof_of(old, path)
    assert (proof.problems, proof.notes) == ([], [])
    alone = proof_of(path)
    assert (alone.problems, [found.what for found in alone.notes]) == ([], ["continues"])


def test_a_compressed_file_is_read_too(tmp_path: Path) -> None:
    path, packed = tmp_path / "audit.log", tmp_path / "audit.log.1.gz"
    opened(path).close()
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert proof_of(packed).problems == []


def test_a_file_that_is_copied_and_emptied_begins_anew(tmp_path: Path) -> None:
    path, old = tmp_path / "audit.log", tmp_path / "audit.log.1"
    file = opened(path)
    file.append([record()], checkpoint=True)
    old.write_bytes(path.read_bytes())
    os.truncate(path, 0)
    file.append([record()])
    file.close()
    proof = proof_of(old, path)
    assert (proof.problems, proof.notes) == ([], [])


def test_lines_that_are_cut_off_below_a_running_process_are_missed(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    file = opened(path)
    file.append([record()])
    kept = path.stat().st_size
    file.append([record()])
    os.truncate(path, kept)
    file.close([record()])
    assert [found.what for found in proof_of(path).problems] == ["records_missing"]


def test_a_line_that_a_crash_has_torn_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    opened(path).close()
    with path.open("ab") as torn:
        torn.write(b'{"chain":"gone","seq":')
    opened(path).close([record()])
    proof = proof_of(path)
    assert (proof.problems, [found.what for found in proof.notes]) == ([], ["unreadable"])


@contextmanager
def small_files() -> Iterator[None]:
    """Let no file of this process grow beyond 2000 bytes, as a full disk would; pytest's own output is one, too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_does_not_fit_whole_is_taken_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    file = opened(path)
    before = path.read_bytes()
    with small_files(), pytest.raises(OSError, match="File too large"):
        file.append([record(text="x" * 3000)])
    assert path.read_bytes() == before
    file.append([record()])
    file.close()
    assert kinds(path) == ["start", "write", "end"]
    assert proof_of(path).problems == []


def test_a_file_that_can_not_be_made_again_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "there" / "audit.log"
    path.parent.mkdir()
    file = opened(path)
    path.parent.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        file.append([record()])
    path.parent.mkdir()
    file.append([record()])
    file.close()
    proof = proof_of(tmp_path / "away" / "audit.log", path)
    assert (proof.problems, proof.notes) == ([], [])


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "audit.log")
    with pytest.raises(OSError, match=r"directory|regular"):
        opened(tmp_path / "audit.log")


def test_a_lock_that_is_never_given_back_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_file, "_LOCK_WITHIN_S", 0.05)
    path = tmp_path / "audit.log"
    file = opened(path)
    with path.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            file.append([record()])
        fcntl.flock(holder, fcntl.LOCK_UN)
    file.close([record()])
    assert kinds(path) == ["start", "write", "end"]


def test_processes_that_are_killed_leave_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    program = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from tests.edge.test_audit_file import opened, record
        file = opened(Path({str(path)!r}))
        print("begun", flush=True)
        while True:
            file.append([record(text="x" * 5000)] * 20)
            time.sleep(0.001)  # others want to write, too
    """)
    root = Path(__file__).parent.parent.parent
    writers = [subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"begun\n"
        writer.stdout.close()
    for writer in writers:
        while path.stat().st_size < 500_000:
            pass
        writer.kill()
        writer.wait()
    opened(path).close()
    proof = proof_of(path)
    assert proof.problems == []
    assert [chain.status for chain in proof.chains.values()].count("ended") >= 1
