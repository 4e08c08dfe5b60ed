"""Whatever is done to the file of the audit is found, as far as it can be."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model import IdentityKey
from sidecar.policy.audit import Chain, Scribe, digest
from sidecar.policy.audit_keys import proving
from sidecar.policy.audit_proof import Proof

KEY = IdentityKey("k1", "ed25519", bytes(range(32)))
OTHER = IdentityKey("k1", "ed25519", bytes(32))
KEYS = proving([KEY])


class Writers:
    """Several processes that write to one file in turn."""

    def __init__(self, key: IdentityKey = KEY) -> None:
        self.scribe = Scribe(key)
        self.chains: dict[str, Chain] = {}
        self.data = b""
        self.last: str | None = None
        self.second = 0

    def add(self, name: str, kind: str = "write", **members: Any) -> Writers:
        self.second += 1
        at = f"2026-11-23T12:{self.second // 60:02}:{self.second % 60:02}.000Z"
        record = {"time": at, "kind": kind, **members}
        data, chain = self.scribe.write(self.chains.get(name, Chain(name)), self.last, [record])
        self.data += data
        self.chains[name], self.last = chain, chain.hash
        return self

    @property
    def lines(self) -> list[bytes]:
        return self.data.splitlines(keepends=True)


def whole() -> Writers:
    """Two processes, one of which ends, and a third that begins later."""
    file = Writers()
    for name, kind in (
        *(("a", "start"), ("a", "write"), ("b", "start"), ("b", "refusal"), ("a", "refusal"), ("a", "checkpoint")),
        *(("b", "write"), ("b", "write"), ("b", "end"), ("c", "start"), ("a", "write"), ("c", "end"), ("a", "end")),
    ):
        file.add(name, kind, process="serve", pid=7, worker=1)
    return file


WHOLE = whole()


def proof_of(*files: Iterable[bytes]) -> Proof:
    proof = Proof(KEYS)
    for number, lines in enumerate(files):
        proof.read(f"file {number}", lines)
    proof.finish()
    return proof


def problems(*files: Iterable[bytes]) -> list[str]:
    return [found.what for found in proof_of(*files).problems]


def notes(*files: Iterable[bytes]) -> list[str]:
    return [found.what for found in proof_of(*files).notes]


def test_what_nobody_touched_is_whole_and_proven_to_the_end() -> None:
    proof = proof_of(WHOLE.lines)
    assert (proof.problems, proof.notes) == ([], [])
    (file,) = proof.files
    assert (file.lines, file.proven, file.last_checkpoint) == (13, 13, "2026-11-23T12:00:13.000Z")
    assert file.kinds == {"start": 3, "write": 4, "refusal": 2, "checkpoint": 1, "end": 3}
    chains = {one.chain: (one.process, one.pid, one.worker, one.records, one.status) for one in proof.chains.values()}
    assert chains == {
        "a": ("serve", 7, 1, 6, "ended"),
        "b": ("serve", 7, 1, 5, "ended"),
        "c": ("serve", 7, 1, 2, "ended"),
    }


@given(st.integers(0, len(WHOLE.data) - 1), st.integers(1, 255))
def test_any_byte_that_is_changed_is_found(position: int, change: int) -> None:
    data = bytearray(WHOLE.data)
    data[position] ^= change
    assert problems(bytes(data).splitlines(keepends=True))


@given(st.integers(0, len(WHOLE.lines) - 2), st.integers(1, 4))
def test_any_lines_that_are_removed_are_found_unless_nothing_follows_them(first: int, count: int) -> None:
    lines = WHOLE.lines[:]
    del lines[first : min(first + count, len(lines) - 1)]
    assert problems(lines)


@given(st.integers(0, len(WHOLE.lines) - 1), st.integers(0, len(WHOLE.lines) - 1))
def test_any_lines_that_are_swapped_are_found(one: int, two: int) -> None:
    lines = WHOLE.lines[:]
    lines[one], lines[two] = lines[two], lines[one]
    assert bool(problems(lines)) == (one != two)


@given(st.integers(0, len(WHOLE.lines) - 1), st.integers(0, len(WHOLE.lines)))
def test_any_line_that_is_doubled_is_found(one: int, where: int) -> None:
    lines = WHOLE.lines[:]
    lines.insert(where, lines[one])
    assert problems(lines)


@given(st.integers(0, len(WHOLE.lines)), st.sampled_from(["a", "b", "x"]), st.sampled_from(["write", "start", "end"]))
def test_any_line_that_is_put_in_is_found(where: int, name: str, kind: str) -> None:
    forger = Writers(OTHER)
    forger.data = b"".join(WHOLE.lines[:where])
    forger.add(name, kind)
    assert problems([*forger.lines, *WHOLE.lines[where:]])


@given(st.integers(1, len(WHOLE.lines) - 1))
def test_what_is_cut_off_is_told_as_unproven_or_open_or_not_at_all_to_be_known(left: int) -> None:
    """A file that ends with a signature might have been left so: then only a chain without its end tells."""
    proof = proof_of(WHOLE.lines[:left])
    assert not proof.problems
    assert [one.what for one in proof.notes if one.what == "open"]
    ends_signed = json.loads(WHOLE.lines[left - 1])["kind"] in ("start", "checkpoint", "end")
    assert ("unproven" in [one.what for one in proof.notes]) != ends_signed


@given(st.integers(1, len(WHOLE.data) - 1))
def test_a_file_that_is_cut_off_within_a_line_is_no_whole_file(left: int) -> None:
    data = WHOLE.data[:left]
    assert ("unreadable" in problems(data.splitlines(keepends=True))) != data.endswith(b"\n")


def test_records_made_anew_by_who_has_not_the_key_are_found_at_the_next_signature() -> None:
    forger = Writers(OTHER)
    for line in WHOLE.lines:
        record = json.loads(line)
        forger.add(record["chain"], record["kind"])
    assert problems(forger.lines) == ["bad_signature"] * 7


def test_so_they_are_when_all_signatures_are_left_out_for_nobody_goes_so_long_without() -> None:
    forger = Writers().add("a", "start")
    forger.second = 100
    forger.add("a")
    assert problems(forger.lines) == []
    forger.second = 200
    forger.add("a")
    assert problems(forger.lines) == ["overdue"]


def test_a_removed_chain_is_missed_by_the_line_after_it() -> None:
    lines = [line for line in WHOLE.lines if json.loads(line)["chain"] != "b"]
    assert "broken_link" in problems(lines)


def test_missing_records_are_numbered() -> None:
    (message,) = [
        found.message
        for found in proof_of([*WHOLE.lines[:6], *WHOLE.lines[8:]]).problems
        if found.what == "broken_chain"
    ]
    assert message == "chain b: records 3 to 4 are missing"


def test_a_key_that_is_not_known_proves_nothing() -> None:
    proof = Proof({})
    proof.read("file", WHOLE.lines)
    assert {found.what for found in proof.problems} == {"unknown_key"}
    assert proof.files[0].proven == 0
    assert proof.notes[0].message == "13 lines since its beginning are not covered by a signature"


@pytest.mark.parametrize("cut", [1, 2])
def test_a_file_without_its_beginning_says_so(cut: int) -> None:
    assert problems(WHOLE.lines[cut:])[:2] == ["lines_missing", "records_missing"]


def test_an_empty_file_shows_nothing() -> None:
    assert problems([]) == ["empty"]


def test_a_chain_does_not_go_on_after_its_end() -> None:
    file = Writers().add("a", "start").add("a", "end").add("a")
    assert problems(file.lines) == ["after_end"]


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"[]\n",
        b"{}\n",
        b'{"chain":"a","seq":true,"prev":null,"time":"2026-11-23T12:00:00Z","kind":"start"}\n',
        b'{"chain":"a","seq":1,"time":"2026-11-23T12:00:00Z","kind":"start"}\n',
        b'{"chain":"a","seq":1,"prev":"abc","time":"2026-11-23T12:00:00Z","kind":"start"}\n',
        b'{"chain":"a","seq":1,"prev":null,"time":"noon","kind":"start"}\n',
        b'{"chain":"a","seq":1,"prev":null,"time":"2026-11-23T12:00:00","kind":"start"}\n',
    ],
)
def test_what_is_no_record_is_told_as_such(line: bytes) -> None:
    assert problems([line, line]) == ["unreadable", "unreadable"]


@pytest.mark.parametrize("tail", [b'"}', b'!"}', b'QUJD"}', b'QUJD"]'])
def test_a_signature_that_is_none_is_a_bad_one(tail: bytes) -> None:
    (line,) = Writers().add("a", "start").lines
    head, mark, _ = line.rpartition(b',"signature":"')
    assert problems([head + mark + tail.replace(b"]", b"}") + b"\n"]) == ["bad_signature"]
    unsigned = json.dumps({**json.loads(head + b"}"), "signature": 1}).encode() + b"\n"
    assert problems([unsigned]) == ["bad_signature"]


def test_a_line_that_a_crash_has_torn_is_no_fault_when_who_came_next_has_seen_it() -> None:
    file = Writers().add("a", "start")
    torn = b'{"chain":"a","seq":2,"pre'
    lines, _ = Scribe(KEY).write(Chain("b"), digest(torn), [{"time": "2026-11-23T12:00:09.000Z", "kind": "start"}])
    proof = proof_of([*file.lines, torn + b"\n", *lines.splitlines(keepends=True)])
    assert proof.problems == []
    assert [found.what for found in proof.notes] == ["unreadable", "open", "open"]
    assert problems([*file.lines, b"x" + torn + b"\n", *lines.splitlines(keepends=True)]) == [
        "unreadable",
        "broken_link",
    ]


def rotated(**continues: Any) -> tuple[list[bytes], list[bytes]]:
    old = Writers().add("a", "start").add("a").add("a")
    chain = old.chains["a"]
    new = Writers()
    new.second = 10
    new.add("b", "start", continues={"chain": "a", "seq": chain.seq, "hash": chain.hash, **continues}).add("b", "end")
    return old.lines, new.lines


def test_a_chain_that_goes_on_in_another_file_is_told_so_and_with_both_at_hand_is_whole() -> None:
    old, new = rotated()
    assert (problems(new), notes(new)) == ([], ["continues"])
    proof = proof_of(old, new)
    assert (proof.problems, proof.chains["a"].status) == ([], "continued")
    assert [found.what for found in proof.notes] == ["unproven"]


def test_a_file_that_is_left_out_or_was_emptied_is_missed_by_any_file_but_the_first() -> None:
    _, new = rotated()
    other = Writers().add("c", "start").add("c", "end").lines
    assert problems(other, new) == ["records_missing"]
    assert problems(new, other) == []
    assert (proof_of(new).goes_on, proof_of(other).goes_on, proof_of(other, new).goes_on) == (True, False, False)


def test_an_old_file_that_lost_its_end_is_found_with_the_new_one() -> None:
    old, new = rotated()
    assert problems(old[:-1], new) == ["records_missing"]
    old, new = rotated(hash="0" * 64)
    assert problems(old, new) == ["records_missing"]


def test_a_chain_that_ended_before_another_went_on_is_ended() -> None:
    old = Writers().add("a", "start").add("a", "end")
    chain = old.chains["a"]
    new = Writers().add("b", "start", continues={"chain": "a", "seq": chain.seq, "hash": chain.hash})
    assert proof_of(old.lines, new.lines).chains["a"].status == "ended"


_ANY_RECORD = st.fixed_dictionaries(
    {
        "chain": st.sampled_from(["a", "b"]),
        "seq": st.integers(-1, 3),
        "prev": st.sampled_from([None, "0" * 64]),
        "time": st.sampled_from(["2026-11-23T12:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"]),
        "kind": st.sampled_from(["start", "checkpoint", "end", "write"]),
    },
    optional={
        "follows": st.sampled_from([None, "0" * 64]),
        "continues": st.sampled_from([None, 1, {}, {"chain": ["a"], "seq": "1", "hash": 1}, {"chain": "a"}]),
        "keyid": st.sampled_from(["k1", None, 1]),
        "pid": st.sampled_from([1, "1", None]),
        "signature": st.text(max_size=4),
    },
)


@given(st.lists(st.binary(max_size=40) | _ANY_RECORD.map(lambda record: json.dumps(record).encode()), max_size=6))
def test_any_lines_are_read_to_the_end_and_none_but_whole_ones_pass(lines: list[bytes]) -> None:
    proof = proof_of([line + b"\n" for line in lines])
    assert proof.problems, "nothing here was signed"
    assert proof.files[0].proven == 0
