"""Fixtures: a browser, and a sidecar on Redis whose people sign in at a real identity provider."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.browser import chromium, serving
from tests.browser.chromium import Tab
from tests.browser.serving import Served
from tests.interop import node_programs

Serve = Callable[..., Served]


@pytest.fixture(scope="session")
def programs() -> None:
    """Have what is needed installed. Where a program is missing the test is skipped, but never in CI."""
    missing = [*node_programs.missing_programs(), *chromium.missing_programs()]
    if missing and os.environ.get("CI"):
        pytest.fail(f"these tests need chromium, its driver, node and npm; missing: {', '.join(missing)}")
    if missing:
        pytest.skip("these tests need chromium, its driver, node and npm")
    node_programs.install()


@pytest.fixture(scope="session")
def port() -> int:
    """The port of every sidecar here: the identity provider knows the pages by it."""
    return serving.free_port()


@pytest.fixture(scope="session")
def issuer_url(programs: None, port: int) -> Iterator[str]:
    with serving.provider(f"http://127.0.0.1:{port}") as issuer:
        yield issuer


@pytest.fixture
def serve(issuer_url: str, port: int, finance_url: str, redis_url: str, tmp_path: Path) -> Iterator[Serve]:
    """Start a sidecar; settings of `config.yaml` as keyword arguments."""
    with ExitStack() as stack:

        def serve(**settings: Any) -> Served:
            return stack.enter_context(serving.sidecar(tmp_path, port, issuer_url, finance_url, redis_url, settings))

        yield serve


@pytest.fixture(scope="session")
def browser(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with chromium.chromium(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab) -> Tab:
    browser.renew()
    return browser
