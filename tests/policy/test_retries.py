"""What a client carries from one try of a call to the next can't be forged, moved to another call, or kept for long."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.denials import InvalidParams
from sidecar.model import IdentityKey
from sidecar.policy import retries
from sidecar.policy.retries import State, StateSealer

KEY = IdentityKey("one", "ed25519", b"1" * 32)
OTHER = IdentityKey("two", "hmac-sha256", b"2" * 40)
NOW = 1000.0
ENTROPY = bytes(range(retries.ENTROPY_BYTES))


def sealer(*keys: IdentityKey) -> StateSealer:
    return StateSealer(keys or (KEY,), ttl_s=60)


def state(stage: retries.Stage, upstream: str | None = None) -> State:
    return State(stage, "id", "call", NOW + 60, upstream)


def test_what_was_sealed_is_opened_again() -> None:
    sealed = sealer().seal("confirmed", "call", "theirs", now=NOW, entropy=ENTROPY)

    opened = sealer().open(sealed, "call", NOW + 59)

    assert opened == State("confirmed", ENTROPY[12:].hex(), "call", NOW + 60, "theirs")
    assert "theirs" not in sealed


def test_a_state_survives_a_change_of_keys() -> None:
    sealed = sealer(KEY).seal("asked", "call", None, now=NOW, entropy=ENTROPY)

    assert sealer(OTHER, KEY).open(sealed, "call", NOW) is not None


@pytest.mark.parametrize("text", [None, 1, "", "theirs", "sc2.abc"])
def test_a_state_that_is_not_ours_is_for_the_upstream(text: object) -> None:
    assert sealer().open(text, "call", NOW) is None


def test_a_state_of_another_call_is_refused() -> None:
    sealed = sealer().seal("asked", "call", None, now=NOW, entropy=ENTROPY)

    with pytest.raises(InvalidParams) as refused:
        sealer().open(sealed, "another", NOW)
    assert refused.value.reason == "state_invalid"


def test_a_state_is_good_for_so_long_only() -> None:
    sealed = sealer().seal("asked", "call", None, now=NOW, entropy=ENTROPY)

    with pytest.raises(InvalidParams) as refused:
        sealer().open(sealed, "call", NOW + 60)
    assert refused.value.reason == "state_expired"


def test_a_state_under_a_key_that_is_gone_is_refused() -> None:
    sealed = sealer(KEY).seal("asked", "call", None, now=NOW, entropy=ENTROPY)

    with pytest.raises(InvalidParams):
        sealer(OTHER).open(sealed, "call", NOW)


@given(st.integers(min_value=0), st.integers(1, 255))
def test_a_state_with_any_bit_changed_is_refused(place: int, change: int) -> None:
    sealed = bytearray(sealer().seal("asked", "call", None, now=NOW, entropy=ENTROPY).encode())
    place = 4 + place % (len(sealed) - 4)
    sealed[place] ^= change

    if sealed.endswith(b"="):  # the last character of Base64 may hold bits that nobody reads
        return
    with pytest.raises(InvalidParams):
        sealer().open(sealed.decode("latin-1"), "call", NOW)


@given(st.text())
def test_any_text_that_looks_like_ours_is_refused(text: str) -> None:
    with pytest.raises(InvalidParams):
        sealer().open("sc1." + text, "call", NOW)


def test_our_part_of_a_retry_is_taken_out_and_all_else_keeps_its_bytes() -> None:
    body = (
        b'{"jsonrpc":"2.0","id":8,"params": {"name":"drop", "arguments":{"n":18446744073709551617},'
        b'"inputResponses":{"sidecar.confirm":{"action":"accept"},"theirs":{"n":1.50}},"requestState":"sc1.x"}}'
    )

    assert retries.without_ours(body, state("asked", "R")) == (
        b'{"jsonrpc":"2.0","id":8,"params": {"name":"drop","arguments":{"n":18446744073709551617},'
        b'"inputResponses":{"theirs":{"n":1.50}},"requestState":"R"}}'
    )


def test_a_retry_that_was_for_us_alone_becomes_a_plain_call() -> None:
    params = {"name": "drop", "inputResponses": {"sidecar.confirm": {}}, "requestState": "sc1.x"}

    forwarded = json.loads(retries.without_ours(json.dumps({"id": 1, "params": params}).encode(), state("asked")))

    assert forwarded == {"id": 1, "params": {"name": "drop"}}


def test_an_answer_by_the_name_of_our_question_is_the_upstreams_once_we_have_asked() -> None:
    body = b'{"params":{"inputResponses":{"sidecar.confirm":{"action":"accept"}},"requestState":"sc1.x"}}'

    assert retries.without_ours(body, state("confirmed", "sc1.y")) == body.replace(b"sc1.x", b"sc1.y")


def test_what_is_ours_is_known_whatever_it_is_of_and_what_only_looks_so_is_not() -> None:
    sealed = sealer().seal("asked", "call", None, now=NOW, entropy=ENTROPY)

    assert sealer().is_ours(sealed)
    for other in (None, 1, "theirs", "sc1.", sealed.removeprefix("sc1."), sealed[:-4]):
        assert not sealer().is_ours(other)
    assert not sealer(OTHER).is_ours(sealed)


def test_an_input_responses_member_that_is_no_object_stays_for_the_upstream_to_judge() -> None:
    body = json.dumps({"params": {"inputResponses": [1], "name": "drop"}}).encode()

    assert json.loads(retries.without_ours(body, state("asked"))) == {"params": {"inputResponses": [1], "name": "drop"}}


@pytest.mark.parametrize("theirs", ['"requestState":"R",', ""])
def test_the_upstreams_state_is_put_into_ours(theirs: str) -> None:
    answer = '{"id":1,"result":{' + theirs + '"resultType":"input_required","inputRequests":{"a":{"n":1.0}}}}'

    changed = retries.with_state(answer.encode(), "sc1.x")

    assert changed == (
        b'{"id":1,"result":{"resultType":"input_required","inputRequests":{"a":{"n":1.0}},"requestState":"sc1.x"}}'
    )


@pytest.mark.parametrize(
    ("document", "asks"),
    [
        ({"result": {"resultType": "input_required"}}, True),
        ({"result": {"resultType": "complete"}}, False),
        ({"result": []}, False),
        ({"error": {}}, False),
        ([], False),
    ],
)
def test_an_answer_that_asks_for_input_is_known_by_its_type(document: object, asks: bool) -> None:
    assert retries.asks_for_input(document) is asks
