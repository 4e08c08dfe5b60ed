"""A real Prometheus on the files that we ship, and its promtool."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx
import pytest
import yaml

DEPLOY = Path(__file__).parents[3] / "deploy"
SHIPPED = DEPLOY / "prometheus"
NAMESPACE = "test"
SCRAPE_S = 1
TOOLS = ("prometheus", "promtool")
PATIENCE_S = 30.0
"""How long something may take to be scraped and judged; it takes two seconds on a machine that is idle."""

T = TypeVar("T")


def require_tools() -> None:
    """Skip where Prometheus is missing, but never in CI."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"{', '.join(missing)} must be on the path")
    if missing:
        pytest.skip(f"needs {', '.join(missing)} on the path: Debian's package prometheus")


def promtool(*arguments: str, stdin: str = "") -> str:
    """Run it beside the shipped files; return what it says, and fail when it complains."""
    done = subprocess.run(("promtool", *arguments), cwd=SHIPPED, input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Prometheus:
    """Watches one target, once a second, by the shipped configuration and rules. A context manager."""

    def __init__(self, directory: Path, target: str) -> None:
        self._directory = directory
        self._target = target
        self._log = directory / "prometheus.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client(trust_env=False, timeout=PATIENCE_S)
        self._url = ""

    def __enter__(self) -> Prometheus:
        config = self._directory / "prometheus.yml"
        config.write_text(yaml.safe_dump(self._config()))
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={self._directory / 'data'}"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([*command, "--web.listen-address=127.0.0.1:0"], stderr=log)
        try:
            self._url = "http://" + eventually(self._address)
            eventually(lambda: self._client.get(f"{self._url}/-/ready").status_code == 200)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it."""
        self._client.close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE_S)

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return what the expression gives now: labels and value of each series that has one, NaN left out."""
        data = self._get("query", query=expression)
        found = data["result"] if data["resultType"] == "vector" else [{"metric": {}, "value": data["result"]}]
        series = [(one["metric"], float(one["value"][1])) for one in found]
        return [(labels, value) for labels, value in series if not math.isnan(value)]

    def series(self, selector: str) -> list[dict[str, str]]:
        """Return the labels of all series that match."""
        found: list[dict[str, str]] = self._get("series", **{"match[]": selector})
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Return all rules, with how their last evaluation went."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **parameters: str) -> Any:
        answer = self._client.get(f"{self._url}/api/v1/{what}", params=parameters).json()
        assert answer["status"] == "success", f"{parameters}: {answer.get('error')}"
        return answer["data"]

    def _address(self) -> str:
        assert self._process is not None
        log = self._log.read_text()
        assert self._process.poll() is None, log
        found = re.search(r'msg="Listening on" address=(\S+)', log)
        return found[1] if found else ""

    def _config(self) -> dict[str, Any]:
        """Return the shipped configuration, but for the target, a namespace as in Kubernetes, and more haste."""
        config: dict[str, Any] = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"}
        config["rule_files"] = [str(SHIPPED / name) for name in config["rule_files"]]
        (job,) = config["scrape_configs"]
        assert job["static_configs"] == [{"targets": ["sidecar:9090"]}]
        job["static_configs"] = [{"targets": [self._target], "labels": {"namespace": NAMESPACE}}]
        return config


def eventually(find: Callable[[], T]) -> T:
    """Ask until there is something, and return it."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := find()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)
    return found
