"""What of changed settings takes effect while the sidecar runs, and what has to wait for a restart?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final

from sidecar.config.sections import Config

_AT_START: Final = ("admin", "workers", "store", "audit", "tracing")
"""What is opened once. Which identity keys there must be depends on the store."""


def settled(running: Config, wanted: Config) -> tuple[Config, tuple[str, ...]]:
    """Return what can take effect now, and the keys that differ from it still: they need a restart."""
    port = replace(running.listen, tls=wanted.listen.tls)
    if (running.listen.tls.cert is None) != (wanted.listen.tls.cert is None):
        port = running.listen  # a certificate may be replaced; whether there is TLS can't change
    at_start = _AT_START if wanted.store == running.store else (*_AT_START, "identity")
    possible = replace(wanted, listen=port, **{name: getattr(running, name) for name in at_start})
    return possible, tuple(changed(possible, wanted))


def changed(before: Any, after: Any, key: str = "") -> Iterator[str]:
    """Name the settings that differ, by dotted key; a list is one setting."""
    if before == after:
        return
    if is_dataclass(before) and type(before) is type(after):
        for field in fields(before):
            name = field.metadata.get("key") or field.name
            below = f"{key}.{name}" if key else name
            yield from changed(getattr(before, field.name), getattr(after, field.name), below)
    else:
        yield key
