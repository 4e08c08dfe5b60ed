"""The lines of the audit: how they hang together, what they say of arguments, and how many there may be."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import orjson
import pytest

from sidecar.model import Action, IdentityKey
from sidecar.policy.audit import (
    MOST_ARGUMENT_BYTES,
    ArgumentsForm,
    Chain,
    Recorder,
    Scribe,
    arguments_of,
    digest,
    moment,
)
from sidecar.policy.redaction import REDACTED

ED25519 = IdentityKey("k1", "ed25519", bytes(range(32)))
AT = "2026-11-23T12:00:00.000Z"
KEY = "mcp_" + "a" * 46
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"


def told(form: ArgumentsForm, arguments: Any, *, redact: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what a record says of arguments, as it is read again."""
    recorder = Recorder(form, redact)
    members: dict[str, Any] = json.loads(orjson.dumps(recorder.about(recorder.render(arguments))))
    return members


def record(kind: str = "write", **members: Any) -> dict[str, Any]:
    return {"time": AT, "kind": kind, **members}


def test_each_line_names_the_hash_of_the_line_before_it_and_its_place_in_the_chain() -> None:
    lines, chain = Scribe(ED25519).write(Chain("a"), None, [record("start"), record(), record()])
    first, second, third = lines.splitlines()
    read = [json.loads(line) for line in (first, second, third)]
    assert [one["seq"] for one in read] == [1, 2, 3]
    assert [one["prev"] for one in read] == [None, digest(first), digest(second)]
    assert [one.get("follows", "nothing") for one in read] == [None, "nothing", "nothing"]
    assert chain == Chain("a", 3, digest(third))
    assert hashlib.sha256(first).hexdigest() == digest(first)


def test_a_line_after_that_of_another_process_names_that_one_too() -> None:
    scribe = Scribe(ED25519)
    _, ours = scribe.write(Chain("a"), None, [record("start")])
    _, other = scribe.write(Chain("b"), ours.hash, [record("start")])
    line, _ = scribe.write(ours, other.hash, [record()])
    assert (json.loads(line)["prev"], json.loads(line)["follows"]) == (ours.hash, other.hash)


def test_start_checkpoint_and_end_are_signed_and_nothing_else() -> None:
    kinds = ("start", "write", "checkpoint", "refusal", "something later", "end")
    lines, _ = Scribe(ED25519).write(Chain("a"), None, [record(kind) for kind in kinds])
    signed = [json.loads(line) for line in lines.splitlines() if b"signature" in line]
    assert [(one["kind"], one["keyid"], one["alg"]) for one in signed] == [
        ("start", "k1", "ed25519"),
        ("checkpoint", "k1", "ed25519"),
        ("end", "k1", "ed25519"),
    ]


def test_a_key_that_cannot_sign_is_refused() -> None:
    with pytest.raises(ValueError, match="short"):
        Scribe(IdentityKey("short", "hmac-sha256", b"short"))


@pytest.mark.parametrize(
    ("form", "named"),
    [("none", set()), ("digest", {"arguments_digest"}), ("full", {"arguments_digest", "arguments"})],
)
def test_of_arguments_nothing_their_digest_or_all_is_kept(form: ArgumentsForm, named: set[str]) -> None:
    assert set(told(form, {"path": "/x"})) == named


def test_a_digest_is_that_of_the_arguments_as_json_with_sorted_names_and_no_spaces() -> None:
    arguments = {"b": [1, 2.5, True, None], "a": {"ü": "\u2028"}}
    text = json.dumps(arguments, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert told("digest", arguments) == {"arguments_digest": f"sha-256:{hashlib.sha256(text).hexdigest()}"}


def test_the_order_of_names_makes_no_other_digest_and_another_value_does() -> None:
    assert told("digest", {"a": 1, "b": 2}) == told("digest", {"b": 2, "a": 1})
    assert told("digest", {"a": 1}) != told("digest", {"a": 2})


def test_what_is_to_be_redacted_is_at_any_depth_in_any_case_and_not_in_the_digest_either() -> None:
    redact = ("password", "*token*")
    given = {"PassWord": "a", "deep": [{"apiToken": {"x": 1}, "kept": 1}], "passwords": "p"}
    first = told("full", given, redact=redact)
    assert first["arguments"] == {"PassWord": REDACTED, "deep": [{"apiToken": REDACTED, "kept": 1}], "passwords": "p"}
    given = {"PassWord": "b", "deep": [{"apiToken": None, "kept": 1}], "passwords": "p"}
    assert first == told("full", given, redact=redact)


@pytest.mark.parametrize("credential", [KEY, TOKEN])
def test_what_looks_like_a_credential_is_never_kept(credential: str) -> None:
    arguments = {"note": [f"use {credential} now"], credential: 1}
    kept = told("full", arguments)
    assert kept["arguments"] == {"note": [f"use {REDACTED} now"], REDACTED: 1}
    assert kept == told("full", kept["arguments"]), "nor is it in the digest"


def test_long_arguments_are_kept_as_their_digest_and_length() -> None:
    fits, too_long = "x" * (MOST_ARGUMENT_BYTES - 2), "x" * (MOST_ARGUMENT_BYTES - 1)
    assert told("full", fits)["arguments"] == fits
    assert told("full", too_long)["arguments"] == "[16385 bytes, too long to be kept]"


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        (None, None),
        (Action("stream"), None),
        (Action("response"), None),
        (Action("request", "tools/call", 1, "t", {"name": "t", "arguments": {"a": 1}, "_meta": {}}), {"a": 1}),
        (Action("request", "tools/call", 1, "t", {"name": "t", "arguments": None}), {}),
        (Action("request", "tools/call", 1, "t", {"name": "t"}), {}),
        (Action("request", "resources/read", 1, None, {"uri": "x:y", "_meta": {"p": 1}}), {"uri": "x:y"}),
        (Action("notification", "notifications/x", params={"a": 1}), {"a": 1}),
    ],
)
def test_what_was_asked_with(action: Action | None, arguments: Any) -> None:
    assert arguments_of(action) == arguments


def test_a_moment_is_rfc_3339_in_utc_to_the_millisecond() -> None:
    assert moment(1_800_000_000.25) == "2027-01-15T08:00:00.250Z"
