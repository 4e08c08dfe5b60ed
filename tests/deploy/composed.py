"""What the compose files say, as Docker Compose itself reads them; and containers that are started as they say."""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.containers import Container, Mount, Network
from tests.deploy.image import TOP, Image
from tests.redis_server import executable

MODULE = Path(__file__).parent / "compose_model"
UNITS_S = {"h": 3600, "m": 60, "s": 1}
Service = Mapping[str, Any]


@dataclass(frozen=True)
class Project:
    """What compose files come to."""

    model: Mapping[str, Any]

    def service(self, name: str) -> Service:
        service: Service = self.model["services"][name]
        return service

    @property
    def service_names(self) -> frozenset[str]:
        return frozenset(self.model["services"])

    def internal_networks(self) -> set[str]:
        return {name for name, network in self.model["networks"].items() if network.get("internal")}

    def container(
        self, name: str, image: Image, network: Network, volumes: Path, *, more: Sequence[Mount] = ()
    ) -> Container:
        """Return the service's container; every service is found at 127.0.0.1, and named volumes are in `volumes`."""
        service = self.service(name)
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        directory = Path(tempfile.mkdtemp(dir=volumes))
        directory.chmod(0o755)
        (directory / "hosts").write_text("".join(f"127.0.0.1 {one}\n" for one in ("localhost", *self.service_names)))
        return Container(
            image,
            network,
            directory,
            command=service["command"] or (),
            environment=service["environment"],
            mounts=[Mount(directory / "hosts", "/etc/hosts"), *more, *self._mounts(service, image, volumes)],
            tmpfs=service.get("tmpfs", ()),
            user=service["user"],
        )

    def _mounts(self, service: Service, image: Image, volumes: Path) -> Iterator[Mount]:
        for volume in service.get("volumes", ()):
            if volume["type"] == "bind":
                assert Path(volume["source"]).exists(), volume
                yield Mount(Path(volume["source"]), volume["target"], not volume.get("read_only"))
            else:
                yield Mount(
                    _volume(volumes / f"volume-{volume['source']}", image, volume["target"]), volume["target"], True
                )
        for secret in service.get("secrets", ()):
            yield Mount(Path(self.model["secrets"][secret["source"]]["file"]), secret["target"])


def read(directory: Path, *options: str) -> Project:
    """Read compose files as ``docker compose`` does in this directory with these options."""
    environment = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
    done = subprocess.run([_reader(), *options], cwd=directory, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "not set" not in done.stderr, done.stderr
    return Project(json.loads(done.stdout))


def unpacked(directory: Path) -> Path:
    """Return a copy of `deploy/` with what `make-secrets.sh` makes there."""
    copy = directory / "deploy"
    shutil.copytree(TOP / "deploy", copy, ignore=shutil.ignore_patterns(".env", "secrets"))
    make_secrets(copy)
    return copy


def make_secrets(deploy: Path) -> None:
    """Run `make-secrets.sh` there."""
    subprocess.run(["sh", deploy / "make-secrets.sh"], check=True)


def seconds(duration: str) -> int:
    return sum(int(count) * UNITS_S[unit] for count, unit in re.findall(r"(\d+)([hms])", duration))


def redis_image(directory: Path) -> Image:
    """Return this machine's programs with the Redis that the tests use, and a place for its data."""
    root = Path(tempfile.mkdtemp(dir=directory))
    root.chmod(0o755)
    for name in ("dev", "proc", "etc", "data", "programs", "usr"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for program in ("redis-server", "redis-cli"):
        found = shutil.which(program) or Path(executable()).with_name(program)
        shutil.copy(found, root / "programs" / program)
        (root / "programs" / program).chmod(0o755)
    os.chown(root / "data", 999, 999)
    return Image(root, {"PATH": "/programs:/usr/bin"}, "999", "/data")


def _volume(volume: Path, image: Image, target: str) -> Path:
    """Make a volume, which takes over owner and mode of what the image has there."""
    if not volume.exists():
        volume.mkdir()
        there = (image.root / target.lstrip("/")).stat()
        os.chown(volume, there.st_uid, there.st_gid)
        volume.chmod(there.st_mode)
    return volume


@functools.cache
def _reader() -> str:
    program = Path(tempfile.mkdtemp(prefix="compose-model-")) / "compose-model"
    atexit.register(shutil.rmtree, program.parent)
    subprocess.run(["go", "build", "-o", program, "."], cwd=MODULE, check=True)
    return str(program)
