"""The programs that these tests need, found where `.ci/run` puts them or on the path."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

OLDEST_KUBECTL = (1, 32)


ENVIRONMENT = Path(sys.prefix) / "checks" / "bin"
"""Where `.ci/run` installs the dependency group k8s."""


def tool(name: str) -> str:
    """Return the path of a program. Where it is missing the test is skipped, but never in CI."""
    found = shutil.which(name, path=str(ENVIRONMENT)) or shutil.which(name)
    return found or missing(name)


def missing(what: str) -> NoReturn:
    """Skip the test, or fail it in CI."""
    text = f"needs {what}; .ci/run says how to install it"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


@functools.cache
def kubectl() -> str:
    """Return the path of a kubectl that is new enough."""
    path = tool("kubectl")
    told = json.loads(subprocess.check_output([path, "version", "--client", "-o", "json"]))
    version = told["clientVersion"]["gitVersion"].removeprefix("v").split(".")
    if (int(version[0]), int(version[1])) < OLDEST_KUBECTL:
        missing("kubectl 1.32 or newer")
    return path
