from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.denials import ClientNotAllowed, InvalidParams
from sidecar.policy import approvals
from sidecar.policy.confirmation import KEPT_OF_ARGUMENTS, arguments_text
from sidecar.records import ApprovalAct, ConfirmationState
from tests.policy.confirming import NOW, call_body, caller, confirmation


def test_an_id_is_what_is_made_as_one() -> None:
    assert approvals.is_id("0123456789abcdef" * 2)
    for wrong in ("", "a" * 31, "a" * 33, "A" * 32, "g" * 32, "a" * 32 + "\n"):
        assert not approvals.is_id(wrong)


@pytest.mark.parametrize(
    ("state", "then"),
    [
        ("waiting", "expired"),
        ("approved", "expired"),
        ("declined", "declined"),
        ("spent", "spent"),
        ("withdrawn", "withdrawn"),
    ],
)
def test_what_was_not_used_in_time_has_expired(state: ConfirmationState, then: str) -> None:
    kept = confirmation(state=state, expires_at=NOW + 60)
    assert approvals.state(kept, NOW + 59.9) == state
    assert approvals.state(kept, NOW + 60) == then


def test_all_is_told_that_a_person_needs_to_decide() -> None:
    kept = confirmation(arguments='{"id":42}', decided_by="subject:ann", state="approved")
    assert approvals.describe(kept, NOW) == {
        "id": "a" * 32,
        "state": "approved",
        "tool": "drop",
        "arguments": '{"id":42}',
        "argumentsShown": '{\n  "id": 42\n}',
        "argumentsCut": False,
        "besides": None,
        "caller": {"credential": "jwt", "subject": "ann", "clientId": "web"},
        "account": "acme",
        "createdAt": "2026-09-21T14:13:20Z",
        "expiresAt": "2026-09-21T14:14:20Z",
        "decidedBy": "subject:ann",
    }


def test_arguments_that_are_not_there_or_no_json_are_not_laid_out() -> None:
    for arguments in (None, "{"):
        assert approvals.describe(confirmation(arguments=arguments), NOW)["argumentsShown"] is None
    assert approvals.describe(confirmation(arguments="{", is_cut=True), NOW)["argumentsShown"] == "{"


def test_arguments_are_kept_as_the_client_wrote_them() -> None:
    body = call_body().replace(b'{"id": 42}', b'{"id" : 4.20e1, "n":1.000000000000000005 }')
    assert arguments_text(body) == ('{"id" : 4.20e1, "n":1.000000000000000005 }', False)
    assert arguments_text(b'{"method":"tools/call","params":{"name":"drop"}}') == (None, False)


def test_long_arguments_are_cut_and_that_is_told() -> None:
    whole, is_cut = arguments_text(call_body(arguments={"a": "x" * (KEPT_OF_ARGUMENTS - 9)}))
    assert (len(whole or ""), is_cut) == (KEPT_OF_ARGUMENTS, False)
    cut, is_cut = arguments_text(call_body(arguments={"a": "x" * (KEPT_OF_ARGUMENTS - 8)}))
    assert (len(cut or ""), is_cut) == (KEPT_OF_ARGUMENTS, True)


def test_a_number_that_is_too_long_to_be_read_is_refused() -> None:
    with pytest.raises(InvalidParams):
        arguments_text(call_body().replace(b"42", b"4" * 5000))


def test_only_the_named_clients_see_and_decide() -> None:
    approvals.require_approver(caller(), ("page", "web"))
    for clients in ((), ("page",)):
        with pytest.raises(ClientNotAllowed):
            approvals.require_approver(caller(), clients)
    with pytest.raises(ClientNotAllowed):
        approvals.require_approver(replace(caller(), client_id=None), ("web",))


def test_no_client_decides_about_its_own_call() -> None:
    approvals.require_another(caller(), confirmation(client_id="agent"))
    approvals.require_another(caller(), confirmation(client_id=None))
    with pytest.raises(ClientNotAllowed):
        approvals.require_another(caller(), confirmation(client_id="web"))


def test_the_audit_names_the_call_and_shows_nothing_live() -> None:
    told = approvals.audited(ApprovalAct("decline", confirmation(tool="drop\x1b[2J")))
    assert told == {"act": "decline_call", "approval": "a" * 32, "tool": "drop\\u001b[2J"}


def test_no_subject_is_called_like_who_is_none() -> None:
    assert {approvals.signed_in(subject)[:8] for subject in ("", approvals.OPERATOR, "client")} == {"subject:"}


def test_of_long_arguments_no_more_bytes_are_kept_and_no_half_character() -> None:
    body = call_body(arguments={"a": "MARK"}).replace(b"MARK", "\U0001f600".encode() * 5000)

    kept, is_cut = arguments_text(body)

    assert is_cut
    assert kept is not None
    assert KEPT_OF_ARGUMENTS - 4 < len(kept.encode()) < KEPT_OF_ARGUMENTS
    assert kept.endswith("\U0001f600")
