from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.denials import AccountUnusable, Denial, InvalidToken
from sidecar.model import Principal
from sidecar.policy import claims
from sidecar.policy.claims import IssuerPolicy, credential_id, token_id

NOW = 1_800_000_000.0
POLICY = IssuerPolicy(
    "https://idp.example", ("https://mcp.example/mcp", "https://mcp.example"), ("ES256",), leeway_s=30
)
GOOD: dict[str, Any] = {
    "iss": "https://idp.example",
    "aud": "https://mcp.example/mcp",
    "sub": "alice",
    "exp": NOW + 600,
    "iat": NOW - 5,
}
ABSENT = object()


def judge(policy: IssuerPolicy = POLICY, now: float = NOW, **changes: Any) -> Principal:
    changed = {name: value for name, value in (GOOD | changes).items() if value is not ABSENT}
    return claims.principal(changed, policy, now)


def reason(policy: IssuerPolicy = POLICY, now: float = NOW, **changes: Any) -> str:
    """Return why these claims are refused, after a look at the kind of refusal."""
    with pytest.raises((InvalidToken, AccountUnusable)) as refused:
        judge(policy, now, **changes)
    assert isinstance(refused.value, AccountUnusable) == refused.value.reason.endswith("_unusable")
    return refused.value.reason


def with_claims(**changes: Any) -> IssuerPolicy:
    settings: dict[str, Any] = {"issuer": POLICY.issuer, "audiences": POLICY.audiences, "algorithms": ("ES256",)}
    return IssuerPolicy(**(settings | changes))


def test_good_claims_become_a_principal() -> None:
    principal = judge(scope="mcp:read openid", client_id="cli", azp="other", jti="t-1", nbf=NOW)
    assert principal == Principal(
        account="alice",
        subject="alice",
        kind="jwt",
        credential_id=credential_id("https://idp.example", "alice", "cli"),
        scopes=("mcp:read",),
        issued_at=NOW - 5,
        expires_at=NOW + 600 + POLICY.leeway_s,
        client_id="cli",
        token_id=token_id("https://idp.example", "t-1"),
        foreign_scopes=frozenset({"openid"}),
        issuer="https://idp.example",
    )


@pytest.mark.parametrize(
    "iss", [ABSENT, None, "", 1, "https://idp.example/", "https://idp.exampl", "HTTPS://idp.example"]
)
def test_the_issuer_is_compared_exactly(iss: Any) -> None:
    assert reason(iss=iss) == "token_issuer"


def detail(policy: IssuerPolicy = POLICY, **changes: Any) -> str:
    with pytest.raises(InvalidToken) as refused:
        judge(policy, **changes)
    return refused.value.detail or ""


def test_a_wrong_issuer_or_audience_is_told_beside_the_right_one() -> None:
    wrong = detail(iss="https://idp.example/")
    assert wrong == "iss is 'https://idp.example/', and must be 'https://idp.example', character by character"
    assert "aud is ['a', 'b'], and must be 'https://mcp.example/mcp' or 'https://mcp.example'," in detail(
        aud=["a", "b"]
    )
    assert "must be nothing" in detail(with_claims(audiences=()))


@pytest.mark.parametrize("value", ["x" * 8000, ["x"] * 2000, "\r\n\x1b[2J\u202e" * 100])
def test_what_is_told_of_a_wrong_name_is_short_and_inert(value: Any) -> None:
    told = detail(with_claims(audiences=[f"https://{number}.example" for number in range(1000)]), aud=value)
    assert len(told) < 1300
    assert told.isascii()
    assert told.isprintable()


def test_what_is_told_of_a_wrong_name_holds_no_credential() -> None:
    token, key = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln", "mcp_" + "a" * 46
    told = detail(aud=[token, key])
    assert token not in told
    assert key not in told


@pytest.mark.parametrize(
    "aud",
    [
        "https://mcp.example/mcp",
        "https://mcp.example",
        "https://mcp.example/",
        ["https://other.example", "https://mcp.example/mcp"],
    ],
)
def test_an_audience_that_names_us_is_enough(aud: Any) -> None:
    assert judge(aud=aud).account == "alice"


@pytest.mark.parametrize(
    ("aud", "why"),
    [
        (ABSENT, "token_claims"),
        (None, "token_claims"),
        (7, "token_claims"),
        ({"https://mcp.example/mcp": 1}, "token_claims"),
        (["https://mcp.example/mcp", 7], "token_claims"),
        ([["https://mcp.example/mcp"]], "token_claims"),
        ("", "token_audience"),
        ([], "token_audience"),
        ("https://mcp.example/mcp/", "token_audience"),
        ("https://mcp.example//", "token_audience"),
        ("https://MCP.example/mcp", "token_audience"),
        ("https://mcp.example/mc", "token_audience"),
        ("https://mcp.example/mcp https://other.example", "token_audience"),
        ("http://mcp.example", "token_audience"),
    ],
)
def test_any_other_audience_is_refused(aud: Any, why: str) -> None:
    assert reason(aud=aud) == why


@pytest.mark.parametrize(
    ("ours", "aud", "accepted"),
    [
        ("https://h/", "https://h", True),
        ("http://h:8080", "http://h:8080/", True),
        ("urn:mcp", "urn:mcp/", False),
        ("https://h?x", "https://h?x/", False),
        ("https://", "https:///", False),
        ("https://[h", "https://[h/", False),
        ("https://h/mcp/", "https://h/mcp", False),
    ],
)
def test_only_a_bare_origin_may_differ_by_its_slash(ours: str, aud: str, accepted: bool) -> None:
    policy = with_claims(audiences=(ours,))
    if accepted:
        assert judge(policy, aud=aud).account == "alice"
    else:
        assert reason(policy, aud=aud) == "token_audience"


def test_no_audience_of_ours_accepts_nothing() -> None:
    assert reason(with_claims(audiences=())) == "token_audience"


@pytest.mark.parametrize("exp", [ABSENT, None, True, str(int(NOW) + 600), [NOW], NOW * 1000, 1e300, -1e300])
def test_expiry_is_required_and_a_time_in_seconds(exp: Any) -> None:
    assert reason(exp=exp) == "token_claims"


@pytest.mark.parametrize(
    ("exp", "valid"), [(NOW - 29, True), (NOW - 29.5, True), (NOW - 30, False), (0, False), (-1, False)]
)
def test_a_token_expires_when_the_leeway_is_over(exp: float, valid: bool) -> None:
    if valid:
        assert judge(exp=exp).expires_at == exp + POLICY.leeway_s
    else:
        assert reason(exp=exp) == "token_expired"


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_a_token_from_the_future_is_refused_beyond_the_leeway(name: str) -> None:
    on_the_edge: dict[str, Any] = {name: NOW + 30}
    beyond: dict[str, Any] = {name: NOW + 30.5}
    assert judge(**on_the_edge).account == "alice"
    assert reason(**beyond) == "token_not_yet_valid"


@pytest.mark.parametrize("name", ["nbf", "iat"])
@pytest.mark.parametrize("value", [None, False, "0", {}, NOW * 1000])
def test_a_time_that_is_present_is_a_number(name: str, value: Any) -> None:
    assert reason(**{name: value}) == "token_claims"


def test_a_token_without_a_moment_of_issue_is_older_than_all() -> None:
    assert judge(iat=ABSENT).issued_at == 0


def test_a_missing_subject_or_account_proves_nothing() -> None:
    assert reason(sub=ABSENT) == "token_claims"
    assert reason(with_claims(account_claim="tenant")) == "token_claims"


@pytest.mark.parametrize("sub", [None, "", 7, ["alice"], "a b", "a\n", "é", "a" * 256, "\x7f", "a\u0000"])
def test_a_subject_that_no_header_can_carry_is_unusable(sub: Any) -> None:
    assert reason(with_claims(account_claim="tenant"), sub=sub, tenant="acme") == "subject_unusable"


@pytest.mark.parametrize("tenant", [None, "", 7, ["acme"], "a b", "acme\n", "é", "a" * 128, "a,b"])
def test_an_account_that_no_header_can_carry_is_unusable(tenant: Any) -> None:
    """The prefix counts towards the length, and doesn't make an empty claim an account."""
    assert reason(with_claims(account_claim="tenant", account_prefix="x:"), tenant=tenant) == "account_unusable"


def test_the_account_is_prefix_and_claim() -> None:
    policy = with_claims(account_claim="https://claims.example/tenant", account_prefix="x:")
    changes: dict[str, Any] = {"https://claims.example/tenant": "acme"}
    principal = judge(policy, **changes)
    assert (principal.account, principal.subject) == ("x:acme", "alice")


@pytest.mark.parametrize(
    ("changes", "scopes"),
    [
        ({}, ("mcp:read",)),
        ({"scope": ""}, ("mcp:read",)),
        ({"scope": "openid email"}, ("mcp:read",)),
        ({"scope": []}, ("mcp:read",)),
        ({"scope": "mcp:tools:list mcp:full"}, ("mcp:full", "mcp:tools:list")),
        ({"scope": ["mcp:resources:read", "mcp:tools:call", "openid"]}, ("mcp:tools:call", "mcp:resources:read")),
        ({"scope": "mcp:fullish"}, ()),
        ({"scope": "mcp:"}, ()),
        ({"scope": "mcp:full\tmcp:read"}, ()),
        ({"scope": ["mcp:full mcp:read"]}, ()),
        ({"scope": "MCP:full"}, ("mcp:read",)),
        ({"scope": "openid", "scp": "mcp:full"}, ("mcp:full",)),
        ({"scope": "mcp:tools:list", "scp": "mcp:full"}, ("mcp:tools:list",)),
        ({"scope": "openid,mcp:full"}, ()),
        ({"scp": ["mcp:full"]}, ("mcp:full",)),
    ],
)
def test_scopes_are_those_we_know_and_the_default_only_where_none_of_ours_is_named(
    changes: dict[str, Any], scopes: tuple[str, ...]
) -> None:
    assert judge(with_claims(default_scopes=("mcp:read",)), **changes).scopes == scopes


@pytest.mark.parametrize("scope", [None, 1, True, {"mcp:full": 1}, ["mcp:full", 1], [["mcp:full"]]])
def test_a_scope_claim_of_the_wrong_type_is_refused(scope: Any) -> None:
    assert reason(scope=scope, scp="mcp:full") == "token_claims"


@pytest.mark.parametrize(
    ("changes", "client_id"),
    [
        ({}, None),
        ({"client_id": "", "azp": "web"}, "web"),
        ({"azp": ""}, None),
        ({"client_id": "cli", "azp": 1}, "cli"),
    ],
)
def test_the_client_is_named_by_client_id_and_else_by_azp(changes: dict[str, Any], client_id: str | None) -> None:
    assert judge(**changes).client_id == client_id


@pytest.mark.parametrize("changes", [{"client_id": None}, {"client_id": 1, "azp": "web"}, {"azp": ["web"]}])
def test_a_client_of_the_wrong_type_is_refused(changes: dict[str, Any]) -> None:
    assert reason(**changes) == "token_claims"


@pytest.mark.parametrize("jti", [None, "", 7, "x" * 257, ["x"]])
def test_a_token_id_is_a_string_when_there_is_one(jti: Any) -> None:
    assert reason(jti=jti) == "token_claims"
    assert judge(jti=ABSENT).token_id is None


def test_a_refreshed_token_is_the_same_credential() -> None:
    first, second = judge(jti="a", client_id="cli"), judge(jti="b", client_id="cli", exp=NOW + 9000)
    assert first.credential_id == second.credential_id
    assert first.token_id != second.token_id


def test_no_two_lists_of_names_share_a_digest() -> None:
    names = {
        token_id("a", "bc"),
        token_id("ab", "c"),
        token_id("", "abc"),
        credential_id("a", "bc", None),
        credential_id("a", "bc", ""),
        credential_id("a", "b", "c"),
        credential_id("a", "b1:c", None),
        credential_id("a", "b", "1:c"),
    }
    assert len(names) == 8
    assert all(len(name.removeprefix("jwt:")) == 32 for name in names)
    assert token_id("a", "\ud800") != token_id("a", "?")


def test_the_log_learns_no_claim_but_public_ones() -> None:
    for changes in ({"sub": "se cret"}, {"scope": {"se cret": 1}}, {"jti": ["se cret"]}, {"azp": ["se cret"]}):
        with pytest.raises(Denial) as refused:
            judge(**changes)
        assert "cret" not in str(refused.value.detail)
    with pytest.raises(InvalidToken) as long:
        judge(aud="https://" + "x" * 500)
    assert len(str(long.value.detail)) < 300


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "scope", "azp", "jti"]), json_values))
def test_any_claims_give_a_principal_or_a_denial(changes: dict[str, Any]) -> None:
    try:
        principal = judge(**changes)
    except (InvalidToken, AccountUnusable):
        return
    assert principal.account == principal.subject
    assert principal.expires_at + POLICY.leeway_s > NOW
