"""One busy house for all tests here, and Prometheus watching it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploy.prometheus.house import House
from tests.deploy.prometheus.server import Prometheus, eventually, require_tools
from tests.redis_server import RedisServer


@pytest.fixture(scope="session")
def tools() -> None:
    require_tools()


@pytest.fixture(scope="session")
def house(tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with RedisServer() as redis, House(tmp_path_factory.mktemp("house"), redis) as house:
        yield house


@pytest.fixture(scope="session")
def prometheus(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Hand it out once it has seen the store go and come back, and the settings read again."""
    directory, target = tmp_path_factory.mktemp("prometheus"), house.admin_url.removeprefix("http://")
    with Prometheus(directory, target) as prometheus:
        eventually(lambda: prometheus.query("rate(sidecar_requests_total[10s])"))
        house.redis.pause()
        eventually(lambda: prometheus.query('ALERTS{alertname="SidecarStoreDown"}'))
        house.redis.resume()
        eventually(lambda: prometheus.query("sidecar_store_up == 1"))
        house.reload()
        eventually(lambda: prometheus.query('sidecar_config_reloads_total{outcome="success"} > 0'))
        yield prometheus
