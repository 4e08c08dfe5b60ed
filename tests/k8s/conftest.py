"""Fixtures: each overlay, and the mark of all that is here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.k8s.manifests import OVERLAYS, Manifests, overlay


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all that is here: it needs tools that are not always there."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("k8s")


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> Manifests:
    """Hand out what each overlay renders to."""
    return overlay(request.param)
