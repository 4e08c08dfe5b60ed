"""What may be asked for when keys are made, listed and rotated."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.denials import ClientNotAllowed, InsufficientScope, InvalidRequest, InvalidToken
from sidecar.model import SCOPES, Principal
from sidecar.policy import key_requests

ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
READERS = (
    key_requests.read_name,
    key_requests.read_scopes,
    key_requests.read_expiry_days,
    key_requests.read_grace_s,
    key_requests.read_page_size,
)


def caller(*scopes: str, kind: Any = "jwt", client_id: str | None = None, foreign: str = "") -> Principal:
    foreign_scopes = frozenset(foreign.split())
    return Principal("acme", "u1", kind, "jwt:1", scopes, 0.0, 10.0, client_id, foreign_scopes=foreign_scopes)


@given(ANYTHING)
def test_every_reader_gives_a_value_or_its_one_denial(value: Any) -> None:
    for reader in READERS:
        with suppress(InvalidRequest):
            reader(value)


@pytest.mark.parametrize("name", ["a", "x" * 100, "nightly report", "Zürich ☕ 日本語 👩‍💻", "a\u00a0b", "a\u200db"])
def test_a_name_is_any_readable_text(name: str) -> None:
    assert key_requests.read_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 101,
        " ",
        "\u3000",
        "a\nb",
        "a\x00",
        "\x7f",
        "a\x1b[2J",
        "a\x9b",
        "a\u2028b",
        "\ud800",
        None,
        1,
        ["a"],
        True,
    ],
)
def test_other_names_are_refused_by_field(name: object) -> None:
    with pytest.raises(InvalidRequest, match="key_name") as caught:
        key_requests.read_name(name)
    assert caught.value.message.startswith("name: ")


@pytest.mark.parametrize(
    ("asked", "read"),
    [
        (["mcp:read"], ("mcp:read",)),
        (("mcp:read",), ("mcp:read",)),
        (["mcp:resources:read", "mcp:tools:list"], ("mcp:tools:list", "mcp:resources:read")),
        (["mcp:read", "mcp:read"], ("mcp:read",)),
        (list(reversed(SCOPES)), SCOPES),
    ],
)
def test_scopes_are_read_once_each_in_the_order_of_the_table(asked: object, read: tuple[str, ...]) -> None:
    assert key_requests.read_scopes(asked) == read


@pytest.mark.parametrize(
    "asked",
    [[], (), None, "mcp:read", ["mcp:write"], ["mcp:read", "x"], ["MCP:READ"], ["mcp:read "], [None], [["mcp:read"]],
     [{}], {"mcp:read": 1}, 1, True],
)  # fmt: skip
def test_other_scopes_are_refused(asked: object) -> None:
    with pytest.raises(InvalidRequest, match="key_scopes") as caught:
        key_requests.read_scopes(asked)
    assert caught.value.message.startswith("scopes: ")


@pytest.mark.parametrize(
    ("reader", "least", "most", "field"),
    [
        (key_requests.read_expiry_days, 1, 3650, "expiresInDays"),
        (key_requests.read_grace_s, 0, 604_800, "graceSeconds"),
        (key_requests.read_page_size, 1, 100, "limit"),
    ],
)
def test_numbers_are_whole_and_within_their_range(reader: Any, least: int, most: int, field: str) -> None:
    assert (reader(least), reader(most)) == (least, most)
    wrong: list[Any] = [least - 1, most + 1, True, False, 2.0, "2", None, [], float("nan"), 10**400]
    for value in wrong:
        with pytest.raises(InvalidRequest) as caught:
            reader(value)
        assert caught.value.message.startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        (("mcp:read",), ("mcp:read",)),
        (("mcp:read",), ("mcp:full",)),
        (("mcp:tools:call", "mcp:tools:list", "mcp:resources:read"), ("mcp:read",)),
        (("mcp:tools:list",), ("mcp:tools:call",)),
        ((), ()),
    ],
)
def test_nobody_is_refused_what_they_hold(asked: tuple[str, ...], granted: tuple[str, ...]) -> None:
    key_requests.require_granted(asked, granted)


@pytest.mark.parametrize(
    ("asked", "granted", "missing"),
    [
        (("mcp:full",), ("mcp:read",), "mcp:full"),
        (("mcp:read",), (), "mcp:read"),
        (("mcp:read",), ("mcp:tools:call", "mcp:resources:read"), "mcp:read"),
        (("mcp:full", "mcp:tools:list"), ("mcp:tools:call",), "mcp:full"),
        (("mcp:tools:call", "mcp:resources:read"), ("mcp:tools:list",), "mcp:tools:call mcp:resources:read"),
        (("keys:manage",), ("mcp:full",), "keys:manage"),
    ],
)
def test_nobody_hands_out_more_than_they_hold(asked: tuple[str, ...], granted: tuple[str, ...], missing: str) -> None:
    with pytest.raises(InsufficientScope) as caught:
        key_requests.require_granted(asked, granted)
    assert (caught.value.status, caught.value.required, caught.value.granted) == (403, missing, granted)


@pytest.mark.parametrize(
    ("principal", "scope", "client_ids"),
    [
        (caller(), None, ()),
        (caller("mcp:full"), "mcp:full", ()),
        (caller("mcp:full"), "mcp:read", ()),
        (caller(foreign="openid keys:manage"), "keys:manage", ()),
        (caller(client_id="console"), None, ("console", "cli")),
        (caller("mcp:full", client_id="cli"), "mcp:full", ("console", "cli")),
    ],
)
def test_managers_may_manage(principal: Principal, scope: str | None, client_ids: tuple[str, ...]) -> None:
    key_requests.require_manager(principal, scope, client_ids)


@pytest.mark.parametrize(
    ("principal", "scope", "client_ids", "kind"),
    [
        (caller("mcp:full", kind="api_key"), None, (), InvalidToken),
        (caller("mcp:read"), "mcp:full", (), InsufficientScope),
        (caller(), "mcp:full", (), InsufficientScope),
        (caller("mcp:full"), "keys:manage", (), InsufficientScope),
        (caller("mcp:full"), None, ("console",), ClientNotAllowed),
        (caller("mcp:full", client_id="other"), None, ("console",), ClientNotAllowed),
        (caller("mcp:full", client_id="other"), "mcp:full", ("console",), ClientNotAllowed),
        (caller("mcp:read", client_id="console"), "mcp:full", ("console",), InsufficientScope),
    ],
)
def test_others_may_not(principal: Principal, scope: str | None, client_ids: tuple[str, ...], kind: Any) -> None:
    with pytest.raises(kind):
        key_requests.require_manager(principal, scope, client_ids)


@given(st.from_regex(r"key_[0-9A-Za-z]{12}", fullmatch=True))
def test_a_cursor_comes_back_as_the_id_it_was_made_of(key_id: str) -> None:
    assert key_requests.read_cursor(key_requests.write_cursor(key_id)) == key_id


@given(st.text())
def test_any_other_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="page_cursor"):
        key_requests.read_cursor(text)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda cursor: cursor + "=",
        lambda cursor: cursor + "==",
        lambda cursor: cursor + "\n",
        lambda cursor: cursor[:5] + "\n" + cursor[5:],
        lambda cursor: cursor[:-1],
        lambda cursor: cursor[:-1] + "h",  # other spare bits, same bytes
        lambda cursor: cursor + "AAAA",
        lambda cursor: "key_0123456789AB",
        lambda cursor: "",
    ],
)
def test_a_cursor_has_one_spelling(spoil: Any) -> None:
    cursor = key_requests.write_cursor("key_0123456789AB")
    with pytest.raises(InvalidRequest, match="page_cursor"):
        key_requests.read_cursor(spoil(cursor))
