"""However a client spells it: what is ours is ours, and what it calls hop-by-hop takes nothing of ours away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.denials import InvalidRequest
from sidecar.model import Headers, IdentityKey
from sidecar.policy import answers, headers, outbound
from sidecar.policy.identity import IDENTITY_HEADERS, Signer, identity_headers
from sidecar.verify import Identity, verify
from tests.policy.facts import facts

NOW = 1_700_000_000
SECRETS = {"k": b"s" * 32}
SIGNER = Signer((IdentityKey("k", "hmac-sha256", SECRETS["k"]),), authority="up.example", ttl_s=60)
WHO = identity_headers(account="acme", scopes=("mcp:read",), kind="jwt", subject="alice", request_id="r-1")
OURS = (*IDENTITY_HEADERS, "Content-Digest", "Signature", "Signature-Input")
RESERVED = (
    *OURS,
    *("Authorization", "X-API-Key", "Cookie", "Host", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP"),
    *("X-Original-URL", "X-Rewrite-URL", "Proxy-Authorization", "Expect", "Content-Length", "Content-Encoding"),
    *("Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Proxy-Connection", "Origin"),
)
PASSED = ("Accept", "User-Agent", "Last-Event-ID", "traceparent", "baggage", "X-Tenant", "Mcp-Param-Region")
JUDGED = ("MCP-Protocol-Version", "Content-Type", "Mcp-Session-Id", "Mcp-Method", "Mcp-Name")
PASS_HEADERS = frozenset({"x-tenant", "x_tenant"})


@st.composite
def spellings(draw: st.DrawFn, names: tuple[str, ...]) -> str:
    """Draw a name in any case, with hyphens or underscores."""
    name = draw(st.sampled_from(names))
    swapped, underscored = draw(st.integers(0, 2**24 - 1)), draw(st.sampled_from([0, 0, 1, 2, 3]))
    name = "".join(char.swapcase() if swapped >> place & 1 else char for place, char in enumerate(name))
    return name.replace("-", "_", underscored)


values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=8)
versions = st.text("2027-6._vA", min_size=1, max_size=8)
judged_once = st.lists(
    st.tuples(spellings(JUDGED[1:]), values) | st.tuples(spellings(JUDGED[:1]), versions),
    max_size=3,
    unique_by=lambda line: line[0].lower(),
)
lines = st.builds(
    lambda once, others: [*once, *others],
    judged_once,
    st.lists(st.tuples(spellings((*RESERVED, *PASSED)), values), max_size=6),
)
tokens = spellings((*RESERVED, *PASSED)) | st.sampled_from(["close", "keep-alive", "", "*"])
connections = st.lists(st.tuples(tokens, st.sampled_from(["", " ", "\t"])), max_size=5).map(
    lambda named: ",".join(space + name + space for name, space in named)
)


def plain(name: bytes | str) -> str:
    """Read a name as the most careless upstream would."""
    return (name.decode() if isinstance(name, bytes) else name).lower().replace("_", "-")


def sent(*asked: tuple[str, str], session: str | None = "s-1", body: bytes | None = b"{}") -> Headers:
    passed = headers.to_upstream(facts(*asked), PASS_HEADERS, session=session)
    return outbound.signed(
        SIGNER, method="POST", path="/up", query=None, lines=passed, identity=WHO, body=body, now=NOW, nonce="n"
    )


@given(lines)
def test_no_spelling_of_a_reserved_name_crosses(asked: list[tuple[str, str]]) -> None:
    passed = headers.to_upstream(facts(*asked), PASS_HEADERS, session=None)

    reserved = {plain(name) for name in RESERVED} | {"mcp-session-id"}
    assert reserved.isdisjoint(plain(name) for name, _ in passed)
    assert not any(b"_" in name for name, _ in passed)
    assert len({plain(name) for name, _ in passed}) == len(passed)


@given(lines, connections)
def test_whatever_a_client_sends_the_upstream_gets_our_lines_once_and_they_verify(
    asked: list[tuple[str, str]], connection: str
) -> None:
    got = sent(*asked, ("Connection", connection))

    named = [plain(name) for name, _ in got]
    assert all(named.count(plain(name)) == 1 for name in OURS)
    assert named[-len(OURS) :] == [plain(name) for name in (*IDENTITY_HEADERS, "Content-Digest", *OURS[:-3:-1])]
    received = [("Host", "up.example"), *((name.decode(), value.decode()) for name, value in got)]
    assert verify("POST", "/up", received, b"{}", SECRETS, NOW, {}) == Identity(
        "acme", ("mcp:read",), "jwt", "alice", "r-1"
    )


@given(lines, connections)
def test_what_a_client_calls_hop_by_hop_does_not_cross_and_nothing_else_is_lost_by_it(
    asked: list[tuple[str, str]], connection: str
) -> None:
    asked = [line for line in asked if plain(line[0]) != "connection"]
    without = headers.to_upstream(facts(*asked), PASS_HEADERS, session=None)
    passed = headers.to_upstream(facts(*asked, ("Connection", connection)), PASS_HEADERS, session=None)

    hops = {token.strip(" \t").lower() for token in connection.split(",")}
    assert hops.isdisjoint(name.decode().lower() for name, _ in passed)
    assert passed == [line for line in without if line[0].decode().lower() not in hops]


@given(spellings(JUDGED), connections)
def test_what_was_judged_is_never_called_hop_by_hop(judged: str, connection: str) -> None:
    for named in (f"{connection},{judged}", f"{judged} ,{connection}", f"{connection}, {judged}\t,x"):
        if "_" in judged:
            sent(("Connection", named))
        else:
            with pytest.raises(InvalidRequest):
                sent(("Connection", named))


@given(st.none() | values, lines)
def test_the_only_session_that_crosses_is_the_judged_one(session: str | None, asked: list[tuple[str, str]]) -> None:
    got = [value for name, value in sent(*asked, session=session) if plain(name) == "mcp-session-id"]

    assert got == ([] if session is None else [session.encode()])


SPEAKS_FOR_US = (
    *("Server", "Set-Cookie", "WWW-Authenticate", "X-Request-Id", "Signature", "Signature-Input", "RateLimit"),
    *("RateLimit-Policy", "X-RateLimit-Limit", "Access-Control-Allow-Origin", "Transfer-Encoding", "Connection"),
)


@given(st.lists(st.tuples(spellings((*SPEAKS_FOR_US, *PASSED)), values), max_size=8), connections)
def test_nothing_of_the_upstreams_that_would_speak_for_us_reaches_the_client(
    asked: list[tuple[str, str]], connection: str
) -> None:
    given_out = (*((name.encode(), value.encode()) for name, value in asked), (b"CONNECTION", connection.encode()))
    kept = [(name.decode(), value.decode()) for name, value in answers.to_client(given_out)]

    hops = {token.strip(" \t").lower() for token in connection.split(",")}
    assert {name.lower() for name in SPEAKS_FOR_US}.isdisjoint(name.lower() for name, _ in kept)
    assert hops.isdisjoint(name.lower() for name, _ in kept)
    assert [line for line in asked if line in kept] == kept
