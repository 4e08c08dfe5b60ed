"""What does a store URL say: where is Redis, who are we to it, and who knows its masters?"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

Topology = Literal["one", "sentinel", "cluster"]
_TOPOLOGIES: Final[dict[str, tuple[Topology, bool]]] = {
    "redis": ("one", False),
    "rediss": ("one", True),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_PORTS: Final[dict[Topology, int]] = {"one": 6379, "sentinel": 26379, "cluster": 6379}


class Address(NamedTuple):
    """A host and a port; or a unix socket's path and no port."""

    host: str
    port: int | None

    def __str__(self) -> str:
        """Return it as people write it."""
        if self.port is None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Access:
    """What every connection begins with."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A store URL, taken apart. `addresses`: of the one Redis, of its sentinels, or of some of a cluster's nodes."""

    topology: Topology
    addresses: tuple[Address, ...]
    access: Access
    master: str = ""
    """The name by which the sentinels know it."""


def place(url: str, tls: ssl.SSLContext | None = None) -> Place:
    """Take a store URL apart.

    Args:
        url: ``redis://[user:password@]host[:port][/db]``, ``unix://[user:password@]/socket[?db=N]``,
            ``redis+sentinel://[user:password@]host[:port],…/master[/db]`` or
            ``redis+cluster://[user:password@]host[:port],…``; with ``rediss`` for TLS. User and password are
            percent-encoded, or in the query as `username` and `password`.
        tls: How to speak TLS with ``rediss``; without one, by the system's authorities.

    Raises:
        ValueError: when the URL is none of these.
    """
    address, _, query = url.partition("?")
    scheme, _, rest = address.partition("://")
    authority, slash, path = rest.partition("/")
    login, _, hosts = authority.rpartition("@")
    options = {name: values[0] for name, values in parse_qs(query, strict_parsing=bool(query)).items()}
    user, password = _login(login, options)
    if scheme == "unix" and path and not hosts:
        database = int(options.get("db", "0"))
        return Place("one", (Address(slash + unquote(path), None),), Access(user, password, database))
    if scheme not in _TOPOLOGIES:
        raise ValueError("a shared store is redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")
    topology, is_secure = _TOPOLOGIES[scheme]
    master, _, database_name = path.partition("/") if topology == "sentinel" else ("", "", path)
    if (topology == "sentinel") is not bool(master) or (topology == "cluster" and database_name):
        raise ValueError("sentinels need a master's name after the hosts, a cluster has nothing there")
    access = Access(
        user,
        password,
        int(options.get("db", database_name) or "0"),
        (tls or ssl.create_default_context()) if is_secure else None,
    )
    return Place(topology, tuple([_address(host, _PORTS[topology]) for host in hosts.split(",")]), access, master)


def _login(login: str, options: dict[str, str]) -> tuple[str | None, str | None]:
    user, _, password = login.partition(":")
    return options.get("username", unquote(user)) or None, options.get("password", unquote(password)) or None


def _address(text: str, default_port: int) -> Address:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a host is missing")
    return Address(parts.hostname, parts.port or default_port)
