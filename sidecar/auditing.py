"""How the audit is put together from the settings: for a process that serves, for a command, and for who verifies."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sidecar import wiring
from sidecar.config import Config
from sidecar.denials import Denial
from sidecar.edge import identity_file
from sidecar.edge.audit_file import AuditFile, lines_of
from sidecar.edge.audit_trail import AuditTrail
from sidecar.edge.telemetry import Telemetry
from sidecar.model import IdentityKey
from sidecar.policy.audit import MANAGEMENT, REFUSAL, Recorder, Scribe, moment
from sidecar.policy.audit_keys import Proves, proving, read_key_set
from sidecar.policy.audit_proof import Proof

Note = Callable[[Mapping[str, Any]], None]
"""Takes down what a command did with keys or tokens: the members of the record that say it."""

_CHAIN_BYTES: Final = 16


@contextlib.asynccontextmanager
async def trail(config: Config, telemetry: Telemetry, worker: int | None) -> AsyncIterator[AuditTrail | None]:
    """Keep the audit of a process that serves; None where none is configured.

    Raises:
        OSError: the file can't be written.
    """
    if config.audit.file is None:
        yield None
        return

    def report(problem: str | None, waiting: int) -> None:
        if problem is None:
            telemetry.event("audit_recovered", waiting=waiting)
        else:
            telemetry.event("audit_failed", level="error", problem=problem, waiting=waiting)

    about = {"process": "serve", "worker": worker, "arguments_as": config.audit.arguments}
    recorder = Recorder(config.audit.arguments, config.audit.redact)
    kept = AuditTrail(_file(config, config.audit.file, about), recorder, telemetry.registry, report)
    with _named():
        await kept.start()
    try:
        yield kept
    finally:
        await kept.aclose()


@contextlib.contextmanager
def journal(config: Config, command: str) -> Iterator[Note]:
    """Keep the audit of one command: what it notes is written at its end, or that it was refused.

    Raises:
        OSError: it can't be recorded: raised before anything is done, or in the end, saying that it was done. So it is
            for what revokes, which a full disk must not prevent.
    """
    if config.audit.file is None:
        yield lambda _: None
        return
    file = _file(config, config.audit.file, {"process": "command", "worker": None, "arguments_as": None})
    by = {"account": None, "principal": "cli", "credential": None, "operator": _operator(), "command": command}
    records: list[Mapping[str, Any]] = []

    def note(members: Mapping[str, Any]) -> None:
        records.append({"time": _now(), "kind": MANAGEMENT, **by, "decision": "done", **members})

    with contextlib.suppress(OSError) if command.endswith("revoke") else _named():
        file.open()
    try:
        yield note
    except Denial as denial:
        outcome = {"decision": "refused", "outcome": denial.error_type.lower(), "reason": denial.reason}
        records.append({"time": _now(), "kind": REFUSAL, **by, **outcome})
        raise
    finally:
        with _named(", what the command did is done and not recorded" if records else ""):
            file.close(records)


def verified(config: Config | None, files: Sequence[str], key_files: Sequence[str]) -> Proof:
    """Read these files, the oldest first, or the configured one, and check them by these JWK sets or configured keys.

    Raises:
        OSError: a file can't be read.
        ValueError: there is no file or no key to check by.
    """
    keys: dict[str, Proves] = {}
    for name in key_files:
        try:
            keys |= read_key_set(Path(name).read_bytes())
        except ValueError as problem:
            raise ValueError(f"{name} must hold {problem}") from problem
    if config is not None and not key_files:
        keys = proving(_kept_keys(config))
    paths = [*files] or ([config.audit.file] if config is not None and config.audit.file is not None else [])
    if not paths:
        raise ValueError("audit.file is not set: name the files to verify, the oldest first")
    if not keys:
        raise ValueError("there is no identity key yet to check signatures by; name a JWK set with --keys")
    proof = Proof(keys)
    for path in paths:
        proof.read(path, lines_of(path))
    proof.finish()
    return proof


def _file(config: Config, path: str, about: Mapping[str, Any]) -> AuditFile:
    return AuditFile(path, Scribe(wiring.identity_keys(config)[0]), about=about, chain_id=_chain_id)


def _kept_keys(config: Config) -> tuple[IdentityKey, ...]:
    """Return the identity keys without making any."""
    path = config.store.sqlite_path
    if config.identity.keys or path is None:
        return config.identity.keys
    key = identity_file.kept(Path(path).parent, config.identity.algorithm)
    return () if key is None else (key,)


def _operator() -> str:
    """Return who runs the command, as the system knows them."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as in many containers
        name = "?"
    return f"{name} (uid {os.getuid()})"


def _chain_id() -> str:
    return secrets.token_hex(_CHAIN_BYTES)


def _now() -> str:
    return moment(time.time())


@contextlib.contextmanager
def _named(more: str = "") -> Iterator[None]:
    """Let a file that can't be written be found in the settings."""
    try:
        yield
    except OSError as error:
        raise OSError(f"audit.file: {error}{more}") from error
