"""What of changed settings can take effect while the sidecar runs?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.config import Config, changed, defaults, load, settled


def read(text: str) -> Config:
    return load(text, {}, lambda path: (_ for _ in ()).throw(FileNotFoundError(path)))


def test_nothing_differs_between_the_same_settings() -> None:
    assert list(changed(defaults(), read(""))) == []


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("max_body_bytes: 5", ["max_body_bytes"]),
        (
            "limits: {streams: {per_credential: 7}, local_share: 0.5}",
            ["limits.local_share", "limits.streams.per_credential"],
        ),
        ("routes: [{path: /mcp, credentials: [jwt]}]", ["routes"]),
        ("jwt: {issuers: [{issuer: 'https://idp.example', audiences: [a]}]}", ["jwt.issuers"]),
    ],
)
def test_what_differs_is_named_by_its_key(text: str, keys: list[str]) -> None:
    assert list(changed(defaults(), read(text))) == keys


def test_ports_processes_the_store_the_audit_and_the_tracer_stay_as_they_are_and_are_named() -> None:
    running = defaults()
    opened = "listen: {port: 1}\nadmin: {host: 127.0.0.2}\nstore: {url: 'sqlite:///other.db'}\naudit: {file: a.log}"
    opened += "\ntracing: {otlp_endpoint: 'http://c:4318'}"
    wanted = read(f"{opened}\nmax_body_bytes: 5")
    possible, waiting = settled(running, wanted)
    assert possible == replace(running, max_body_bytes=5)
    assert waiting == ("listen.port", "admin.host", "store.url", "audit.file", "tracing.otlp_endpoint")


def test_where_the_store_has_to_wait_so_do_the_identity_keys_that_go_with_it() -> None:
    """A shared store must have some; the embedded one makes its own."""
    running = replace(defaults(), store=replace(defaults().store, url="redis://127.0.0.1"))
    possible, waiting = settled(running, replace(defaults(), identity=replace(defaults().identity, ttl_s=5)))
    assert possible == running
    assert waiting == ("identity.ttl_s", "store.url")
