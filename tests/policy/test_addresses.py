"""The address that failures are counted under."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.addresses import Https, IpNetwork, client_address, is_secure

PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.7", None, "192.0.2.7"),
        ("::ffff:192.0.2.7", None, "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", None, "2001:db8:1:2::/64"),
        ("fe80::1%eth0", None, "fe80::/64"),
        ("192.0.2.7", "198.51.100.1", "192.0.2.7"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.1,fd00::1 , 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "198.51.100.1, unknown", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("", None, "unknown"),
        ("/run/socket", "198.51.100.1", "unknown"),
    ],
)
def test_the_last_hop_that_is_not_our_proxy_counts(peer: str, forwarded: str | None, expected: str) -> None:
    assert client_address(peer, forwarded, PROXIES) == expected


@given(st.text(), st.none() | st.text())
def test_any_text_gives_an_address_or_unknown(peer: str, forwarded: str | None) -> None:
    assert client_address(peer, forwarded, PROXIES)


NOBODY: tuple[IpNetwork, ...] = ()
LOCAL: tuple[IpNetwork, ...] = (ipaddress.ip_network("127.0.0.0/8"),)
AWAY = "198.51.100.1"


@pytest.mark.parametrize(
    ("https", "trusted", "peer", "proto", "expected"),
    [
        ("never", NOBODY, AWAY, None, True),
        ("never", PROXIES, "10.0.0.1", "http", True),
        ("auto", NOBODY, "127.0.0.1", None, True),
        ("auto", NOBODY, "::1", None, True),
        ("auto", NOBODY, "::ffff:127.0.0.9", None, True),
        ("auto", NOBODY, AWAY, None, False),
        ("auto", NOBODY, "", None, False),
        ("auto", NOBODY, AWAY, "https", False),  # says who is nobody's proxy
        ("auto", PROXIES, AWAY, "https", False),
        ("auto", PROXIES, "127.0.0.1", "http", True),  # likewise
        ("auto", PROXIES, "127.0.0.1", None, True),
        ("auto", LOCAL, "127.0.0.1", None, True),
        ("auto", LOCAL, "127.0.0.1", "http", False),
        ("auto", PROXIES, "10.0.0.1", "https", True),
        ("auto", PROXIES, "10.0.0.1", "HTTPS , https", True),
        ("auto", PROXIES, "10.0.0.1", "https, http", False),
        ("auto", PROXIES, "10.0.0.1", "", False),
        ("auto", PROXIES, "10.0.0.1", None, False),
        ("always", NOBODY, "127.0.0.1", None, False),
        ("always", PROXIES, "10.0.0.1", "https", True),
        ("always", PROXIES, "10.0.0.1", "http", False),
        ("always", PROXIES, "nonsense", "https", False),
        ("auto", PROXIES, "nonsense", "https", False),
    ],
)
def test_credentials_may_come_by_plain_http_only_where_nobody_is_thought_to_read_them(
    https: Https, trusted: tuple[IpNetwork, ...], peer: str, proto: str | None, expected: bool
) -> None:
    assert is_secure(https, peer, proto, trusted, is_encrypted=False) is expected


@pytest.mark.parametrize(
    ("https", "trusted", "peer", "proto", "expected"),
    [
        ("auto", NOBODY, AWAY, None, True),
        ("auto", NOBODY, AWAY, "http", True),  # says who is nobody's proxy
        ("auto", PROXIES, AWAY, "http", True),
        ("always", PROXIES, AWAY, None, True),
        ("always", PROXIES, "10.0.0.1", None, True),
        ("always", PROXIES, "10.0.0.1", "https", True),
        ("always", PROXIES, "10.0.0.1", "http", False),
        ("auto", PROXIES, "10.0.0.1", "https, http", False),
        ("never", PROXIES, "10.0.0.1", "http", True),
    ],
)
def test_over_tls_a_proxy_is_believed_that_its_client_came_without(
    https: Https, trusted: tuple[IpNetwork, ...], peer: str, proto: str | None, expected: bool
) -> None:
    assert is_secure(https, peer, proto, trusted, is_encrypted=True) is expected
