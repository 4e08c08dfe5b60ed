"""The order of the walk: who, then what, then how much; the first denial wins and nothing after it happens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from sidecar import verify
from sidecar.authenticators import ApiKeyAuthenticator, FailedAttempts
from sidecar.denials import (
    Denial,
    InsufficientScope,
    InvalidApiKey,
    InvalidRequest,
    InvalidToken,
    RateLimited,
    Rule,
    StoreUnavailable,
    UpstreamNotReady,
)
from sidecar.edge.embedded import MemoryLimits
from sidecar.gateway import Gateway
from sidecar.model import (
    Admission,
    BearerToken,
    IdentityKey,
    Limit,
    PresentedKey,
    Principal,
    Progress,
    Quota,
    RequestFacts,
    Route,
    ToolClass,
    Verdict,
)
from sidecar.policy import apikeys, jsonrpc
from sidecar.policy.identity import Signer
from sidecar.policy.plans import Plans
from sidecar.policy.quotas import Limits, StreamLimit
from sidecar.policy.tools import ToolLists
from sidecar.records import KeyRecord
from sidecar.tool_classes import ToolClasses
from tests.fakes import Clock, SwitchableAdmissions
from tests.policy.facts import facts

ROUTE = Route("/mcp", ("jwt", "api_key"))
JWT = Principal("acct", "user", "jwt", "jwt:1", ("mcp:full",), 0.0, 2e9)
RECORD = KeyRecord(
    id="key_abcdefghijkl",
    account="acct",
    name="n",
    prefix="mcp_abcdefghijkl",
    scopes=("mcp:read",),
    secret_hash="h",
    created_at=1.0,
    created_by="cli",
    origin="cli",
    lifetime_s=2e9,
    expires_at=2e9,
)
SECRET = b"s" * 32


class OneAnswer:
    """An authenticator that always gives the same answer."""

    def __init__(self, answer: Principal | Denial) -> None:
        self.answer = answer
        self.told_of: list[object] = []

    async def authenticate(self, credential: object, facts: RequestFacts) -> Principal:
        if isinstance(self.answer, Denial):
            raise self.answer
        return self.answer

    def revoked(self, credential: object) -> None:
        self.told_of.append(credential)


class Failures:
    """Failed authentication in memory."""

    def __init__(self, clock: Clock) -> None:
        self._limits = MemoryLimits(clock)

    async def peek(self, address: str, limit: Limit) -> Quota:
        return self._limits.peek(limit, address)

    async def record(self, address: str, limit: Limit) -> Quota:
        return self._limits.spend([(limit, address)])[0]


class Catalogue:
    """Annotations as told; None says that no fetch has succeeded."""

    def __init__(self) -> None:
        self.classes: dict[str, ToolClass] | None = {"get": "read"}

    def annotated(self, tool: str) -> ToolClass | None:
        if self.classes is None:
            raise UpstreamNotReady("catalogue_missing")
        return self.classes.get(tool)


class Bed:
    """A gateway of real policy over scripted ports."""

    def __init__(
        self,
        principal: Principal | Denial = JWT,
        limits: tuple[Limit, ...] = (),
        *,
        shadowed: frozenset[Rule] = frozenset(),
    ) -> None:
        self.clock = Clock()
        self.admissions = SwitchableAdmissions()
        self.catalogue = Catalogue()
        self.progress = Progress()
        self.bodies_read = 0
        failed = Limit("failed_auth", 2, 60, per="address")
        failures = FailedAttempts(Failures(self.clock), failed, self.clock, report=lambda _: None)
        self.authenticator = authenticator = OneAnswer(principal)
        self.gateway = Gateway(
            authenticators={BearerToken: authenticator, PresentedKey: authenticator},
            keys=ApiKeyAuthenticator(_no_store(), _no_store(), failures, clock=self.clock, process_secret=SECRET),
            failures=failures,
            tools=ToolClasses(ToolLists({"destructive": ["drop"]}), self.catalogue, waits="scopes" not in shadowed),
            limits=Limits(limits),
            stream_limit=StreamLimit(2),
            admissions=self.admissions,
            signer=Signer((IdentityKey("k", "hmac-sha256", SECRET),), authority="up.example", ttl_s=60),
            upstream_path="/up",
            upstream_query="v=1",
            pass_headers=frozenset(),
            plans=Plans(filter_lists="keys", session_idle_s=3600),
            session_idle_s=3600,
            shadowed=shadowed,
            clock=self.clock,
            nonce=lambda: "nonce",
        )

    def reader(self, body: bytes | None) -> Callable[[], Awaitable[bytes | None]]:
        async def read() -> bytes | None:
            self.bodies_read += 1
            return body

        return read

    async def check(self, body: bytes | None = b"", asked: RequestFacts | None = None) -> Any:
        asked = asked or facts(("Authorization", "Bearer a.b.c"))
        return await self.gateway.check(ROUTE, asked, self.reader(body), self.progress)


def _no_store() -> Any:
    return None


def message(method: str, **params: Any) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


async def test_a_stranger_never_gets_its_body_read() -> None:
    bed = Bed(InvalidToken("token_signature"))

    with pytest.raises(InvalidToken):
        await bed.check()

    assert bed.bodies_read == 0
    assert bed.admissions.admissions == []
    assert bed.progress.principal is None


async def test_two_credentials_end_the_walk_before_any_is_looked_at() -> None:
    bed = Bed()

    with pytest.raises(InvalidRequest):
        await bed.check(asked=facts(("Authorization", "Bearer a.b.c"), ("X-API-Key", "x")))

    assert bed.bodies_read == 0


async def test_a_refused_message_never_reaches_the_store() -> None:
    bed = Bed(replace(JWT, scopes=("mcp:read",)))

    with pytest.raises(InsufficientScope):
        await bed.check(message("tools/call", name="put"))

    assert bed.admissions.admissions == []


@pytest.mark.parametrize(("tool", "allowed"), [("get", True), ("put", False), ("drop", False), ("GET", False)])
async def test_without_the_full_scope_only_read_tools_can_be_called(tool: str, allowed: bool) -> None:
    bed = Bed(replace(JWT, scopes=("mcp:read",)))
    assert bed.catalogue.classes is not None
    bed.catalogue.classes["drop"] = "read"

    if allowed:
        await bed.check(message("tools/call", name=tool))
    else:
        with pytest.raises(InsufficientScope):
            await bed.check(message("tools/call", name=tool))


async def test_large_messages_are_read_off_the_event_loop_and_two_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large message would hold up everybody, and many at once would take memory for nothing."""
    bed, lock, running, seen = Bed(), threading.Lock(), 0, list[tuple[bool, int]]()
    parse = jsonrpc.parse

    def watched(body: bytes) -> dict[str, Any]:
        nonlocal running
        with lock:
            running += 1
            seen.append((threading.current_thread() is threading.main_thread(), running))
        try:
            return parse(body)
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(jsonrpc, "parse", watched)
    large = message("tools/call", name="get", arguments={"text": ["x" * 50] * 18_000})
    await asyncio.gather(*[bed.check(large) for _ in range(12)])
    assert len(seen) == 12
    assert {on_the_loop for on_the_loop, _ in seen} == {False}
    assert max(at_once for _, at_once in seen) <= 2


async def test_until_the_catalogue_is_known_a_call_that_hangs_on_it_waits() -> None:
    bed = Bed()
    bed.catalogue.classes = None

    with pytest.raises(UpstreamNotReady):
        await bed.check(message("tools/call", name="get"))
    await bed.check(message("tools/call", name="drop"))
    await bed.check(message("tools/list"))


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (message("tools/call", name="put"), "insufficient_scope"),
        (message("vendor/do"), "not_found"),
        (b'{"jsonrpc":"2.0","method":"notifications/vendor"}', "notification_dropped"),
    ],
)
async def test_scopes_in_shadow_mode_let_pass_and_take_note(body: bytes, outcome: str) -> None:
    bed = Bed(replace(JWT, scopes=("mcp:read",)), shadowed=frozenset({"scopes"}))

    await bed.check(body)

    assert [(note.rule, note.outcome) for note in bed.progress.shadows] == [("scopes", outcome)]


async def test_scopes_in_shadow_mode_do_not_wait_for_the_catalogue() -> None:
    bed = Bed(replace(JWT, scopes=("mcp:read",)), shadowed=frozenset({"scopes"}))
    bed.catalogue.classes = None

    await bed.check(message("tools/call", name="get"))

    assert [note.reason for note in bed.progress.shadows] == ["insufficient_scope"]


async def test_limits_in_shadow_mode_let_pass_take_note_and_tell_the_client_nothing() -> None:
    limit = Limit("account", 9, 60)
    bed = Bed(limits=(limit,), shadowed=frozenset({"limits"}))
    bed.admissions.verdict = Verdict("good", 1000.0, (Quota(limit, 8, 3.2, 0.0),))
    assert (await bed.check(message("ping"))).answer_headers == ()
    assert not any(note.rule for note in bed.progress.shadows)
    bed.admissions.verdict = Verdict("good", 1000.0, (Quota(limit, 0, 3.2, 3.2),))

    assert (await bed.check(message("ping"))).answer_headers == ()

    assert [(note.rule, note.reason, note.detail) for note in bed.progress.shadows] == [
        ("limits", "rate_limited", "account")
    ]
    assert [asked.how for asked in bed.admissions.admissions] == ["shadow", "shadow"]
    assert bed.progress.quotas, "metrics tell how near it came"


async def test_streams_over_their_limit_in_shadow_mode_are_held_and_given_back() -> None:
    bed = Bed(shadowed=frozenset({"limits"}))
    asked = facts(("Authorization", "Bearer a.b.c"), method="GET")
    for noted in (False, False, True):
        progress = Progress()
        await bed.gateway.check(ROUTE, asked, bed.reader(None), progress)
        assert progress.holds_stream
        assert bool(progress.shadows) is noted


async def test_authentication_and_revocation_are_never_in_shadow_mode() -> None:
    rules: frozenset[Rule] = frozenset({"scopes", "limits"})
    with pytest.raises(InvalidToken):
        await Bed(InvalidToken("token_expired"), shadowed=rules).check(message("ping"))
    bed = Bed(shadowed=rules)
    bed.admissions.verdict = Verdict("revoked", 0.0)
    with pytest.raises(InvalidToken):
        await bed.check(message("ping"))


async def test_failed_authentication_is_limited_in_shadow_mode_too() -> None:
    bed = Bed(InvalidToken("token_signature"), shadowed=frozenset({"scopes", "limits"}))
    for expected in (InvalidToken, InvalidToken, RateLimited):
        with pytest.raises(expected):
            await bed.check(message("ping"))


async def test_one_trip_asks_for_everything() -> None:
    limits = (Limit("account", 9, 60), Limit("writes", 9, 60, effect="write"))
    principal = replace(JWT, token_id="t", issued_at=5.0)
    bed = Bed(principal, limits)

    await bed.check(message("tools/call", name="put"))

    assert bed.admissions.admissions == [
        Admission("acct", "jwt:1", 5.0, limits, write=True, key_id=None, key_version=0, token_id="t")
    ]


async def test_a_clients_response_costs_nothing_and_is_judged_all_the_same() -> None:
    bed = Bed(limits=(Limit("account", 9, 60),))
    bed.admissions.verdict = Verdict("revoked", 0.0)

    with pytest.raises(InvalidToken):
        await bed.check(b'{"jsonrpc":"2.0","id":1,"result":{}}')

    assert bed.admissions.admissions[0].limits == ()


async def test_a_limit_that_is_used_up_refuses_with_its_headers() -> None:
    limit = Limit("account", 9, 60)
    bed = Bed(limits=(limit,))
    bed.admissions.verdict = Verdict("good", 1000.0, (Quota(limit, 0, 3.2, 3.2),))

    with pytest.raises(RateLimited) as refused:
        await bed.check(message("tools/list"))

    assert refused.value.retry_after_s == 4
    assert bed.progress.quotas == bed.admissions.verdict.quotas


async def test_a_revoked_credential_is_refused_in_its_own_words_and_its_authenticator_hears_of_it() -> None:
    bed = Bed()
    bed.admissions.verdict = Verdict("revoked", 0.0)
    with pytest.raises(InvalidToken):
        await bed.check(message("tools/list"))
    assert bed.authenticator.told_of == [BearerToken("a.b.c")]

    bed = Bed(apikeys.principal(RECORD))
    bed.admissions.verdict = Verdict("revoked", 0.0)
    with pytest.raises(InvalidApiKey):
        await bed.check(message("tools/list"))


class ChangedOnce(SwitchableAdmissions):
    """Says once that the key changed, and admits its new version."""

    def __init__(self, record: KeyRecord | None) -> None:
        super().__init__()
        self.record = record

    async def admit(self, admission: Admission) -> Verdict:
        self.admissions.append(admission)
        if self.record is not None and admission.key_version == self.record.version:
            return Verdict("good", 0.0)
        return Verdict("key_changed", 0.0, key=self.record)


async def changed(record: KeyRecord | None, body: bytes) -> Bed:
    bed = Bed(apikeys.principal(RECORD))
    bed.gateway._admissions = bed.admissions = ChangedOnce(record)
    await bed.check(body)
    return bed


async def test_a_key_that_changed_is_judged_again_as_it_is_now() -> None:
    call = message("tools/call", name="get")
    bed = await changed(replace(RECORD, version=2, scopes=("mcp:tools:call",)), call)
    assert [admission.key_version for admission in bed.admissions.admissions] == [1, 2]
    assert bed.progress.principal is not None
    assert bed.progress.principal.scopes == ("mcp:tools:call",)

    for now_useless in (None, replace(RECORD, version=2, revoked_at=5.0), replace(RECORD, version=2, expires_at=5.0)):
        with pytest.raises(InvalidApiKey):
            await changed(now_useless, call)
    with pytest.raises(InsufficientScope):
        await changed(replace(RECORD, version=2, scopes=("mcp:tools:list",)), call)


async def test_a_key_that_never_settles_is_a_fault_of_ours() -> None:
    bed = Bed(apikeys.principal(RECORD))
    bed.admissions.verdict = Verdict("key_changed", 0.0, key=RECORD)

    with pytest.raises(StoreUnavailable):
        await bed.check(message("tools/list"))


async def test_a_refused_key_has_the_refusal_counted_and_one_over_its_limit_does_not_twice() -> None:
    bed = Bed(apikeys.principal(RECORD))
    with pytest.raises(InsufficientScope):
        await bed.check(message("tools/call", name="put"))
    assert bed.admissions.refusals == [("acct", RECORD.id)]

    limit = Limit("account", 9, 60)
    bed.admissions.verdict = Verdict("good", 0.0, (Quota(limit, 0, 1.0, 1.0),))
    with pytest.raises(RateLimited):
        await bed.check(message("tools/list"))
    assert len(bed.admissions.refusals) == 1


async def test_failed_authentication_is_limited_per_address() -> None:
    bed = Bed(InvalidToken("token_signature"))

    for _ in range(2):
        with pytest.raises(InvalidToken):
            await bed.check()
    with pytest.raises(RateLimited):
        await bed.check()
    with pytest.raises(InvalidToken):
        await bed.check(asked=replace(facts(("Authorization", "Bearer a.b.c")), client="192.0.2.9"))


async def test_a_credential_that_the_store_refuses_has_failed_too() -> None:
    bed = Bed()
    bed.admissions.verdict = Verdict("revoked", 0.0)

    for _ in range(2):
        with pytest.raises(InvalidToken):
            await bed.check(message("tools/list"))
    with pytest.raises(RateLimited):
        await bed.check(message("tools/list"))


async def test_management_reads_the_body_before_the_store_vouches_for_its_caller() -> None:
    """A caller who holds back the body while the account is revoked must not act on what was true before."""
    bed = Bed()
    order: list[str] = []

    async def read() -> bytes:
        order.append("body")
        bed.admissions.verdict = Verdict("revoked", 0.0)
        return b"{}"

    with pytest.raises(InvalidToken):
        await bed.gateway.check_management(
            facts(("Authorization", "Bearer a.b.c")), read, lambda _, body: order.append("understood"), bed.progress
        )

    assert order == ["body", "understood"]
    assert len(bed.admissions.admissions) == 1


async def test_the_permit_is_what_was_judged_and_it_verifies() -> None:
    bed = Bed()
    body = message("tools/call", name="get")
    asked = facts(
        ("Authorization", "Bearer a.b.c"), ("Content-Type", "application/json"), ("X-Account-Id", "evil"), query="q=%2F"
    )

    permit = await bed.check(body, asked)

    assert permit.body is body
    assert permit.target == "/up?v=1&q=%2F"
    lines = [("Host", "up.example"), *((name.decode(), value.decode()) for name, value in permit.headers)]
    identity = verify.verify("POST", permit.target, lines, body, {"k": SECRET}, bed.clock(), {})
    assert (identity.account, identity.scopes, identity.request_id) == ("acct", ("mcp:full",), "request-1")
    assert not any(name.lower() == b"authorization" for name, _ in permit.headers)


async def test_methods_without_a_body_are_streams_and_endings() -> None:
    for method, kind in (("GET", "stream"), ("DELETE", "end_session")):
        bed = Bed()

        permit = await bed.check(None, replace(facts(("Authorization", "Bearer a.b.c")), method=method))

        assert permit.body is None
        assert bed.progress.action is not None
        assert bed.progress.action.kind == kind


async def test_a_large_body_is_judged_like_a_small_one() -> None:
    bed = Bed(replace(JWT, scopes=("mcp:read",)))

    with pytest.raises(InsufficientScope):
        await bed.check(message("tools/call", name="put", arguments={"text": "x" * 100_000}))

    assert bed.progress.message_id == 1


async def test_a_message_that_is_no_message_is_refused_with_its_id_if_it_has_one() -> None:
    bed = Bed()

    with pytest.raises(InvalidRequest):
        await bed.check(b'{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{}}')

    assert bed.progress.message_id == "x"
    assert bed.progress.action is None
