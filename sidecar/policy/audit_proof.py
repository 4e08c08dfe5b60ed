"""Are these audit records whole and unchanged, and which of them are proven to be?"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson

from sidecar.policy.audit import CONTEXT, END, SIGNATURE, SIGNED, START, digest
from sidecar.policy.audit_keys import Proves

OVERDUE_S: Final = 180.0
"""A process signs each minute. Records that reach so far beyond the last signature were not left by one."""

_HASH: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to be told about a file. Line 0 stands for the file as a whole."""

    file: str
    line: int
    what: str
    """A word out of a closed set."""
    message: str


@dataclass(slots=True)
class ChainFound:
    """What was found of the chain of one process."""

    chain: str
    process: str
    pid: int | None
    worker: int | None
    began: str
    last: str = ""
    records: int = 0
    status: str = "open"
    """*ended* by its process, *continued* in another file, or *open*: its process runs, or was killed."""
    seq: int = 0
    hash: str | None = None
    signed: str = ""
    """When it last signed."""
    file: str = ""
    line: int = 0


@dataclass(slots=True)
class FileFound:
    """What was found in one file."""

    file: str
    lines: int = 0
    proven: int = 0
    """So many lines are covered by a good signature at or after them."""
    last_checkpoint: str | None = None
    kinds: dict[str, int] = field(default_factory=dict)


class Proof:
    """Reads files, the oldest first, line by line, and tells in the end what holds.

    `keys` are those that may have signed, by id.
    """

    def __init__(self, keys: Mapping[str, Proves]) -> None:
        self._keys = keys
        self.files: list[FileFound] = []
        self.chains: dict[str, ChainFound] = {}
        self.problems: list[Finding] = []
        self.notes: list[Finding] = []
        self.goes_on = False
        """The first file goes on from one that is not here: records before it may be missing."""
        self._before: str | None = None
        self._unreadable: Finding | None = None

    def read(self, name: str, lines: Iterable[bytes]) -> None:
        """Read one file, its lines with their ends."""
        self.files.append(FileFound(name))
        self._before = None
        for line in lines:
            self._read_line(line)
        self._settle_unreadable(None)
        file = self._file
        if not file.lines:
            self._problem("empty", "the file holds no record, so it shows nothing")
        elif unproven := file.lines - file.proven:
            since = "its beginning" if file.last_checkpoint is None else f"the checkpoint of {file.last_checkpoint}"
            message = f"{unproven} lines since {since} are not covered by a signature"
            self.notes.append(Finding(name, file.proven + 1, "unproven", message))

    def finish(self) -> None:
        """Look at the ends of chains, once all is read."""
        for one in self.chains.values():
            if one.status != "open":
                continue
            at = (one.file, one.line)
            if _seconds(one.last) - _seconds(one.signed) > OVERDUE_S:
                self.problems.append(
                    Finding(*at, "overdue", f"chain {one.chain} goes on to {one.last}, unsigned since {one.signed}")
                )
            message = f"chain {one.chain} has no end: its process runs, was killed, or its last records were removed"
            self.notes.append(Finding(*at, "open", message))

    @property
    def _file(self) -> FileFound:
        return self.files[-1]

    def _read_line(self, line: bytes) -> None:
        file = self._file
        file.lines += 1
        text, is_whole = line.removesuffix(b"\n"), line.endswith(b"\n")
        record = _read(text)
        hashed = digest(text)
        if record is None or not is_whole:
            self._settle_unreadable(None)
            self._unreadable = Finding(file.file, file.lines, "unreadable", "is no whole record: torn, or changed")
            self._before = hashed
            return
        file.kinds[record["kind"]] = file.kinds.get(record["kind"], 0) + 1
        self._judge_place(record)
        chain = self._judge_chain(record)
        chain.seq, chain.hash, chain.last = record["seq"], hashed, record["time"]
        chain.records, chain.file, chain.line = chain.records + 1, file.file, file.lines
        self._before = hashed
        if record["kind"] in SIGNED and self._judge_signature(record, text):
            chain.signed = record["time"]
            file.proven, file.last_checkpoint = file.lines, record["time"]
        if record["kind"] == END:
            chain.status = "ended"

    def _judge_place(self, record: Mapping[str, Any]) -> None:
        """Does it come after the line that it says it comes after?"""
        link = record["follows"] if "follows" in record else record["prev"]
        self._settle_unreadable(link)
        if link == self._before:
            return
        if self._before is None:
            self._problem("lines_missing", "comes after a line that is not here: the lines before it are missing")
        else:
            self._problem(
                "broken_link",
                f"does not come after line {self._file.lines - 1}: that line was changed or inserted, or lines between "
                "them are missing",
            )

    def _judge_chain(self, record: Mapping[str, Any]) -> ChainFound:
        chain = self.chains.get(record["chain"])
        if chain is None:
            chain = self.chains[record["chain"]] = _found(record)
            if record["kind"] != START or record["seq"] != 1:
                missing = f"chain {chain.chain} begins with record {record['seq']}, which is no start"
                self._problem("records_missing", missing)
            else:
                self._judge_continuation(record.get("continues"))
        elif chain.status == "ended":
            self._problem("after_end", f"chain {chain.chain} goes on after its end")
        elif (record["seq"], record["prev"]) != (chain.seq + 1, chain.hash):
            self._problem("broken_chain", _broken(chain, record))
        return chain

    def _judge_continuation(self, continues: Any) -> None:
        if not isinstance(continues, dict):
            return
        earlier = self.chains.get(str(continues.get("chain")))
        named, seq = continues.get("chain"), continues.get("seq")
        if earlier is None:
            message = f"goes on from record {seq} of chain {named}, which is not here"
            if len(self.files) > 1:
                self._problem("records_missing", f"{message}: a file before this one is missing, or was emptied")
            else:
                self.goes_on = True
                message = f"{message}: it is in an earlier file, or was removed from this one"
                self.notes.append(Finding(self._file.file, self._file.lines, "continues", message))
        elif (earlier.seq, earlier.hash) != (seq, continues.get("hash")):
            self._problem("records_missing", f"chain {named} went on to record {seq}; here it ends with {earlier.seq}")
        elif earlier.status == "open":
            earlier.status = "continued"

    def _judge_signature(self, record: Mapping[str, Any], text: bytes) -> bool:
        statement, _, signature = text.rpartition(SIGNATURE)
        proves = self._keys.get(str(record.get("keyid")))
        if proves is None:
            self._problem("unknown_key", f"is signed by {record.get('keyid')!r}, a key that is not known here")
            return False
        try:
            if not signature.endswith(b'"}'):
                raise NotBase64("no signature")
            raw = b64decode(signature[:-2], validate=True)
        except NotBase64:
            raw = b""
        good = b64encode(raw) + b'"}' == signature and proves(raw, CONTEXT + statement + b"}")
        if not good:
            self._problem("bad_signature", "has a signature that is not its own: it, or a line before it, was changed")
        return good

    def _settle_unreadable(self, link: str | None) -> None:
        """Say of the line before whether who came after it had seen it so: then a crash has torn it."""
        found, self._unreadable = self._unreadable, None
        if found is not None:
            (self.notes if link == self._before else self.problems).append(found)

    def _problem(self, what: str, message: str) -> None:
        self.problems.append(Finding(self._file.file, self._file.lines, what, message))


def _read(text: bytes) -> dict[str, Any] | None:
    """Return the record of a line, or None if it is none."""
    try:
        record = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(record, dict) or not all(isinstance(record.get(name), str) for name in ("chain", "time", "kind")):
        return None
    is_linked = all(_is_link(record[name]) for name in ("prev", "follows") if name in record)
    is_numbered = type(record.get("seq")) is int and "prev" in record
    return record if is_linked and is_numbered and _is_moment(record["time"]) else None


def _is_link(value: object) -> bool:
    return value is None or (isinstance(value, str) and _HASH.fullmatch(value) is not None)


def _is_moment(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _found(record: Mapping[str, Any]) -> ChainFound:
    pid, worker = record.get("pid"), record.get("worker")
    return ChainFound(
        chain=record["chain"],
        process=str(record.get("process", "unknown")),
        pid=pid if isinstance(pid, int) else None,
        worker=worker if isinstance(worker, int) else None,
        began=record["time"],
        signed=record["time"],
    )


def _broken(chain: ChainFound, record: Mapping[str, Any]) -> str:
    if record["seq"] > chain.seq + 1:
        return f"chain {chain.chain}: records {chain.seq + 1} to {record['seq'] - 1} are missing"
    if record["seq"] <= chain.seq:
        return f"chain {chain.chain}: record {record['seq']} comes after record {chain.seq}: doubled or moved"
    return f"chain {chain.chain}: record {chain.seq}, the one before, was changed"


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
