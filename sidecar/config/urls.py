"""What hosts, networks and URLs in the settings may be. A URL may hold a password, so none is in a message."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from sidecar.config.document import Entry, Refused
from sidecar.config.values import any_text
from sidecar.policy import browsers

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_VISIBLE: Final = re.compile(r"[!-~]+")
_UNIX: Final = re.compile(r"unix:///[^?#]+(\?db=\d{1,5})?")
_LOGIN: Final = re.compile(r"([^:/?#@%]|%[0-9A-Fa-f]{2})*(:([^:/?#@%]|%[0-9A-Fa-f]{2})*)?")
_MASTER_PATH: Final = re.compile(r"[A-Za-z0-9._-]+(/\d{1,5})?")
"""A name as sentinels allow it, and a database."""
_TRACES: Final = "/v1/traces"
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\.?")


def host(entry: Entry) -> str:
    """A host name, or an IP address without brackets, to listen on."""
    value = any_text(entry)
    if not _is_host(value):
        raise Refused(f"must be a host name or an IP address such as 127.0.0.1 or ::1, not {entry.shown}")
    return value


def network(entry: Entry) -> IpNetwork:
    """An IP network in CIDR notation (RFC 4632 section 3.1), or one address."""
    value = any_text(entry)
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        raise Refused(
            f"must be a network such as 10.0.0.0/8 or fd00::/8, with no bit set after the prefix, not {entry.shown}"
        ) from None


def origin(entry: Entry) -> str:
    """Scheme, host and port as clients write them (RFC 6454 section 6.2), because they are compared as text."""
    value = any_text(entry)
    url = _http_url(value)
    if url is None or value != value.lower() or url.path or "?" in value:
        raise Refused("must be an origin in lower case, such as https://mcp.example, without a path, query or user")
    if url.port == {"http": 80, "https": 443}[url.scheme]:
        raise Refused(f"must leave out :{url.port}, which {url.scheme} has anyway, as clients do")
    return value


def allowed_host(entry: Entry) -> str:
    """What a request's `Host` may name beside the host of `public_url`."""
    value = any_text(entry).lower()
    if browsers.host_pattern(value) is None:
        raise Refused(
            "must be a host name such as mcp.example, with :port to allow one port alone, *.example for all names "
            f"below, or * for any host; an IPv6 address goes in brackets; not {entry.shown}"
        )
    return value


def allowed_origin(entry: Entry) -> str:
    """A page's origin as its browser writes it (RFC 6454 section 6.2), of any scheme."""
    value = any_text(entry).lower()
    if browsers.origin_of(value) is None:
        raise Refused(
            "must be an origin such as https://app.example or http://localhost:6274, without a path and without a "
            f'slash at the end, or "null" in quotes; not {entry.shown}'
        )
    return value


def upstream_url(entry: Entry) -> str:
    """Where requests go: the path and the query are kept as they are written."""
    value = any_text(entry)
    if _http_url(value) is None:
        raise Refused("must be a URL such as http://127.0.0.1:3000/mcp, without user and fragment")
    return value


def plain_url(entry: Entry) -> str:
    """An http or https URL, kept as it is written."""
    value = any_text(entry)
    if _http_url(value) is None:
        raise Refused("must be an https:// or http:// URL without user and fragment")
    return value


def collector_url(entry: Entry) -> str:
    """Where traces are sent by OTLP over HTTP: a collector's base, or the whole address, which ends in `/v1/traces`."""
    value = any_text(entry)
    if _http_url(value) is None or "?" in value:
        raise Refused("must be a URL such as http://collector:4318, without user, query and fragment")
    return value if value.endswith(_TRACES) else value.rstrip("/") + _TRACES


def store_url(entry: Entry) -> str:
    """Where keys, limits and revocations are kept. The value may hold a password and is never shown."""
    value = any_text(entry)
    shapes = (_is_sqlite_url, _is_redis_url, _is_sentinel_url, _is_cluster_url, _UNIX.fullmatch)
    if not any(is_shape(value) for is_shape in shapes):
        raise Refused(
            "must be sqlite:///relative/file, sqlite:////absolute/file, redis://[user:password@]host[:port][/db], "
            "unix:///socket[?db=N], redis+sentinel://[user:password@]host[:port],host[:port]/master[/db], "
            "redis+cluster://[user:password@]host[:port],host[:port], or one of them with rediss for TLS; "
            "percent-encode what a user or password has of : / ? # @ %"
        )
    return value


def without_credentials(url: str) -> str:
    """Return a URL as it may be listed: no user, password or query."""
    address, query, _ = url.partition("?")
    scheme, _, rest = address.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, host_port = authority.rpartition("@")
    hidden = "(hidden)@" if at or user else ""
    return f"{scheme}://{hidden}{host_port}{slash}{path}" + ("?(hidden)" if query else "")


def is_loopback(name: str) -> bool:
    """Tell whether this host never leaves the machine (RFC 6761 section 6.3 for the names)."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower().rstrip(".").rpartition(".")[2] == "localhost"


def addresses(name: str) -> frozenset[str]:
    """Return what this host stands for when it is this machine, else its one spelling that can be compared.

    All addresses (``0.0.0.0`` or ``::``) stand for the loopback one of their family too, as connecting to them does.
    """
    plain = name.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(plain)
    except ValueError:
        return frozenset({"127.0.0.1", "::1"} if is_loopback(plain) else {plain})
    loopback = "127.0.0.1" if address.version == 4 else "::1"
    return frozenset({str(address), loopback} if address.is_unspecified else {str(address)})


def _http_url(value: str) -> SplitResult | None:
    url = _split(value)
    if url is None or url.scheme not in ("http", "https") or "#" in value or "\\" in value:
        return None
    return url if "@" not in url.netloc and url.hostname and _is_host(url.hostname) else None


def _split(value: str) -> SplitResult | None:
    """Take a URL apart (RFC 3986 section 3); None for what is not one. `urlsplit` alone drops control characters."""
    if not _VISIBLE.fullmatch(value):
        return None
    try:
        url = urlsplit(value)
        return url if url.port != 0 and not url.netloc.endswith(":") else None
    except ValueError:
        return None


def _is_host(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return _HOST.fullmatch(name) is not None and not name.replace(".", "").isdigit()
    return "%" not in name


def _is_sqlite_url(value: str) -> bool:
    path = value.removeprefix("sqlite:///")
    return path not in (value, "", "/") and not path.endswith("/") and ":memory:" not in path and "?" not in path


def _is_redis_url(value: str) -> bool:
    url = _split(value)
    if url is None or url.scheme not in ("redis", "rediss") or "?" in value or "#" in value or not url.hostname:
        return False
    return _is_host(url.hostname) and re.fullmatch(r"(/\d{0,5})?", url.path) is not None


def _is_sentinel_url(value: str) -> bool:
    scheme, hosts, path = _taken_apart(value)
    return scheme == "sentinel" and _are_hosts(hosts) and _MASTER_PATH.fullmatch(path) is not None


def _is_cluster_url(value: str) -> bool:
    scheme, hosts, path = _taken_apart(value)
    return scheme == "cluster" and _are_hosts(hosts) and not path


def _taken_apart(value: str) -> tuple[str, str, str]:
    """Return what is behind ``redis+`` in the scheme, the hosts and the path; nothing for what is no such URL."""
    scheme, _, rest = value.partition("://")
    authority, _, path = rest.partition("/")
    login, _, hosts = authority.rpartition("@")
    kind, _, topology = scheme.partition("+")
    if kind not in ("redis", "rediss") or not _VISIBLE.fullmatch(value) or not _LOGIN.fullmatch(login):
        return "", "", ""
    return topology, hosts, path


def _are_hosts(hosts: str) -> bool:
    urls = [_split(f"redis://{each}") for each in hosts.split(",")]
    return all(
        url is not None
        and "@" not in url.netloc
        and not (url.path or url.query or url.fragment)
        # Else it is no host, or `urlsplit` has dropped something.
        and url.hostname is not None
        and _is_host(url.hostname)
        for url in urls
    ) and not set(hosts) & set("?#@")
