"""The whole gateway against a model of a few tables: whoever does whatever, in whichever order.

The model knows credentials, revocations, sessions and what was permitted when, and says of each request how it must
end. A refusal that had spent something would show in how a later one ends.
"""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import jwt
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from sidecar.denials import (
    Conflict,
    Denial,
    DroppedNotification,
    InsufficientScope,
    InvalidApiKey,
    InvalidRequest,
    InvalidToken,
    RateLimited,
    SessionNotFound,
    UnknownMethod,
)
from sidecar.guard import MANAGEMENT_PATH
from sidecar.model import SCOPES, CredentialKind, Limit, Permit, Principal, Progress, Quota, Route
from sidecar.policy import apikeys
from sidecar.policy.claims import token_id
from sidecar.records import ApiKey, KeyRecord
from sidecar.verify import Identity, verify
from tests.fuzz.house import IDLE_S, ISSUER, LEEWAY_S, SECRET, House
from tests.policy.facts import facts

T = TypeVar("T")
ROUTE: Final = Route("/mcp", ("jwt", "api_key"))
LIMITS: Final = (
    Limit("account", 6, 10),
    Limit("credential", 4, 4, per="credential"),
    Limit("writes", 2, 6, effect="write"),
    Limit("drops", 1, 20, tools=("drop*",)),
)
EVIL: Final = (
    ("X-Account-Id", "evil"),
    ("x_account_id", "evil"),
    ("X-Auth-Subject", "evil"),
    ("X-Account-Scopes", "mcp:full"),
    ("Content-Type", "application/json"),
)
"""What every client sends in this test."""
HOPS: Final = ("Connection", "X-Account-Id, Signature, X-Auth-Subject")
"""What every other one does."""
FULL: Final = frozenset({"mcp:full"})
READ: Final = FULL | {"mcp:read"}
CALLS: Final = READ | {"mcp:tools:call"}


@dataclass(frozen=True)
class Call:
    """A message, which scopes are each enough for it, and what it costs: the README's tables, written out again."""

    body: bytes | None
    enough: frozenset[str] | None = None
    """None: no scope is needed."""
    write: bool = False
    tool: str = ""
    free: bool = False
    otherwise: type[Denial] = InsufficientScope
    method: str = "POST"
    lines: tuple[tuple[str, str], ...] = ()
    in_sessions: bool = True

    def spends(self, limit: Limit) -> bool:
        fits = not limit.tools or self.tool.startswith("drop")
        return not self.free and fits and (limit.effect == "any" or self.write)


def request(method: str, params: str = "{}") -> bytes:
    return f'{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}'.encode()


def of_tool(tool: str, enough: frozenset[str], *, write: bool = True) -> Call:
    return Call(request("tools/call", f'{{"name":"{tool}"}}'), enough, write=write, tool=tool)


def modern(tool: str, enough: frozenset[str], *, write: bool = True) -> Call:
    """Return a call of the revision that has no sessions."""
    lines = (("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/call"), ("Mcp-Name", tool))
    return replace(of_tool(tool, enough, write=write), lines=lines, in_sessions=False)


PING: Final = Call(request("ping"))
INITIALIZE: Final = Call(request("initialize"), in_sessions=False)
STREAM: Final = Call(None, method="GET")
END: Final = Call(None, method="DELETE")
CALLED: Final = (
    of_tool("get", CALLS, write=False),
    of_tool("put", FULL),
    of_tool("drop_all", FULL),
    of_tool("nobody_knows", FULL),
    modern("get", CALLS, write=False),
    modern("drop_all", FULL),
    Call(request("tools/list"), CALLS | {"mcp:tools:list"}),
    Call(request("resources/read", '{"uri":"a"}'), READ | {"mcp:resources:read"}),
    Call(request("prompts/list"), READ),
    PING,
    Call(request("vendor/do"), FULL, write=True, otherwise=UnknownMethod),
    Call(b'{"jsonrpc":"2.0","method":"notifications/initialized"}'),
    Call(b'{"jsonrpc":"2.0","method":"notifications/vendor"}', FULL, otherwise=DroppedNotification),
    Call(b'{"jsonrpc":"2.0","id":1,"result":{}}', free=True),
    STREAM,
)


@dataclass(eq=False)
class Held:
    """A credential as the model knows it."""

    kind: CredentialKind
    text: str
    account: str
    subject: str
    client: str | None
    scopes: frozenset[str]
    issued_at: float
    ends_at: float
    jti: str | None = None
    revoked: bool = False
    replaced: bool = False
    replaces: Held | None = None

    @property
    def owner(self) -> tuple[str, str, str | None]:
        return self.kind, self.subject, self.client

    @property
    def line(self) -> tuple[str, str]:
        return ("X-API-Key", self.text) if self.kind == "api_key" else ("Authorization", f"Bearer {self.text}")

    def lacks(self, call: Call) -> bool:
        return call.enough is not None and self.scopes.isdisjoint(call.enough)

    @property
    def refusal(self) -> type[Denial]:
        return InvalidApiKey if self.kind == "api_key" else InvalidToken


@dataclass
class Session:
    owner: tuple[str, str, str | None]
    bound_at: float
    ends_at: float


@dataclass
class Model:
    """What must be true, as plainly as it can be written down."""

    revoked_before: dict[str, float] = field(default_factory=dict)
    sessions: dict[tuple[str, str], Session] = field(default_factory=dict)
    permits: list[tuple[float, Held, Call]] = field(default_factory=list)

    def is_revoked(self, held: Held) -> bool:
        return held.revoked or held.issued_at < self.revoked_before.get(held.account, 0.0)

    def has_session(self, held: Held, session_id: str, now: float) -> bool:
        session = self.sessions.get((held.account, session_id))
        if session is None or session.owner != held.owner or session.ends_at <= now:
            return False
        return session.bound_at >= self.revoked_before.get(held.account, 0.0)

    def spent(self, limit: Limit, held: Held, now: float) -> int:
        """Count what was permitted in the window that ends now."""
        return sum(at > now - limit.window_s for at in self.spent_at(limit, held))

    def spent_at(self, limit: Limit, held: Held) -> list[float]:
        return [
            at
            for at, by, call in self.permits
            if call.spends(limit) and by.account == held.account and (limit.per == "account" or by.owner == held.owner)
        ]

    def room_at(self, held: Held, call: Call, now: float) -> float:
        """Return when every limit has a unit left, if nobody spends until then."""
        free_at = [now]
        for limit in LIMITS:
            spent = sorted(self.spent_at(limit, held))
            if call.spends(limit) and len(spent) >= limit.requests:
                free_at.append(spent[-limit.requests] + limit.window_s)
        return max(free_at)

    def endings(self, held: Held, call: Call, session_id: str | None, now: float) -> set[type[Denial] | None]:
        """Return how a request may end, None for a permit: the first reason against it, in the order of the walk."""
        lacks = held.lacks(call)
        if self.is_revoked(held) or now >= held.ends_at:
            # What the store alone knows it is asked after the scopes of one that was good before have been looked at.
            by_the_store = self.is_revoked(held) or held.replaced
            return {held.refusal, call.otherwise} if lacks and by_the_store else {held.refusal}
        if lacks:
            return {call.otherwise}
        if session_id is not None and call.in_sessions and not self.has_session(held, session_id, now):
            return {SessionNotFound}
        if any(call.spends(limit) and self.spent(limit, held, now) >= limit.requests for limit in LIMITS):
            return {RateLimited}
        return {None}


accounts = st.sampled_from(["acme", "acme", "beta"])
scopes = st.just({"mcp:full"}) | st.sets(st.sampled_from(SCOPES), min_size=1)
session_ids = st.sampled_from(["s-1", "s-2"])
who = st.integers(0, 11)
"""Which credential, counted from the newest."""
requests = st.tuples(who, st.sampled_from(CALLED), st.none() | session_ids, st.sampled_from([200, 200, 200, 404]))


class Gateways(RuleBasedStateMachine):
    """Does things to a real gateway and to the model at once."""

    @initialize()
    def open(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.house = House(str(Path(self.directory.name) / "sidecar.db"), LIMITS)
        self.model = Model()
        self.keys: list[Held] = []
        self.tokens: list[Held] = []
        self.streams: list[tuple[Held, Principal]] = []
        for scope in ("mcp:tools:call", "mcp:full"):
            self.create_key("acme", {scope}, days=2, office=False)
            self.mint_token("acme", "alice", None, {scope}, lifetime=4000, age=0, named=True)
        self.begin_session(1, "s-1", None, [], idle=1)

    def teardown(self) -> None:
        if hasattr(self, "house"):
            self.house.close()
            self.directory.cleanup()

    @property
    def now(self) -> float:
        return self.house.clock.now

    def anyone(self, number: int) -> Held:
        half = (self.keys, self.tokens)[number % 2]
        return half[-1 - number // 2 % len(half)]

    # What operators, issuers and time do

    @rule(seconds=st.sampled_from([0.25, 1, 2, 3.75, 4, 6, 10, 20, 61, 600, IDLE_S, 24 * IDLE_S]))
    def pass_time(self, seconds: float) -> None:
        self.house.clock.pass_(seconds)

    @rule(account=accounts, held=scopes, days=st.sampled_from([1, 2]), office=st.booleans())
    def create_key(self, account: str, held: set[str], days: int, office: bool) -> None:
        keyring = self.house.keyrings[office]
        made = self.house.run(
            keyring.create(
                account, "k", scopes=sorted(held), expires_in_days=days, created_by="x", origin="cli", granted=None
            )
        )
        self._hand_out(made, None)

    @rule(number=who, grace=st.sampled_from([0, 3, 60, 600]), office=st.booleans())
    def rotate_key(self, number: int, grace: int, office: bool) -> None:
        key = self.keys[-1 - number % len(self.keys)]
        can = not self.model.is_revoked(key) and not key.replaced and self.now < key.ends_at
        rotation = self.house.keyrings[office].rotate(
            key.account, key.subject, grace, created_by="x", origin="cli", granted=None
        )
        made, denial = self._outcome(rotation)
        assert denial is (None if can else Conflict)
        if made is not None:
            key.replaced, key.ends_at = True, min(key.ends_at, self.now + grace)
            if key.replaces is not None:
                key.replaces.revoked = True
            self._hand_out(made, key)

    def _hand_out(self, made: tuple[KeyRecord, ApiKey], replaces: Held | None) -> None:
        record, key = made
        ends_at = self.now + record.lifetime_s
        held = frozenset(record.scopes)
        self.keys.append(
            Held("api_key", key.text, record.account, key.id, None, held, self.now, ends_at, replaces=replaces)
        )

    @rule(
        account=accounts,
        subject=st.sampled_from(["alice", "bob"]),
        client=st.sampled_from([None, "cli"]),
        held=scopes,
        lifetime=st.sampled_from([1, 60, 4000]),
        age=st.sampled_from([0, 0, 1, 30]),
        named=st.booleans(),
    )
    def mint_token(
        self, account: str, subject: str, client: str | None, held: set[str], lifetime: int, age: int, named: bool
    ) -> None:
        issued_at = int(self.now) - age
        jti = f"t-{len(self.tokens)}" if named else None
        said = {"sub": subject, "org": account, "scope": " ".join(sorted(held)), "jti": jti, "client_id": client}
        claims = {"iss": ISSUER, "aud": "me", "iat": issued_at, "exp": issued_at + lifetime, **said}
        text = jwt.encode({name: value for name, value in claims.items() if value is not None}, SECRET, "HS256")
        ends_at = issued_at + lifetime + LEEWAY_S
        self.tokens.append(Held("jwt", text, account, subject, client, frozenset(held), issued_at, ends_at, jti))

    @rule(number=who, office=st.booleans())
    def revoke(self, number: int, office: bool) -> None:
        held = self.anyone(number)
        if held.kind == "api_key":
            self.house.run(self.house.keyrings[office].revoke(held.account, held.subject))
            held.revoked = True
        elif held.jti is not None:
            store = self.house.office if office else self.house.store
            self.house.run(store.revoke_token(token_id(ISSUER, held.jti)))
            held.revoked = True

    @rule(account=accounts, ago=st.sampled_from([0, 0, 0.25, 5, 600]), office=st.booleans())
    def revoke_account(self, account: str, ago: float, office: bool) -> None:
        self.house.run(self.house.keyrings[office].revoke_account(account, self.now - ago))
        before = self.model.revoked_before
        before[account] = max(before.get(account, 0.0), self.now - ago)
        self._owners_return(account)

    def _owners_return(self, account: str) -> None:
        """A second later and with new tokens, to the sessions of their old ones."""
        self.house.clock.pass_(1)
        for (owners, session_id), session in tuple(self.model.sessions.items()):
            kind, subject, client = session.owner
            if kind == "jwt" and owners == account:
                self.mint_token(account, subject, client, {"mcp:full"}, lifetime=60, age=0, named=False)
                self._check(self.tokens[-1], PING, session_id)

    # What clients do

    @rule(asked=st.lists(requests, min_size=1, max_size=12))
    def ask(self, asked: list[tuple[int, Call, str | None, int]]) -> None:
        for number, call, session_id, status in asked:
            held = self.anyone(number)
            permit = self._check(held, call, session_id)
            if permit is not None:
                self.house.run(self.house.handover.note_head(permit.plan, status, ()))
                if session_id is not None and call.in_sessions and status == 404:
                    del self.model.sessions[held.account, session_id]

    @rule(number=who, call=st.sampled_from(CALLED), times=st.integers(2, 9), gap=st.sampled_from([0, 0.25, 1, 2]))
    def ask_again_and_again(self, number: int, call: Call, times: int, gap: float) -> None:
        for _ in range(times):
            self._check(self.anyone(number), call, None)
            self.house.clock.pass_(gap)
        room_at = self.model.room_at(self.anyone(number), call, self.now)
        if room_at > self.now:
            for moment in (room_at - 0.25, room_at):
                self.house.clock.now = moment
                self._check(self.anyone(number), call, None)

    @rule(call=st.sampled_from(CALLED))
    def everybody_asks(self, call: Call) -> None:
        for held in (*self.keys, *self.tokens):
            self._check(held, call, None)

    @rule(number=who, call=st.sampled_from(CALLED[:-1]), times=st.integers(2, 9))
    def ask_all_at_once(self, number: int, call: Call, times: int) -> None:
        held = self.anyone(number)
        expected = self.model.endings(held, call, None, self.now)
        left = [limit.requests - self.model.spent(limit, held, self.now) for limit in LIMITS if call.spends(limit)]
        asked, trips = facts(held.line, *EVIL, *call.lines), [Progress() for _ in range(times)]

        async def check_all() -> list[Permit | BaseException]:
            check = self.house.gateway.check
            checks = [check(ROUTE, asked, _reading(call), progress) for progress in trips]
            return await asyncio.gather(*checks, return_exceptions=True)

        endings = [None if isinstance(ending, Permit) else type(ending) for ending in self.house.run(check_all())]
        if expected == {None}:
            permits = min([times, *left])
            assert sorted(map(str, endings)) == sorted(map(str, [None] * permits + [RateLimited] * (times - permits)))
            self.model.permits += [(self.now, held, call)] * permits
        else:
            assert set(endings) <= expected

    @rule(number=who, call=st.sampled_from(CALLED), whole_account=st.booleans(), office=st.booleans())
    def ask_while_it_is_revoked(self, number: int, call: Call, whole_account: bool, office: bool) -> None:
        """The store is asked last, so whoever holds back a body gains nothing by it."""
        held, progress = self.anyone(number), Progress()
        endings = self.model.endings(held, call, None, self.now)
        keyring, arrived = self.house.keyrings[office], list[bool]()

        async def read() -> bytes | None:
            arrived.append(True)
            if whole_account:
                await keyring.revoke_account(held.account, self.now)
            elif held.kind == "api_key":
                await keyring.revoke(held.account, held.subject)
            elif held.jti is not None:
                await self.house.office.revoke_token(token_id(ISSUER, held.jti))
            return call.body

        asked = facts(held.line, *EVIL, *call.lines, method=call.method)
        permit, denial = self._outcome(self.house.gateway.check(ROUTE, asked, read, progress))
        self._give_back(progress)
        if arrived and whole_account:
            self.model.revoked_before[held.account] = self.now
        elif arrived and (held.kind == "api_key" or held.jti is not None):
            held.revoked = True
        if arrived:
            endings = self.model.endings(held, call, None, self.now)
            endings |= {call.otherwise} if held.lacks(call) else set()
        assert denial in endings
        if permit is not None:
            self._judge(permit, held, call, None)
            self._count(held, call, progress.quotas)

    @rule(
        number=who,
        given=session_ids,
        session_id=st.none() | session_ids,
        others=st.lists(who, max_size=4),
        idle=st.sampled_from([0, 0, 0.25, IDLE_S - 0.25, IDLE_S]),
    )
    def begin_session(self, number: int, given: str, session_id: str | None, others: list[int], idle: float) -> None:
        held = self.anyone(number)
        permit = self._check(held, INITIALIZE, session_id)
        if permit is not None:
            lines = ((b"Mcp-Session-Id", given.encode()),)
            self.house.run(self.house.handover.note_head(permit.plan, 200, lines))
            self.model.sessions[held.account, given] = Session(held.owner, self.now, self.now + IDLE_S)
        self._check(held, PING, given)
        self.house.clock.pass_(idle)
        for other in (*others, number):
            self._check(self.anyone(other), PING, given)

    @rule(number=who, session_id=session_ids)
    def end_session(self, number: int, session_id: str) -> None:
        held = self.anyone(number)
        permit = self._check(held, END, session_id)
        if permit is not None:
            self.house.run(self.house.handover.note_head(permit.plan, 204, ()))
            del self.model.sessions[held.account, session_id]

    @rule(number=who, method=st.sampled_from(["GET", "POST", "DELETE"]))
    def manage_keys(self, number: int, method: str) -> None:
        held, call = self.anyone(number), Call(b"{}", write=method != "GET", method=method)
        progress, asked = Progress(), facts(held.line, *EVIL, method=method, path=MANAGEMENT_PATH)
        endings = self.model.endings(held, call, None, self.now) if held.kind == "jwt" else {InvalidToken}
        permit, denial = self._outcome(
            self.house.gateway.check_management(asked, _reading(call), lambda caller, body: (caller, body), progress)
        )
        assert denial in endings
        if permit is not None:
            caller, body = permit.act
            assert (caller.account, caller.subject, body) == (held.account, held.subject, call.body)
            self._count(held, call, progress.quotas)

    @rule()
    def look_at_streams(self) -> None:
        """A running stream's principal is judged by what was revoked; its expiry is a timer's matter."""
        still = []
        for held, principal in self.streams:
            known, denial = self._outcome(self.house.gateway.recheck(principal))
            if known is None:
                assert denial is held.refusal
                assert self.model.is_revoked(held) or self.now >= held.ends_at
            else:
                assert not self.model.is_revoked(held)
                assert (known.account, known.expires_at) == (held.account, held.ends_at)
                still.append((held, known))
        self.streams = still

    @rule(number=who, other=who, account=accounts, call=st.sampled_from(CALLED))
    def forge(self, number: int, other: int, account: str, call: Call) -> None:
        """Another key's secret, a token that says more than was signed, two credentials at once."""
        key, secrets = self.keys[-1 - number % len(self.keys)], self.keys[-1 - other % len(self.keys)]
        if key is not secrets:
            text = key.text[:16] + secrets.text[16:44]
            self._refused(call, InvalidApiKey, ("X-API-Key", text + apikeys.checksum(text)))
        token = self.tokens[-1 - number % len(self.tokens)]
        header, payload, signature = token.text.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "==")) | {"org": account, "scope": "mcp:full", "x": 1}
        changed = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
        forged = jwt.encode(claims, b"another secret of thirty-two bytes or more", "HS256")
        for text in (f"{header}.{changed}.{signature}", forged, token.text + "A"):
            self._refused(call, InvalidToken, ("Authorization", f"Bearer {text}"))
        self._refused(call, InvalidRequest, key.line, token.line)

    # How it ended

    def _refused(self, call: Call, by: type[Denial], *lines: tuple[str, str]) -> None:
        progress, asked = Progress(), facts(*lines, *EVIL, *call.lines, method=call.method)
        _, denial = self._outcome(self.house.gateway.check(ROUTE, asked, _reading(call), progress))
        assert denial is by
        assert progress.principal is None

    def _give_back(self, progress: Progress) -> None:
        if progress.holds_stream and progress.principal is not None:
            self.house.stream_limit.release(progress.principal)

    def _outcome(self, checking: Coroutine[Any, Any, T]) -> tuple[T | None, type[Denial] | None]:
        try:
            return self.house.run(checking), None
        except Denial as denial:
            return None, type(denial)

    def _check(self, held: Held, call: Call, session_id: str | None) -> Permit | None:
        lines = [HOPS] * (len(self.model.permits) % 2)
        lines += [] if session_id is None else [("Mcp-Session-Id", session_id)]
        asked = facts(held.line, *EVIL, *call.lines, *lines, method=call.method)
        endings = self.model.endings(held, call, session_id, self.now)
        progress = Progress()
        permit, denial = self._outcome(self.house.gateway.check(ROUTE, asked, _reading(call), progress))
        self._give_back(progress)
        assert denial in endings
        if permit is None:
            self._judge_quotas(held, progress.quotas)
            return None
        self._judge(permit, held, call, session_id if call.in_sessions else None)
        self._count(held, call, progress.quotas)
        if session_id is not None and call.in_sessions:
            self.model.sessions[held.account, session_id].ends_at = self.now + IDLE_S
        if call is STREAM and progress.principal is not None:
            self.streams.append((held, progress.principal))
        return permit

    def _judge(self, permit: Permit, held: Held, call: Call, session_id: str | None) -> None:
        """Say of a permit what must be true of all, whatever the model expected."""
        assert self.now < held.ends_at
        assert not self.model.is_revoked(held)
        assert not call.write or "mcp:full" in held.scopes
        assert session_id is None or self.model.has_session(held, session_id, self.now)
        assert permit.body is call.body
        lines = [(name.decode(), value.decode()) for name, value in permit.headers]
        assert [value for name, value in lines if name == "Mcp-Session-Id"] == ([session_id] if session_id else [])
        assert [value for name, value in lines if "account" in name.lower() and "id" in name.lower()] == [held.account]
        assert not any(held.text in value or "evil" in value for _, value in lines)
        granted = tuple(scope for scope in SCOPES if scope in held.scopes)
        received = [("Host", "up.example"), *lines]
        assert verify(
            permit.method, permit.target, received, call.body or b"", {"k": SECRET}, self.now, {}
        ) == Identity(held.account, granted, held.kind, held.subject, "request-1")

    def _count(self, held: Held, call: Call, quotas: tuple[Quota, ...]) -> None:
        self.model.permits.append((self.now, held, call))
        assert [quota.limit for quota in quotas] == [limit for limit in LIMITS if call.spends(limit)]
        for limit in LIMITS:
            assert self.model.spent(limit, held, self.now) <= limit.requests
        self._judge_quotas(held, quotas)

    def _judge_quotas(self, held: Held, quotas: tuple[Quota, ...]) -> None:
        for quota in quotas:
            assert quota.remaining == quota.limit.requests - self.model.spent(quota.limit, held, self.now)


def _reading(call: Call) -> Any:
    async def read() -> bytes | None:
        return call.body

    return read


TestWhateverHappensTheGatewayDoesWhatItsTablesSay = Gateways.TestCase
TestWhateverHappensTheGatewayDoesWhatItsTablesSay.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
