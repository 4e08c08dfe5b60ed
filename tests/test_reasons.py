"""Every word that the log may give as the reason of a refusal is explained to operators, and no other."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from sidecar import denials
from sidecar.edge.http import connection, lines, streams

TOP = Path(__file__).parent.parent
MODULES = {path: ast.parse(path.read_text("utf-8")) for path in sorted((TOP / "sidecar").rglob("*.py"))}
KINDS = {name: kind for name, kind in inspect.getmembers(denials, inspect.isclass) if issubclass(kind, denials.Denial)}
ENDS = {streams.EXPIRED, streams.REVOKED, streams.UNCONFIRMED, streams.SHUTDOWN, connection.STALLED}
ROW = re.compile(r"^\| `([a-z_]+)` \| (`[a-z_]+`(?:, `[a-z_]+`)*) \| .{10,} \|$", re.MULTILINE)


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node


def words(node: ast.AST) -> set[str]:
    """Return the texts that an expression may be: a constant, or either branch of a choice."""
    if isinstance(node, ast.IfExp):
        return words(node.body) | words(node.orelse)
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def meanings(tree: ast.Module, function: ast.AST, name: str) -> set[str]:
    """Return what a name may stand for: what is assigned to it, or what the module's callers of its function pass."""
    found: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            found |= words(node.value)
    if isinstance(function, ast.FunctionDef) and name in (order := [arg.arg for arg in function.args.args]):
        passed = (call for called, call in calls(tree) if called == function.name)
        found = found.union(*(words(call.args[order.index(name)]) for call in passed))
    return found


def raised() -> set[tuple[str, str]]:
    """Return each reason that the code names, with the outcome that it stands beside in the log."""
    found = {("insufficient_scope", "insufficient_scope")}  # its kind gives the reason itself
    for path, tree in MODULES.items():
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        for function in functions:
            for name, call in calls(function):
                if name not in KINDS or name == "InsufficientScope":
                    continue
                given = call.args[0]
                reasons = meanings(tree, function, given.id) if isinstance(given, ast.Name) else words(given)
                assert reasons, f"{path}:{call.lineno}: the reason has to be a word that can be found"
                found |= {(reason, KINDS[name].error_type.lower()) for reason in reasons}
    return found


def test_every_reason_of_a_refusal_and_of_an_early_end_is_explained_and_no_other() -> None:
    rows = ROW.findall((TOP / "deploy" / "reasons.md").read_text("utf-8"))
    explained = {(reason, outcome) for reason, outcomes in rows for outcome in re.findall(r"`([a-z_]+)`", outcomes)}
    assert len({reason for reason, _ in rows}) == len(rows)
    assert {pair for pair in explained if pair[1] != "forwarded"} == raised() | {("bad_head", "bad_head")}
    assert {reason for reason, outcome in explained if outcome == "forwarded"} == {*ENDS, lines.CLIENT_CLOSED}
