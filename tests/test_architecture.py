"""Who may import whom, what policy may never do, and how large a thing may grow."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "sidecar"
CEILING_FILE_LINES = 300
CEILING_FUNCTION_LINES = 40

INSIDE = {
    *("gateway", "guard", "authenticators", "keyring", "catalogue", "offline", "management", "handover", "looking"),
    *("pinning", "tool_classes", "activity", "key_activity", "confirmer", "questions", "approvals", "approvals_api"),
    "envelopes",
}
PURE = {"model", "records", "denials", "bounded"}
MAY_IMPORT: dict[str, set[str]] = {
    "model": {"records", "denials"},
    "records": set(),
    "denials": set(),
    "bounded": set(),
    "faults": set(),
    "randomness": set(),
    "sockets": set(),
    "regular_file": set(),
    "tls": set(),
    "verify": set(),
    "policy": {*PURE, "policy"},
    "ports": {*PURE},
    "stores": {*PURE},
    **{name: {*PURE, "ports", "stores", "policy", *INSIDE} for name in INSIDE},
    "edge": {*PURE, "faults", "randomness", "sockets", "regular_file", "ports", "stores", "policy", *INSIDE},
    "config": {*PURE, "tls", "policy", "config"},
    "lasting": {*PURE, "tls", "ports", "stores", "policy", *INSIDE, "edge", "config", "unusual_reports"},
    "pin_reports": {"policy", "edge"},
    "unusual_reports": {*PURE, "policy", "edge"},
    "pages": {"policy", "edge", "config"},
    "wiring": {
        *(*PURE, "randomness", "tls", "ports", "stores", "policy", *INSIDE, "edge", "config"),
        *("lasting", "pin_reports", "pages", "confirming"),
    },
    "confirming": {*PURE, "policy", *INSIDE, "edge", "config", "lasting"},
    "generation": {
        *PURE,
        "ports",
        "stores",
        "policy",
        *INSIDE,
        "edge",
        "config",
        "lasting",
        "wiring",
        "confirming",
        "tracing",
    },
    "auditing": {*PURE, "policy", "edge", "config", "wiring"},
    "tracing": {"ports", "policy", "edge", "config"},
    "explaining": {
        *PURE,
        "ports",
        "stores",
        "policy",
        *INSIDE,
        "edge",
        "config",
        "lasting",
        "wiring",
        "confirming",
        "generation",
    },
    "workers": {"edge", "config", "public_port"},
    "public_port": {"config", "edge", "sockets", "tls"},
    "app": {
        *(*PURE, *INSIDE, "sockets", "ports", "stores", "policy", "edge", "config"),
        *("lasting", "wiring", "generation", "public_port", "auditing", "tracing"),
    },
    "reloading": {"config", "edge", "faults"},
    "process": {*PURE, "app", "workers", "config", "edge", "reloading"},
    "worker": {"app", "config", "edge", "faults", "process"},
    "demo": {*PURE, "ports", "stores", "policy", *INSIDE, "config", "app", "demo"},
    "cli": {
        *PURE,
        "ports",
        "stores",
        "policy",
        "regular_file",
        *INSIDE,
        "config",
        "app",
        "auditing",
        "explaining",
        "process",
        "demo",
        "cli",
    },
    "__main__": {"cli"},
    "__init__": set(),
}
IMPURE = {
    *("aiohttp", "redis", "sqlite3", "asyncio", "bcrypt", "structlog", "httptools", "uvloop", "prometheus_client"),
    *("hiredis", "time", "os", "random", "secrets", "socket", "ssl", "threading", "subprocess", "logging", "pathlib"),
}


def part(module: str) -> str:
    """`sidecar.edge.redis.keys` belongs to the part `edge`."""
    return module.split(".")[1]


def edge_of(module: str) -> str | None:
    """`sidecar.edge.redis.keys` is of the edge `redis`, and `sidecar.edge.upstream_answer` of `upstream`."""
    names = module.split(".")
    return names[2].split("_")[0] if names[1] == "edge" and len(names) > 2 else None


def modules(root: Path) -> Iterator[tuple[str, ast.Module, str]]:
    for path in sorted(root.rglob("*.py")):
        names = path.relative_to(root.parent).with_suffix("").parts
        name = ".".join(names[:-1] if names[-1] == "__init__" and len(names) > 2 else names)
        text = path.read_text()
        yield name, ast.parse(text), text


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node.module is not None
            for alias in node.names:
                inside = node.module == "sidecar" or (node.module.startswith("sidecar.") and alias.name.islower())
                yield f"{node.module}.{alias.name}" if inside else node.module


def violations(root: Path) -> list[str]:
    found = []
    for name, tree, text in modules(root):
        own = part(name)
        found += [f"{name} imports {other}" for other in imports(tree) if not _allowed(name, own, other)]
        if own == "policy":
            found += [f"{name} awaits or asks the time" for node in ast.walk(tree) if _waits_or_asks_the_time(node)]
        if text.count("\n") > CEILING_FILE_LINES:
            found.append(f"{name} has more than {CEILING_FILE_LINES} lines")
        found += [
            f"{name}.{function.name} has more than {CEILING_FUNCTION_LINES} lines"
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            and _lines(function) > CEILING_FUNCTION_LINES
        ]
    return found


def _allowed(name: str, own: str, other: str) -> bool:
    if not other.startswith("sidecar."):
        return own != "policy" or other.split(".")[0] not in IMPURE
    if part(other) not in MAY_IMPORT[own] and part(other) != own:
        return False
    return edge_of(name) is None or edge_of(other) in (None, edge_of(name))


def _waits_or_asks_the_time(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in ("now", "utcnow", "today") and isinstance(node.value, ast.Name)
    return isinstance(node, ast.AsyncFunctionDef | ast.Await)


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_the_house_is_in_order() -> None:
    assert violations(PACKAGE) == []


def test_every_part_of_the_house_is_known() -> None:
    assert {part(name) for name, _, _ in modules(PACKAGE)} == set(MAY_IMPORT)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("policy/clock.py", "import time\n"),
        ("policy/asks.py", "from datetime import UTC, datetime\n\nnow = datetime.now(UTC)\n"),
        ("policy/waits.py", "async def wait() -> None:\n    pass\n"),
        ("policy/knows.py", "from sidecar.gateway import Gateway\n"),
        ("policy/talks.py", "def f():\n    from aiohttp import web\n"),
        ("gateway.py", "from sidecar.edge.redis import RedisStore\n"),
        ("gateway.py", "from sidecar import app\n"),
        ("edge/admin.py", "from sidecar.edge.redis import RedisStore\n"),
        ("edge/admin.py", "from sidecar.config import Config\n"),
        ("edge/redis/keys.py", "from sidecar.edge.embedded import limits\n"),
        ("config/reader.py", "from sidecar.edge import admin\n"),
        ("verify.py", "from sidecar.model import Principal\n"),
        ("model.py", "from sidecar.policy import access\n"),
        ("ports.py", "x = 1\n" * 301),
        ("ports.py", "def f():\n" + "    x = 1\n" * 41),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, text: str) -> None:
    planted = tmp_path / "sidecar" / file
    planted.parent.mkdir(parents=True)
    planted.write_text(text)

    assert violations(tmp_path / "sidecar")


def test_an_orderly_house_has_no_violations(tmp_path: Path) -> None:
    orderly = tmp_path / "sidecar" / "edge" / "redis" / "keys.py"
    orderly.parent.mkdir(parents=True)
    orderly.write_text(
        "import asyncio\nfrom sidecar.edge.redis.link import Link\nfrom sidecar.model import KeyRecord\n"
    )

    assert violations(tmp_path / "sidecar") == []
